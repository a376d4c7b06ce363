/// Writes CBOR (RFC 8949) into a growing buffer, in preferred serialization:
/// every head, and every floating-point number, in its shortest form.
///
/// It writes what it is told: who writes an array's head also writes its elements.
package struct CBORWriter: Sendable {
  /// What was written.
  package internal(set) var bytes: [UInt8] = []

  /// A writer of nothing yet.
  package init() {}

  /// Writes a number from 0 on.
  package mutating func unsigned(_ value: UInt64) { head(.unsigned, value) }

  /// The number −1 − `complement`, which reaches down to −2⁶⁴.
  package mutating func negative(_ complement: UInt64) { head(.negative, complement) }

  /// Writes a number.
  package mutating func integer(_ value: Int64) {
    if value >= 0 { unsigned(UInt64(value)) } else { negative(UInt64(bitPattern: ~value)) }
  }

  /// Writes a byte string.
  package mutating func byteString(_ value: some Collection<UInt8>) {
    head(.bytes, UInt64(value.count))
    bytes.append(contentsOf: value)
  }

  /// A byte string of 16 bytes, the most significant first.
  mutating func byteString(words: (high: UInt64, low: UInt64)) {
    bytes.append(Major.bytes.rawValue << 5 | 16)
    append(bigEndian: words.high)
    append(bigEndian: words.low)
  }

  /// Writes a text.
  package mutating func text(_ value: String) {
    var value = value
    value.withUTF8 { utf8 in
      head(.text, UInt64(utf8.count))
      bytes.append(contentsOf: utf8)
    }
  }

  /// Begins an array: `count` values follow.
  package mutating func arrayHead(count: Int) { head(.array, UInt64(count)) }

  /// Begins a map: `count` times a key and a value follow.
  package mutating func mapHead(count: Int) { head(.map, UInt64(count)) }

  /// Puts a tag on the value that follows.
  package mutating func tag(_ number: UInt64) { head(.tag, number) }

  /// A simple value: 0 to 19, or 32 to 255, or one of those with a method of their own.
  package mutating func simple(_ number: UInt8) {
    precondition(number < 24 || number > 31, "simple value \(number) is reserved")
    head(.simple, UInt64(number))
  }

  /// Writes true or false.
  package mutating func boolean(_ value: Bool) { bytes.append(value ? 0xF5 : 0xF4) }

  /// Writes null.
  package mutating func null() { bytes.append(0xF6) }

  /// A number in 64, 32 or 16 bits, whatever is the shortest that keeps every bit of it (a NaN's payload too).
  package mutating func float(_ value: Double) {
    if let single = CBORFloat.single(exactly: value.bitPattern) {
      float(Float(bitPattern: single))
    } else {
      bytes.append(0xFB)
      append(bigEndian: value.bitPattern)
    }
  }

  /// A number in 32 or 16 bits.
  package mutating func float(_ value: Float) {
    if let half = CBORFloat.half(exactly: value.bitPattern) {
      bytes.append(0xF9)
      append(bigEndian: half)
    } else {
      bytes.append(0xFA)
      append(bigEndian: value.bitPattern)
    }
  }

  /// The eight major types, by the upper three bits of an item's first byte.
  enum Major: UInt8 { case unsigned, negative, bytes, text, array, map, tag, simple }

  mutating func head(_ major: Major, _ argument: UInt64) {
    let upper = major.rawValue << 5
    switch argument {
    case 0..<24: bytes.append(upper | UInt8(argument))
    case ...0xFF:
      bytes.append(upper | 24)
      bytes.append(UInt8(argument))
    case ...0xFFFF:
      bytes.append(upper | 25)
      append(bigEndian: UInt16(argument))
    case ...0xFFFF_FFFF:
      bytes.append(upper | 26)
      append(bigEndian: UInt32(argument))
    default:
      bytes.append(upper | 27)
      append(bigEndian: argument)
    }
  }

  private mutating func append(bigEndian value: some FixedWidthInteger) {
    withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
  }
}
