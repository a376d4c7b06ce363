/// Takes big arrays of numbers from an encoder, to keep them beside the CBOR.
package protocol CBORBufferSink: AnyObject, Sendable {
  /// - Returns: the number that the array's bytes can be had by when they are decoded; `nil` to have
  ///   the array in the CBOR after all.
  func add<Element: BitwiseCopyable & Sendable>(_ array: [Element]) -> Int?
}

/// Has what a `CBORBufferSink` took.
package protocol CBORBufferSource: AnyObject, Sendable {
  /// The bytes of a buffer, which stay where they are until decoding ends.
  ///
  /// - Throws: when there is no such buffer.
  func bytes(ofBuffer index: Int) throws -> UnsafeRawBufferPointer
}

/// Arrays of numbers as runs of bytes, in memory's own form: typed arrays (RFC 8746).
///
/// The tag says what the numbers are. A byte string follows or, in Mobula's own form, the number of a
/// buffer of a `CBORBufferSource`. Short arrays are arrays of CBOR, where a small number takes a byte.
enum CBORTypedArray {
  /// Bytes of memory from which on an array is a run of bytes.
  static let threshold = 1024
  static let tags: ClosedRange<UInt64> = 64...87

  /// The type of the numbers in a `T`; `nil` when that is no array of numbers.
  ///
  /// Compares types, as casts are far slower. A `ByteString` counts as an array of bytes.
  @inline(__always)
  static func element<T>(of type: T.Type) -> (any CBORNumber.Type)? {
    // Spares all structs but the smallest the comparisons.
    if MemoryLayout<T>.size == MemoryLayout<[UInt8]>.size { wordSizedElement(of: type) } else { nil }
  }

  private static func wordSizedElement<T>(of type: T.Type) -> (any CBORNumber.Type)? {
    if T.self == [UInt8].self || T.self == ByteString.self { return UInt8.self }
    if T.self == [Float].self { return Float.self }
    if T.self == [Double].self { return Double.self }
    if T.self == [Int].self { return Int.self }
    if T.self == [Int32].self { return Int32.self }
    if T.self == [UInt32].self { return UInt32.self }
    if T.self == [Int64].self { return Int64.self }
    if T.self == [UInt64].self { return UInt64.self }
    if T.self == [UInt16].self { return UInt16.self }
    if T.self == [Int16].self { return Int16.self }
    if T.self == [Int8].self { return Int8.self }
    if T.self == [Float16].self { return Float16.self }
    if T.self == [UInt].self { return UInt.self }
    return nil
  }

  /// What an array with this tag is called in messages.
  static func name(ofTag tag: UInt64) -> String {
    let numbers: [any CBORNumber.Type] = [
      UInt8.self, UInt16.self, UInt32.self, UInt64.self, Int8.self, Int16.self, Int32.self, Int64.self, Float16.self,
      Float.self, Double.self,
    ]
    guard let number = numbers.first(where: { $0.typedArrayTag == tag }) else { return "a typed array of tag \(tag)" }
    return "an array of \(number)"
  }
}

/// A number whose arrays are typed ones. Tags are those for little-endian memory, as all of Mobula's machines have.
protocol CBORNumber: BitwiseCopyable, Sendable {
  static var typedArrayTag: UInt64 { get }
}

extension UInt8: CBORNumber { static var typedArrayTag: UInt64 { 64 } }
extension UInt16: CBORNumber { static var typedArrayTag: UInt64 { 69 } }
extension UInt32: CBORNumber { static var typedArrayTag: UInt64 { 70 } }
extension UInt64: CBORNumber { static var typedArrayTag: UInt64 { 71 } }
extension UInt: CBORNumber { static var typedArrayTag: UInt64 { 71 } }
extension Int8: CBORNumber { static var typedArrayTag: UInt64 { 72 } }
extension Int16: CBORNumber { static var typedArrayTag: UInt64 { 77 } }
extension Int32: CBORNumber { static var typedArrayTag: UInt64 { 78 } }
extension Int64: CBORNumber { static var typedArrayTag: UInt64 { 79 } }
extension Int: CBORNumber { static var typedArrayTag: UInt64 { 79 } }
extension Float16: CBORNumber { static var typedArrayTag: UInt64 { 84 } }
extension Float: CBORNumber { static var typedArrayTag: UInt64 { 85 } }
extension Double: CBORNumber { static var typedArrayTag: UInt64 { 86 } }

