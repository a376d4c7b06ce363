public import MobulaCore

/// A model's stand-in: bytes that look random and follow from a size and a seed alone,
/// so that whoever knows these two can make any part of it, and check what arrived.
public struct SyntheticModel: Hashable, Sendable, Codable {
  /// Bytes.
  public let size: Int
  public let seed: UInt64

  public init(size: Int, seed: UInt64) {
    precondition(size >= 0, "a model of \(size) bytes")
    self.size = size
    self.seed = seed
  }

  /// What a model's bytes are: their number and the CRC32C of all of them.
  public struct Digest: Hashable, Sendable, Codable, CustomStringConvertible {
    public let size: Int
    public let crc32c: UInt32

    /// The digest of bytes at hand.
    public init(of bytes: UnsafeRawBufferPointer) {
      self.init(size: bytes.count, crc32c: MobulaCore.crc32c(bytes))
    }

    init(size: Int, crc32c: UInt32) {
      self.size = size
      self.crc32c = crc32c
    }

    public var description: String { "\(size) bytes, CRC32C \(String(crc32c, radix: 16))" }
  }

  /// Word `index` of 8 bytes, little-endian: SplitMix64 (Steele, Lea and Flood, 2014), whose
  /// state is a counter, so that any word can be had without those before it.
  @inline(__always)
  private func word(_ index: Int) -> UInt64 {
    var z = seed &+ UInt64(truncatingIfNeeded: index &+ 1) &* 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Writes the model's bytes from `offset` on into all of `buffer`, which must not reach beyond the model's end.
  public func fill(_ buffer: UnsafeMutableRawBufferPointer, from offset: Int = 0) {
    precondition(
      offset >= 0 && buffer.count <= size - offset, "bytes \(offset)+\(buffer.count) of a model of \(size)")
    var position = 0
    // Up to the first whole word, the whole words, and the rest.
    while position < buffer.count, (offset + position) & 7 != 0 {
      buffer[position] = byte(offset + position)
      position += 1
    }
    let first = (offset + position) >> 3
    let words = (buffer.count - position) >> 3
    for index in 0..<words {
      buffer.storeBytes(of: word(first + index).littleEndian, toByteOffset: position + index << 3, as: UInt64.self)
    }
    position += words << 3
    while position < buffer.count {
      buffer[position] = byte(offset + position)
      position += 1
    }
  }

  private func byte(_ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: word(index >> 3) >> UInt64((index & 7) << 3))
  }

  /// The bytes in `range`, for an upload in parts.
  public func bytes(in range: Range<Int>) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: range.count) { buffer, count in
      fill(
        UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<range.count]),
        from: range.lowerBound)
      count = range.count
    }
  }

  /// Ranges of `pieceSize` bytes that make up the model, the last one shorter.
  public func pieces(of pieceSize: Int) -> [Range<Int>] {
    stride(from: 0, to: size, by: pieceSize).map { $0..<min(size, $0 + pieceSize) }
  }

  /// Makes the model piece by piece to find its digest, without ever holding more than a megabyte of it.
  public func digest() -> Digest {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    defer { buffer.deallocate() }
    var checksum: UInt32 = 0
    for range in pieces(of: buffer.count) {
      let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
      fill(piece, from: range.lowerBound)
      checksum = crc32c(UnsafeRawBufferPointer(piece), continuing: checksum)
    }
    return Digest(size: size, crc32c: checksum)
  }

  /// Compares what a loader holds with `expected`.
  ///
  /// - Throws: `MobulaError` (`corrupted`) with both digests.
  public static func verify(_ bytes: UnsafeRawBufferPointer, against expected: Digest) throws(MobulaError) {
    let found = Digest(of: bytes)
    guard found == expected else {
      throw MobulaError(
        .corrupted, "The model that arrived (\(found)) is not the one that was sent (\(expected)): this is a bug.")
    }
  }
}
