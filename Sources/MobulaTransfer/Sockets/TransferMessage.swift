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
  /// Receiver: the object it wants; first, and once a connection. `bulk` is where the receiver serves
  /// its own chunks of it, a TCP port of the host that it connects from or a HOST:PORT; empty when it does not.
  case open(ObjectID, bulk: String, priority: TransferPriority = .get)
  /// Receiver: instead of `open`, small objects are wanted, one after the other: see `want`.
  case openSmall(TransferPriority)
  /// Receiver: this small object, please, whole; several may be outstanding. They come as they are there.
  case want(ObjectID)
  /// Receiver: from now on the object is wanted so much.
  case prioritize(TransferPriority)
  /// Receiver: this chunk, please, which was offered. Several may be outstanding; they are sent in order.
  case request(Int)
  /// Receiver: that chunk comes from elsewhere, so it need not be sent any more.
  case cancel(Int)
  /// Receiver: this chunk is here and right, so the sender may let go of it. Also for chunks that were offered
  /// and came from elsewhere, where the sender wants news. Of small objects: so many more are here.
  case acknowledge(Int)
  /// Receiver: nothing more is wanted.
  case done
  /// Sender: the object is here, perhaps not all of it yet.
  case opened(objectSize: Int, chunkSize: Int, wantsNews: Bool)
  /// Sender: these chunks can be asked for.
  case offer([Range<Int>])
  /// Sender: the object can't be had from here.
  case refused(MobulaError.Code, String)
  /// Sender: the header of a chunk; its bytes follow.
  case chunk(ChunkHeader)
  /// Sender: a small object, with the CRC32Cs of its chunks; all its bytes follow.
  case whole(ObjectID, objectSize: Int, chunkSize: Int, checksums: [UInt32])
  /// Sender: a small object that was wanted is not here, and does not come.
  case absent(ObjectID)
  /// Sender: no other chunk will come.
  case failed(MobulaError.Code, String)
  /// Sender: alive, but nothing is to be sent. Receiver: alive, but slow on purpose.
  case alive

  /// The longest frame, without its length: what is longer is refused unread.
  package static let maximumFrame = ByteCount(4096)
  /// Ranges in one offer, so that it fits into a frame.
  package static let maximumRanges = 500
  /// Bytes of the longest text in a message: what is longer is cut.
  static let maximumText = 2048
}

extension TransferMessage {
  private enum Kind: UInt8 {
    case open = 1, request, acknowledge, done, cancel, prioritize, openSmall, want
    case opened = 16, refused, chunk, failed, alive, offer, whole, absent
  }

  /// Offers of as many ranges as there are.
  package static func offers(_ ranges: [Range<Int>]) -> [TransferMessage] {
    stride(from: 0, to: ranges.count, by: maximumRanges).map {
      .offer(Array(ranges[$0..<min(ranges.count, $0 + maximumRanges)]))
    }
  }

  /// The whole frame, its length included.
  package var frame: [UInt8] {
    var body = FrameWriter()
    switch self {
    case .open(let object, let bulk, let priority):
      body.append(Kind.open.rawValue)
      body.append(object)
      body.append(priority.rawValue)
      body.append(text: bulk)
    case .prioritize(let priority):
      body.append(Kind.prioritize.rawValue)
      body.append(priority.rawValue)
    case .openSmall(let priority):
      body.append(Kind.openSmall.rawValue)
      body.append(priority.rawValue)
    case .want(let object):
      body.append(Kind.want.rawValue)
      body.append(object)
    case .whole(let object, let objectSize, let chunkSize, let checksums):
      body.append(Kind.whole.rawValue)
      body.append(object)
      body.append(UInt64(objectSize))
      body.append(UInt32(chunkSize))
      for checksum in checksums { body.append(checksum) }
    case .absent(let object):
      body.append(Kind.absent.rawValue)
      body.append(object)
    case .request(let index):
      body.append(Kind.request.rawValue)
      body.append(UInt32(index))
    case .cancel(let index):
      body.append(Kind.cancel.rawValue)
      body.append(UInt32(index))
    case .acknowledge(let index):
      body.append(Kind.acknowledge.rawValue)
      body.append(UInt32(index))
    case .done:
      body.append(Kind.done.rawValue)
    case .opened(let objectSize, let chunkSize, let wantsNews):
      body.append(Kind.opened.rawValue)
      body.append(UInt64(objectSize))
      body.append(UInt32(chunkSize))
      body.append(UInt8(wantsNews ? 1 : 0))
    case .offer(let ranges):
      body.append(Kind.offer.rawValue)
      for range in ranges {
        body.append(UInt32(range.lowerBound))
        body.append(UInt32(range.count))
      }
    case .refused(let code, let text):
      body.append(Kind.refused.rawValue)
      body.append(code: code, text: text)
    case .chunk(let header):
      body.append(Kind.chunk.rawValue)
      body.append(UInt32(header.index))
      body.append(UInt32(header.length))
      body.append(header.checksum)
    case .failed(let code, let text):
      body.append(Kind.failed.rawValue)
      body.append(code: code, text: text)
    case .alive:
      body.append(Kind.alive.rawValue)
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
      let object = try reader.readObject()
      let priority = try reader.readPriority()
      self = .open(object, bulk: reader.readText(), priority: priority)
    case .openSmall: self = .openSmall(try reader.readPriority())
    case .want: self = .want(try reader.readObject())
    case .whole:
      let object = try reader.readObject()
      let (objectSize, chunkSize) = (try reader.readSize(), try reader.readIndex())
      var checksums: [UInt32] = []
      while !reader.isAtEnd { checksums.append(try reader.read()) }
      self = .whole(object, objectSize: objectSize, chunkSize: chunkSize, checksums: checksums)
    case .absent: self = .absent(try reader.readObject())
    case .prioritize: self = .prioritize(try reader.readPriority())
    case .request: self = .request(try reader.readIndex())
    case .cancel: self = .cancel(try reader.readIndex())
    case .acknowledge: self = .acknowledge(try reader.readIndex())
    case .done: self = .done
    case .opened:
      self = .opened(
        objectSize: try reader.readSize(), chunkSize: try reader.readIndex(),
        wantsNews: try reader.read(UInt8.self) != 0)
    case .offer:
      var ranges: [Range<Int>] = []
      while !reader.isAtEnd {
        let first = try reader.readIndex()
        ranges.append(first..<first + (try reader.readIndex()))
      }
      self = .offer(ranges)
    case .refused:
      let (code, text) = try reader.readError()
      self = .refused(code, text)
    case .chunk:
      self = .chunk(
        ChunkHeader(index: try reader.readIndex(), length: try reader.readIndex(), checksum: try reader.read()))
    case .failed:
      let (code, text) = try reader.readError()
      self = .failed(code, text)
    case .alive: self = .alive
    case nil:
      throw MobulaError(
        .protocolViolation, "A peer sent a transfer message of an unknown kind: run the same version on all hosts.")
    }
    try reader.finish()
  }
}
