import Distributed
import MobulaCore

/// Arguments and results that travel in a call, not as objects.
enum ArgumentCoding {
  /// Encodes a value; its references are to be kept alive until the receiver has registered them.
  static func encode(_ value: some Encodable) throws -> (bytes: ByteString, references: [AnyReference]) {
    if CBORReader.isScalar(type(of: value)) { return (ByteString(try CBOREncoder().encode(value)), []) }
    let writer = ValueWriter(placesBlobsInline: true)
    var encoder = CBOREncoder()
    encoder.userInfo[.valueWriter] = writer
    return (ByteString(try encoder.encode(value)), writer.references)
  }

  static func decode<Value: Decodable>(_ type: Value.Type, from bytes: ByteString, reader: ValueReader) throws -> Value
  {
    var decoder = CBORDecoder()
    decoder.userInfo[.valueReader] = reader
    // References to actors become proxies of this process's system.
    decoder.userInfo[.actorSystemKey] = reader.cluster
    return try decoder.decode(type, from: bytes.bytes)
  }
}
