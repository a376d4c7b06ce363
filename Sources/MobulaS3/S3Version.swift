extension S3Client {
  /// Sends a request, which has an `If-Match`, for one version of an object.
  ///
  /// Who may read objects (`s3:GetObject`) need not be allowed to name their versions (`s3:GetObjectVersion`): then the
  /// current one is asked for, which `If-Match` makes sure is the same as long as there is an answer.
  func send(_ request: S3Request, version: String?) async throws -> S3Body {
    guard let version, !transport.learned.refusesVersions(of: request.bucket) else {
      return try await transport.send(request)
    }
    var ofVersion = request
    ofVersion.query.append(("versionId", version))
    do {
      return try await transport.send(ofVersion)
    } catch let error as S3Error where error.httpStatus == 403 {
      guard let answer = try? await transport.send(request) else { throw error }
      transport.learned.versionsAreRefused(of: request.bucket)
      return answer
    }
  }
}
