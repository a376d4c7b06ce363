internal import Crypto
internal import MobulaCore
internal import NIOCore
internal import Synchronization

/// A payload that is read range by range, so that it need not be in memory.
///
/// It is read twice: for its checksums, which go ahead of it, and for what is sent. So it is sent as it is: many services
/// keep the frames of a payload whose checksum follows it (`aws-chunked`) for the object's own bytes.
struct S3Pieces: Sendable {
  /// Bytes that are asked for, and sent, at a time.
  static let pieceSize = 1_048_576

  let size: Int
  /// May be asked again, from the beginning, for another attempt.
  let producer: @Sendable (Range<Int>) async throws -> [UInt8]
  let digest: S3PayloadDigest
  /// Told of the bytes of each piece, as the socket takes it; of another attempt first of those that count no more, as less
  /// than nothing.
  var sent: (@Sendable (Int) -> Void)?

  init(
    size: Int, producer: @escaping @Sendable (Range<Int>) async throws -> [UInt8],
    digest: S3PayloadDigest = S3PayloadDigest(), sent: (@Sendable (Int) -> Void)? = nil
  ) {
    self.size = size
    self.producer = producer
    self.digest = digest
    self.sent = sent
  }

  /// Reads all of it for its checksums, unless they are known from an attempt before.
  ///
  /// - Parameter isSigned: whether the signature needs the payload's SHA-256.
  /// - Throws: what the producer throws.
  func readDigest(isSigned: Bool) async throws {
    if digest.values != nil { return }
    var values = S3PayloadDigest.Values(crc32c: 0)
    var hash = SHA256()
    var position = 0
    while position < size {
      let range = position..<min(size, position + Self.pieceSize)
      let bytes = try await produce(range)
      bytes.withUnsafeBytes { bytes in
        values.crc32c = crc32c(bytes, continuing: values.crc32c)
        values.crc32 = crc32(bytes, continuing: values.crc32)
        if isSigned { hash.update(bufferPointer: bytes) }
      }
      position = range.upperBound
    }
    if isSigned { values.sha256 = hexadecimal(hash.finalize()) }
    digest.values = values
  }

  fileprivate func produce(_ range: Range<Int>) async throws -> [UInt8] {
    let bytes = try await producer(range)
    guard bytes.count == range.count else {
      throw MobulaError(
        .invalidArgument,
        "The producer of an upload gave \(bytes.count) bytes for the range \(range) of \(range.count): give all.")
    }
    return bytes
  }
}

/// The checksums of a payload in pieces, once they are known.
final class S3PayloadDigest: Sendable {
  struct Values: Sendable {
    var crc32c: UInt32
    /// What some services have in place of a CRC32C.
    var crc32: UInt32 = 0
    /// In hexadecimal digits; `nil` where the signature does without.
    var sha256: String?
  }

  private let known = Mutex<Values?>(nil)
  /// Bytes of the payload that were sent in this attempt.
  private let sent = Mutex(0)

  /// - Returns: how many had been sent, which are sent once more.
  func beginSending() -> Int {
    sent.withLock { sent in
      defer { sent = 0 }
      return sent
    }
  }

  func hasSent(_ bytes: Int) { sent.withLock { $0 += bytes } }

  var values: Values? {
    get { known.withLock { $0 } }
    set { known.withLock { $0 = newValue } }
  }
}

/// Marks what a producer threw on its way through the HTTP client, so that it is not taken for the connection's.
struct S3ProducerFailure: Error {
  let cause: any Error
}

/// A payload as the HTTP client pulls it: a piece at a time, when the socket has room.
struct S3PieceSequence: AsyncSequence, Sendable {
  let pieces: S3Pieces

  struct Iterator: AsyncIteratorProtocol {
    let pieces: S3Pieces
    var position = 0
    /// The last piece, which the socket takes before the next is asked for.
    var last = 0

    mutating func next() async throws -> ByteBuffer? {
      if position == 0, let former = Optional(pieces.digest.beginSending()), former > 0 { pieces.sent?(-former) }
      if last > 0 {
        pieces.digest.hasSent(last)
        pieces.sent?(last)
      }
      last = 0
      guard position < pieces.size else { return nil }
      let range = position..<Swift.min(pieces.size, position + S3Pieces.pieceSize)
      let bytes: [UInt8]
      do { bytes = try await pieces.produce(range) } catch { throw S3ProducerFailure(cause: error) }
      position = range.upperBound
      last = bytes.count
      return ByteBuffer(bytes: bytes)
    }
  }

  func makeAsyncIterator() -> Iterator { Iterator(pieces: pieces) }
}
