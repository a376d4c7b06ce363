internal import MobulaCore

/// What lies behind an object's bytes in its segment, at the next multiple of 8: all that a store that
/// is started again has to know of it.
///
/// | bytes | what |
/// |---|---|
/// | 0..<8 | `MBOBJ001` |
/// | 8..<24 | the object's id, two words |
/// | 24..<32 | bytes of the object |
/// | 32..<36 | CRC32C of the trailer, with zeros in this place |
/// | 36..<40 | how many objects it contains references to, n |
/// | 40..<44 | base 2 logarithm of the chunk size |
/// | 44..<48 | zeros |
/// | then | the chunks' CRC32Cs, 4 bytes each; zeros up to a multiple of 8; n ids of 16 bytes |
///
/// Numbers are in the machine's order: it never leaves the host.
struct ObjectTrailer: Hashable, Sendable {
  static let magic: UInt64 = 0x3130_304A_424F_424D
  static let fixedSize = 48
  static let maximumContained = 1 << 24

  var object: ObjectID
  var geometry: ChunkGeometry
  var checksums: [UInt32]
  var contains: [ObjectID]

  var digest: ObjectDigest { ObjectDigest(geometry: geometry, checksums: checksums) }

  /// Where the trailer of an object of `size` bytes begins, from its first byte.
  static func offset(objectSize size: Int) -> Int { (size + 7) & ~7 }

  /// The most objects that one of `size` bytes can contain references to: each takes 16 of these bytes, and more.
  static func largestContained(objectSize size: Int) -> Int { min(maximumContained, size / 16) }

  /// Whether an object of `size` bytes can have a trailer of `trailerSize` bytes.
  static func isPossible(objectSize size: Int, chunkShift: Int, trailerSize: Int) -> Bool {
    guard 16...26 ~= chunkShift, let geometry = try? ChunkGeometry(objectSize: size, chunkSize: 1 << chunkShift) else {
      return false
    }
    let rest = trailerSize - Self.size(chunks: geometry.count, contained: 0)
    return rest >= 0 && rest % 16 == 0 && rest / 16 <= largestContained(objectSize: size)
  }

  /// Bytes of a trailer.
  static func size(chunks: Int, contained: Int) -> Int { fixedSize + (chunks * 4 + 7) & ~7 + contained * 16 }

  /// Bytes of an object with its trailer.
  static func footprint(_ geometry: ChunkGeometry, contained: Int) -> Int {
    offset(objectSize: geometry.objectSize) + size(chunks: geometry.count, contained: contained)
  }

