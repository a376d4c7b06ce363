public import MobulaCore

/// What S3 answered when it refused, or why it did not answer.
///
/// `mobulaError` says the same in one sentence with the remedy, in the form in which errors travel between processes.
public struct S3Error: Error, Sendable, Hashable, CustomStringConvertible {
  /// S3's own code, such as `NoSuchKey`; the status where the answer names none; or one of the constants below,
  /// where S3 itself did not say what was wrong.
  public var code: String
  /// S3's own message, or the reason of the constants below; may be empty.
  public var message = ""
  /// 0 when there was no answer.
  public var httpStatus = 0
  /// What S3's operators find the request by.
  public var requestID: String?
  /// `x-amz-id-2`, which AWS wants to know together with the request's id.
  public var hostID: String?
  /// The bucket's region, where the answer names it.
  public var region: String?
  /// How long S3 wants to be left alone, where the answer says so.
  public var retryAfter: Duration?
  /// Where a redirect leads.
  public var location: String?
  public var endpoint: S3Endpoint
  public var bucket: String
  public var key: String?
  /// Whether it was asked without credentials.
  var isUnsigned = false
  /// S3's clock, in seconds since 1970, where the answer shows it.
  var serverTime: Int?

  /// Begins the reason of what has failed on its way through a proxy.
  static let byProxy = "by the proxy "
  /// No connection came about.
  public static let unreachable = "Unreachable"
  /// The connection ended early.
  public static let interrupted = "Interrupted"
  /// The answer is none that S3 gives; another one may be.
  public static let malformed = "Malformed"
  /// The answer names something that can't be, as a size of more bytes than any object has.
  public static let impossible = "Impossible"
  /// An error in other words than S3's: a proxy's, a web server's.
  public static let foreign = "NoS3Answer"
  /// A deadline passed.
  public static let timedOut = "TimedOut"
  /// The bytes that came are not those that the checksum is of.
  public static let wrongChecksum = "WrongChecksum"
  /// No object's key begins so.
  public static let emptyPrefix = "EmptyPrefix"

  public init(
    code: String, message: String = "", httpStatus: Int = 0, requestID: String? = nil, hostID: String? = nil,
    region: String? = nil, retryAfter: Duration? = nil, endpoint: S3Endpoint, bucket: String, key: String? = nil
  ) {
    self.code = code
    self.message = message
    self.httpStatus = httpStatus
    self.requestID = requestID
    self.hostID = hostID
    self.region = region
    self.retryAfter = retryAfter
    self.endpoint = endpoint
    self.bucket = bucket
    self.key = key
  }

  /// One sentence: what was wrong, where, and the remedy.
  public var description: String { mobulaError.message }

  /// Whether the same request may succeed a moment later.
  public var isRetryable: Bool {
    switch code {
    case Self.unreachable, Self.interrupted, Self.malformed, Self.timedOut, "RequestTimeout", "InternalError": true
    default: isThrottling || httpStatus == 408 || (500...599 ~= httpStatus && httpStatus != 501)
    }
  }

  /// Whether nobody answers, or nobody who can, as while a service is started again or a network is away.
  var isAbsence: Bool { isRetryable && code != Self.malformed }

  /// Whether nobody answered at all.
  package var isNoAnswer: Bool { httpStatus == 0 && isAbsence }

  /// Whether S3 asks for fewer requests.
  public var isThrottling: Bool {
    switch code {
    case "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
      "TooManyRequestsException":
      true
    default: httpStatus == 429 || httpStatus == 503
    }
  }

  /// Runs `body`, and throws the `mobulaError` of an `S3Error`: for those whose errors travel.
  public static func asMobulaError<Result>(_ body: () async throws -> Result) async throws -> Result {
    do {
      return try await body()
    } catch let error as S3Error {
      throw error.mobulaError
    }
  }
}

extension S3Error {
  /// What of an answer's head belongs into an error.
  struct Head {
    var status: Int
    var requestID: String?
    var hostID: String?
    var region: String?
    /// `Retry-After` and `Date` as they stand.
    var retryAfter: String?
    var date: String?
    /// `Location` as it stands.
    var location: String?
  }

  /// Reads an answer's XML body; without one, its status stands for the code.
  static func answer(_ head: Head, body: [UInt8], endpoint: S3Endpoint, bucket: String, key: String?) -> S3Error {
    let tree = body.isEmpty ? nil : XMLTree.parse(body).flatMap { $0.name == "Error" ? $0 : nil }
    // HEAD has no words, and neither have some services for what they don't know.
    let isForeign = tree == nil && body.contains { $0 > 0x20 } && head.status >= 400
    var error = S3Error(
      code: tree?["Code"] ?? (isForeign ? Self.foreign : "\(head.status)"), message: tree?["Message"] ?? "",
      httpStatus: head.status,
      requestID: tree?["RequestId"] ?? head.requestID, hostID: tree?["HostId"] ?? head.hostID,
      region: tree?["Region"] ?? head.region, endpoint: endpoint, bucket: bucket, key: key)
    error.location = head.location
    error.serverTime = head.date.flatMap { HTTPDate.secondsSince1970($0) }
    error.retryAfter = head.retryAfter.flatMap { retryAfter($0, serverTime: error.serverTime) }
    return error
  }

  /// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which is compared with the server's own clock.
  static func retryAfter(_ text: String, serverTime: Int?) -> Duration? {
    if let seconds = Int(text) { return 0...1_000_000 ~= seconds ? .seconds(seconds) : nil }
    guard let date = HTTPDate.secondsSince1970(text) else { return nil }
    let now = serverTime ?? SigV4Timestamp.secondsSince1970()
    return .seconds(min(max(0, date - now), 1_000_000))
  }

