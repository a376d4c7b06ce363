internal import AsyncHTTPClient
internal import NIOCore
internal import NIOHTTP1

/// An answer's headers, and its payload as it arrives. Read it once, or drop it.
public struct S3Body: Sendable {
  let status: Int
  let headers: HTTPHeaders
  let body: HTTPClientResponse.Body
  let failure: @Sendable (any Error) -> any Error
  /// When all of it has to be there, for the answer to what was sent, between whose bytes S3 may take its time; `nil`
  /// where each piece is waited for no longer than the idle timeout.
  var deadline: ContinuousClock.Instant?
  /// What the payload's checksum should be; `nil` for a range, and where S3 does not say.
  var checksum: S3Checksum?

  func header(_ name: String) -> String? { headers.first(name: name) }

  var errorHead: S3Error.Head {
    S3Error.Head(
      status: status, requestID: header("x-amz-request-id"), hostID: header("x-amz-id-2"),
      region: header("x-amz-bucket-region"), retryAfter: header("retry-after"), date: header("date"),
      location: header("location"))
  }

  /// Bytes of the payload, where the answer says so and an object can have as many; for a range, the range's.
  public var size: Int? { header("content-length").flatMap { S3Size.parse($0) } }

  /// Whether this is the range that was asked for, as far as the answer says.
  ///
  /// A server that ignores ranges answers 200, which is right only where the range is everything, unless it names the range
  /// all the same; some answer 206 without saying which range it is, and then its length has to do.
  ///
  /// - Parameter whole: bytes of the object; `nil` where they are not known.
  func isOf(_ range: Range<Int>, of whole: Int?) -> Bool {
    guard status == 206 || status == 200 && header("content-range") != nil && size == range.count else {
      return range.lowerBound == 0 && size == range.count && whole ?? range.count == range.count
    }
    guard let said = header("content-range") else { return size == range.count }
    return said.hasPrefix("bytes \(range.lowerBound)-\(range.upperBound - 1)/") && (whole == nil || total == whole)
  }

  /// Whether this is all of the object, where a part of it was asked for.
  func isWhole(of info: S3ObjectInfo, besides range: Range<Int>) -> Bool {
    status == 200 && range.count < info.size && (size ?? info.size) == info.size && (etag ?? info.etag) == info.etag
  }

  /// Bytes of the whole object, of which this is a range, where the answer says so.
  var total: Int? {
    header("content-range").flatMap { $0.split(separator: "/").last }.flatMap { S3Size.parse(String($0)) }
  }

  /// With its quotes, as `If-Match` takes it.
  public var etag: String? { header("etag") }

  /// Calls `consume` with each piece in order, as it arrives; a piece's memory is valid during the call only.
  ///
  /// The payload is over when this returns: a connection that breaks before is an error.
  /// - Throws: `S3Error`: `interrupted` when it broke off, `timedOut`; `CancellationError`; or what `consume` threw.
  public func forEachPiece(_ consume: (UnsafeRawBufferPointer) throws -> Void) async throws {
    try await readPieces(consume)
  }

  /// As long as bytes come there is no deadline: the idle timeout bounds the wait for each piece.
  ///
  /// - Parameter pace: waited for before each piece.
  func readPieces(pace: S3Pace? = nil, _ consume: (UnsafeRawBufferPointer) throws -> Void) async throws {
    var pieces = body.makeAsyncIterator()
    var running = checksum.map { S3RunningChecksum($0.algorithm) }
    while true {
      let piece: ByteBuffer?
      do {
        piece = try await pieces.next()
      } catch {
        throw failure(error)
      }
      guard let piece else { break }
      if let pace { try await pace(piece.readableBytes) }
      try piece.withUnsafeReadableBytes { bytes in
        running?.update(bytes)
        try consume(bytes)
      }
    }
    try Task.checkCancellation()
    if let checksum, running?.bytes != checksum.bytes { throw failure(S3ChecksumIsWrong(checksum: checksum)) }
  }

  /// The whole payload.
  ///
  /// - Throws: as `forEachPiece`, and `interrupted` when there is more than `limit` bytes.
  public func bytes(upTo limit: Int) async throws -> [UInt8] { try await collect(upTo: limit) }

  func collect(upTo limit: Int) async throws -> [UInt8] {
    guard let deadline else { return try await collectPieces(upTo: limit) }
    return try await withThrowingTaskGroup(of: [UInt8]?.self) { group in
      group.addTask { try await collectPieces(upTo: limit) }
      group.addTask {
        try await Task.sleep(until: deadline, clock: .continuous)
        return nil
      }
      defer { group.cancelAll() }
      guard let bytes = try await group.next() ?? nil else { throw failure(HTTPClientError.deadlineExceeded) }
      return bytes
    }
  }

  private func collectPieces(upTo limit: Int) async throws -> [UInt8] {
    var result: [UInt8] = []
    try await readPieces { piece in
      guard piece.count <= limit - result.count else { throw failure(S3BodyTooLong(limit: limit)) }
      result.append(contentsOf: piece)
    }
    return result
  }
}

struct S3ChecksumIsWrong: Error {
  let checksum: S3Checksum
}

private struct S3BodyTooLong: Error, CustomStringConvertible {
  let limit: Int
  var description: String { "its answer has more than \(limit) bytes" }
}
