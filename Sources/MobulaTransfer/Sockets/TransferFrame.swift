internal import MobulaCore

/// Puts the body of a frame together from big-endian fields.
struct FrameWriter {
  private(set) var body: [UInt8] = []

  mutating func append(_ value: some FixedWidthInteger) {
    withUnsafeBytes(of: value.bigEndian) { body.append(contentsOf: $0) }
  }

  mutating func append(_ object: ObjectID) {
    append(object.high)
    append(object.low)
  }

  /// Text to the end of the frame.
  mutating func append(text: String) { body += text.utf8.prefix(TransferMessage.maximumText) }

  mutating func append(code: MobulaError.Code, text: String) {
    let name = Array(code.description.utf8)
    append(UInt8(name.count))
    body += name
    append(text: text)
  }
}

/// Takes a frame's body apart and believes none of it.
struct FrameReader {
  private var rest: ArraySlice<UInt8>

  init(_ body: [UInt8]) { rest = body[...] }

  mutating func read<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) throws(MobulaError) -> Value {
    let count = Value.bitWidth / 8
    guard rest.count >= count else { throw Self.truncated }
    var value: Value = 0
    for byte in rest.prefix(count) {
      value = count == 1 ? Value(truncatingIfNeeded: byte) : value << 8 | Value(truncatingIfNeeded: byte)
    }
    rest.removeFirst(count)
    return value
  }

  mutating func readObject() throws(MobulaError) -> ObjectID { ObjectID(high: try read(), low: try read()) }

  /// An object's bytes: 64 bits on the wire.
  mutating func readSize() throws(MobulaError) -> Int {
    guard let size = Int(exactly: try read(UInt64.self)) else {
      throw MobulaError(
        .protocolViolation, "A peer announced an object of more than 2^63 bytes: it is no mobula host.")
    }
    return size
  }

  /// A chunk's index or length: 32 bits on the wire.
  mutating func readIndex() throws(MobulaError) -> Int { Int(try read(UInt32.self)) }

  /// - Throws: also for a priority that there is not.
  mutating func readPriority() throws(MobulaError) -> TransferPriority {
    let number = try read(UInt8.self)
    guard let priority = TransferPriority(rawValue: number) else {
      throw MobulaError(
        .protocolViolation, "A peer sent priority \(number), which there is not: run the same version on all hosts.")
    }
    return priority
  }

  var isAtEnd: Bool { rest.isEmpty }

  /// Text, to the end of the frame.
  mutating func readText() -> String {
    defer { rest = [] }
    return String(decoding: rest, as: UTF8.self)
  }

  /// An error's code and, to the end of the frame, its sentence.
  mutating func readError() throws(MobulaError) -> (MobulaError.Code, String) {
    let count = Int(try read(UInt8.self))
    guard rest.count >= count else { throw Self.truncated }
    let code = MobulaError.Code(String(decoding: rest.prefix(count), as: UTF8.self))
    rest = rest.dropFirst(count)
    return (code, readText())
  }

  /// - Throws: `protocolViolation` when bytes are left over.
  func finish() throws(MobulaError) {
    guard rest.isEmpty else {
      throw MobulaError(
        .protocolViolation,
        "A peer sent a transfer message with \(rest.count) bytes too many: run the same version on all hosts.")
    }
  }

  private static var truncated: MobulaError {
    MobulaError(
      .protocolViolation, "A peer sent a transfer message that ends too early: run the same version on all hosts.")
  }
}