  /// Writes it behind the object whose bytes begin `memory`.
  ///
  /// - Precondition: `memory` has `footprint` bytes.
  static func write(
    _ object: ObjectID, _ geometry: ChunkGeometry, checksums: some Collection<UInt32>, contains: [ObjectID],
    to memory: UnsafeMutableRawBufferPointer
  ) {
    let start = offset(objectSize: geometry.objectSize)
    let size = size(chunks: geometry.count, contained: contains.count)
    let trailer = UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + size])
    for gap in geometry.objectSize..<start { memory[gap] = 0 }
    trailer.storeBytes(of: magic, as: UInt64.self)
    trailer.storeBytes(of: object.high, toByteOffset: 8, as: UInt64.self)
    trailer.storeBytes(of: object.low, toByteOffset: 16, as: UInt64.self)
    trailer.storeBytes(of: UInt64(geometry.objectSize), toByteOffset: 24, as: UInt64.self)
    trailer.storeBytes(of: UInt64(contains.count) << 32, toByteOffset: 32, as: UInt64.self)
    trailer.storeBytes(of: UInt64(geometry.chunkShift), toByteOffset: 40, as: UInt64.self)
    var at = fixedSize
    for checksum in checksums {
      trailer.storeBytes(of: checksum, toByteOffset: at, as: UInt32.self)
      at += 4
    }
    if at & 7 != 0 {
      trailer.storeBytes(of: 0, toByteOffset: at, as: UInt32.self)
      at += 4
    }
    for inner in contains {
      trailer.storeBytes(of: inner.high, toByteOffset: at, as: UInt64.self)
      trailer.storeBytes(of: inner.low, toByteOffset: at + 8, as: UInt64.self)
      at += 16
    }
    trailer.storeBytes(of: crc32c(UnsafeRawBufferPointer(trailer)), toByteOffset: 32, as: UInt32.self)
  }

  /// Whether a trailer is the one of this object and whole, as it lies there: without a copy, but its maker may change
  /// it a moment later.
  ///
  /// - Parameters:
  ///   - size: bytes of the object.
  ///   - trailer: what lies behind them, as long as it is said to be; `isPossible`.
  static func isWhole(
    _ object: ObjectID, size objectSize: Int, chunkShift: Int, _ trailer: UnsafeRawBufferPointer
  ) -> Bool {
    guard trailer.count >= fixedSize, isAligned(trailer) else { return false }
    let counts = trailer.load(fromByteOffset: 32, as: UInt64.self)
    let chunks = (objectSize + (1 << chunkShift) - 1) >> chunkShift
    return trailer.load(as: UInt64.self) == magic
      && trailer.load(fromByteOffset: 8, as: UInt64.self) == object.high
      && trailer.load(fromByteOffset: 16, as: UInt64.self) == object.low
      && trailer.load(fromByteOffset: 24, as: UInt64.self) == UInt64(objectSize)
      && trailer.load(fromByteOffset: 40, as: UInt64.self) == UInt64(chunkShift)
      && trailer.count == size(chunks: chunks, contained: Int(counts >> 32))
      && checksum(of: trailer) == UInt32(truncatingIfNeeded: counts)
  }

  private static func isAligned(_ trailer: UnsafeRawBufferPointer) -> Bool {
    UInt(bitPattern: trailer.baseAddress) & 7 == 0
  }

  /// The CRC32C of a trailer, with zeros in the place that holds it.
  private static func checksum(of trailer: UnsafeRawBufferPointer) -> UInt32 {
    let front = crc32c(UnsafeRawBufferPointer(rebasing: trailer[..<32]))
    let middle = withUnsafeBytes(of: UInt32(0)) { crc32c($0, continuing: front) }
    return crc32c(UnsafeRawBufferPointer(rebasing: trailer[36...]), continuing: middle)
  }

  /// Reads the trailer of the object whose bytes begin `memory`; `nil` unless it is the right one and whole.
  ///
  /// - Parameter memory: the object with its trailer, as long as it is said to be. No more is copied of it than the
  ///   trailer of an object of that size can have.
  static func read(
    _ object: ObjectID, size objectSize: Int, from memory: UnsafeRawBufferPointer
  ) -> ObjectTrailer? {
    let start = offset(objectSize: objectSize)
    guard objectSize > 0, memory.count - start >= fixedSize else { return nil }
    let shift = memory.loadUnaligned(fromByteOffset: start + 40, as: UInt64.self)
    guard shift < 63, isPossible(objectSize: objectSize, chunkShift: Int(shift), trailerSize: memory.count - start),
      let geometry = try? ChunkGeometry(objectSize: objectSize, chunkSize: 1 << Int(shift))
    else { return nil }
    // Copied first: its maker may still be writing, and what is checked must be what is used.
    let bytes = Array(memory[start...])
    return bytes.withUnsafeBytes { trailer -> ObjectTrailer? in
      guard isWhole(object, size: objectSize, chunkShift: geometry.chunkShift, trailer) else { return nil }
      let contained = Int(trailer.load(fromByteOffset: 36, as: UInt32.self))
      var at = fixedSize
      let checksums = (0..<geometry.count).map { trailer.load(fromByteOffset: at + $0 * 4, as: UInt32.self) }
      at += (geometry.count * 4 + 7) & ~7
      let contains = (0..<contained).map { index in
        ObjectID(
          high: trailer.load(fromByteOffset: at + index * 16, as: UInt64.self),
          low: trailer.load(fromByteOffset: at + index * 16 + 8, as: UInt64.self))
      }
      return ObjectTrailer(object: object, geometry: geometry, checksums: checksums, contains: contains)
    }
  }
}
