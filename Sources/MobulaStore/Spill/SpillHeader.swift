internal import MobulaCore

/// What a spill file says of the object whose bytes follow.
///
/// A spill file is a header and the object's bytes, nothing after them. All numbers are
/// little-endian; n is the number of chunks, m the number of objects in `contains`.
///
/// | offset | bytes | what                                                           |
/// |-------:|------:|----------------------------------------------------------------|
/// |      0 |     8 | magic, the ASCII text `MBSP0001`                               |
/// |      8 |     8 | header length: where the object's bytes begin                  |
/// |     16 |     4 | CRC32C of the whole header but for these four bytes            |
/// |     20 |     4 | chunk size                                                     |
/// |     24 |    16 | object, the high word first                                    |
/// |     40 |     8 | object size                                                    |
/// |     48 |     8 | flags, of which only the store knows the meaning               |
/// |     56 |     8 | m                                                              |
/// |     64 |    4n | CRC32C of each chunk                                           |
/// |  64+4n |   16m | the objects that this one contains, each the high word first   |
/// |        |       | zeros up to the next multiple of 4096, part of the header      |
///
/// So every byte of a file is under a checksum. The header length follows from n and m, and
/// the file size from both lengths: a file for which they don't agree is damaged.
struct SpillHeader: Hashable, Sendable {
  let object: ObjectID
  let geometry: ChunkGeometry
  let flags: UInt64
  /// One CRC32C a chunk.
  let checksums: [UInt32]
  /// The objects whose references lie in this one's bytes.
  let contains: [ObjectID]

  /// Bytes before the checksums: all that tells how long the header is.
  static let prefixLength = 64
  /// The header's length, and so the offset of the object's bytes, is a multiple of this.
  static let alignment = 4096
  private static let magic: UInt64 = 0x3130_3030_5053_424D
  private static let checksumField = 16..<20

  init(object: ObjectID, geometry: ChunkGeometry, flags: UInt64, checksums: [UInt32], contains: [ObjectID]) {
    precondition(checksums.count == geometry.count, "one checksum a chunk")
    self.object = object
    self.geometry = geometry
    self.flags = flags
    self.checksums = checksums
    self.contains = contains
  }

  /// Bytes of the encoded header.
  var length: Int { Self.length(chunks: checksums.count, contains: contains.count) }
  /// Bytes of the whole file.
  var fileSize: Int { length + geometry.objectSize }

  private static func length(chunks: Int, contains: Int) -> Int {
    (prefixLength + 4 * chunks + 16 * contains + alignment - 1) / alignment * alignment
  }

  // MARK: Encoding