extension CBOREncodingState {
  /// Writes an array of numbers as one item; false for what is not one, or too short for it.
  ///
  /// Each `unsafeBitCast` is from a type to itself, as `element(of:)` compared them, or to the one field of a struct.
  func writeRun<T, Number: CBORNumber>(_ value: T, of number: Number.Type, parent: Int) -> Bool {
    let array = unsafeBitCast(value, to: [Number].self)
    let isBig = array.count * MemoryLayout<Number>.stride >= CBORTypedArray.threshold
    // The item behind a tag lies one level deeper.
    let mayTag = depth(in: parent) < CBORReader.maximumDepth
    if isBig, mayTag, let index = buffers?.add(array) {
      writer.tag(Number.typedArrayTag)
      writer.unsigned(UInt64(index))
      return true
    }
    let isBytes = Number.self == UInt8.self
    guard isBytes || isBig && mayTag else { return false }
    if !isBytes { writer.tag(Number.typedArrayTag) }
    array.withUnsafeBytes { writer.byteString($0) }
    return true
  }
}

extension CBORItem {
  /// Whether what begins at `offset` is one run of bytes, to be read as such, for an array of these numbers.
  func isRun(at offset: Int, of number: any CBORNumber.Type) -> Bool {
    if number == UInt8.self { return true }
    var reader = reader(at: offset)
    guard case .tag(let tag)? = try? reader.next() else { return false }
    return CBORTypedArray.tags.contains(tag)
  }

  /// Decodes an array of numbers from one run of bytes, and returns where in the CBOR it ends.
  ///
  /// `unsafeBitCast` as in `writeRun`.
  func run<T, Number: CBORNumber>(
    _ type: T.Type, of number: Number.Type, at offset: Int, key: (any CodingKey)?
  ) throws -> (value: T, end: Int) {
    var reader = reader(at: offset)
    do {
      let array = try reader.run(of: number, buffers: state.buffers)
      return (unsafeBitCast(array, to: T.self), reader.offset)
    } catch let error as CBORProblem {
      throw error.decodingError(type, path: path(key))
    } catch let error as MobulaError where error.code == .protocolViolation {
      throw corrupted(error, key: key)
    }
  }
}

extension CBORReader {
  fileprivate mutating func run<Number: CBORNumber>(
    of number: Number.Type, buffers: (any CBORBufferSource)?
  ) throws -> [Number] {
    let start = offset
    guard case .tag(let tag) = try next(), CBORTypedArray.tags.contains(tag) else {
      offset = start
      return unsafeBitCast(try byteString(), to: [Number].self)
    }
    guard tag == Number.typedArrayTag else { throw CBORProblem.mismatch(CBORTypedArray.name(ofTag: tag)) }
    let token = try next()
    if case .unsigned(let index) = token {
      guard let buffers else { throw CBORProblem.mismatch("the number of a buffer that is not here") }
      return try Self.numbers(in: buffers.bytes(ofBuffer: Int(clamping: index)))
    }
    if case .bytes(let bytes) = token { return try Self.numbers(in: bytes) }
    guard let bytes = try byteString(token) else { throw mismatch(token) }
    return try bytes.withUnsafeBytes { try Self.numbers(in: $0) }
  }

  private static func numbers<Number: CBORNumber>(in bytes: UnsafeRawBufferPointer) throws -> [Number] {
    let (count, rest) = bytes.count.quotientAndRemainder(dividingBy: MemoryLayout<Number>.stride)
    guard rest == 0 else { throw CBORProblem.range("A run of \(bytes.count) bytes") }
    return Array(unsafeUninitializedCapacity: count) { array, initialized in
      UnsafeMutableRawBufferPointer(array).copyMemory(from: bytes)
      initialized = count
    }
  }
}
