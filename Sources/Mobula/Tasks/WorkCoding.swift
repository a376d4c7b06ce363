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

/// A call of an actor as it is sent to its worker.
struct ActorCall {
  /// Grows with each call of the process that makes them.
  var number: UInt64
  var actor: RemoteActorID
  /// Mangled name of the distributed function.
  var target: String
  /// The object that the result becomes where it is not small.
  var result: ObjectID
  var substitutions: [String] = []
  var arguments: [ByteString] = []
}

/// What came of a task, or of a call by its number, as the worker says it.
struct EndedTask {
  enum Outcome: Sendable {
    /// The bytes of the object that it would be.
    case inline(InlineObject)
    /// The bytes of the error.
    case failed(InlineObject)
    /// It is an object in the stores of the cluster, held by the submitter.
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
        let result: ObjectID = try identifier(&reader)
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

  /// `[number, actor, target, result, substitutions, arguments]`.
  static func encode(_ call: ActorCall) -> ByteString {
    var writer = CBORWriter()
    writer.arrayHead(count: 6)
    writer.unsigned(call.number)
    writer.byteString(bigEndian(call.actor))
    writer.text(call.target)
    writer.byteString(bigEndian(call.result))
    writer.arrayHead(count: call.substitutions.count)
    for name in call.substitutions { writer.text(name) }
    writer.arrayHead(count: call.arguments.count)
    for argument in call.arguments { writer.byteString(argument.bytes) }
    return ByteString(writer.bytes)
  }

  static func call(_ bytes: ByteString) throws(MobulaError) -> ActorCall {
    try reading(bytes) { (reader) throws(MobulaError) in
      _ = try array(&reader, of: 6)
      let number = try number(&reader)
      let actor: RemoteActorID = try identifier(&reader)
      let target = try text(&reader)
      let result: ObjectID = try identifier(&reader)
      var call = ActorCall(number: number, actor: actor, target: target, result: result)
      for _ in 0..<(try array(&reader)) { call.substitutions.append(try text(&reader)) }
      for _ in 0..<(try array(&reader)) { call.arguments.append(try byteString(&reader)) }
      return call
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

  private static func identifier<Tag>(_ reader: inout CBORReader) throws(MobulaError) -> Identifier<Tag> {
    guard case .bytes(let bytes) = try reader.next(), bytes.count == 16 else { throw broken }
    func word(_ offset: Int) -> UInt64 {
      UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    return Identifier(high: word(0), low: word(8))
  }

  private static func bigEndian<Tag>(_ identifier: Identifier<Tag>) -> [UInt8] {
    withUnsafeBytes(of: (identifier.high.bigEndian, identifier.low.bigEndian)) { [UInt8]($0) }
  }
}