  func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: length)
    bytes.withUnsafeMutableBytes { bytes in
      func store(_ value: some FixedWidthInteger, at offset: Int) {
        bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: type(of: value))
      }
      store(Self.magic, at: 0)
      store(UInt64(bytes.count), at: 8)
      store(UInt32(geometry.chunkSize), at: 20)
      store(object.high, at: 24)
      store(object.low, at: 32)
      store(UInt64(geometry.objectSize), at: 40)
      store(flags, at: 48)
      store(UInt64(contains.count), at: 56)
      var offset = Self.prefixLength
      for checksum in checksums {
        store(checksum, at: offset)
        offset += 4
      }
      for inner in contains {
        store(inner.high, at: offset)
        store(inner.low, at: offset + 8)
        offset += 16
      }
      store(Self.checksum(of: UnsafeRawBufferPointer(bytes)), at: Self.checksumField.lowerBound)
    }
    return bytes
  }

  /// The CRC32C of a header, without the field that holds it.
  private static func checksum(of header: UnsafeRawBufferPointer) -> UInt32 {
    let front = crc32c(UnsafeRawBufferPointer(rebasing: header[..<checksumField.lowerBound]))
    return crc32c(UnsafeRawBufferPointer(rebasing: header[checksumField.upperBound...]), continuing: front)
  }

  // MARK: Decoding

  /// The fields of fixed size, whose numbers agree with each other and with the file's size.
  private struct Prefix {
    let object: ObjectID
    let geometry: ChunkGeometry
    let flags: UInt64
    let contains: Int
    let length: Int

    init(_ bytes: [UInt8], fileSize: Int, file: String) throws(MobulaError) {
      guard bytes.count >= prefixLength, bytes.load(UInt64.self, at: 0) == magic else {
        throw damaged(file, "it does not begin like a spill file")
      }
      guard let objectSize = Int(exactly: bytes.load(UInt64.self, at: 40)),
        let geometry = try? ChunkGeometry(objectSize: objectSize, chunkSize: Int(bytes.load(UInt32.self, at: 20)))
      else { throw damaged(file, "its object's size and its chunks' are not possible") }
      // Bounded by the file's size first, so that no sum overflows.
      guard let contains = Int(exactly: bytes.load(UInt64.self, at: 56)), contains <= fileSize / 16,
        case let length = SpillHeader.length(chunks: geometry.count, contains: contains),
        bytes.load(UInt64.self, at: 8) == UInt64(length), length + objectSize == fileSize
      else { throw damaged(file, "its lengths don't add up to its size of \(fileSize) bytes") }
      self.object = ObjectID(high: bytes.load(UInt64.self, at: 24), low: bytes.load(UInt64.self, at: 32))
      self.geometry = geometry
      self.flags = bytes.load(UInt64.self, at: 48)
      self.contains = contains
      self.length = length
    }
  }

  /// The header's whole length, at most `fileSize`, told from its first `prefixLength` bytes (more do no harm).
  ///
  /// - Parameters:
  ///   - fileSize: bytes of the file as it is, against which all lengths are checked.
  ///   - file: what an error calls the file.
  /// - Throws: `MobulaError` (`corrupted`).
  static func length(ofPrefix bytes: [UInt8], fileSize: Int, file: String) throws(MobulaError) -> Int {
    try Prefix(bytes, fileSize: fileSize, file: file).length
  }

  /// Reads a whole header; bytes after it do no harm.
  ///
  /// - Parameters: as of `length(ofPrefix:fileSize:file:)`.
  /// - Throws: `MobulaError` (`corrupted`).
  init(decoding bytes: [UInt8], fileSize: Int, file: String) throws(MobulaError) {
    let prefix = try Prefix(bytes, fileSize: fileSize, file: file)
    guard bytes.count >= prefix.length else { throw Self.damaged(file, "its header is cut off") }
    let checksum = bytes.withUnsafeBytes { Self.checksum(of: UnsafeRawBufferPointer(rebasing: $0[..<prefix.length])) }
    guard bytes.load(UInt32.self, at: Self.checksumField.lowerBound) == checksum else {
      throw Self.damaged(file, "its header's checksum is wrong")
    }
    let end = Self.prefixLength + 4 * prefix.geometry.count + 16 * prefix.contains
    guard bytes[end..<prefix.length].allSatisfy({ $0 == 0 }) else {
      throw Self.damaged(file, "its header has more in it than it says")
    }
    let chunks = prefix.geometry.count
    let inner = Self.prefixLength + 4 * chunks
    self.init(
      object: prefix.object, geometry: prefix.geometry, flags: prefix.flags,
      checksums: (0..<chunks).map { bytes.load(UInt32.self, at: Self.prefixLength + 4 * $0) },
      contains: (0..<prefix.contains).map {
        ObjectID(
          high: bytes.load(UInt64.self, at: inner + 16 * $0), low: bytes.load(UInt64.self, at: inner + 16 * $0 + 8))
      })
  }

  /// The error for a file that can't be what was written.
  static func damaged(_ file: String, _ how: String) -> MobulaError {
    MobulaError(.corrupted, "The spill file \(file) is damaged: \(how). Fetch its object again, or make it again.")
  }
}

extension [UInt8] {
  /// The little-endian number at `offset`.
  fileprivate func load<Word: FixedWidthInteger & BitwiseCopyable>(_ type: Word.Type, at offset: Int) -> Word {
    withUnsafeBytes { Word(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: type)) }
  }
}
