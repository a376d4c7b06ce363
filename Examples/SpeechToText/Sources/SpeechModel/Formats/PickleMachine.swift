/// Reads a pickle of a state dict, and only that: a dictionary from names to tensors.
///
/// A pickle is a program for a stack machine; Python's may call anything. This one knows those operations of
/// protocol 2 that `torch.save` writes for a state dict, and five names of Python objects, for which it makes values of
/// its own: nothing is looked up, imported or called. Operations: Python's `pickletools`.
struct PickleMachine {
  /// What a name or an operation stands for.
  indirect enum Value {
    case none
    case bool(Bool)
    case integer(Int)
    case string(String)
    case tuple([Value], depth: Int)
    /// An index into `dictionaries`: they are filled after they were made, and may be meant twice.
    case dictionary(Int)
    case storageType(StoredTensor.Element, size: Int)
    case orderedDictionary, rebuildTensor, rebuildParameter
    case storage(TorchStorage)
    case tensor(StoredTensor)

    fileprivate var depth: Int { if case .tuple(_, let depth) = self { depth } else { 0 } }
  }

  /// Longer than any state dict's; bounds what a hostile one makes us allocate.
  static let maximumByteCount = 4 << 20
  /// Of tuples in tuples; a tensor's arguments need two.
  private static let maximumDepth = 4

  private var reader: ByteReader
  private let name: String
  private let storage: (_ key: String) -> UnsafeRawBufferPointer?
  private var stack: [Value] = []
  /// The heights of the stack at which marks were set.
  private var marks: [Int] = []
  private var memo: [UInt32: Value] = [:]
  private var dictionaries: [[(key: String, value: Value)]] = []

  /// - Parameters:
  ///   - storage: The bytes of a storage, by the key that the pickle gives.
  init(
    _ bytes: UnsafeRawBufferPointer, name: String, storage: @escaping (_ key: String) -> UnsafeRawBufferPointer?
  ) throws(SpeechError) {
    guard bytes.count <= Self.maximumByteCount else {
      throw SpeechError(.badModel, "\(name) has a pickle of \(bytes.count) bytes, too long for a state dict.")
    }
    reader = ByteReader(bytes, name: name)
    self.name = name
    self.storage = storage
  }

  private func fail(_ what: String) -> SpeechError {
    SpeechError(.badModel, "\(name) is no state dict: \(what) before byte \(reader.offset) of its pickle.")
  }

  /// The tensors of the dictionary that the pickle makes; the last counts where a name comes twice.
  ///
  /// - Throws: `badModel`, for anything that no state dict has; `unsupported`, for other ways to write one.
  mutating func run() throws(SpeechError) -> [String: StoredTensor] {
    while true {
      let operation = try reader.integer(UInt8.self)
      if operation == UInt8(ascii: ".") { break }
      try execute(operation)
    }
    guard case .dictionary(let index) = try pop(), stack.isEmpty else { throw fail("it makes no dictionary") }
    var tensors: [String: StoredTensor] = [:]
    for case (let key, .tensor(let tensor)) in dictionaries[index] { tensors[key] = tensor }
    return tensors
  }

  private mutating func execute(_ operation: UInt8) throws(SpeechError) {
    switch operation {
    case 0x80:
      let version = try reader.integer(UInt8.self)
      guard version <= 3 else {
        throw SpeechError(.unsupported, "\(name) has a pickle of protocol \(version): save it anew with 2.")
      }
    case UInt8(ascii: "("): marks.append(stack.count)
    case UInt8(ascii: "N"): stack.append(.none)
    case 0x88: stack.append(.bool(true))
    case 0x89: stack.append(.bool(false))
    case UInt8(ascii: "J"): stack.append(.integer(Int(try reader.integer(Int32.self))))
    case UInt8(ascii: "K"): stack.append(.integer(Int(try reader.integer(UInt8.self))))
    case UInt8(ascii: "M"): stack.append(.integer(Int(try reader.integer(UInt16.self))))
    case 0x8A: stack.append(.integer(try long()))
    case UInt8(ascii: "X"): stack.append(.string(try string(Int(try reader.integer(UInt32.self)))))
    case UInt8(ascii: "c"): stack.append(try global(try line(), try line()))
    case UInt8(ascii: ")"): stack.append(.tuple([], depth: 1))
    case 0x85: try push(tuple: try pop(count: 1))
    case 0x86: try push(tuple: try pop(count: 2))
    case 0x87: try push(tuple: try pop(count: 3))
    case UInt8(ascii: "t"): try push(tuple: try popToMark())
    case UInt8(ascii: "}"): pushDictionary()
    case UInt8(ascii: "s"): try set(try pop(count: 2))
    case UInt8(ascii: "u"): try set(try popToMark())
    case UInt8(ascii: "q"): memo[UInt32(try reader.integer(UInt8.self))] = try top()
    case UInt8(ascii: "r"): memo[try reader.integer(UInt32.self)] = try top()
    case UInt8(ascii: "h"): try get(UInt32(try reader.integer(UInt8.self)))
    case UInt8(ascii: "j"): try get(try reader.integer(UInt32.self))
    case UInt8(ascii: "Q"): stack.append(try persistent(try pop()))
    case UInt8(ascii: "R"): try reduce(try pop(count: 2))
    case UInt8(ascii: "b"):
      // An OrderedDict's own attributes, that is, its modules' versions: they aren't weights.
      let state = try pop()
      guard case .dictionary = state, case .dictionary = try top() else { throw fail("an object is given a state") }
    default: throw fail("there is the operation 0x\(String(operation, radix: 16)), which none needs,")
    }
  }

