import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

struct CBORTypedArrayTests {
  /// Keeps what it is given, in order.
  private final class Buffers: CBORBufferSink, CBORBufferSource {
    private let kept: Mutex<[[UInt8]]>
    let limit: Int

    init(_ kept: [[UInt8]] = [], limit: Int = .max) {
      self.kept = Mutex(kept)
      self.limit = limit
    }

    var all: [[UInt8]] { kept.withLock { $0 } }

    func add<Element: BitwiseCopyable & Sendable>(_ array: [Element]) -> Int? {
      kept.withLock { kept in
        guard kept.count < limit else { return nil }
        kept.append(array.withUnsafeBytes { Array($0) })
        return kept.count - 1
      }
    }

    func bytes(ofBuffer index: Int) throws -> UnsafeRawBufferPointer {
      guard all.indices.contains(index) else { throw MobulaError(.corrupted, "There is no buffer \(index).") }
      // Never freed: these are tests.
      let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: all[index].count, alignment: 1)
      copy.copyBytes(from: all[index])
      return UnsafeRawBufferPointer(copy)
    }
  }

  private let words = (0..<256).map { UInt32($0) }

  @Test func bigArraysAreTypedOnesInLine() throws {
    let bytes = try CBOREncoder().encode(words)
    #expect(bytes.prefix(5) == [0xD8, 70, 0x59, 0x04, 0x00])
    #expect(bytes.count == 5 + 1024)
    #expect(try CBORDecoder().decode([UInt32].self, from: bytes) == words)
    #expect(try CBOREncoder().encode(Array(words.dropLast())).first == 0x98)
  }

  @Test func chunkedOnesAndPlainArraysAreRead() throws {
    let bytes: [UInt8] = [0xD8, 69, 0x5F, 0x41, 1, 0x43, 2, 3, 4, 0xFF]
    #expect(try CBORDecoder().decode([UInt16].self, from: bytes) == [0x0201, 0x0403])
    #expect(try CBORDecoder().decode([UInt16].self, from: [0x82, 1, 0x19, 1, 0]) == [1, 256])
    #expect(try CBORDecoder().decode([UInt8].self, from: [0xD8, 64, 0x42, 1, 2]) == [1, 2])
    #expect(try CBORDecoder().decode(ByteString.self, from: [0xD8, 64, 0x41, 1]).bytes == [1])
    // A tag of another kind is passed over.
    #expect(try CBORDecoder().decode([UInt16].self, from: [0xD9, 0xD9, 0xF7, 0x81, 1]) == [1])
  }

  @Test func aSinkTakesThemUntilItIsFull() throws {
    let buffers = Buffers(limit: 2)
    var encoder = CBOREncoder()
    encoder.buffers = buffers
    let lists: [[UInt32]] = [words, words.reversed(), words.map { $0 * 3 }, [1]]
    let bytes = try encoder.encode(lists)
    #expect(buffers.all.map(\.count) == [1024, 1024])
    #expect(bytes.prefix(7) == [0x84, 0xD8, 70, 0, 0xD8, 70, 1])
    var decoder = CBORDecoder()
    decoder.buffers = buffers
    #expect(try decoder.decode([[UInt32]].self, from: bytes) == lists)
  }

  @Test func brokenOnesAreErrors() throws {
    var decoder = CBORDecoder()
    func refused(_ bytes: [UInt8], _ message: String) {
      #expect("\(message)") { try decoder.decode([UInt16].self, from: bytes) } throws: { "\($0)".contains(message) }
    }
    refused([0xD8, 69, 0], "the number of a buffer that is not here")
    decoder.buffers = Buffers([[1, 2, 3], [1, 2]])
    refused([0xD8, 69, 0], "A run of 3 bytes does not fit")
    refused([0xD8, 69, 2], "There is no buffer 2")
    refused([0xD8, 69, 0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "There is no buffer")
    refused([0xD8, 69, 0x43, 1, 2, 3], "A run of 3 bytes does not fit")
    refused([0xD8, 69, 0x44, 1, 2], "claims 4 elements")
    refused([0xD8, 69], "ends early")
    refused([0xD8, 69, 0x82, 1, 2], "an array")
    refused([0xD8, 70, 1], "an array of UInt32")
    refused([0xD8, 80, 1], "tag 80")
    #expect(try decoder.decode([UInt16].self, from: [0xD8, 69, 1]) == [0x0201])
  }

  @Test func nestingHasTheSameLimitForThem() throws {
    indirect enum Nest: Encodable {
      case leaf([UInt32])
      case level(Nest)
      func encode(to encoder: any Encoder) throws {
        var container = encoder.unkeyedContainer()
        switch self {
        case .leaf(let words): try container.encode(words)
        case .level(let inner): try container.encode(inner)
        }
      }
    }
    func nest(_ levels: Int) -> Nest { (1..<levels).reduce(.leaf(words)) { inner, _ in .level(inner) } }
    let deepest = try CBOREncoder().encode(nest(63))
    _ = try CBORValue(decoding: deepest)
    #expect(throws: EncodingError.self) { try CBOREncoder().encode(nest(64)) }
  }

  @Test(arguments: [1, 2, 3]) func damageIsAnErrorOrAValue(seed: UInt64) throws {
    let buffers = Buffers()
    var encoder = CBOREncoder()
    encoder.buffers = buffers
    let good = try encoder.encode(["a": words, "b": [], "c": Array(words.prefix(20))])
    var decoder = CBORDecoder()
    decoder.buffers = Buffers(buffers.all.map { Array($0.prefix(64)) })
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<5000 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      }
      _ = try? decoder.decode([String: [UInt32]].self, from: bytes)
    }
    print("seed \(seed)")
  }
}
