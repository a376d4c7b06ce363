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
  /// Stands for a payload that is not hashed, since TLS protects it.
  static let unsignedPayload = "UNSIGNED-PAYLOAD"

  static func payloadHash(_ bytes: [UInt8]) -> String { hexadecimal(SHA256.hash(data: bytes)) }

  /// A request's signature.
  struct Signature {
    /// 64 hexadecimal digits.
    let text: String
    let signedHeaders: String
    let credential: String

    /// The value of the `Authorization` header.
    var authorization: String {
      "AWS4-HMAC-SHA256 Credential=\(credential), SignedHeaders=\(signedHeaders), Signature=\(text)"
    }
  }

  /// - Parameters:
  ///   - path: as it stands in the request line, already encoded: S3 neither encodes twice nor normalizes.
  ///   - query: names and values as they are, not encoded.
  ///   - headers: every header to sign, `host` and `x-amz-date` among them.
  func signature(
    method: String, path: String, query: [(String, String)], headers: [(String, String)], payloadHash: String,
    at time: SigV4Timestamp
  ) -> Signature {
    let (canonical, signedHeaders) = canonicalRequest(
      method: method, path: path, query: query, headers: headers, payloadHash: payloadHash)
    let scope = scope(at: time)
    let toSign = """
      AWS4-HMAC-SHA256
      \(time.description)
      \(scope)
      \(hexadecimal(SHA256.hash(data: Array(canonical.utf8))))
      """
    var key = Array("AWS4\(credentials.secretKey)".utf8)
    for step in [time.date, region, service, "aws4_request"] { key = sigV4Code(step, key: key) }
    let text = hexadecimal(sigV4Code(toSign, key: key))
    return Signature(
      text: text, signedHeaders: signedHeaders, credential: "\(credentials.accessKey)/\(scope)")
  }

  /// The value of the `Authorization` header; parameters as `signature` has them.
  func authorization(
    method: String, path: String, query: [(String, String)], headers: [(String, String)], payloadHash: String,
    at time: SigV4Timestamp
  ) -> String {
    signature(method: method, path: path, query: query, headers: headers, payloadHash: payloadHash, at: time)
      .authorization
  }

  /// The query, encoded, of a request that carries its signature there and is good for `expiry` seconds.
  ///
  /// Source: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", Amazon S3 API Reference.
  /// - Parameter payloadHash: S3 takes `UNSIGNED-PAYLOAD` only, other services the payload's.
  func presignedQuery(
    method: String, path: String, query: [(String, String)], headers: [(String, String)], expiry: Int,
    payloadHash: String = SigV4Signer.unsignedPayload, at time: SigV4Timestamp
  ) -> String {
    let names = Set(headers.map { $0.0.lowercased() }).sorted().joined(separator: ";")
    var query =
      query + [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"), ("X-Amz-Credential", "\(credentials.accessKey)/\(scope(at: time))"),
        ("X-Amz-Date", time.description), ("X-Amz-Expires", "\(expiry)"), ("X-Amz-SignedHeaders", names),
      ]
    if let token = credentials.sessionToken { query.append(("X-Amz-Security-Token", token)) }
    let signature = signature(
      method: method, path: path, query: query, headers: headers, payloadHash: payloadHash, at: time)
    return "\(Self.canonicalQuery(query))&X-Amz-Signature=\(signature.text)"
  }

  private func scope(at time: SigV4Timestamp) -> String { "\(time.date)/\(region)/\(service)/aws4_request" }

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
}

private func sigV4Code(_ text: String, key: [UInt8]) -> [UInt8] {
  Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: key)))
}
