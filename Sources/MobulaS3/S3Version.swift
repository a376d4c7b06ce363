extension S3Transport {
  /// Sends a request, which has an `If-Match`, for one version of an object.
  ///
  /// Who may read objects (`s3:GetObject`) need not be allowed to name their versions (`s3:GetObjectVersion`): then the
  /// current one is asked for, which `If-Match` makes sure is the same as long as there is an answer.
  func send(_ request: S3Request, version: String?) async throws -> S3Body {
    guard let version, !learned.refusesVersions(of: request.bucket) else {
      return try await send(request)
    }
    var ofVersion = request
    ofVersion.query.append(("versionId", version))
    do {
      return try await send(ofVersion)
    } catch let error as S3Error where error.httpStatus == 403 {
      guard let answer = try? await send(request) else { throw error }
      learned.versionsAreRefused(of: request.bucket)
      return answer
    }
  }
}

extension S3Client {
  /// As the transport's.
  func send(_ request: S3Request, version: String?) async throws -> S3Body {
    try await transport.send(request, version: version)
  }
}
