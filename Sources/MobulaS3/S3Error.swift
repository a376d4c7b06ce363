internal import MobulaCore

/// What S3 answered when it refused, or why it did not answer.
///
/// Internal on purpose: callers get its `mobulaError`, which travels over the
/// wire with its code.
struct S3Error: Error, Sendable, Hashable {
  /// S3's own code, such as `NoSuchKey`, or one of the three below.
  var code: String
  var message = ""
  /// 0 when there was no answer.
  var httpStatus = 0
  var requestID: String?
  /// The bucket's region, where the answer names it.
  var region: String?
  var endpoint: S3Endpoint
  var bucket: String
  var key: String?

  static let unreachable = "Unreachable"
  static let interrupted = "Interrupted"
  static let timedOut = "TimedOut"

  /// Reads an answer's XML body; without one, its status stands for the code.
  static func answer(
    status: Int, body: [UInt8], requestID: String?, region: String?, endpoint: S3Endpoint, bucket: String, key: String?
  ) -> S3Error {
    let tree = body.isEmpty ? nil : XMLTree.parse(body).flatMap { $0.name == "Error" ? $0 : nil }
    return S3Error(
      code: tree?["Code"] ?? "\(status)", message: tree?["Message"] ?? "", httpStatus: status,
      requestID: tree?["RequestId"] ?? requestID, region: tree?["Region"] ?? region, endpoint: endpoint,
      bucket: bucket, key: key)
  }

  /// Whether the same request may succeed a moment later.
  var isRetryable: Bool {
    switch code {
    case Self.unreachable, Self.interrupted, Self.timedOut, "RequestTimeout", "SlowDown", "InternalError": true
    default: httpStatus == 429 || httpStatus == 408 || (500...599 ~= httpStatus && httpStatus != 501)
    }
  }
}

extension S3Error {
  /// The error in one sentence that says what to do.
  var mobulaError: MobulaError {
    let place = key.map { "s3://\(bucket)/\($0)" } ?? "s3://\(bucket)"
    switch (code, httpStatus) {
    case ("NoSuchBucket", _):
      return MobulaError(
        .notFound, "The bucket \(bucket) does not exist at \(endpoint): create it, or check the name.")
    case ("NoSuchKey", _), (_, 404):
      return MobulaError(
        .notFound, "There is no object \(place) at \(endpoint): check the key, or list the bucket.")
    case ("BucketAlreadyExists", _), ("BucketAlreadyOwnedByYou", _):
      return MobulaError(.alreadyExists, "The bucket \(bucket) exists already at \(endpoint): take another name.")
    case ("InvalidAccessKeyId", _), ("SignatureDoesNotMatch", _):
      return MobulaError(
        .denied,
        "S3 at \(endpoint) does not accept the credentials (\(code)): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
      )
    case ("ExpiredToken", _), ("InvalidToken", _), ("ExpiredTokenException", _):
      return MobulaError(
        .denied, "S3 at \(endpoint) does not accept the session token (\(code)): get new temporary credentials.")
    case ("RequestTimeTooSkewed", _):
      return MobulaError(.denied, "S3 at \(endpoint) refuses requests as this host's clock is wrong: set it.")
    case (_, 401), (_, 403):
      return MobulaError(
        .denied, "S3 at \(endpoint) denies access to \(place) (\(code)): check the credentials and what they may do.")
    case (_, 412):
      return MobulaError(
        .mismatch, "\(place) changed while it was downloaded: begin again to get the new version.")
    case (_, 301), (_, 307), ("AuthorizationHeaderMalformed", _):
      let hint = region.map { "set AWS_REGION=\($0)" } ?? "set AWS_REGION to the bucket's region"
      return MobulaError(.invalidArgument, "The bucket \(bucket) is not in the region asked: \(hint).")
    case (Self.unreachable, _):
      return MobulaError(
        .unavailable, "S3 at \(endpoint) can't be reached (\(message)): check the endpoint and that the server runs.")
    case (Self.interrupted, _):
      return MobulaError(
        .unavailable, "S3 at \(endpoint) broke off while \(place) was asked for (\(message)): try again.")
    case (Self.timedOut, _):
      return MobulaError(
        .deadlineExceeded, "S3 at \(endpoint) did not answer in time for \(place) (\(message)): try again later.")
    default:
      let request = requestID.map { ", request \($0)" } ?? ""
      let reason = message.isEmpty ? "" : ": \(message)"
      let code: MobulaError.Code = isRetryable ? .unavailable : .inputOutput
      return MobulaError(
        code,
        "S3 at \(endpoint) can't serve \(place) (\(self.code), status \(httpStatus)\(request))\(reason)\(reason.hasSuffix(".") ? "" : ".")"
      )
    }
  }
}
