internal import Crypto

/// How an object is cut into chunks: all of `chunkSize` bytes but the last.
public struct ChunkGeometry: Hashable, Sendable, Codable {
  /// Bytes of the object; at least one.
  public let objectSize: Int
  /// Bytes of a chunk: a power of two, from 64 KiB to 64 MiB.
  public let chunkSize: Int

  /// The smallest and the largest chunk.
  public static let chunkSizes = 65_536...67_108_864
  /// The most chunks, so that a size from outside makes nobody count, or reserve, without end.
  public static let maximumCount = 1 << 24

  /// - Throws: `MobulaError` (`protocolViolation`) for sizes that are not allowed, since they come from outside.
  public init(objectSize: Int, chunkSize: Int) throws(MobulaError) {
    guard objectSize > 0, Self.chunkSizes.contains(chunkSize), chunkSize & (chunkSize - 1) == 0,
      objectSize <= Self.maximumCount * chunkSize
    else {
      throw MobulaError(
        .protocolViolation,
        "An object of \(objectSize) bytes in chunks of \(chunkSize) is not possible: chunks are powers of two from 64 KiB to 64 MiB, objects not empty and of at most 16,777,216 chunks."
      )
    }
    self.objectSize = objectSize
    self.chunkSize = chunkSize
  }

  /// The usual geometry: up to 1024 chunks of 256 KiB or more, so that each is passed on soon after it left its
  /// maker; larger objects have more, of 8 MiB each.
  public init(objectSize: Int) throws(MobulaError) {
    var size = 262_144
    while size < 8_388_608, size * 1024 < objectSize { size *= 2 }
    try self.init(objectSize: objectSize, chunkSize: size)
  }

  /// How many chunks there are.
  public var count: Int { (objectSize + chunkSize - 1) / chunkSize }

  /// The bytes of the object that chunk `index` (from 0) holds.
  public func range(of index: Int) -> Range<Int> {
    precondition(index >= 0 && index < count, "chunk \(index) of \(count)")
    return index * chunkSize..<min(objectSize, (index + 1) * chunkSize)
  }

  private enum CodingKeys: String, CodingKey { case objectSize, chunkSize }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    try self.init(
      objectSize: container.decode(Int.self, forKey: .objectSize),
      chunkSize: container.decode(Int.self, forKey: .chunkSize))
  }
}

/// Which chunks of a replica are in and verified.
public struct ChunkMap: Hashable, Sendable {
  /// How many chunks there are.
  public let count: Int
  /// How many of them are verified.
  public private(set) var verifiedCount = 0
  @usableFromInline var words: [UInt64]

  /// No chunk of `count` verified yet.
  public init(count: Int) {
    self.count = count
    words = Array(repeating: 0, count: (count + 63) / 64)
  }

  /// Whether all are verified.
  public var isComplete: Bool { verifiedCount == count }

  /// Whether this chunk is verified.
  public func contains(_ index: Int) -> Bool {
    precondition(index >= 0 && index < count, "chunk \(index) of \(count)")
    return words[index >> 6] >> UInt64(index & 63) & 1 == 1
  }

  /// Sets the verified bit of a chunk; false when it was set before.
  @discardableResult
  public mutating func insert(_ index: Int) -> Bool {
    if contains(index) { return false }
    words[index >> 6] |= 1 << UInt64(index & 63)
    verifiedCount += 1
    return true
  }

  /// Every chunk of `count` verified.
  public init(completeOf count: Int) {
    self.init(count: count)
    for index in words.indices { words[index] = .max }
    if count % 64 != 0 { words[words.count - 1] = (1 << UInt64(count % 64)) - 1 }
    verifiedCount = count
  }

  /// Takes the verified bit of a chunk away; false when it was not set.
  @discardableResult
  public mutating func remove(_ index: Int) -> Bool {
    guard contains(index) else { return false }
    words[index >> 6] &= ~(1 << UInt64(index & 63))
    verifiedCount -= 1
    return true
  }

  /// Sets all bits of `other`, which has as many chunks.
  public mutating func formUnion(_ other: ChunkMap) {
    precondition(count == other.count, "maps of one object")
    verifiedCount = 0
    for index in words.indices {
      words[index] |= other.words[index]
      verifiedCount += words[index].nonzeroBitCount
    }
  }

