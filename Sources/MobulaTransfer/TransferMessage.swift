package import MobulaCore
internal import MobulaWire

/// What precedes a chunk's bytes on a bulk connection.
package struct ChunkHeader: Hashable, Sendable {
  package var index: Int
  /// Bytes that follow the header.
  package var length: Int
  /// The CRC32C of those bytes, as they were when the chunk was sealed or arrived.
  package var checksum: UInt32

  package init(index: Int, length: Int, checksum: UInt32) {
    self.index = index
    self.length = length
    self.checksum = checksum
  }
}

/// What two hosts say to each other on a bulk connection once they have authenticated.
///
/// Each is a frame: four bytes of length, big-endian, one byte that says which
/// message it is, and its fields, big-endian. Only `chunk` is followed by bytes
/// outside any frame, so that they go from memory to memory.
package enum TransferMessage: Hashable, Sendable {
  /// Receiver: the object it wants; first, and once a connection.
  case open(ObjectID)
  /// Receiver: this chunk, please. Several may be outstanding; they are answered in order.
  case request(Int)
  /// Receiver: this chunk arrived and its checksum is right, so the sender may let go of it.
  case acknowledge(Int)
  /// Receiver: nothing more is wanted.
  case done
  /// Sender: the object is here, perhaps not all of it yet.
  case opened(objectSize: Int, chunkSize: Int)
  /// Sender: the object can't be had from here.
  case refused(MobulaError.Code, String)
  /// Sender: the header of a chunk; its bytes follow.
  case chunk(ChunkHeader)
  /// Sender: this chunk won't come, and no other will.
  case failed(Int, MobulaError.Code, String)
  /// Sender: alive, but the next requested chunk has not arrived here itself.
  case waiting

  /// The longest frame, without its length: what is longer is refused unread.
  package static let maximumFrame = ByteCount(4096)
  /// Bytes of the longest text in a message: what is longer is cut.
  static let maximumText = 2048
}

extension TransferMessage {
  private enum Kind: UInt8 {
    case open = 1, request, acknowledge, done
    case opened = 16, refused, chunk, failed, waiting
  }

  /// The whole frame, its length included.
  package var frame: [UInt8] {
    var body = FrameWriter()
    switch self {
    case .open(let object):
      body.append(Kind.open.rawValue)
      body.append(object.high)
      body.append(object.low)
    case .request(let index):
      body.append(Kind.request.rawValue)
      body.append(UInt32(index))
    case .acknowledge(let index):
      body.append(Kind.acknowledge.rawValue)
      body.append(UInt32(index))
    case .done:
      body.append(Kind.done.rawValue)
    case .opened(let objectSize, let chunkSize):
      body.append(Kind.opened.rawValue)
      body.append(UInt64(objectSize))
      body.append(UInt32(chunkSize))
    case .refused(let code, let text):
      body.append(Kind.refused.rawValue)
      body.append(code: code, text: text)
    case .chunk(let header):
      body.append(Kind.chunk.rawValue)
      body.append(UInt32(header.index))
      body.append(UInt32(header.length))
      body.append(header.checksum)
    case .failed(let index, let code, let text):
      body.append(Kind.failed.rawValue)
      body.append(UInt32(index))
      body.append(code: code, text: text)
    case .waiting:
      body.append(Kind.waiting.rawValue)
    }
    return Frame.encode(body.body)
  }

  /// Reads a frame's body.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) when it is none of the messages, to the byte.
  package init(_ body: [UInt8]) throws(MobulaError) {
    var reader = FrameReader(body)
    switch Kind(rawValue: try reader.read(UInt8.self)) {
    case .open:
      self = .open(ObjectID(high: try reader.read(), low: try reader.read()))
    case .request: self = .request(try reader.readIndex())
    case .acknowledge: self = .acknowledge(try reader.readIndex())
    case .done: self = .done
    case .opened:
      guard let objectSize = Int(exactly: try reader.read(UInt64.self)) else {
        throw MobulaError(
          .protocolViolation, "A peer announced an object of more than 2^63 bytes: it is no mobula host.")
      }
      self = .opened(objectSize: objectSize, chunkSize: try reader.readIndex())
    case .refused:
      let (code, text) = try reader.readError()
      self = .refused(code, text)
    case .chunk:
      self = .chunk(
        ChunkHeader(index: try reader.readIndex(), length: try reader.readIndex(), checksum: try reader.read()))
    case .failed:
      let index = try reader.readIndex()
      let (code, text) = try reader.readError()
      self = .failed(index, code, text)
    case .waiting: self = .waiting
    case nil:
      throw MobulaError(
        .protocolViolation, "A peer sent a transfer message of an unknown kind: run the same version on all hosts.")
    }
    try reader.finish()
  }
}
