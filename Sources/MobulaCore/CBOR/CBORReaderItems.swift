/// Whole items, made of one token or more.
extension CBORReader {
  /// The next token that is not a tag.
  mutating func untagged() throws(MobulaError) -> Token {
    let start = offset
    for _ in 0...Self.maximumDepth {
      let token = try next()
      guard case .tag = token else { return token }
    }
    throw tooDeep(at: start)
  }

  /// Whether a break is next, and then goes past it.
  mutating func takeStop() throws(MobulaError) -> Bool {
    let start = offset
    if case .stop = try next() { return true }
    offset = start
    return false
  }

  /// Whether another element follows, of `left` or, if that is `nil`, before the break.
  mutating func takeElement(_ left: inout Int?) throws(MobulaError) -> Bool {
    guard let count = left else { return try !takeStop() }
    left = count - 1
    return count > 0
  }

  /// The bytes of `token`, and of what belongs to it; `nil` if it is no byte string.
  mutating func byteString(_ token: Token) throws(MobulaError) -> [UInt8]? {
    switch token {
    case .bytes(let bytes): return [UInt8](bytes)
    case .chunkedBytes:
      var whole: [UInt8] = []
      while let chunk = try chunk(ofText: false) { whole.append(contentsOf: chunk) }
      return whole
    default: return nil
    }
  }

  /// The text of `token`, and of what belongs to it; `nil` if it is no text.
  ///
  /// - Throws: `MobulaError` (`protocolViolation`) too when it is not in UTF-8.
  mutating func text(_ token: Token) throws(MobulaError) -> String? {
    switch token {
    case .text(let bytes): return try text(bytes)
    case .chunkedText:
      var whole = ""
      // Each chunk is a text of its own: no character may be in two of them.
      while let chunk = try chunk(ofText: true) { whole += try text(chunk) }
      return whole
    default: return nil
    }
  }

  private func text(_ bytes: UnsafeRawBufferPointer) throws(MobulaError) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else { throw notUTF8(bytes) }
    return text
  }

  /// The next chunk of a byte string or a text of indefinite length; `nil` for the break after the last.
  private mutating func chunk(ofText: Bool) throws(MobulaError) -> UnsafeRawBufferPointer? {
    let start = offset
    switch try next() {
    case .bytes(let bytes) where !ofText: return bytes
    case .text(let bytes) where ofText: return bytes
    case .stop: return nil
    default: throw malformed("is not a chunk of the string that it lies in", at: start)
    }
  }

  private func notUTF8(_ bytes: UnsafeRawBufferPointer) -> MobulaError {
    malformed("is a text that is not in UTF-8", at: offset - bytes.count)
  }

  private func checkUTF8(_ bytes: UnsafeRawBufferPointer) throws(MobulaError) {
    let isValid = bytes.withMemoryRebound(to: UInt8.self) { (try? UTF8Span(validating: $0.span)) != nil }
    guard isValid else { throw notUTF8(bytes) }
  }

  /// Goes past the next item and all that is in it.
  ///
  /// - Parameter depth: how many arrays, maps and tags it lies in.
  package mutating func skip(depth: Int = 0) throws(MobulaError) {
    let start = offset
    guard depth <= Self.maximumDepth else { throw tooDeep(at: start) }
    switch try next() {
    case .unsigned, .negative, .bytes, .simple, .half, .single, .double: break
    case .text(let bytes): try checkUTF8(bytes)
    case .chunkedBytes: while try chunk(ofText: false) != nil {}
    case .chunkedText: while let chunk = try chunk(ofText: true) { try checkUTF8(chunk) }
    case .tag: try skip(depth: depth + 1)
    case .array(let count?): for _ in 0..<count { try skip(depth: depth + 1) }
    case .map(let count?): for _ in 0..<2 * count { try skip(depth: depth + 1) }
    case .array(nil): while try !takeStop() { try skip(depth: depth + 1) }
    case .map(nil):
      while try !takeStop() {
        try skip(depth: depth + 1)
        try skip(depth: depth + 1)
      }
    case .stop: throw malformed("is the end of something that has not begun", at: start)
    }
  }

  /// - Throws: `MobulaError` (`protocolViolation`) unless everything has been read.
  package func finish() throws(MobulaError) {
    guard isAtEnd else {
      throw malformed("comes after the end of the value", at: offset)
    }
  }

  func tooDeep(at start: Int) -> MobulaError {
    malformed("lies in more than \(Self.maximumDepth) others", at: start)
  }
}
