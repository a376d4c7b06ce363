/// Bytes that a CBOR encoder writes as one byte string, as it also does with `[UInt8]`.
package struct ByteString: Hashable, Sendable, Codable {
  /// The bytes.
  package var bytes: [UInt8]

  /// A byte string of these bytes.
  package init(_ bytes: [UInt8] = []) { self.bytes = bytes }

  package init(from decoder: any Decoder) throws {
    bytes = try decoder.singleValueContainer().decode([UInt8].self)
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(bytes)
  }
}
