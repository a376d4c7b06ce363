import MobulaCore
import Testing

@testable import Mobula

/// An object of this process's own memory, as a value makes it.
///
/// `@unchecked Sendable`: written in `init` only.
final class TestObject: ObjectMemory, @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer
  let layout: ValueLayout

  init(_ value: some Encodable, isError: Bool = false) throws {
    let encoded = try EncodedValue(value, isError: isError)
    layout = encoded.layout
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: layout.size, alignment: 64)
    // What was in recycled memory is to be seen nowhere.
    memory.initializeMemory(as: UInt8.self, repeating: 0xAA)
    encoded.write(to: memory)
    bytes = UnsafeRawBufferPointer(memory)
    var pieces: [UInt8] = []
    encoded.forEachPiece { piece in
      switch piece {
      case .bytes(let bytes): pieces.append(contentsOf: bytes)
      case .zeros(let count): pieces.append(contentsOf: repeatElement(0, count: count))
      }
    }
    #expect(bytes.elementsEqual(pieces), "the pieces are the object")
  }

  deinit { bytes.deallocate() }

  var header: [UInt8] { Array(bytes[layout.header]) }

  func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
    try StoredValue(reading: self).decode(type, reader: nil)
  }

  func contains(_ address: UnsafeRawPointer?) -> Bool {
    guard let address, let start = bytes.baseAddress else { return false }
    return address >= start && address < start + bytes.count
  }
}
