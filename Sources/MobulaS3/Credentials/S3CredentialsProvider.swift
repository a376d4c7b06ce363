/// Gives out credentials, new ones before the old expire.
///
/// `S3Client` asks before every request: an answer should come from memory, as `CachedCredentials` gives it.
public protocol S3CredentialsProvider: Sendable {
  /// Credentials that are valid now.
  ///
  /// - Throws: `MobulaError`: `unauthenticated` when there are none, `denied` when their source refuses to give any,
  ///   `invalidArgument` or `notFound` for a configuration or a file that can't be used, `unavailable` and
  ///   `deadlineExceeded` when their source does not answer; and `CancellationError`.
  func credentials() async throws -> S3Credentials

  /// The service says that `refused` has expired or is none of its tokens: they are not to be given out again.
  ///
  /// - Returns: whether asking again may bring others; false by default, as for credentials that are fixed.
  func drop(_ refused: S3Credentials) -> Bool
}

extension S3CredentialsProvider {
  public func drop(_ refused: S3Credentials) -> Bool { false }
}

/// Fixed credentials: the same at every time.
extension S3Credentials: S3CredentialsProvider {
  public func credentials() -> S3Credentials { self }
}
