import MobulaCore
import Testing

@testable import Mobula

@Suite struct OutOfBandArrayTests {
  struct Deep: Codable, Equatable {
    struct Inner: Codable, Equatable {
      var bytes: [UInt8]
      var string: ByteString
      var maybe: [Double]?
      var none: [Double]?
    }
    var name: String
    var table: [String: [Float]]
    var list: [[Int32]]
    var inner: Inner
    var blob: Blob
    var short: [Int]
  }

  /// Encoded beside the header, and back; also in a call, in line.
  private func check<Number: Codable & Equatable & FixedWidthInteger>(_ type: Number.Type) throws {
    let numbers = (0..<2000).map { Number(truncatingIfNeeded: $0 &* 0x9E37_79B9_7F4A_7C15) } + [.min, .max]
    try check(numbers)
  }

  private func check<Number: Codable & Equatable>(_ numbers: [Number]) throws {
    let object = try TestObject(numbers)
    #expect(object.layout.buffers.map(\.count) == [numbers.count * MemoryLayout<Number>.stride], "\(Number.self)")
    #expect(object.layout.header.count <= 3)
    #expect(try object.decode([Number].self) == numbers)
    #expect(try object.decode([Number]?.self) == numbers)
    let inline = try ArgumentCoding.encode(numbers).bytes.bytes
    #expect(inline.count <= numbers.count * MemoryLayout<Number>.stride + 8)
    #expect(try CBORDecoder().decode([Number].self, from: inline) == numbers)
  }

  @Test func everyKindOfNumberComesBack() throws {
    try check(UInt8.self)
    try check(Int8.self)
    try check(UInt16.self)
    try check(Int16.self)
    try check(UInt32.self)
    try check(Int32.self)
    try check(UInt64.self)
    try check(Int64.self)
    try check(UInt.self)
    try check(Int.self)
    try check((0..<2000).map { Float($0) / 3 })
    try check((0..<2000).map { Double($0) / 3 })
    try check((0..<2000).map { Float16($0) / 4 })
  }

  @Test func theyLieOutOfBandWhereverTheyAre() throws {
    let floats = (0..<300).map { Float($0) }
    let value = Deep(
      name: "n", table: ["a": floats, "b": []], list: [Array(0..<256), Array(0..<255)],
      inner: .init(
        bytes: [UInt8](repeating: 7, count: 1024), string: ByteString([UInt8](repeating: 8, count: 5000)),
        maybe: (0..<128).map { Double($0) }, none: nil),
      blob: Blob([1, 2, 3]), short: [1, 2, 3])
    let object = try TestObject(value)
    #expect(object.layout.buffers.map(\.count).sorted() == [3, 1024, 1024, 1024, 1200, 5000])
    #expect(try object.decode(Deep.self) == value)
    let inline = try ArgumentCoding.encode(value).bytes.bytes
    #expect(try CBORDecoder().decode(Deep.self, from: inline) == value)
  }

  @Test func shortOnesStayInTheHeader() throws {
    let object = try TestObject([Float](repeating: 1, count: 255))
    #expect(object.layout.buffers.isEmpty)
    #expect(try object.decode([Float].self) == [Float](repeating: 1, count: 255))
    #expect(try TestObject([UInt8]([1, 2])).header == [0x42, 1, 2])
  }

  @Test func anotherKindOfNumberIsAClearError() throws {
    let object = try TestObject([Float](repeating: 1, count: 1000))
    #expect(object.header == [0xD8, 85, 0])
    #expect { try object.decode([Double].self) } throws: { error in
      guard case .typeMismatch(_, let context)? = error as? DecodingError else { return false }
      return context.debugDescription == "There is an array of Float where Array<Double> was expected."
    }
    #expect(throws: DecodingError.self) { try object.decode([Int32].self) }
    #expect(throws: DecodingError.self) { try object.decode([UInt8].self) }
    #expect(throws: DecodingError.self) { try object.decode([String].self) }
  }

  @Test func theBytesOfAnArrayAreABlob() throws {
    let object = try TestObject((0..<1000).map { Float($0) })
    let blob = try object.decode(Blob.self)
    #expect(object.contains(blob.unsafeBytes.baseAddress))
    #expect(blob.span(of: Float.self)[999] == 999)
    #expect(try BlobArray<Float>(blob)[998] == 998)
  }

  @Test func aBlobInACallStaysOneWhenItsBytesAreMany() throws {
    // In a value too, its own encoding comes first: it is not taken for an array of bytes.
    let blob = Blob([UInt8](repeating: 3, count: 5000))
    let bytes = try ArgumentCoding.encode([blob, blob]).bytes.bytes
    #expect(try CBORDecoder().decode([Blob].self, from: bytes) == [blob, blob])
    let object = try TestObject([blob, blob])
    #expect(object.header == [0x82, 0, 1])
    #expect(try object.decode([Blob].self) == [blob, blob])
  }

  @Test func scalarsBlobsAndErrorsComeBack() throws {
    let five = try TestObject(5)
    withExtendedLifetime(five) {
      #expect(Array(five.bytes) == [0x4D, 0x42, 0x76, 0x31, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5])
    }
    #expect(try TestObject(5).decode(Int.self) == 5)
    #expect(try TestObject("text").decode(String.self) == "text")
    #expect(try TestObject(Int?.none).decode(Int?.self) == nil)
    let blob = try TestObject(Blob([1, 2, 3]))
    #expect(blob.header == [0])
    #expect(try blob.decode(Blob.self) == Blob([1, 2, 3]))
    #expect(try blob.decode(Blob?.self) == Blob([1, 2, 3]))
    #expect(blob.contains(try blob.decode(Blob.self).unsafeBytes.baseAddress))
    #expect(throws: MobulaError.self) { try TestObject(5).decode(Blob.self) }
    let error = MobulaError(.workFailed, "It failed.")
    #expect(throws: error) { try TestObject(error, isError: true).decode(Int.self) }
  }
}
