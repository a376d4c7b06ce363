/// What can be wrong with a value, before it is known where in the whole it is.
enum CBORProblem: Error {
  case malformed(MobulaError)
  /// The item is of another kind: what it is.
  case mismatch(String)
  case null
  /// The item is of the right kind, but does not fit: why not.
  case range(String)

  func decodingError(_ type: Any.Type, path: [any CodingKey]) -> DecodingError {
    func context(_ text: String, _ cause: (any Error)? = nil) -> DecodingError.Context {
      DecodingError.Context(codingPath: path, debugDescription: text, underlyingError: cause)
    }
    return switch self {
    case .malformed(let error): .dataCorrupted(context(error.message, error))
    case .mismatch(let found): .typeMismatch(type, context("There is \(found) where \(type) was expected."))
    case .null: .valueNotFound(type, context("There is null where \(type) was expected."))
    case .range(let what): .dataCorrupted(context("\(what) does not fit into \(type)."))
    }
  }
}

extension CBORReader {
  /// Whether values of this type need no container, and so nothing of an encoder's or decoder's but bytes.
  @inline(__always)
  package static func isScalar<T>(_ type: T.Type) -> Bool {
    T.self == String.self || T.self == Int.self || T.self == Double.self || T.self == Bool.self
      || T.self == Float.self || T.self == UInt64.self || T.self == Int64.self || T.self == UInt32.self
      || T.self == Int32.self || T.self == UInt.self || T.self == UInt8.self || T.self == UInt16.self
      || T.self == Int8.self || T.self == Int16.self
  }

  /// Reads a value of one of the types that `isScalar` is true of.
  ///
  /// Each `unsafeBitCast` is from a type to itself, as the comparison before it says. (To answer both
  /// questions with an optional would cost the making of that optional's type at run time.)
  @inline(__always)
  mutating func scalar<T>(_ type: T.Type) throws(CBORProblem) -> T {
    if T.self == String.self { return unsafeBitCast(try string(), to: T.self) }
    if T.self == Int.self { return unsafeBitCast(try integer(Int.self), to: T.self) }
    if T.self == Double.self { return unsafeBitCast(try double(), to: T.self) }
    if T.self == Bool.self { return unsafeBitCast(try boolean(), to: T.self) }
    if T.self == Float.self { return unsafeBitCast(try float(), to: T.self) }
    if T.self == UInt64.self { return unsafeBitCast(try integer(UInt64.self), to: T.self) }
    if T.self == Int64.self { return unsafeBitCast(try integer(Int64.self), to: T.self) }
    if T.self == UInt32.self { return unsafeBitCast(try integer(UInt32.self), to: T.self) }
    if T.self == Int32.self { return unsafeBitCast(try integer(Int32.self), to: T.self) }
    if T.self == UInt.self { return unsafeBitCast(try integer(UInt.self), to: T.self) }
    if T.self == UInt8.self { return unsafeBitCast(try integer(UInt8.self), to: T.self) }
    if T.self == UInt16.self { return unsafeBitCast(try integer(UInt16.self), to: T.self) }
    if T.self == Int8.self { return unsafeBitCast(try integer(Int8.self), to: T.self) }
    if T.self == Int16.self { return unsafeBitCast(try integer(Int16.self), to: T.self) }
    preconditionFailure("\(type) is decoded through a container")
  }

  private mutating func value() throws(CBORProblem) -> Token {
    do throws(MobulaError) { return try untagged() } catch { throw .malformed(error) }
  }

  private mutating func string() throws(CBORProblem) -> String {
    let token = try value()
    let text: String?
    do throws(MobulaError) { text = try self.text(token) } catch { throw .malformed(error) }
    guard let text else { throw mismatch(token) }
    return text
  }

