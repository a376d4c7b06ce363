/// Any CBOR item as a value, for tools and for what has no Swift type.
///
/// Definite and indefinite lengths, and the widths of numbers, are not told apart.
package enum CBORValue: Hashable, Sendable {
  /// A number from 0 on.
  case unsigned(UInt64)
  /// The number −1 − n.
  case negative(UInt64)
  /// A byte string.
  case bytes([UInt8])
  /// A text.
  case text(Name)
  /// Values in their order.
  case array([CBORValue])
  /// In the order they were written in; keys may be any values, and equal ones are kept.
  case map([Pair])
  /// A value with a tag.
  indirect case tagged(UInt64, CBORValue)
  /// One of the simple values: 20 and 21 are false and true, 22 is null, 23 undefined.
  case simple(UInt8)
  /// A floating-point number.
  case float(Double)

  /// One entry of a map.
  package struct Pair: Hashable, Sendable {
    /// Its key.
    package var key: CBORValue
    /// Its value.
    package var value: CBORValue

    /// An entry of this key and this value.
    package init(_ key: CBORValue, _ value: CBORValue) {
      self.key = key
      self.value = value
    }
  }

  /// The simple value 20.
  package static let `false` = Self.simple(20)
  /// The simple value 21.
  package static let `true` = Self.simple(21)
  /// The simple value 22.
  package static let null = Self.simple(22)
  /// The simple value 23.
  package static let undefined = Self.simple(23)

  /// Reads the one item that `bytes` are.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) for bytes that are no CBOR item, for bytes after it, for text
  ///   that is not in UTF-8, and for more than 64 levels of nesting.
  package init(decoding bytes: [UInt8]) throws(MobulaError) {
    self = try bytes.withUnsafeBufferPointer { bytes throws(MobulaError) in
      var reader = CBORReader(UnsafeRawBufferPointer(bytes))
      let value = try CBORValue(from: &reader, depth: 0)
      try reader.finish()
      return value
    }
  }

  /// Reads the next item of `reader`, which lies in `depth` others.
  init(from reader: inout CBORReader, depth: Int) throws(MobulaError) {
    let start = reader.offset
    guard depth <= CBORReader.maximumDepth else { throw reader.tooDeep(at: start) }
    let token = try reader.next()
    switch token {
    case .unsigned(let number): self = .unsigned(number)
    case .negative(let complement): self = .negative(complement)
    case .bytes, .chunkedBytes: self = .bytes(try reader.byteString(token) ?? [])
    case .text, .chunkedText: self = .text(Name(try reader.text(token) ?? ""))
    case .tag(let number): self = .tagged(number, try CBORValue(from: &reader, depth: depth + 1))
    case .simple(let number): self = .simple(number)
    case .half(let bits):
      self = .float(Double(bitPattern: CBORFloat.double(fromSingle: CBORFloat.single(fromHalf: bits))))
    case .single(let bits): self = .float(Double(bitPattern: CBORFloat.double(fromSingle: bits)))
    case .double(let bits): self = .float(Double(bitPattern: bits))
    case .array(let count):
      var left = count
      var elements: [CBORValue] = []
      while try reader.takeElement(&left) {
        elements.append(try CBORValue(from: &reader, depth: depth + 1))
      }
      self = .array(elements)
    case .map(let count):
      var left = count
      var pairs: [Pair] = []
      while try reader.takeElement(&left) {
        let key = try CBORValue(from: &reader, depth: depth + 1)
        pairs.append(Pair(key, try CBORValue(from: &reader, depth: depth + 1)))
      }
      self = .map(pairs)
    case .stop: throw reader.malformed("is the end of something that has not begun", at: start)
    }
  }

  /// The bytes of this value in preferred serialization, with definite lengths.
  package func encoded() -> [UInt8] {
    var writer = CBORWriter()
    write(to: &writer)
    return writer.bytes
  }

  /// Appends the item to what `writer` has.
  package func write(to writer: inout CBORWriter) {
    switch self {
    case .unsigned(let number): writer.unsigned(number)
    case .negative(let complement): writer.negative(complement)
    case .bytes(let bytes): writer.byteString(bytes)
    case .text(let text): writer.text(text.text)
    case .tagged(let number, let value):
      writer.tag(number)
      value.write(to: &writer)
    case .simple(let number): writer.simple(number)
    case .float(let number): writer.float(number)
    case .array(let elements):
      writer.arrayHead(count: elements.count)
      for element in elements { element.write(to: &writer) }
    case .map(let pairs):
      writer.mapHead(count: pairs.count)
      for pair in pairs {
        pair.key.write(to: &writer)
        pair.value.write(to: &writer)
      }
    }
  }
}
