import MobulaCore
import Testing

@testable import Mobula

@Suite struct BlobArrayTests {
  struct Point: BitwiseCopyable, Sendable, Equatable {
    var x: Float
    var y: Double
  }

  struct Tensor: Codable, Equatable {
    var name: String
    var values: BlobArray<Float>
    var shape: BlobArray<Int>
  }

  @Test func isACollectionOfItsElements() throws {
    let array = BlobArray((0..<1000).map { Double($0) })
    #expect(array.count == 1000 && array.indices == 0..<1000)
    #expect(array[0] == 0 && array[999] == 999 && array.last == 999)
    #expect(Array(array) == (0..<1000).map { Double($0) })
    #expect(array[10..<12].elementsEqual([10, 11]))
    #expect(array.withUnsafeBufferPointer { Int(bitPattern: $0.baseAddress) % 64 } == 0)
    let empty = BlobArray<Int>([])
    #expect(empty.isEmpty && empty.first == nil && empty.blob.count == 0)
    #expect(BlobArray(stride(from: 0, to: 10, by: 3)) == BlobArray([0, 3, 6, 9]))
    #expect(BlobArray([1, 2]) != BlobArray([1, 2, 3]))
    #expect(BlobArray([0.0]) == BlobArray([-0.0]) && BlobArray([Double.nan]) != BlobArray([Double.nan]))
    #expect(Set([BlobArray([1]), BlobArray([1]), BlobArray([2])]).count == 2)
  }

  @Test func spansAreTheSameMemory() throws {
    let array = BlobArray<UInt16>([1, 2, 0x0304])
    let span = array.span
    #expect(span.count == 3)
    #expect(span[2] == 0x0304)
    let blob = array.blob
    let bytes = blob.bytes
    #expect(bytes.byteCount == 6)
    #expect(bytes.unsafeLoad(fromByteOffset: 4, as: UInt8.self) == 4)
    let typed = blob.span(of: UInt16.self)
    #expect(typed.count == 3)
    #expect(typed[1] == 2)
    let none = Blob([])
    #expect(none.span(of: Int.self).count == 0)
    #expect(none.bytes.byteCount == 0)
  }

  @Test func blobsOfAnotherShapeAreRefused() throws {
    func code(_ body: () throws -> Void) -> MobulaError.Code? {
      do { try body() } catch { return (error as? MobulaError)?.code }
      return nil
    }
    #expect(code { try Blob([UInt8](repeating: 0, count: 7)).checkElements(Float.self) } == .mismatch)
    #expect(code { _ = try BlobArray<Float>(Blob([UInt8](repeating: 0, count: 7))) } == .mismatch)
    #expect(code { _ = try BlobArray<Float>(Blob([UInt8](repeating: 0, count: 8))) } == nil)
    let whole = BlobArray<Int>([1, 2, 3])
    let part = whole.blob.withUnsafeBytes { bytes in
      Blob(bytes: UnsafeRawBufferPointer(rebasing: bytes[4..<12]), owner: OwnStorage(size: 0, alignment: 8) { _ in })
    }
    withExtendedLifetime(whole) {
      #expect(code { try part.checkElements(Int.self) } == .mismatch)
      #expect(code { _ = try BlobArray<Int>(part) } == .mismatch)
      #expect(code { _ = try BlobArray<Int32>(part) } == nil)
    }
  }

  @Test func decodedOnesAreViewsOfTheObject() throws {
    let value = Tensor(name: "w", values: BlobArray([1, 2, 3]), shape: BlobArray([3]))
    let object = try TestObject(value)
    let decoded = try object.decode(Tensor.self)
    #expect(decoded == value)
    #expect(object.contains(decoded.values.withUnsafeBufferPointer { $0.baseAddress }))
    #expect(object.contains(decoded.shape.withUnsafeBufferPointer { $0.baseAddress }))

    let points = BlobArray([Point(x: 1, y: 2), Point(x: 3, y: 4)])
    #expect(try TestObject(points).decode(BlobArray<Point>.self).elementsEqual(points))
  }

  @Test func theyTravelInCallsAndInOtherCoders() throws {
    let value = Tensor(name: "w", values: BlobArray([1, 2, 3]), shape: BlobArray([]))
    let bytes = try ArgumentCoding.encode(value).bytes.bytes
    #expect(try CBORDecoder().decode(Tensor.self, from: bytes) == value)
  }

  @Test func anotherElementTypeIsAClearError() throws {
    let object = try TestObject(BlobArray<Float>([1, 2]))
    #expect { try object.decode(BlobArray<Int32>.self) } throws: { error in
      guard case .typeMismatch(_, let context)? = error as? DecodingError else { return false }
      return context.debugDescription.contains("type Float (4 bytes each) where Int32")
    }
    #expect(throws: DecodingError.self) { try object.decode(BlobArray<Double>.self) }
  }
}
