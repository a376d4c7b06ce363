import FoundationEssentials
import MobulaCore

/// Writes values as JSON, keys in the order of their bytes, each as often as it is there.
///
/// Foundation's encoder keeps an object as a dictionary of texts, in which two keys that differ in their Unicode form
/// are one: of two resources with such names it would print one. Dates are written as in RFC 3339.
struct ExactJSON {
  /// Whether a line is begun for each element and member.
  var isReadable = true

  /// - Parameter indentation: the spaces before each line but the first.
  /// - Throws: what the value throws; `EncodingError` for a number that is none.
  func encode(_ value: some Encodable, indentation: Int = 0) throws -> String {
    let node = JSONNode()
    try node.set(value, at: [])
    var text = ""
    node.write(to: &text, isReadable ? indentation : nil)
    return text
  }
}

/// A value on its way to text.
private final class JSONNode {
  enum Content {
    case text(String)
    case array([JSONNode])
    case object([Name: JSONNode])
  }

  private var content = Content.text("null")
  private var isSet = false

  var count: Int { if case .array(let elements) = content { elements.count } else { 0 } }

  func becomeObject() { if !isSet { set(.object([:])) } }

  func becomeArray() { if !isSet { set(.array([])) } }

  private func set(_ content: Content) {
    self.content = content
    isSet = true
  }

  func member(_ key: String) -> JSONNode {
    let node = JSONNode()
    guard case .object(var members) = content else { return node }
    // In place: it is the only one who has it.
    set(.text(""))
    members[Name(key)] = node
    set(.object(members))
    return node
  }

  func element() -> JSONNode {
    let node = JSONNode()
    guard case .array(var elements) = content else { return node }
    set(.text(""))
    elements.append(node)
    set(.array(elements))
    return node
  }

  func setNull() { set(.text("null")) }

  func set(_ value: some Encodable, at path: [any CodingKey]) throws {
    switch value {
    case let text as String: set(.text(Self.quoted(text)))
    case let flag as Bool: set(.text(flag ? "true" : "false"))
    case let number as any BinaryInteger: set(.text("\(number)"))
    case let number as Double: try set(.text(Self.text(number, at: path)))
    case let number as Float: try set(.text(Self.text(number, at: path)))
    case let date as Date: set(.text(Self.quoted(date.formatted(.iso8601))))
    default: try value.encode(to: JSONNodeEncoder(node: self, codingPath: path))
    }
    // Who encodes nothing is an empty object, as everywhere.
    if !isSet { set(.object([:])) }
  }

  private static func text<Number: BinaryFloatingPoint & LosslessStringConvertible>(
    _ number: Number, at path: [any CodingKey]
  ) throws -> String {
    guard number.isFinite else {
      throw EncodingError.invalidValue(
        number, EncodingError.Context(codingPath: path, debugDescription: "JSON has no \(number)."))
    }
    let text = number.description
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }

  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case "\u{8}": result += "\\b"
      case "\u{C}": result += "\\f"
      case "\0"..<" ":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }

  /// - Parameter indentation: of the line that it stands in; `nil` for no lines.
  func write(to text: inout String, _ indentation: Int?) {
    switch content {
    case .text(let own): text += own
    case .array(let elements):
      Self.write(elements, "[", "]", to: &text, indentation) { element, text, indentation in
        element.write(to: &text, indentation)
      }
    case .object(let members):
      Self.write(members.sorted { $0.key < $1.key }, "{", "}", to: &text, indentation) { member, text, indentation in
        text += Self.quoted(member.key.text) + (indentation == nil ? ":" : ": ")
        member.value.write(to: &text, indentation)
      }
    }
  }

  private static func write<Part>(
    _ parts: [Part], _ open: String, _ close: String, to text: inout String, _ indentation: Int?,
    _ write: (Part, inout String, Int?) -> Void
  ) {
    text += open
    for (index, part) in parts.enumerated() {
      if index > 0 { text += "," }
      if let indentation { text += "\n" + String(repeating: " ", count: indentation + 2) }
      write(part, &text, indentation.map { $0 + 2 })
    }
    if let indentation, !parts.isEmpty { text += "\n" + String(repeating: " ", count: indentation) }
    text += close
  }
}

private struct JSONNodeEncoder: Encoder, SingleValueEncodingContainer {
  let node: JSONNode
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    node.becomeObject()
    return KeyedEncodingContainer(JSONKeyedEncoding<Key>(node: node, codingPath: codingPath))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    node.becomeArray()
    return JSONUnkeyedEncoding(node: node, codingPath: codingPath)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer { self }

  func encodeNil() throws { node.setNull() }

  func encode<T: Encodable>(_ value: T) throws { try node.set(value, at: codingPath) }
}

private struct JSONKeyedEncoding<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let node: JSONNode
  let codingPath: [any CodingKey]

  func encodeNil(forKey key: Key) throws { node.member(key.stringValue).setNull() }

  func encode<T: Encodable>(_ value: T, forKey key: Key) throws {
    try node.member(key.stringValue).set(value, at: codingPath + [key])
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) -> KeyedEncodingContainer<Nested> { encoder(key).container(keyedBy: type) }

  func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer { encoder(key).unkeyedContainer() }

  func superEncoder() -> any Encoder { JSONNodeEncoder(node: node.member("super"), codingPath: codingPath) }

  func superEncoder(forKey key: Key) -> any Encoder { encoder(key) }

  private func encoder(_ key: Key) -> JSONNodeEncoder {
    JSONNodeEncoder(node: node.member(key.stringValue), codingPath: codingPath + [key])
  }
}

private struct JSONUnkeyedEncoding: UnkeyedEncodingContainer {
  let node: JSONNode
  let codingPath: [any CodingKey]
  var count: Int { node.count }

  func encodeNil() throws { node.element().setNull() }

  func encode<T: Encodable>(_ value: T) throws { try node.element().set(value, at: codingPath) }

  func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
    superEncoder().container(keyedBy: type)
  }

  func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { superEncoder().unkeyedContainer() }

  func superEncoder() -> any Encoder { JSONNodeEncoder(node: node.element(), codingPath: codingPath) }
}
