public import FoundationEssentials
package import MobulaCore

/// Who asks. Its description never shows the secrets.
public struct S3Credentials: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
  public let accessKey: String
  let secretKey: String
  let sessionToken: String?
  /// When temporary credentials end; `nil` for those that don't, or don't say.
  public let expiration: Date?

  /// `sessionToken` and `expiration` come with temporary credentials only.
  public init(accessKey: String, secretKey: String, sessionToken: String? = nil, expiration: Date? = nil) {
    self.accessKey = accessKey
    self.secretKey = secretKey
    self.sessionToken = sessionToken
    self.expiration = expiration
  }

  /// Reads `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is set, `AWS_SESSION_TOKEN`.
  ///
  /// - Throws: `MobulaError` (`unauthenticated`) that names the variables to set.
  package static func fromEnvironment(
    _ environment: [String: String] = currentEnvironment()
  ) throws(MobulaError) -> S3Credentials {
    // What was read from a file may have its line end still.
    func value(_ name: String) -> String? {
      let isSpace: (Character) -> Bool = { $0.isWhitespace }
      let text = environment[name].map { $0.drop(while: isSpace).reversed().drop(while: isSpace).reversed() } ?? []
      return text.isEmpty ? nil : String(text)
    }
    let accessKey = value("AWS_ACCESS_KEY_ID")
    let secretKey = value("AWS_SECRET_ACCESS_KEY")
    guard let accessKey, let secretKey else {
      let missing = [accessKey == nil ? "AWS_ACCESS_KEY_ID" : nil, secretKey == nil ? "AWS_SECRET_ACCESS_KEY" : nil]
      throw MobulaError(
        .unauthenticated,
        "There are no credentials for S3: set \(missing.compactMap(\.self).joined(separator: " and ")) (and AWS_SESSION_TOKEN for temporary ones)."
      )
    }
    try checkQuotes(of: accessKey, "AWS_ACCESS_KEY_ID")
    try checkQuotes(of: secretKey, "AWS_SECRET_ACCESS_KEY")
    return S3Credentials(accessKey: accessKey, secretKey: secretKey, sessionToken: value("AWS_SESSION_TOKEN"))
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for a key in quotes, which no key has.
  static func checkQuotes(of key: String, _ place: String) throws(MobulaError) {
    guard let first = key.first, first == "\"" || first == "'" else { return }
    throw MobulaError(
      .invalidArgument, "\(place) begins with a quote, which belongs to the value there: write it without quotes.")
  }

  /// The variables that hand these credentials to a process of one's own.
  public var environment: [String: String] {
    var variables = ["AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey]
    variables["AWS_SESSION_TOKEN"] = sessionToken
    return variables
  }

  /// Whether they have a session token, and so an end.
  public var isTemporary: Bool { sessionToken != nil }

  public var description: String { "S3 credentials of \(accessKey)" }

  /// Empty, so that `dump` and debuggers' summaries show no secret either.
  public var customMirror: Mirror { Mirror(self, children: [:]) }
}
