/// Reads CBOR (RFC 8949), one token at a time, from memory that it does not own.
///
/// Believes no length before it has compared it with the bytes that are left.
/// After an error, what the reader would read next is undefined.
package struct CBORReader {
  /// How many arrays, maps and tags may lie inside each other.
  package static let maximumDepth = 64

  /// The head of an item, and with it what has no items inside.
  package enum Token {
    /// A number from 0 on.
    case unsigned(UInt64)
    /// The number −1 − n.
    case negative(UInt64)
    /// Bytes that stay where they are.
    case bytes(UnsafeRawBufferPointer)
    /// Text in what ought to be UTF-8, not checked yet.
    case text(UnsafeRawBufferPointer)
    /// Byte strings follow, up to a break.
    case chunkedBytes
    /// Texts follow, up to a break.
    case chunkedText
    /// So many values follow; up to a break if `nil`.
    case array(count: Int?)
    /// So many pairs of key and value follow; up to a break if `nil`.
    case map(count: Int?)
    /// A tag on the value that follows.
    case tag(UInt64)
    /// One of the simple values: 20 and 21 are false and true, 22 is null, 23 undefined.
    case simple(UInt8)
    /// The bits of a number in half precision.
    case half(UInt16)
    /// The bits of a number in single precision.
    case single(UInt32)
    /// The bits of a number in double precision.
    case double(UInt64)
    /// The end of an item of indefinite length.
    case stop
  }

  private let bytes: UnsafeRawBufferPointer
  /// Where the next token begins.
  package internal(set) var offset: Int

  /// A reader of `bytes`, which must outlive it and all the tokens it returns.
  package init(_ bytes: UnsafeRawBufferPointer, at offset: Int = 0) {
    self.bytes = bytes
    self.offset = offset
  }

  /// Whether there are no more bytes.
  package var isAtEnd: Bool { offset >= bytes.count }

  /// - Throws: `MobulaError` (`protocolViolation`) when the bytes end early or are no CBOR.
  package mutating func next() throws(MobulaError) -> Token {
    let start = offset
    let initial = try load(UInt8.self)
    let information = initial & 0x1F
    let argument: UInt64
    switch information {
    case 0..<24: argument = UInt64(information)
    case 24: argument = UInt64(try load(UInt8.self))
    case 25: argument = UInt64(try load(UInt16.self))
    case 26: argument = UInt64(try load(UInt32.self))
    case 27: argument = try load(UInt64.self)
    case 31: return try unbounded(initial, at: start)
    default: throw malformed("has the reserved first byte \(initial)", at: start)
    }
    switch initial >> 5 {
    case 0: return .unsigned(argument)
    case 1: return .negative(argument)
    case 2: return .bytes(try take(argument, at: start))
    case 3: return .text(try take(argument, at: start))
    case 4: return .array(count: try believe(argument, bytesEach: 1, at: start))
    case 5: return .map(count: try believe(argument, bytesEach: 2, at: start))
    case 6: return .tag(argument)
    default:
      switch information {
      case 25: return .half(UInt16(argument))
      case 26: return .single(UInt32(argument))
      case 27: return .double(argument)
      case 24 where argument < 32: throw malformed("has the simple value \(argument) in two bytes", at: start)
      default: return .simple(UInt8(argument))
      }
    }
  }

  private func unbounded(_ initial: UInt8, at start: Int) throws(MobulaError) -> Token {
    switch initial >> 5 {
    case 2: .chunkedBytes
    case 3: .chunkedText
    case 4: .array(count: nil)
    case 5: .map(count: nil)
    case 7: .stop
    default: throw malformed("has the reserved first byte \(initial)", at: start)
    }
  }

  private mutating func load<T: FixedWidthInteger>(_ type: T.Type) throws(MobulaError) -> T {
    guard bytes.count - offset >= MemoryLayout<T>.size else { throw endsEarly() }
    let value = bytes.loadUnaligned(fromByteOffset: offset, as: T.self)
    offset += MemoryLayout<T>.size
    return T(bigEndian: value)
  }

  private mutating func take(_ count: UInt64, at start: Int) throws(MobulaError) -> UnsafeRawBufferPointer {
    let count = try believe(count, bytesEach: 1, at: start)
    defer { offset += count }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
  }

  private func believe(_ count: UInt64, bytesEach: UInt64, at start: Int) throws(MobulaError) -> Int {
    let left = UInt64(bytes.count - offset)
    guard count <= left / bytesEach else {
      throw malformed("claims \(count) elements where \(left) bytes are left", at: start)
    }
    return Int(count)
  }

  func malformed(_ what: String, at start: Int) -> MobulaError {
    MobulaError(
      .protocolViolation, "The CBOR item at byte \(start) \(what): the sender is broken, or not a sender of CBOR.")
  }

  func endsEarly() -> MobulaError {
    MobulaError(
      .protocolViolation, "The CBOR ends early, after \(bytes.count) bytes: some of it was lost on the way here.")
  }
}
