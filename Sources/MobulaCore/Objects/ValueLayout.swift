/// How a value lies in an object: a table, a CBOR header, then the value's big
/// buffers, each on a 64-byte boundary so that it can be used in place.
///
/// | bytes | what |
/// |---|---|
/// | 0..<4 | `MBv1` |
/// | 4..<8 | length of the CBOR header |
/// | 8..<12 | number of buffers, n |
/// | 12..<16 | flags: bit 0 says that the header is an error, a `MobulaError` (with a `code`) or a `WorkError` |
/// | 16..<16+16n | offset and length of each buffer |
/// | then | the CBOR header, zeros up to a multiple of 64, the buffers with zeros between them |
///
/// Numbers are little-endian; offsets count from the object's first byte.
public struct ValueLayout: Sendable, Hashable {
  /// Where the CBOR header lies.
  public let header: Range<Int>
  /// Where each buffer lies.
  public let buffers: [Range<Int>]
  /// Whether the header is an error: the task that was to make this value failed.
  public let isError: Bool
  /// Bytes of the whole object.
  public let size: Int

  /// `MBv1`, as a little-endian number.
  private static let magic: UInt32 = 0x3176_424D
  /// More buffers than this a value can't have.
  public static let maximumBuffers = 1 << 20

  /// Lays out a header of `headerSize` bytes and buffers of the given sizes.
  public init(headerSize: Int, bufferSizes: [Int], isError: Bool = false) {
    let start = 16 + 16 * bufferSizes.count
    header = start..<start + headerSize
    var end = header.upperBound
    var buffers: [Range<Int>] = []
    for size in bufferSizes {
      let offset = (end + 63) & ~63
      end = offset + size
      buffers.append(offset..<end)
    }
    self.buffers = buffers
    self.isError = isError
    size = end
  }

  /// Everything in front of the first buffer (the whole object when there is none).
  public func prefix(header bytes: [UInt8]) -> [UInt8] {
    Array(unsafeUninitializedCapacity: prefixSize) { prefix, initialized in
      writePrefix(header: bytes, into: UnsafeMutableRawBufferPointer(prefix))
      initialized = prefixSize
    }
  }

  /// Bytes in front of the first buffer.
  public var prefixSize: Int { buffers.first?.lowerBound ?? size }

  /// Writes the prefix to where the object begins; `memory` has at least `prefixSize` bytes.
  public func writePrefix(header bytes: [UInt8], into memory: UnsafeMutableRawBufferPointer) {
    precondition(bytes.count == header.count, "the header that was laid out")
    writeTable(into: memory)
    UnsafeMutableRawBufferPointer(rebasing: memory[header]).copyBytes(from: bytes)
    UnsafeMutableRawBufferPointer(rebasing: memory[header.upperBound..<prefixSize])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// Writes what comes before the header; `memory` has at least `header.lowerBound` bytes.
  public func writeTable(into memory: UnsafeMutableRawBufferPointer) {
    for (index, word) in [Self.magic, UInt32(header.count), UInt32(buffers.count), isError ? 1 : 0].enumerated() {
      memory.storeBytes(of: word.littleEndian, toByteOffset: 4 * index, as: UInt32.self)
    }
    for (index, range) in buffers.enumerated() {
      memory.storeBytes(of: UInt64(range.lowerBound).littleEndian, toByteOffset: 16 + 16 * index, as: UInt64.self)
      memory.storeBytes(of: UInt64(range.count).littleEndian, toByteOffset: 24 + 16 * index, as: UInt64.self)
    }
  }

  /// Reads the layout of an object.
  ///
  /// - Throws: `MobulaError` (`corrupted`) when the bytes are not a value's.
  public init(reading object: UnsafeRawBufferPointer) throws(MobulaError) {
    func damaged(_ what: String) -> MobulaError {
      MobulaError(.corrupted, "The object is not a value of Mobula's: \(what).")
    }
    func word32(_ at: Int) -> Int {
      Int(UInt32(littleEndian: object.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
    }
    func word64(_ at: Int) -> UInt64 { UInt64(littleEndian: object.loadUnaligned(fromByteOffset: at, as: UInt64.self)) }
    guard object.count >= 16, word32(0) == Int(Self.magic) else { throw damaged("it does not begin like one") }
    let headerSize = word32(4)
    let count = word32(8)
    guard word32(12) <= 1 else { throw damaged("unknown flags") }
    guard count <= Self.maximumBuffers, 16 + 16 * count + headerSize <= object.count else {
      throw damaged("its table says more than its \(object.count) bytes can hold")
    }
    header = 16 + 16 * count..<16 + 16 * count + headerSize
    var end = header.upperBound
    var buffers: [Range<Int>] = []
    buffers.reserveCapacity(count)
    for index in 0..<count {
      let offset = word64(16 + 16 * index)
      let length = word64(24 + 16 * index)
      guard offset >= UInt64(end), offset & 63 == 0, offset <= UInt64(object.count),
        length <= UInt64(object.count) - offset
      else { throw damaged("buffer \(index) lies outside") }
      end = Int(offset + length)
      buffers.append(Int(offset)..<end)
    }
    self.buffers = buffers
    isError = word32(12) & 1 == 1
    size = end
  }

  /// The layout of one buffer and nothing else: what a file or an S3 object becomes.
  public static func blob(size: Int) -> (layout: ValueLayout, prefix: [UInt8]) {
    let layout = ValueLayout(headerSize: 1, bufferSizes: [size])
    // CBOR's 0: the value is the buffer with index 0.
    return (layout, layout.prefix(header: [0]))
  }
}
