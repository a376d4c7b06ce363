import MobulaCore

/// A task as it is pushed to a worker.
struct PushedTask {
  /// Grows with each that the submitter pushes.
  var task: UInt64
  /// Mangled name of the `RemoteTask`.
  var type: String
  var arguments: ByteString
  /// The object that the result becomes where it is not small.
  var result: ObjectID
  /// From 1.
  var attempt = 1
  /// Whether objects in its arguments are brought to its host before it begins.
  var bringsArguments = true
}

/// What came of a task, as the worker says it.
struct EndedTask {
  enum Outcome {
    /// The bytes of the object that it would be.
    case inline(InlineObject)
    /// The bytes of the error.
    case failed(InlineObject)
    /// It is in the store of the worker's host, held by the submitter.
    case stored
  }

  var task: UInt64
  var outcome: Outcome
  /// Nanoseconds that it ran.
  var took: UInt64
}

/// Tasks and their ends by the dozen, in CBOR that is written and read by hand: `Codable` takes longer for a small task than
/// all else.
enum WorkCoding {
  /// An array of types' names, and one of tasks, each `[task, index of its type, result, arguments,
  /// attempt, whether its arguments are brought]`.
  static func encode(_ tasks: [PushedTask]) -> ByteString {
    var types: [String: Int] = [:]
    var names: [String] = []
    for task in tasks where types[task.type] == nil {
      types[task.type] = names.count
      names.append(task.type)
    }
    var writer = CBORWriter()
    writer.arrayHead(count: 2)
    writer.arrayHead(count: names.count)
    for name in names { writer.text(name) }
    writer.arrayHead(count: tasks.count)
    for task in tasks {
      writer.arrayHead(count: 6)
      writer.unsigned(task.task)
      writer.unsigned(UInt64(types[task.type]!))
      writer.byteString(bigEndian(task.result))
      writer.byteString(task.arguments.bytes)
      writer.unsigned(UInt64(clamping: task.attempt))
      writer.unsigned(task.bringsArguments ? 1 : 0)
    }
    return ByteString(writer.bytes)
  }

  static func tasks(_ bytes: ByteString) throws(MobulaError) -> [PushedTask] {
    try reading(bytes) { (reader) throws(MobulaError) in
      _ = try array(&reader, of: 2)
      var names: [String] = []
      for _ in 0..<(try array(&reader)) { names.append(try text(&reader)) }
      var tasks: [PushedTask] = []
      for _ in 0..<(try array(&reader)) {
        _ = try array(&reader, of: 6)
        let task = try number(&reader)
        let type = try number(&reader)
        guard type < UInt64(names.count) else { throw broken }
        let result = try identifier(&reader)
        let arguments = try byteString(&reader)
        let (attempt, brings) = (try number(&reader), try number(&reader))
        tasks.append(
          PushedTask(
            task: task, type: names[Int(type)], arguments: arguments, result: result,
            attempt: Int(clamping: attempt), bringsArguments: brings != 0))
      }
      return tasks
    }
  }

  /// An array of `[task, nanoseconds, kind, bytes]`: kind 0 is a result, 1 an error, 2 a result that is stored, which has
  /// no bytes here.
  static func encode(_ ended: [EndedTask]) -> ByteString {
    var writer = CBORWriter()
    writer.arrayHead(count: ended.count)
    for end in ended {
      writer.arrayHead(count: 4)
      writer.unsigned(end.task)
      writer.unsigned(end.took)
      switch end.outcome {
      case .inline(let object):
        writer.unsigned(0)
        writer.byteString(object.bytes)
      case .failed(let object):
        writer.unsigned(1)
        writer.byteString(object.bytes)
      case .stored:
        writer.unsigned(2)
        writer.byteString([])
      }
    }
    return ByteString(writer.bytes)
  }

  static func ends(_ bytes: ByteString) throws(MobulaError) -> [EndedTask] {
    try reading(bytes) { (reader) throws(MobulaError) in
      var ends: [EndedTask] = []
      for _ in 0..<(try array(&reader)) {
        _ = try array(&reader, of: 4)
        let (task, took, kind) = (try number(&reader), try number(&reader), try number(&reader))
        guard case .bytes(let bytes) = try reader.next() else { throw broken }
        let outcome: EndedTask.Outcome
        switch kind {
        case 0: outcome = .inline(InlineObject(bytes))
        case 1: outcome = .failed(InlineObject(bytes))
        case 2: outcome = .stored
        default: throw broken
        }
        ends.append(EndedTask(task: task, outcome: outcome, took: took))
      }
      return ends
    }
  }

  private static var broken: MobulaError {
    MobulaError(.protocolViolation, "Tasks can't be read as they came: use the same build everywhere.")
  }

  private static func reading<Value>(
    _ bytes: ByteString, _ body: (inout CBORReader) throws(MobulaError) -> Value
  ) throws(MobulaError) -> Value {
    let result = bytes.bytes.withUnsafeBytes { bytes in
      Result { () throws(MobulaError) in
        var reader = CBORReader(bytes)
        let value = try body(&reader)
        try reader.finish()
        return value
      }
    }
    return try result.get()
  }

  private static func array(_ reader: inout CBORReader, of count: Int? = nil) throws(MobulaError) -> Int {
    guard case .array(let found?) = try reader.next(), count ?? found == found else { throw broken }
    return found
  }

  private static func number(_ reader: inout CBORReader) throws(MobulaError) -> UInt64 {
    guard case .unsigned(let number) = try reader.next() else { throw broken }
    return number
  }

  private static func text(_ reader: inout CBORReader) throws(MobulaError) -> String {
    guard case .text(let bytes) = try reader.next(), let text = String(validating: bytes, as: UTF8.self) else {
      throw broken
    }
    return text
  }

  private static func byteString(_ reader: inout CBORReader) throws(MobulaError) -> ByteString {
    guard case .bytes(let bytes) = try reader.next() else { throw broken }
    return ByteString([UInt8](bytes))
  }

  private static func identifier(_ reader: inout CBORReader) throws(MobulaError) -> ObjectID {
    guard case .bytes(let bytes) = try reader.next(), bytes.count == 16 else { throw broken }
    func word(_ offset: Int) -> UInt64 {
      UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    return ObjectID(high: word(0), low: word(8))
  }

  private static func bigEndian(_ object: ObjectID) -> [UInt8] {
    withUnsafeBytes(of: (object.high.bigEndian, object.low.bigEndian)) { [UInt8]($0) }
  }
}
