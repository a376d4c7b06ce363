internal import AsyncHTTPClient
internal import NIOCore
internal import NIOHTTP1

/// An answer's headers, and its payload as it arrives. Read it once, or drop it.
public struct S3Body: Sendable {
  let status: Int
  let headers: HTTPHeaders
  let body: HTTPClientResponse.Body
  let deadline: ContinuousClock.Instant
  let failure: @Sendable (any Error) -> any Error

  func header(_ name: String) -> String? { headers.first(name: name) }

  /// Bytes of the payload, where the answer says so; for a range, the range's.
  public var size: Int? { header("content-length").flatMap { Int($0) } }

  /// With its quotes, as `If-Match` takes it.
  public var etag: String? { header("etag") }

  /// Calls `consume` with each piece in order, as it arrives; a piece's memory is valid during the call only.
  ///
  /// The payload is over when this returns: a connection that breaks before is an error.
  /// - Throws: `MobulaError`: `unavailable` when it broke off, `deadlineExceeded`; `CancellationError`; or what
  ///   `consume` threw.
  public func forEachPiece(_ consume: (UnsafeRawBufferPointer) throws -> Void) async throws {
    do {
      try await readPieces(consume)
    } catch let error as S3Error {
      throw error.mobulaError
    }
  }

  /// As `forEachPiece`, with `S3Error` for those who retry.
  ///
  /// - Parameter pace: waited for before each piece; the deadline does not count that time.
  func readPieces(pace: S3Pace? = nil, _ consume: (UnsafeRawBufferPointer) throws -> Void) async throws {
    var deadline = deadline
    var pieces = body.makeAsyncIterator()
    while true {
      let piece: ByteBuffer?
      do {
        piece = try await pieces.next()
      } catch {
        throw failure(error)
      }
      guard let piece else { break }
      // The idle timeout bounds the wait for one piece, this all of them.
      let now = ContinuousClock.now
      if now > deadline { throw failure(HTTPClientError.deadlineExceeded) }
      if let pace {
        try await pace(piece.readableBytes)
        deadline += ContinuousClock.now - now
      }
      try piece.withUnsafeReadableBytes(consume)
    }
    try Task.checkCancellation()
  }

  /// The whole payload.
  ///
  /// - Throws: as `forEachPiece`, and `unavailable` when there is more than `limit` bytes.
  public func bytes(upTo limit: Int) async throws -> [UInt8] {
    do {
      return try await collect(upTo: limit)
    } catch let error as S3Error {
      throw error.mobulaError
    }
  }

  func collect(upTo limit: Int) async throws -> [UInt8] {
    var result: [UInt8] = []
    try await readPieces { piece in
      guard piece.count <= limit - result.count else { throw failure(S3BodyTooLong(limit: limit)) }
      result.append(contentsOf: piece)
    }
    return result
  }
}

private struct S3BodyTooLong: Error, CustomStringConvertible {
  let limit: Int
  var description: String { "its answer has more than \(limit) bytes" }
}
