internal import MobulaCore

/// What a presigned URL may be used for.
public enum S3PresignedMethod: String, Sendable {
  case get = "GET"
  case put = "PUT"
}

extension S3Client {
  /// A URL with which anybody may GET or PUT this object until it expires, without credentials of their own.
  ///
  /// It is made here, without asking S3; a URL for a bucket in another region works once a request has shown which.
  /// It ends earlier where it was signed with temporary credentials that end earlier. Keep it as secret as the
  /// object.
  /// - Parameter expiry: from 1 s to 604,800 s (7 days).
  /// - Throws: `MobulaError` (`invalidArgument`) for another expiry.
  public func presignedURL(
    _ method: S3PresignedMethod, bucket: String, key: String, expiry: Duration = .seconds(3600)
  ) async throws -> String {
    let seconds = expiry.components.seconds
    guard 1...604_800 ~= seconds else {
      throw MobulaError(
        .invalidArgument, "A presigned URL can't be good for \(expiry): give from 1 s to 604800 s (7 days).")
    }
    return S3Request(method: method == .get ? .get : .put, bucket: bucket, key: key).presignedURL(
      credentials: try await transport.credentials.credentials(),
      configuration: transport.learned.configuration(configuration, for: bucket),
      expiry: Int(seconds), at: .now(offset: transport.learned.clockOffset))
  }
}

extension S3Request {
  func presignedURL(
    credentials: S3Credentials, configuration: S3Configuration, expiry: Int, at time: SigV4Timestamp
  ) -> String {
    let (endpoint, path) = address(configuration)
    let query = SigV4Signer(credentials: credentials, region: configuration.region).presignedQuery(
      method: method.rawValue, path: path, query: query, headers: [("host", endpoint.authority)], expiry: expiry,
      at: time)
    return "\(endpoint.scheme.rawValue)://\(endpoint.authority)\(path)?\(query)"
  }
}
