extension S3Error {
  /// Whether the service refused the session token, so that new temporary credentials may help. SeaweedFS says
  /// `InvalidAccessKeyId` of one that has expired.
  func refusesToken(of credentials: S3Credentials) -> Bool {
    ["ExpiredToken", "InvalidToken", "ExpiredTokenException"].contains(code)
      || code == "InvalidAccessKeyId" && credentials.isTemporary
  }
}
