/// Encodes `Codable` values as CBOR (RFC 8949), in preferred serialization.
///
/// Structs become maps with text keys, `nil` becomes null, `[UInt8]` and `ByteString`
/// become byte strings, and other arrays of numbers typed arrays (RFC 8746) when they have 1,024 bytes
/// or more; identifiers become byte strings; enums and dictionaries take the form that Swift gives them, and
/// where that is a map with texts for keys, these are in the order of their encoded bytes.
/// A value that encodes nothing becomes an empty map.
package struct CBOREncoder: Sendable {
  /// What values find in `encoder.userInfo`; empty unless set.
  package var userInfo: [CodingUserInfoKey: any Sendable] = [:]
  /// Where arrays of numbers go that have 1,024 bytes or more; into the CBOR if `nil`.
  package var buffers: (any CBORBufferSink)?

  /// An encoder with nothing in its `userInfo`.
  package init() {}

  /// - Throws: `EncodingError`, for more than 64 levels of nesting and for containers used out of turn,
  ///   or what a value's `encode(to:)` throws.
  package func encode<T: Encodable>(_ value: T) throws -> [UInt8] {
    var scalar = CBORWriter()
    if scalar.scalar(value) { return scalar.bytes }
    let state = CBOREncodingState(userInfo: userInfo, buffers: buffers)
    try state.write(value, key: nil, parent: nil)
    if let failure = state.failure { throw failure }
    return state.writer.bytes
  }
}

extension CBORWriter {
  /// Writes a value of one of the types that need no container of their own; false for any other.
  ///
  /// Each `unsafeBitCast` is from a type to itself, as the comparison before it says. (A cast with `as?` is slower.)
  @inline(__always)
  mutating func scalar<T>(_ value: T) -> Bool {
    if T.self == String.self {
      text(unsafeBitCast(value, to: String.self))
    } else if T.self == Int.self {
      integer(Int64(unsafeBitCast(value, to: Int.self)))
    } else if T.self == Double.self {
      float(unsafeBitCast(value, to: Double.self))
    } else if T.self == Bool.self {
      boolean(unsafeBitCast(value, to: Bool.self))
    } else if T.self == Float.self {
      float(unsafeBitCast(value, to: Float.self))
    } else if T.self == UInt64.self {
      unsigned(unsafeBitCast(value, to: UInt64.self))
    } else if T.self == Int64.self {
      integer(unsafeBitCast(value, to: Int64.self))
    } else if T.self == UInt32.self {
      unsigned(UInt64(unsafeBitCast(value, to: UInt32.self)))
    } else if T.self == Int32.self {
      integer(Int64(unsafeBitCast(value, to: Int32.self)))
    } else if T.self == UInt.self {
      unsigned(UInt64(unsafeBitCast(value, to: UInt.self)))
    } else if T.self == UInt8.self {
      unsigned(UInt64(unsafeBitCast(value, to: UInt8.self)))
    } else if T.self == UInt16.self {
      unsigned(UInt64(unsafeBitCast(value, to: UInt16.self)))
    } else if T.self == Int8.self {
      integer(Int64(unsafeBitCast(value, to: Int8.self)))
    } else if T.self == Int16.self {
      integer(Int64(unsafeBitCast(value, to: Int16.self)))
    } else {
      return false
    }
    return true
  }
}
