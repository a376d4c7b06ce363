/// An XML element with its text and children; attributes and namespaces don't matter to S3's answers.
struct XMLTree: Sendable {
  let name: String
  /// The element's own text, exactly: keys may begin or end with spaces.
  var text = ""
  var children: [XMLTree] = []

  subscript(name: String) -> String? { children.first { $0.name == name }?.text }

  /// Reads a whole document in UTF-8; `nil` when it is not well-formed, declares entities, or is nested deeper than any
  /// answer of S3's.
  static func parse(_ bytes: [UInt8]) -> XMLTree? {
    guard let text = String(validating: bytes, as: UTF8.self), text.unicodeScalars.allSatisfy(\.isInXML) else {
      return nil
    }
    var parser = XMLDocumentParser(bytes: bytes)
    return try? parser.document()
  }
}

/// Reads what of XML services answer with (XML 1.0, without document types): so little that no library is needed for it.
private struct XMLDocumentParser {
  struct NotWellFormed: Error {}

  /// An element whose end is still to come.
  private struct Open {
    /// With its prefix, as its end has it.
    var tag: ArraySlice<UInt8>
    var text: [UInt8] = []
    var children: [XMLTree] = []

    var element: XMLTree {
      let local = tag.lastIndex(of: UInt8(ascii: ":")).map { tag[($0 + 1)...] } ?? tag
      return XMLTree(
        name: String(decoding: local, as: UTF8.self), text: String(decoding: text, as: UTF8.self), children: children)
    }
  }

  private static let maximumDepth = 32
  private let bytes: [UInt8]
  private var offset = 0
  private var open: [Open] = []

  init(bytes: [UInt8]) { self.bytes = bytes }

  mutating func document() throws(NotWellFormed) -> XMLTree {
    if starts("\u{FEFF}") { offset += 3 }
    var root: XMLTree?
    while offset < bytes.count {
      if let element = try next() {
        guard root == nil else { throw NotWellFormed() }
        root = element
      }
    }
    guard let root, open.isEmpty else { throw NotWellFormed() }
    return root
  }

  /// Reads a tag, or what lies between two.
  ///
  /// - Returns: the outermost element at its end.
  private mutating func next() throws(NotWellFormed) -> XMLTree? {
    if bytes[offset] != UInt8(ascii: "<") {
      try text()
    } else if skip("<?") {
      _ = try until("?>")
    } else if skip("<!--") {
      _ = try until("-->")
    } else if skip("<![CDATA[") {
      guard !open.isEmpty else { throw NotWellFormed() }
      open[open.count - 1].text += try until("]]>")
    } else if skip("</") {
      let tag = try until(">")
      guard let last = open.popLast(), withoutSpaces(tag).elementsEqual(last.tag) else {
        throw NotWellFormed()
      }
      return close(last)
    } else {
      offset += 1
      return try start()
    }
    return nil
  }

  private mutating func close(_ last: Open) -> XMLTree? {
    if open.isEmpty { return last.element }
    open[open.count - 1].children.append(last.element)
    return nil
  }

  /// A start, behind its `<`; of an empty element the end, too.
  private mutating func start() throws(NotWellFormed) -> XMLTree? {
    let tag = try name()
    guard open.count < Self.maximumDepth else { throw NotWellFormed() }
    while true {
      let hasSpace = skipSpaces()
      if skip("/>") { return close(Open(tag: tag)) }
      if skip(">") {
        open.append(Open(tag: tag))
        return nil
      }
      guard hasSpace else { throw NotWellFormed() }
      _ = try name()
      skipSpaces()
      guard skip("=") else { throw NotWellFormed() }
      skipSpaces()
      guard let quote = ["\"", "'"].first(where: { starts($0) }), skip(quote) else { throw NotWellFormed() }
      let value = try until(quote)
      guard !value.contains(UInt8(ascii: "<")) else { throw NotWellFormed() }
    }
  }

  private mutating func name() throws(NotWellFormed) -> ArraySlice<UInt8> {
    let end = bytes[offset...].firstIndex { isSpace($0) || Self.endsOfNames.contains($0) } ?? bytes.count
    guard end > offset, !(UInt8(ascii: "0")...UInt8(ascii: "9") ~= bytes[offset]), bytes[offset] != UInt8(ascii: "!")
    else { throw NotWellFormed() }
    defer { offset = end }
    return bytes[offset..<end]
  }

  private static let endsOfNames = Array("<>/=\"'&".utf8)

  /// Text up to the next tag. Ends of lines are one character, unless they are written as references.
  private mutating func text() throws(NotWellFormed) {
    let end = bytes[offset...].firstIndex(of: UInt8(ascii: "<")) ?? bytes.count
    var text: [UInt8] = []
    while offset < end {
      let byte = bytes[offset]
      offset += 1
      switch byte {
      case UInt8(ascii: "&"): text += try reference(before: end)
      case 0x0D:
        text.append(0x0A)
        if offset < end, bytes[offset] == 0x0A { offset += 1 }
      default: text.append(byte)
      }
    }
    if open.isEmpty {
      guard text.allSatisfy({ isSpace($0) }) else { throw NotWellFormed() }
    } else {
      open[open.count - 1].text += text
    }
  }

  /// What stands for a character, behind its `&`.
  private mutating func reference(before end: Int) throws(NotWellFormed) -> [UInt8] {
    guard let stop = bytes[offset..<min(end, offset + 12)].firstIndex(of: UInt8(ascii: ";")) else {
      throw NotWellFormed()
    }
    let name = String(decoding: bytes[offset..<stop], as: UTF8.self)
    offset = stop + 1
    switch name {
    case "lt": return [UInt8(ascii: "<")]
    case "gt": return [UInt8(ascii: ">")]
    case "amp": return [UInt8(ascii: "&")]
    case "quot": return [UInt8(ascii: "\"")]
    case "apos": return [UInt8(ascii: "'")]
    default:
      let digits = name.dropFirst(name.hasPrefix("#x") ? 2 : 1)
      guard name.hasPrefix("#"), digits.first?.isHexDigit == true,
        let value = UInt32(digits, radix: name.hasPrefix("#x") ? 16 : 10),
        let scalar = Unicode.Scalar(value), scalar.isInXML
      else { throw NotWellFormed() }
      return Array(String(Character(scalar)).utf8)
    }
  }

  // MARK: Pieces

  private func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }

  private func starts(_ text: String) -> Bool { bytes[offset...].starts(with: text.utf8) }

  private mutating func skip(_ text: String) -> Bool {
    guard starts(text) else { return false }
    offset += text.utf8.count
    return true
  }

  @discardableResult private mutating func skipSpaces() -> Bool {
    let before = offset
    while offset < bytes.count, isSpace(bytes[offset]) { offset += 1 }
    return offset > before
  }

  /// What comes before `end`, which is passed.
  private mutating func until(_ end: String) throws(NotWellFormed) -> ArraySlice<UInt8> {
    let first = end.utf8.first!
    var index = offset
    while let found = bytes[index...].firstIndex(of: first) {
      if bytes[found...].starts(with: end.utf8) {
        defer { offset = found + end.utf8.count }
        return bytes[offset..<found]
      }
      index = found + 1
    }
    throw NotWellFormed()
  }

  private func withoutSpaces(_ tag: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var tag = tag
    while let last = tag.last, isSpace(last) { tag.removeLast() }
    return tag
  }
}

extension Unicode.Scalar {
  /// Whether a document may have it, written out or as a reference.
  fileprivate var isInXML: Bool {
    switch value {
    case 0x09, 0x0A, 0x0D, 0x20...0xFFFD, 0x10000...: true
    default: false
    }
  }
}
