internal import Crypto
internal import MobulaCore

/// AWS Signature Version 4, a pure function of request, credentials and time.
///
/// Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference.
struct SigV4Signer: Sendable {
  let credentials: S3Credentials
  let region: String
  var service = "s3"

  /// SHA-256 of nothing, the payload hash of requests without a body.
  static let emptyPayload = hexadecimal(SHA256.hash(data: []))
  /// Stands for a payload that is streamed and therefore not hashed first.
  static let unsignedPayload = "UNSIGNED-PAYLOAD"

  static func payloadHash(_ bytes: [UInt8]) -> String { hexadecimal(SHA256.hash(data: bytes)) }

  /// The value of the `Authorization` header.
  ///
  /// - Parameters:
  ///   - path: as it stands in the request line, already encoded: S3 neither encodes twice nor normalizes.
  ///   - query: names and values as they are, not encoded.
  ///   - headers: every header to sign, `host` and `x-amz-date` among them.
  func authorization(
    method: String, path: String, query: [(String, String)], headers: [(String, String)], payloadHash: String,
    at time: SigV4Timestamp
  ) -> String {
    let (canonical, signedHeaders) = canonicalRequest(
      method: method, path: path, query: query, headers: headers, payloadHash: payloadHash)
    let scope = "\(time.date)/\(region)/\(service)/aws4_request"
    let toSign = """
      AWS4-HMAC-SHA256
      \(time.description)
      \(scope)
      \(hexadecimal(SHA256.hash(data: Array(canonical.utf8))))
      """
    var key = Array("AWS4\(credentials.secretKey)".utf8)
    for step in [time.date, region, service, "aws4_request"] { key = Self.authenticationCode(step, key: key) }
    let signature = hexadecimal(Self.authenticationCode(toSign, key: key))
    return
      "AWS4-HMAC-SHA256 Credential=\(credentials.accessKey)/\(scope), SignedHeaders=\(signedHeaders), Signature=\(signature)"
  }

  func canonicalRequest(
    method: String, path: String, query: [(String, String)], headers: [(String, String)], payloadHash: String
  ) -> (request: String, signedHeaders: String) {
    var values: [String: [String]] = [:]
    for (name, value) in headers {
      // Runs of spaces count as one, those at the ends as none.
      values[name.lowercased(), default: []].append(value.split(separator: " ").joined(separator: " "))
    }
    let sorted = values.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    let signedHeaders = sorted.map(\.key).joined(separator: ";")
    let lines =
      [method, path, Self.canonicalQuery(query)]
      + sorted.map { "\($0.key):\($0.value.joined(separator: ","))" } + ["", signedHeaders, payloadHash]
    return (lines.joined(separator: "\n"), signedHeaders)
  }

  /// Encoded, and sorted by name, then value: also how the request itself writes its query.
  static func canonicalQuery(_ query: [(String, String)]) -> String {
    // With its type, since the compiler takes long to find it.
    let encoded: [(String, String)] = query.map { (percentEncoded($0.0), percentEncoded($0.1)) }
    return encoded.sorted { $0.0 == $1.0 ? $0.1 < $1.1 : $0.0 < $1.0 }
      .map { pair -> String in pair.0 + "=" + pair.1 }
      .joined(separator: "&")
  }

  private static func authenticationCode(_ text: String, key: [UInt8]) -> [UInt8] {
    Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: key)))
  }
}