  /// Accepts an array of numbers that are bytes too.
  mutating func byteString() throws(CBORProblem) -> [UInt8] {
    let token = try value()
    do throws(MobulaError) { if let bytes = try byteString(token) { return bytes } } catch { throw .malformed(error) }
    guard case .array(var left) = token else { throw mismatch(token) }
    var bytes: [UInt8] = []
    while try hasElement(&left) { bytes.append(try integer(UInt8.self)) }
    return bytes
  }

  /// Reads a byte string of 16 bytes, the most significant first.
  mutating func words() throws(CBORProblem) -> (high: UInt64, low: UInt64) {
    let token = try value()
    guard case .bytes(let bytes) = token else { throw mismatch(token) }
    guard bytes.count == 16 else { throw .range("A byte string of \(bytes.count) bytes") }
    func word(at offset: Int) -> UInt64 {
      UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    return (word(at: 0), word(at: 8))
  }

  private mutating func hasElement(_ left: inout Int?) throws(CBORProblem) -> Bool {
    do throws(MobulaError) { return try takeElement(&left) } catch { throw .malformed(error) }
  }

  private mutating func integer<T: FixedWidthInteger>(_ type: T.Type) throws(CBORProblem) -> T {
    let token = try value()
    switch token {
    case .unsigned(let number):
      guard let value = T(exactly: number) else { throw .range("\(number)") }
      return value
    case .negative(let complement):
      guard let value = T(exactly: ~complement.asInt128) else { throw .range("\(~complement.asInt128)") }
      return value
    default: throw mismatch(token)
    }
  }

  private mutating func boolean() throws(CBORProblem) -> Bool {
    let token = try value()
    guard case .simple(let number) = token, number == 20 || number == 21 else { throw mismatch(token) }
    return number == 21
  }

  private mutating func double() throws(CBORProblem) -> Double {
    let token = try value()
    switch token {
    case .double(let bits): return Double(bitPattern: bits)
    case .single(let bits): return Double(bitPattern: CBORFloat.double(fromSingle: bits))
    case .half(let bits): return Double(bitPattern: CBORFloat.double(fromSingle: CBORFloat.single(fromHalf: bits)))
    case .unsigned(let number):
      guard let value = Double(exactly: number) else { throw .range("\(number)") }
      return value
    case .negative(let complement):
      guard let value = Double(exactly: ~complement.asInt128) else { throw .range("\(~complement.asInt128)") }
      return value
    default: throw mismatch(token)
    }
  }

  /// Rounds what was written with more digits, as senders that know one kind of number only do.
  private mutating func float() throws(CBORProblem) -> Float {
    let start = offset
    let token = try value()
    switch token {
    case .single(let bits): return Float(bitPattern: bits)
    case .half(let bits): return Float(bitPattern: CBORFloat.single(fromHalf: bits))
    default: offset = start
    }
    let wide = try double()
    let value = Float(wide)
    guard value.isFinite || !wide.isFinite else { throw .range("\(wide)") }
    return value
  }

  func mismatch(_ token: Token) -> CBORProblem {
    switch token {
    case .unsigned, .negative: .mismatch("an integer")
    case .bytes, .chunkedBytes: .mismatch("a byte string")
    case .text, .chunkedText: .mismatch("a text")
    case .array: .mismatch("an array")
    case .map: .mismatch("a map")
    case .simple(20), .simple(21): .mismatch("a truth value")
    case .simple(22), .simple(23): .null
    case .half, .single, .double: .mismatch("a floating-point number")
    case .tag, .simple: .mismatch("a value of no known meaning")
    case .stop: .malformed(malformed("is the end of something that has not begun", at: offset - 1))
    }
  }

  /// Reads the head of a map or an array.
  mutating func head(map: Bool) throws(CBORProblem) -> Int? {
    let token = try value()
    switch token {
    case .map(let count) where map: return count
    case .array(let count) where !map: return count
    default: throw mismatch(token)
    }
  }
}

extension UInt64 {
  fileprivate var asInt128: Int128 { Int128(self) }
}
