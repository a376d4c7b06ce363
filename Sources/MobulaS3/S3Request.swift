internal import AsyncHTTPClient
internal import NIOCore
internal import NIOHTTP1

/// A request before it is signed; signed anew for every attempt, as signatures age.
struct S3Request: Sendable {
  enum Method: String, Sendable {
    case get = "GET"
    case head = "HEAD"
    case put = "PUT"
    case delete = "DELETE"
  }

  enum Payload: Sendable {
    case none
    case bytes([UInt8])
    /// Read range by range, so that it need not be in memory; the producer may be asked again.
    case pieces(size: Int, @Sendable (Range<Int>) async throws -> [UInt8])
  }

  var method: Method
  var bucket: String
  var key: String?
  /// Names and values, not encoded.
  var query: [(String, String)] = []
  var headers: [(String, String)] = []
  var payload = Payload.none
  /// Bytes of payload that the answer will have, for the deadline.
  var expectedBytes = 0

  /// Bytes sent and received, for the deadline.
  var payloadBytes: Int {
    switch payload {
    case .none: expectedBytes
    case .bytes(let bytes): bytes.count + expectedBytes
    case .pieces(let size, _): size + expectedBytes
    }
  }

  /// Where the request goes, and its headers with the signature among them.
  func signed(
    with credentials: S3Credentials, configuration: S3Configuration, at time: SigV4Timestamp
  ) -> (url: String, headers: [(String, String)]) {
    let (endpoint, inPath) = configuration.address(of: bucket)
    var path = inPath ? "/\(percentEncoded(bucket))" : ""
    if let key { path += "/" + percentEncoded(key, keepingSlashes: true) }
    if path.isEmpty { path = "/" }
    let hash =
      switch payload {
      case .none: SigV4Signer.emptyPayload
      case .bytes(let bytes): SigV4Signer.payloadHash(bytes)
      case .pieces: SigV4Signer.unsignedPayload
      }
    var headers = headers
    headers.append(("host", endpoint.authority))
    headers.append(("x-amz-date", time.description))
    headers.append(("x-amz-content-sha256", hash))
    if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token)) }
    let authorization = SigV4Signer(credentials: credentials, region: configuration.region).authorization(
      method: method.rawValue, path: path, query: query, headers: headers, payloadHash: hash, at: time)

    let suffix = query.isEmpty ? "" : "?" + SigV4Signer.canonicalQuery(query)
    return (
      "\(endpoint.scheme.rawValue)://\(endpoint.authority)\(path)\(suffix)",
      headers + [("authorization", authorization)]
    )
  }

  /// The request in the HTTP client's form, signed for now.
  func httpRequest(credentials: S3Credentials, configuration: S3Configuration) -> HTTPClientRequest {
    let (url, headers) = signed(with: credentials, configuration: configuration, at: .now())
    var request = HTTPClientRequest(url: url)
    request.method = HTTPMethod(rawValue: method.rawValue)
    request.headers = HTTPHeaders(headers)
    switch payload {
    case .none: break
    case .bytes(let bytes): request.body = .bytes(ByteBuffer(bytes: bytes))
    case .pieces(let size, let producer):
      request.body = .stream(PieceSequence(size: size, producer: producer), length: .known(Int64(size)))
    }
    return request
  }
}

/// A payload as the HTTP client pulls it: 1 MiB at a time, when the socket has room.
private struct PieceSequence: AsyncSequence, Sendable {
  let size: Int
  let producer: @Sendable (Range<Int>) async throws -> [UInt8]

  struct Iterator: AsyncIteratorProtocol {
    let sequence: PieceSequence
    var position = 0

    mutating func next() async throws -> ByteBuffer? {
      guard position < sequence.size else { return nil }
      let range = position..<Swift.min(sequence.size, position + 1_048_576)
      position = range.upperBound
      return ByteBuffer(bytes: try await sequence.producer(range))
    }
  }

  func makeAsyncIterator() -> Iterator { Iterator(sequence: self) }
}
