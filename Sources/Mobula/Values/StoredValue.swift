import Distributed
import MobulaCore

/// The bytes of an object, which stay where they are, unchanged, as long as this lives.
protocol ObjectMemory: AnyObject, Sendable {
  var bytes: UnsafeRawBufferPointer { get }
}

/// A value that lies in an object.
final class StoredValue: CBORBufferSource {
  private let object: any ObjectMemory
  private let layout: ValueLayout

  /// - Throws: `MobulaError` (`corrupted`) when the object is no value.
  init(reading object: any ObjectMemory) throws(MobulaError) {
    self.object = object
    layout = try ValueLayout(reading: object.bytes)
  }

  /// Decodes the value.
  ///
  /// - Parameter reader: what references in it belong to; without, they are errors.
  /// - Throws: the error that the object holds instead of a value; `DecodingError` for a value of another type.
  func decode<Value: Decodable>(_ type: Value.Type, reader: @autoclosure () -> ValueReader?) throws -> Value {
    let header = UnsafeRawBufferPointer(rebasing: object.bytes[layout.header])
    return try withExtendedLifetime(object) {
      if layout.isError { throw try CBORDecoder().decode(StoredFailure.self, from: header).error }
      if CBORReader.isScalar(type) { return try CBORDecoder().decode(type, from: header) }
      if type == Blob.self, let value = try blob(CBORDecoder().decode(Int.self, from: header)) as? Value {
        return value
      }
      var decoder = CBORDecoder()
      decoder.userInfo[.storedValue] = self
      decoder.buffers = self
      if let reader = reader() {
        decoder.userInfo[.valueReader] = reader
        decoder.userInfo[.actorSystemKey] = reader.cluster
      }
      return try decoder.decode(type, from: header)
    }
  }

  /// A value that needs no more than the bytes of its header.
  ///
  /// - Throws: as `decode`, and as `init`.
  static func scalar<Value: Decodable>(_ type: Value.Type, in object: UnsafeRawBufferPointer) throws -> Value {
    let layout = try ValueLayout(reading: object)
    let header = UnsafeRawBufferPointer(rebasing: object[layout.header])
    if layout.isError { throw try CBORDecoder().decode(StoredFailure.self, from: header).error }
    return try CBORDecoder().decode(type, from: header)
  }

  /// A buffer as a view of the object, which it keeps.
  func blob(_ index: Int) throws(MobulaError) -> Blob {
    Blob(storage: ObjectStorage(object, range: try range(ofBuffer: index)))
  }

  func bytes(ofBuffer index: Int) throws -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: object.bytes[try range(ofBuffer: index)])
  }

  private func range(ofBuffer index: Int) throws(MobulaError) -> Range<Int> {
    guard layout.buffers.indices.contains(index) else {
      throw MobulaError(.corrupted, "The value names a buffer \(index) that its object does not have.")
    }
    return layout.buffers[index]
  }
}
