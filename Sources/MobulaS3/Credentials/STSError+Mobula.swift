internal import MobulaCore

extension STSError {
  /// The error in one sentence that says what to do.
  var mobulaError: MobulaError {
    let said = message.isEmpty ? code : "\(code): \(message.hasSuffix(".") ? String(message.dropLast()) : message)"
    switch (code, httpStatus) {
    case (Self.unreachable, _):
      return MobulaError(
        .unavailable,
        "STS at \(endpoint) can't be reached (\(message)): check the network, or AWS_REGION and AWS_ENDPOINT_URL_STS.")
    case (Self.timedOut, _):
      return MobulaError(.deadlineExceeded, "STS at \(endpoint) did not answer \(action) in time: try again later.")
    case ("ExpiredTokenException", _) where action == "AssumeRoleWithWebIdentity":
      return MobulaError(
        .unauthenticated,
        "STS at \(endpoint) says that the web identity token has expired: check that its file is renewed.")
    case ("InvalidIdentityToken", _):
      return MobulaError(
        .unauthenticated,
        "STS at \(endpoint) does not accept the web identity token (\(said)): check its issuer and its audience.")
    case ("InvalidClientTokenId", _), ("SignatureDoesNotMatch", _), ("InvalidAccessKeyId", _):
      return MobulaError(
        .unauthenticated, "STS at \(endpoint) does not accept the credentials (\(said)): check the keys.")
    case ("ExpiredToken", _), ("ExpiredTokenException", _):
      return MobulaError(
        .unauthenticated, "STS at \(endpoint) says that the credentials have expired: get new temporary credentials.")
    case ("ValidationError", _), ("InvalidParameterValue", _), ("MalformedPolicyDocument", _):
      return MobulaError(
        .invalidArgument, "STS at \(endpoint) does not accept \(action) (\(said)): check the role and its settings.")
    case (_, 401), (_, 403):
      return MobulaError(
        .denied,
        "STS at \(endpoint) refuses \(action) (\(said)): check the role's ARN and whom its trust policy names.")
    default:
      return MobulaError(
        isRetryable ? .unavailable : .denied,
        "STS at \(endpoint) can't serve \(action) (status \(httpStatus), \(said)): check the endpoint and the role.")
    }
  }
}
