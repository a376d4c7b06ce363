internal import MobulaCore
internal import NIOCore
internal import Synchronization

/// A payload that is read range by range, so that it need not be in memory.
struct S3Pieces: Sendable {
  /// Bytes that are asked for, and sent as a chunk, at a time. S3 wants at least 8 KiB of all chunks but the last.
  static let pieceSize = 1_048_576

  let size: Int
  /// May be asked again, from the beginning, for another attempt.
  let producer: @Sendable (Range<Int>) async throws -> [UInt8]
  /// Takes the CRC32C of what was sent.
  var checksum: S3SentChecksum?
  /// Told of the bytes of each piece, as the socket takes it.
  var sent: (@Sendable (Int) -> Void)?
}

/// The CRC32C of a payload once it was sent to its end.
final class S3SentChecksum: Sendable {
  private let crc = Mutex<UInt32?>(nil)

  var value: UInt32? {
    get { crc.withLock { $0 } }
    set { crc.withLock { $0 = newValue } }
  }
}

/// Marks what a producer threw on its way through the HTTP client, so that it is not taken for the connection's.
struct S3ProducerFailure: Error {
  let cause: any Error
}

/// How a streamed payload is framed.
enum S3Framing: Sendable {
  /// As it is.
  case none
  /// In chunks, with its CRC32C behind it.
  case unsigned
  /// In chunks that are signed, with its CRC32C and the signature of that behind it.
  case signed(SigV4ChunkSigner)

  static let trailer = "x-amz-checksum-crc32c"

  /// Bytes of a payload of `size` as it is framed.
  func encodedLength(_ size: Int, pieceSize: Int = S3Pieces.pieceSize) -> Int {
    if case .none = self { return size }
    let (whole, rest) = size.quotientAndRemainder(dividingBy: pieceSize)
    let chunks = whole * (chunkHead(pieceSize) + pieceSize + 2) + (rest > 0 ? chunkHead(rest) + rest + 2 : 0)
    // A CRC32C has eight digits in base 64.
    var end = chunkHead(0) + Self.trailer.utf8.count + 1 + 8 + 2 + 2
    if case .signed = self { end += "x-amz-trailer-signature:".utf8.count + 64 + 2 }
    return chunks + end
  }

  /// Bytes before a chunk of `count`: the number, what is signed, and the end of the line.
  private func chunkHead(_ count: Int) -> Int {
    var head = String(count, radix: 16).utf8.count + 2
    if case .signed = self { head += ";chunk-signature=".utf8.count + 64 }
    return head
  }

  /// A chunk's bytes as they are sent.
  mutating func chunk(_ bytes: UnsafeRawBufferPointer) -> ByteBuffer {
    if case .none = self { return ByteBuffer(bytes: bytes) }
    var buffer = ByteBufferAllocator().buffer(capacity: bytes.count + 128)
    writeHead(of: bytes, to: &buffer)
    buffer.writeBytes(bytes)
    buffer.writeString("\r\n")
    return buffer
  }

  /// What follows the last chunk.
  mutating func end(checksum: UInt32) -> ByteBuffer? {
    if case .none = self { return nil }
    var buffer = ByteBuffer()
    writeHead(of: UnsafeRawBufferPointer(start: nil, count: 0), to: &buffer)
    let line = "\(Self.trailer):\(base64(checksum))"
    buffer.writeString("\(line)\r\n")
    if case .signed(var signer) = self {
      buffer.writeString("x-amz-trailer-signature:\(signer.sign(trailer: line + "\n"))\r\n")
      self = .signed(signer)
    }
    buffer.writeString("\r\n")
    return buffer
  }

  private mutating func writeHead(of bytes: UnsafeRawBufferPointer, to buffer: inout ByteBuffer) {
    buffer.writeString(String(bytes.count, radix: 16))
    if case .signed(var signer) = self {
      buffer.writeString(";chunk-signature=\(signer.sign(chunk: bytes))")
      self = .signed(signer)
    }
    buffer.writeString("\r\n")
  }
}

/// A payload as the HTTP client pulls it: a piece at a time, when the socket has room.
struct S3PieceSequence: AsyncSequence, Sendable {
  let pieces: S3Pieces
  let framing: S3Framing
  var pieceSize = S3Pieces.pieceSize

  struct Iterator: AsyncIteratorProtocol {
    let pieces: S3Pieces
    var framing: S3Framing
    let pieceSize: Int
    var position = 0
    var checksum: UInt32 = 0
    var isOver = false

    mutating func next() async throws -> ByteBuffer? {
      guard position < pieces.size else { return end() }
      let range = position..<Swift.min(pieces.size, position + pieceSize)
      let bytes = try await produce(range)
      guard bytes.count == range.count else {
        throw S3ProducerFailure(
          cause: MobulaError(
            .invalidArgument,
            "The producer of an upload gave \(bytes.count) bytes for the range \(range) of \(range.count): give all."))
      }
      position = range.upperBound
      pieces.sent?(bytes.count)
      return bytes.withUnsafeBytes { bytes in
        checksum = crc32c(bytes, continuing: checksum)
        return framing.chunk(bytes)
      }
    }

    private func produce(_ range: Range<Int>) async throws -> [UInt8] {
      do {
        return try await pieces.producer(range)
      } catch {
        throw S3ProducerFailure(cause: error)
      }
    }

    private mutating func end() -> ByteBuffer? {
      guard !isOver else { return nil }
      isOver = true
      pieces.checksum?.value = checksum
      return framing.end(checksum: checksum)
    }
  }

  func makeAsyncIterator() -> Iterator { Iterator(pieces: pieces, framing: framing, pieceSize: pieceSize) }
}
