import MobulaCore
import Testing

@testable import Mobula

@Suite struct ValueTests {
  struct Layers: Codable, Equatable {
    var name: String
    var layers: [String: Blob]
    var maybe: [Blob?]
  }

  /// A value's bytes, as they would lie in an object.
  private func object(_ value: some Encodable) throws -> [UInt8] {
    let encoded = try EncodedValue(value)
    var bytes = [UInt8](repeating: 0xAA, count: encoded.layout.size)
    bytes.withUnsafeMutableBytes { encoded.write(to: $0) }
    return bytes
  }

  @Test func buffersAreAlignedAndGapsAreZero() throws {
    let value = Layers(
      name: "n", layers: ["a": Blob([1, 2, 3])], maybe: [Blob([UInt8](repeating: 9, count: 100)), nil, Blob([])])
    let bytes = try object(value)
    let layout = try bytes.withUnsafeBytes { try ValueLayout(reading: $0) }
    #expect(layout.buffers.count == 3 && layout.buffers.allSatisfy { $0.lowerBound % 64 == 0 })
    #expect(layout.buffers.map(\.count).sorted() == [0, 3, 100])
    #expect(layout.size == bytes.count)
    var covered = Set(0..<layout.header.upperBound)
    for range in layout.buffers { covered.formUnion(range) }
    #expect(bytes.indices.allSatisfy { covered.contains($0) || bytes[$0] == 0 })
  }

  @Test func aBlobsPrefixIsWhatAnEncodedBlobHas() throws {
    let data = [UInt8](repeating: 5, count: 1000)
    let (layout, prefix) = ValueLayout.blob(size: data.count)
    #expect(try object(Blob(data)) == prefix + data)
    #expect(layout.size == prefix.count + data.count)
  }

  @Test func blobsTravelInlineInArguments() throws {
    let (bytes, references) = try ArgumentCoding.encode(Blob([1, 2, 3]))
    #expect(bytes.bytes == [0x43, 1, 2, 3])
    #expect(references.isEmpty)
  }

  @Test func damagedObjectsAreErrors() throws {
    let good = try object(Layers(name: "n", layers: ["a": Blob([1, 2, 3])], maybe: []))
    func read(_ bytes: [UInt8]) -> MobulaError? {
      bytes.withUnsafeBytes { bytes in
        do throws(MobulaError) {
          _ = try ValueLayout(reading: bytes)
          return nil
        } catch { return error }
      }
    }
    #expect(read(good) == nil)
    for count in 0..<good.count where count < 16 || count == good.count - 1 {
      #expect(read(Array(good[..<count]))?.code == .corrupted, "cut to \(count) bytes")
    }
    // Every byte of the table set to its worst: an error or a layout that lies inside, never a crash.
    for index in 0..<32 {
      var bad = good
      bad[index] = 0xFF
      bad.withUnsafeBytes { bytes in
        if let layout = try? ValueLayout(reading: bytes) {
          #expect(layout.header.upperBound <= bytes.count && layout.size <= bytes.count)
        }
      }
    }
  }
}
