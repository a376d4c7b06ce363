internal import FoundationEssentials
internal import MobulaCore

/// The JSON that containers, instances and credential processes give credentials in.
struct CredentialsDocument: Decodable, Sendable {
  enum CodingKeys: String, CodingKey {
    case version = "Version"
    case code = "Code"
    case accessKey = "AccessKeyId"
    case secretKey = "SecretAccessKey"
    /// A process's name for it.
    case sessionToken = "SessionToken"
    /// The endpoints' name for it.
    case token = "Token"
    case expiration = "Expiration"
  }

  var version: Int?
  var code: String?
  var accessKey: String?
  var secretKey: String?
  var sessionToken: String?
  var token: String?
  var expiration: String?

  /// - Parameter giver: begins the sentence of an error, which shows nothing of the document.
  /// - Throws: `MobulaError` (`unavailable`) for what is no such document.
  static func credentials(_ bytes: [UInt8], from giver: String, needsVersion: Bool = false) throws -> S3Credentials {
    func unusable(_ what: String) -> MobulaError {
      MobulaError(.unavailable, "\(giver) gave no credentials (\(what)): check what answers there.")
    }
    guard let document = try? JSONDecoder().decode(CredentialsDocument.self, from: Data(bytes)) else {
      throw unusable("no JSON of the expected form")
    }
    if needsVersion, document.version != 1 { throw unusable("its Version is not 1") }
    if let code = document.code, code != "Success" { throw unusable("its Code is \(redacted(code, []))") }
    guard let accessKey = document.accessKey, !accessKey.isEmpty, let secretKey = document.secretKey,
      !secretKey.isEmpty
    else { throw unusable("AccessKeyId or SecretAccessKey is missing") }
    var expiration: Date?
    if let text = document.expiration {
      expiration = parseISO8601(text)
      if expiration == nil { throw unusable("its Expiration is no time of ISO 8601") }
    }
    let token = document.sessionToken ?? document.token
    return S3Credentials(
      accessKey: accessKey, secretKey: secretKey, sessionToken: token.flatMap { $0.isEmpty ? nil : $0 },
      expiration: expiration)
  }
}