  private mutating func long() throws(SpeechError) -> Int {
    let bytes = try reader.take(Int(try reader.integer(UInt8.self)))
    guard bytes.count <= 8 else { throw fail("a number has \(bytes.count) bytes") }
    var value: UInt64 = bytes.last.map { $0 & 0x80 != 0 } == true ? .max : 0
    for byte in bytes.reversed() { value = value << 8 | UInt64(byte) }
    return Int(truncatingIfNeeded: value)
  }

  private mutating func string(_ count: Int) throws(SpeechError) -> String {
    guard let text = text(try reader.take(count)) else { throw fail("a name isn't UTF-8") }
    return text
  }

  private mutating func line() throws(SpeechError) -> String {
    let rest = reader.bytes[reader.offset...]
    guard let end = rest.prefix(256).firstIndex(of: 0x0A) else { throw fail("a name doesn't end") }
    let line = try string(end - reader.offset)
    try reader.skip(1)
    return line
  }

  private func global(_ module: String, _ name: String) throws(SpeechError) -> Value {
    switch (module, name) {
    case ("collections", "OrderedDict"): return .orderedDictionary
    case ("torch._utils", "_rebuild_tensor_v2"): return .rebuildTensor
    case ("torch._utils", "_rebuild_parameter"): return .rebuildParameter
    case ("torch", _):
      if let (element, size) = TorchStorage.types[name] { return .storageType(element, size: size) }
    default: break
    }
    throw fail("it names \(module).\(name), which no state dict needs and was not called,")
  }

  private func top() throws(SpeechError) -> Value {
    guard let value = stack.last else { throw fail("its stack is empty") }
    return value
  }

  private mutating func pop() throws(SpeechError) -> Value { try pop(count: 1)[0] }

  /// The topmost values, the lowest first; none from below the last mark.
  private mutating func pop(count: Int) throws(SpeechError) -> [Value] {
    guard count <= stack.count - (marks.last ?? 0) else { throw fail("its stack is empty") }
    defer { stack.removeLast(count) }
    return Array(stack.suffix(count))
  }

  private mutating func popToMark() throws(SpeechError) -> [Value] {
    guard let mark = marks.last else { throw fail("a mark is missing") }
    defer { marks.removeLast() }
    return try pop(count: stack.count - mark)
  }

  private mutating func push(tuple values: [Value]) throws(SpeechError) {
    let depth = 1 + (values.lazy.map(\.depth).max() ?? 0)
    guard depth <= Self.maximumDepth else { throw fail("tuples are nested deeper than any of its own") }
    stack.append(.tuple(values, depth: depth))
  }

  private mutating func pushDictionary() {
    stack.append(.dictionary(dictionaries.count))
    dictionaries.append([])
  }

  private mutating func get(_ index: UInt32) throws(SpeechError) {
    guard let value = memo[index] else { throw fail("it remembers nothing as \(index)") }
    stack.append(value)
  }

  /// Keys and values in turn, for the dictionary below them.
  private mutating func set(_ values: [Value]) throws(SpeechError) {
    guard case .dictionary(let index) = try top(), values.count % 2 == 0 else { throw fail("items belong to nothing") }
    for position in stride(from: 0, to: values.count, by: 2) {
      guard case .string(let key) = values[position] else { throw fail("an item's key is no text") }
      dictionaries[index].append((key, values[position + 1]))
    }
  }

  /// What Python would get from a call; here, a value made for each of the three names.
  private mutating func reduce(_ call: [Value]) throws(SpeechError) {
    guard case .tuple(let arguments, _) = call[1] else { throw fail("a call has no arguments") }
    switch call[0] {
    case .orderedDictionary where arguments.isEmpty: pushDictionary()
    case .rebuildTensor: stack.append(.tensor(try TorchStorage.tensor(arguments, name)))
    case .rebuildParameter:
      guard let first = arguments.first, case .tensor = first else { throw fail("a parameter has no tensor") }
      stack.append(first)
    default: throw fail("something else than a tensor or an empty OrderedDict is called for")
    }
  }

  /// A storage, from the tuple ("storage", its type, its key, its device, its number of elements).
  private func persistent(_ identifier: Value) throws(SpeechError) -> Value {
    guard case .tuple(let parts, _) = identifier, parts.count == 5, case .string("storage") = parts[0],
      case .storageType(let element, let size) = parts[1], case .string(let key) = parts[2],
      case .integer(let count) = parts[4]
    else { throw fail("a storage isn't described as torch does") }
    guard let bytes = storage(key) else { throw fail("its storage \(key) isn't in the archive") }
    guard count >= 0, let length = elementCount([count, size]), length == bytes.count else {
      throw fail("its storage \(key) of \(count) numbers has \(bytes.count) bytes")
    }
    return .storage(TorchStorage(element: element, size: size, bytes: bytes))
  }
}
