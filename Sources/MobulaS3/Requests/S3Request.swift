internal import AsyncHTTPClient
internal import MobulaCore
internal import NIOCore
internal import NIOHTTP1

/// A request before it is signed; signed anew for every attempt, as signatures age.
struct S3Request: Sendable {
  enum Method: String, Sendable {
    case get = "GET"
    case head = "HEAD"
    case put = "PUT"
    case post = "POST"
    case delete = "DELETE"
  }

  enum Payload: Sendable {
    case none
    case bytes([UInt8])
    case pieces(S3Pieces)
  }

  var method: Method
  var bucket: String
  var key: String?
  /// Names and values, not encoded.
  var query: [(String, String)] = []
  var headers: [(String, String)] = []
  var payload = Payload.none
  /// Bytes that S3 moves by itself before it answers, for the deadline.
  var expectedBytes = 0

  /// Bytes of payload, for the deadline.
  var sentBytes: Int {
    switch payload {
    case .none: 0
    case .bytes(let bytes): bytes.count
    case .pieces(let pieces): pieces.size
    }
  }

  struct Signed {
    var url: String
    /// Path and query, as they are written.
    var target: String
    /// With the signature among them.
    var headers: [(String, String)]
  }

  /// Where the request goes: endpoint, and path as it is written.
  func address(_ configuration: S3Configuration) -> (endpoint: S3Endpoint, path: String) {
    let (endpoint, inPath) = configuration.address(of: bucket)
    var path = inPath ? "/\(percentEncoded(bucket))" : ""
    if let key { path += "/" + percentEncoded(key, keepingSlashes: true) }
    return (endpoint, path.isEmpty ? "/" : path)
  }

  /// - Parameter credentials: `nil` for a request that is not signed.
  func signed(with credentials: S3Credentials?, configuration: S3Configuration, at time: SigV4Timestamp) -> Signed {
    let (endpoint, path) = address(configuration)
    var headers = headers
    let hash: String
    switch payload {
    case .none: hash = SigV4Signer.emptyPayload
    case .bytes(let bytes): hash = SigV4Signer.payloadHash(bytes)
    case .pieces(let pieces):
      let digest = pieces.digest.values
      hash = digest?.sha256 ?? SigV4Signer.unsignedPayload
      if configuration.uploadChecksums, let digest { headers.append(Self.checksum(digest.crc32c)) }
    }
    headers.append(("host", endpoint.authority))
    if configuration.paysForRequests { headers.append(("x-amz-request-payer", "requester")) }
    if let credentials {
      headers.append(("x-amz-date", time.description))
      headers.append(("x-amz-content-sha256", hash))
      if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token)) }
      let signature = SigV4Signer(credentials: credentials, region: configuration.region).signature(
        method: method.rawValue, path: path, query: query, headers: headers, payloadHash: hash, at: time)
      headers.append(("authorization", signature.authorization))
    }
    let suffix = query.isEmpty ? "" : "?" + SigV4Signer.canonicalQuery(query)
    return Signed(
      url: "\(endpoint.scheme.rawValue)://\(endpoint.authority)\(path)\(suffix)", target: path + suffix,
      headers: headers)
  }

  /// The header by which S3 checks a payload, and keeps its checksum.
  static func checksum(_ crc32c: UInt32) -> (String, String) {
    (S3ChecksumAlgorithm.crc32c.header, base64(crc32c))
  }

  /// What the signature needs to know of the payload is known after this.
  ///
  /// Over TLS nobody on the way can change it, and a SHA-256 of all bytes takes longer than all else.
  func prepare(_ configuration: S3Configuration) async throws {
    guard case .pieces(let pieces) = payload else { return }
    let isSigned = address(configuration).endpoint.scheme == .http
    if isSigned || configuration.uploadChecksums { try await pieces.readDigest(isSigned: isSigned) }
  }

  /// The request in the HTTP client's form.
  func httpRequest(
    credentials: S3Credentials?, configuration: S3Configuration, at time: SigV4Timestamp
  ) -> HTTPClientRequest {
    let signed = signed(with: credentials, configuration: configuration, at: time)
    // The headers name whom it is for.
    let url = configuration.plainProxy.map { "\($0)\(signed.target)" } ?? signed.url
    var request = HTTPClientRequest(url: url)
    request.method = HTTPMethod(rawValue: method.rawValue)
    request.headers = HTTPHeaders(signed.headers)
    switch payload {
    case .none: break
    case .bytes(let bytes): request.body = .bytes(ByteBuffer(bytes: bytes))
    case .pieces(let pieces):
      request.body = .stream(S3PieceSequence(pieces: pieces), length: .known(Int64(pieces.size)))
    }
    return request
  }
}
