/// Writes the part of ASN.1's distinguished encoding rules (X.690) that certificates are made of.
///
/// Each function returns a whole element: tag, length, content.
enum DER {
  enum Tag {
    static let boolean: UInt8 = 0x01
    static let integer: UInt8 = 0x02
    static let bitString: UInt8 = 0x03
    static let octetString: UInt8 = 0x04
    static let objectIdentifier: UInt8 = 0x06
    static let utf8String: UInt8 = 0x0C
    static let utcTime: UInt8 = 0x17
    static let generalizedTime: UInt8 = 0x18
    static let sequence: UInt8 = 0x30
    static let set: UInt8 = 0x31
    /// `[number]` around another element, or in place of a primitive's own tag.
    static func explicit(_ number: UInt8) -> UInt8 { 0xA0 | number }
    static func implicit(_ number: UInt8) -> UInt8 { 0x80 | number }
  }

  static func element(_ tag: UInt8, _ content: [UInt8]) -> [UInt8] {
    guard content.count >= 128 else { return [tag, UInt8(content.count)] + content }
    var length: [UInt8] = []
    var rest = content.count
    while rest > 0 {
      length.insert(UInt8(rest & 255), at: 0)
      rest >>= 8
    }
    return [tag, 0x80 | UInt8(length.count)] + length + content
  }

  static func sequence(_ elements: [UInt8]...) -> [UInt8] { element(Tag.sequence, elements.flatMap { $0 }) }
  static func set(_ elements: [UInt8]...) -> [UInt8] { element(Tag.set, elements.flatMap { $0 }) }
  static func octetString(_ content: [UInt8]) -> [UInt8] { element(Tag.octetString, content) }
  static func utf8String(_ text: String) -> [UInt8] { element(Tag.utf8String, Array(text.utf8)) }
  static func boolean(_ value: Bool) -> [UInt8] { element(Tag.boolean, [value ? 0xFF : 0]) }

  /// A whole number that is not negative, from its big-endian bytes.
  static func integer(_ magnitude: [UInt8]) -> [UInt8] {
    var bytes = Array(magnitude.drop { $0 == 0 })
    // A first bit of one would make it negative.
    if bytes.first.map({ $0 >= 0x80 }) ?? true { bytes.insert(0, at: 0) }
    return element(Tag.integer, bytes)
  }

  /// - Parameter unused: bits of the last byte that don't count.
  static func bitString(_ content: [UInt8], unused: UInt8 = 0) -> [UInt8] {
    element(Tag.bitString, [unused] + content)
  }

  static func objectIdentifier(_ parts: [Int]) -> [UInt8] {
    var content = [UInt8(parts[0] * 40 + parts[1])]
    for part in parts.dropFirst(2) {
      var digits = [UInt8(part & 127)]
      var rest = part >> 7
      while rest > 0 {
        digits.insert(0x80 | UInt8(rest & 127), at: 0)
        rest >>= 7
      }
      content += digits
    }
    return element(Tag.objectIdentifier, content)
  }
}

/// Takes elements from the front of encoded bytes, and believes none of their lengths.
struct DERReader {
  struct Malformed: Error {}

  private var rest: ArraySlice<UInt8>

  init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

  var isAtEnd: Bool { rest.isEmpty }
  var nextTag: UInt8? { rest.first }

  /// The next element's tag and content.
  mutating func read() throws(Malformed) -> (tag: UInt8, content: ArraySlice<UInt8>) {
    guard let tag = rest.popFirst(), let first = rest.popFirst() else { throw Malformed() }
    var length = Int(first)
    if first >= 0x80 {
      let count = Int(first & 127)
      guard 1...4 ~= count, rest.count >= count else { throw Malformed() }
      length = rest.prefix(count).reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(count)
    }
    guard rest.count >= length else { throw Malformed() }
    defer { rest = rest.dropFirst(length) }
    return (tag, rest.prefix(length))
  }

  /// The content of the next element, which must have this tag.
  mutating func read(_ tag: UInt8) throws(Malformed) -> ArraySlice<UInt8> {
    let element = try read()
    guard element.tag == tag else { throw Malformed() }
    return element.content
  }

  /// The elements inside the next one.
  mutating func enter(_ tag: UInt8 = DER.Tag.sequence) throws(Malformed) -> DERReader {
    DERReader(try read(tag))
  }
}