  /// Calls `body` with each chunk of this map that is in none of `others`, from the lowest on, until it returns false.
  @inlinable
  public func forEach(notIn a: ChunkMap, _ b: ChunkMap? = nil, _ body: (Int) -> Bool) {
    precondition(count == a.count, "maps of one object")
    for index in words.indices {
      var word = words[index] & ~a.words[index]
      if let b { word &= ~b.words[index] }
      while word != 0 {
        if !body(index << 6 + word.trailingZeroBitCount) { return }
        word &= word - 1
      }
    }
  }

  /// The chunks of this map that are not in `other`, as ranges from the lowest on.
  public func ranges(notIn other: ChunkMap) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    forEach(notIn: other) { index in
      if let last = ranges.last, last.upperBound == index {
        ranges[ranges.count - 1] = last.lowerBound..<index + 1
      } else {
        ranges.append(index..<index + 1)
      }
      return true
    }
    return ranges
  }

  /// The lowest chunk of this map that is not in `other`.
  public func first(notIn other: ChunkMap) -> Int? {
    var found: Int?
    forEach(notIn: other) {
      found = $0
      return false
    }
    return found
  }

  /// The lowest chunk at or after `start` that is missing.
  public func firstMissing(from start: Int = 0) -> Int? {
    var index = start
    while index < count {
      let word = ~words[index >> 6] >> UInt64(index & 63)
      if word != 0 {
        index += word.trailingZeroBitCount
        return index < count ? index : nil
      }
      index = (index >> 6 + 1) << 6
    }
    return nil
  }
}

/// What an object's bytes are: SHA-256 over its size, its chunk size and the
/// CRC32Cs of its chunks, little-endian. Against accidents, not against forgery.
public struct ObjectDigest: Hashable, Sendable, Codable, CustomStringConvertible {
  // Words, since the head keeps one for each object, and a text of as many digits takes four times the memory.
  private let first, second, third, fourth: UInt64

  /// The digest of an object with these chunks and their CRC32Cs.
  public init(geometry: ChunkGeometry, checksums: [UInt32]) {
    precondition(checksums.count == geometry.count, "one checksum a chunk")
    var hash = SHA256()
    for word in [UInt64(geometry.objectSize), UInt64(geometry.chunkSize)] {
      withUnsafeBytes(of: word.littleEndian) { hash.update(bufferPointer: $0) }
    }
    for checksum in checksums {
      withUnsafeBytes(of: checksum.littleEndian) { hash.update(bufferPointer: $0) }
    }
    self.init(bytes: hash.finalize())
  }

  /// - Parameter bytes: 32 of them.
  private init(bytes: some Sequence<UInt8>) {
    var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: Array(bytes)) }
    (first, second, third, fourth) = words
  }

  /// Reads 64 hexadecimal digits; `nil` for anything else.
  private init?(_ text: String) {
    guard text.utf8.count == 64 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(32)
    var high: UInt8?
    for character in text.utf8 {
      let digit: UInt8
      switch character {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = character - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = character - UInt8(ascii: "a") + 10
      default: return nil
      }
      if let before = high {
        bytes.append(before << 4 | digit)
        high = nil
      } else {
        high = digit
      }
    }
    self.init(bytes: bytes)
  }

  /// 64 lower-case hexadecimal digits.
  public var description: String {
    hexadecimal(withUnsafeBytes(of: (first, second, third, fourth)) { Array($0) })
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let digest = Self(text) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "a digest has 64 hexadecimal digits, not \"\(text.prefix(80))\"")
    }
    self = digest
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

/// Lower-case hexadecimal digits of `bytes`.
public func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  let digits = Array("0123456789abcdef".utf8)
  var text: [UInt8] = []
  for byte in bytes {
    text.append(digits[Int(byte >> 4)])
    text.append(digits[Int(byte & 15)])
  }
  return String(decoding: text, as: UTF8.self)
}

extension ChunkGeometry {
  /// Base 2 logarithm of the chunk size.
  public var chunkShift: Int { chunkSize.trailingZeroBitCount }
}