  /// The error in one sentence that says what to do, with a code for those who decide by it.
  public var mobulaError: MobulaError {
    // S3's own words tell reasons apart that have one status.
    let said = message.isEmpty ? "" : " (\(message.printable))"
    let place = key.map { "s3://\(bucket)/\($0)" } ?? "s3://\(bucket)"
    switch (code, httpStatus) {
    case ("NoSuchBucket", _):
      return MobulaError(
        .notFound, "The bucket \(bucket) does not exist at \(endpoint): create it, or check the name.")
    case (Self.emptyPrefix, _):
      return MobulaError(.notFound, "There is nothing under \(place) at \(endpoint): check the prefix.")
    case ("NoSuchUpload", _):
      return MobulaError(
        .notFound, "The upload of \(place) to \(endpoint) was ended by somebody else: begin it again.")
    case (_, 412):
      return MobulaError(
        .mismatch, "\(place) changed while it was downloaded: begin again to get the new version.")
    case (Self.foreign, _):
      let code: MobulaError.Code =
        switch httpStatus {
        case 404: .notFound
        case 401, 403: .denied
        default: isRetryable ? .unavailable : .inputOutput
        }
      return MobulaError(
        code,
        "What answers at \(endpoint) refuses \(place) with status \(httpStatus)\(requestID.map { ", request \($0)," } ?? ",") and in other words than S3's: check that the endpoint is an S3 service, and what is between."
      )
    case ("NoSuchKey", _), (_, 404):
      return MobulaError(
        .notFound, "There is no object \(place) at \(endpoint): check the key, or list the bucket.")
    case ("BucketAlreadyExists", _), ("BucketAlreadyOwnedByYou", _):
      return MobulaError(.alreadyExists, "The bucket \(bucket) exists already at \(endpoint): take another name.")
    case ("InvalidAccessKeyId", _), ("SignatureDoesNotMatch", _):
      return MobulaError(
        .denied,
        "S3 at \(endpoint) does not accept the credentials (\(code)\(message.isEmpty ? "" : ": \(message.printable)")): correct them where they come from, which `mobula credentials` shows."
      )
    case ("ExpiredToken", _), ("InvalidToken", _), ("ExpiredTokenException", _):
      return MobulaError(
        .denied, "S3 at \(endpoint) does not accept the session token (\(code)): get new temporary credentials.")
    case ("RequestTimeTooSkewed", _):
      return MobulaError(.denied, "S3 at \(endpoint) refuses requests as this host's clock is wrong: set it.")
    case ("AuthorizationHeaderMalformed", _), (_, 301), (_, 302), (_, 303), (_, 307), (_, 308):
      if region == nil, let location {
        return MobulaError(
          .invalidArgument,
          "\(endpoint) sends requests for \(place) on to \(location.printable): give the endpoint that serves S3.")
      }
      let hint = region.map { "set AWS_REGION=\($0), or" } ?? "set AWS_REGION to its region, or"
      return MobulaError(
        .invalidArgument,
        "The bucket \(bucket) is not in the region asked at \(endpoint): \(hint) give the endpoint that serves it.")
    case ("InvalidObjectState", _):
      return MobulaError(
        .denied,
        "\(place) at \(endpoint) is archived\(said): have S3 restore it first (`aws s3api restore-object`).")
    case (_, 401),
      (_, 403) where isUnsigned:
      return MobulaError(
        .denied,
        "S3 at \(endpoint) denies access to \(place) to everybody (\(code)\(message.isEmpty ? "" : ": \(message.printable)")): leave --no-sign-request away to ask as who you are."
      )
    case (_, 401), (_, 403):
      return MobulaError(
        .denied,
        "S3 at \(endpoint) denies access to \(place) (\(code)\(message.isEmpty ? "" : ": \(message.printable)")): check the credentials and what they may do."
      )
    case (Self.wrongChecksum, _), ("BadDigest", _), ("XAmzContentChecksumMismatch", _):
      return MobulaError(
        .corrupted, "The bytes of \(place) at \(endpoint) and their checksum don't fit (\(message)): try again.")
    case (Self.unreachable, _):
      return MobulaError(
        .unavailable,
        "S3 at \(endpoint) can't be reached for \(place) (\(message)): \(message.hasPrefix(Self.byProxy) ? "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY." : "check the endpoint and that the server runs.")"
      )
    case (Self.interrupted, _):
      return MobulaError(
        .unavailable, "S3 at \(endpoint) broke off while \(place) was asked for (\(message)): try again.")
    case (Self.malformed, _):
      return MobulaError(
        .unavailable,
        "What answers at \(endpoint) for \(place) does not answer as S3 does (\(message)): check that it is an S3 server, and what is between."
      )
    case (Self.impossible, _):
      return MobulaError(
        .inputOutput, "What S3 at \(endpoint) says of \(place) can't be (\(message)): check that it is an S3 server.")
    case (Self.timedOut, _):
      return MobulaError(
        .deadlineExceeded, "S3 at \(endpoint) did not answer in time for \(place) (\(message)): try again later.")
    default:
      let request = requestID.map { ", request \($0)" } ?? ""
      let reason = message.isEmpty ? "" : ": \(message)"
      let code: MobulaError.Code = isRetryable ? .unavailable : .inputOutput
      return MobulaError(
        code,
        "S3 at \(endpoint) can't serve \(place) (\(self.code == "\(httpStatus)" ? "" : "\(self.code), ")status \(httpStatus)\(request))\(reason)\(reason.hasSuffix(".") ? "" : ".")"
      )
    }
  }
}
