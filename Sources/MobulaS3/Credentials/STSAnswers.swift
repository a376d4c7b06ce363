internal import FoundationEssentials

/// A role taken on for a while.
public struct STSAssumedRole: Sendable, Equatable {
  public let credentials: S3Credentials
  /// The ARN of the session, where the server names it.
  public let arn: String?
}

/// Whose credentials a request was signed with.
public struct STSIdentity: Sendable, Hashable {
  public let account: String
  public let arn: String
  public let userID: String
}

/// What STS answered when it refused, or why it did not answer.
struct STSError: Error, Hashable {
  /// STS's own code, such as `AccessDenied`, or the status where there is none, or one of the two below.
  var code: String
  var message = ""
  /// 0 when there was no answer.
  var httpStatus = 0
  var action: String
  var endpoint: S3Endpoint

  static let unreachable = "Unreachable"
  static let timedOut = "TimedOut"

  /// Whether the same request may succeed a moment later.
  var isRetryable: Bool {
    switch code {
    case Self.unreachable, Self.timedOut, "Throttling", "ThrottlingException", "RequestLimitExceeded",
      "IDPCommunicationError":
      true
    default: httpStatus == 429 || 500...599 ~= httpStatus && httpStatus != 501
    }
  }
}

extension XMLTree {
  func child(_ name: String) -> XMLTree? { children.first { $0.name == name } }

  /// The text of a child without spaces and line ends around it; `nil` when there is none.
  fileprivate func value(_ name: String) -> String? {
    guard let text = self[name] else { return nil }
    let trimmed = text.drop(while: \.isWhitespace)
    let end = trimmed.lastIndex { !$0.isWhitespace }
    return end.map { String(trimmed[...$0]) }
  }
}

extension STSAssumedRole {
  /// Reads the answer to `action`; `nil` when it has no credentials.
  ///
  /// `AssumedRoleUser` may be missing, as in SeaweedFS's answer to AssumeRoleWithWebIdentity.
  init?(_ body: [UInt8], action: String) {
    guard let result = XMLTree.parse(body)?.child("\(action)Result"), let fields = result.child("Credentials"),
      let accessKey = fields.value("AccessKeyId"), let secretKey = fields.value("SecretAccessKey"),
      let sessionToken = fields.value("SessionToken"), let expiration = fields.value("Expiration").flatMap(parseISO8601)
    else { return nil }
    credentials = S3Credentials(
      accessKey: accessKey, secretKey: secretKey, sessionToken: sessionToken, expiration: expiration)
    arn = result.child("AssumedRoleUser")?.value("Arn")
  }
}

extension STSIdentity {
  /// Reads the answer to GetCallerIdentity; `nil` when it names nobody.
  init?(_ body: [UInt8]) {
    guard let result = XMLTree.parse(body)?.child("GetCallerIdentityResult"), let arn = result.value("Arn") else {
      return nil
    }
    self.arn = arn
    account = result.value("Account") ?? ""
    userID = result.value("UserId") ?? ""
  }
}

extension STSError {
  /// Reads an answer's XML body; without one, its status stands for the code.
  ///
  /// - Parameter secrets: taken out of the server's message, should it repeat them.
  static func answer(
    status: Int, body: [UInt8], action: String, endpoint: S3Endpoint, secrets: [String]
  ) -> STSError {
    let tree = body.isEmpty ? nil : XMLTree.parse(body)
    let error = tree?.child("Error") ?? (tree?.name == "Error" ? tree : nil)
    return STSError(
      code: error?.value("Code") ?? "\(status)", message: redacted(error?.value("Message") ?? "", secrets),
      httpStatus: status, action: action, endpoint: endpoint)
  }
}

/// A server's words for an error message: one line, not endless, and without what must not be shown.
func redacted(_ text: String, _ secrets: [String]) -> String {
  var text = text
  for secret in secrets where secret.utf8.count > 3 { text = text.replacing(secret, with: "…") }
  let line = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
  return line.count > 300 ? "\(line.prefix(300))…" : line
}
