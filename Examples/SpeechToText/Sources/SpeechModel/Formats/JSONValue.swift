/// A JSON document.
///
/// A parser of our own because a vocabulary needs what Foundation's doesn't give: the entries of an object in
/// their order and each of them, where a dictionary would merge strings that Unicode holds to be equivalent.
enum JSONValue: Sendable {
  case null
  case bool(Bool)
  case integer(Int)
  /// Also integers that `Int` can't hold; infinite where `Double` can't either.
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([(key: String, value: JSONValue)])

  /// Longer documents than any that belongs to a model; bounds what a hostile one makes us allocate.
  static let maximumByteCount = 16 << 20
  static let maximumDepth = 64

  /// - Throws: `badModel`, for whatever isn't one JSON value in UTF-8.
  static func parse(_ bytes: UnsafeRawBufferPointer, name: String) throws(SpeechError) -> JSONValue {
    guard bytes.count <= maximumByteCount else {
      throw SpeechError(
        .badModel, "\(name) is \(bytes.count) bytes long, more than the \(maximumByteCount) that are read of JSON.")
    }
    var parser = JSONParser(bytes: bytes, name: name)
    return try parser.document()
  }

  /// The last value of that key, as other readers have it; `nil` also where this is no object.
  subscript(key: String) -> JSONValue? {
    guard case .object(let entries) = self else { return nil }
    return entries.last { $0.key == key }?.value
  }

  var integer: Int? { if case .integer(let value) = self { value } else { nil } }
  var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  var string: String? { if case .string(let value) = self { value } else { nil } }
  var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
  var object: [(key: String, value: JSONValue)]? { if case .object(let value) = self { value } else { nil } }
  var double: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .number(let value): value
    default: nil
    }
  }
  var isNull: Bool { if case .null = self { true } else { false } }

  /// A string as JSON text.
  static func quoted(_ string: String) -> String {
    var result = "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

/// A recursive descent over bytes.
private struct JSONParser {
  let bytes: UnsafeRawBufferPointer
  let name: String
  var offset = 0
  var depth = 0

  private func fail(_ what: String) -> SpeechError {
    SpeechError(.badModel, "\(name) is not JSON: \(what) at byte \(offset).")
  }

  private var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

  mutating func document() throws(SpeechError) -> JSONValue {
    let value = try self.value()
    skipSpace()
    guard offset == bytes.count else { throw fail("something follows the value") }
    return value
  }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
  }

  /// Takes the byte if it comes next behind any space.
  private mutating func accept(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard let byte = next, byte == UInt8(ascii: character) else { return false }
    offset += 1
    return true
  }

  private mutating func value() throws(SpeechError) -> JSONValue {
    skipSpace()
    switch next {
    case UInt8(ascii: "{"): return try nested { (parser) throws(SpeechError) in try parser.object() }
    case UInt8(ascii: "["): return try nested { (parser) throws(SpeechError) in try parser.array() }
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    case UInt8(ascii: "-"): return try number()
    case let byte? where UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte: return try number()
    case nil: throw fail("it ends")
    default: throw fail("an unexpected character")
    }
  }

  private mutating func nested(
    _ body: (inout JSONParser) throws(SpeechError) -> JSONValue
  ) throws(SpeechError) -> JSONValue {
    guard depth < JSONValue.maximumDepth else { throw fail("values are nested deeper than \(JSONValue.maximumDepth)") }
    depth += 1
    offset += 1
    defer { depth -= 1 }
    return try body(&self)
  }

  private mutating func array() throws(SpeechError) -> JSONValue {
    var values: [JSONValue] = []
    if accept("]") { return .array(values) }
    repeat { values.append(try value()) } while accept(",")
    guard accept("]") else { throw fail("an array isn't closed") }
    return .array(values)
  }

  private mutating func object() throws(SpeechError) -> JSONValue {
    var entries: [(key: String, value: JSONValue)] = []
    if accept("}") { return .object(entries) }
    repeat {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw fail("a key is missing") }
      let key = try string()
      guard accept(":") else { throw fail("a colon is missing") }
      entries.append((key, try value()))
    } while accept(",")
    guard accept("}") else { throw fail("an object isn't closed") }
    return .object(entries)
  }

  private mutating func word(_ word: StaticString, _ value: JSONValue) throws(SpeechError) -> JSONValue {
    for index in 0..<word.utf8CodeUnitCount {
      guard next == word.utf8Start[index] else { throw fail("an unknown word") }
      offset += 1
    }
    return value
  }

  private mutating func number() throws(SpeechError) -> JSONValue {
    let start = offset
    while let byte = next, "+-.eE0123456789".utf8.contains(byte) { offset += 1 }
    guard let text = text(UnsafeRawBufferPointer(rebasing: bytes[start..<offset])) else { throw fail("a bad number") }
    if let integer = Int(text) { return .integer(integer) }
    guard let double = Double(text) else { throw fail("a bad number") }
    return .number(double)
  }

  private mutating func string() throws(SpeechError) -> String {
    offset += 1
    var start = offset
    var result = ""
    func piece(_ end: Int) throws(SpeechError) -> String {
      guard let text = text(UnsafeRawBufferPointer(rebasing: bytes[start..<end])) else {
        throw fail("a string that isn't UTF-8")
      }
      return text
    }
    while let byte = next {
      switch byte {
      case UInt8(ascii: "\""):
        let last = try piece(offset)
        offset += 1
        return result.isEmpty ? last : result + last
      case UInt8(ascii: "\\"):
        result += try piece(offset)
        offset += 1
        result.unicodeScalars.append(try escape())
        start = offset
      case 0..<0x20: throw fail("a control character in a string")
      default: offset += 1
      }
    }
    throw fail("a string isn't closed")
  }

  private mutating func escape() throws(SpeechError) -> Unicode.Scalar {
    guard let byte = next else { throw fail("it ends") }
    offset += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"):
      let unit = try hexadecimal()
      if let scalar = Unicode.Scalar(unit) { return scalar }
      guard unit < 0xDC00, next == UInt8(ascii: "\\") else { throw fail("half a surrogate pair") }
      offset += 1
      guard next == UInt8(ascii: "u") else { throw fail("half a surrogate pair") }
      offset += 1
      let low = try hexadecimal()
      guard 0xDC00...0xDFFF ~= low, let scalar = Unicode.Scalar(0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00))
      else { throw fail("half a surrogate pair") }
      return scalar
    default: throw fail("an unknown escape")
    }
  }

  private mutating func hexadecimal() throws(SpeechError) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw fail("a bad escape")
      }
      value = value << 4 | UInt32(digit)
      offset += 1
    }
    return value
  }
}
