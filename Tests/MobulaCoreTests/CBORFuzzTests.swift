import MobulaCore
import MobulaTestKit
import Testing

/// Bytes that nobody wrote. Each test repeats with its seed, which a failure names.
struct CBORFuzzTests {
  private enum Choice: Codable {
    case none
    case some(Int, [String])
  }

  private struct Sample: Codable {
    var name: String
    var data: ByteString
    var raw: [UInt8]
    var numbers: [Double]
    var table: [String: [Int8]]
    var byNumber: [Int: Bool]
    var choices: [Choice]
    var optional: UInt32?
    var error: MobulaError?
    var endpoint: Endpoint
  }

  private func sample(_ generator: inout SeededGenerator) -> Sample {
    func some<T>(_ make: () -> T) -> [T] { (0..<Int.random(in: 0...30, using: &generator)).map { _ in make() } }
    return Sample(
      name: String(repeating: "\u{E9}", count: .random(in: 0...30, using: &generator)),
      data: ByteString(some { 0xFF }), raw: some { 0x1B }, numbers: some { 1.1 }, table: ["a": some { -3 }, "b": []],
      byNumber: [1: true, -5: false], choices: some { .some(1, ["x"]) } + [.none], optional: 7,
      error: MobulaError(.full, "No room."), endpoint: .unix(path: "/run/x"))
  }

  /// Decodes as everything; only well-formed bytes may become a `CBORValue` or a value of a type.
  private func decodeAll(_ bytes: [UInt8], seed: UInt64) {
    var isWellFormed = false
    do throws(MobulaError) {
      let value = try CBORValue(decoding: bytes)
      isWellFormed = true
      let encoded = value.encoded()
      #expect(try CBORValue(decoding: encoded).encoded() == encoded, "seed \(seed), \(hexadecimal(bytes))")
      #expect(!value.description.isEmpty)
    } catch {
      #expect(error.code == .protocolViolation, "seed \(seed), \(hexadecimal(bytes))")
    }
    func decode<T: Codable>(_ type: T.Type) {
      do {
        let value = try CBORDecoder().decode(type, from: bytes)
        #expect(isWellFormed, "seed \(seed), \(hexadecimal(bytes)) decoded as \(type)")
        let encoded = try CBOREncoder().encode(value)
        let again = try CBOREncoder().encode(CBORDecoder().decode(type, from: encoded))
        #expect(encoded.count == again.count, "seed \(seed), \(hexadecimal(bytes)) as \(type)")
      } catch {
        #expect(error is DecodingError, "seed \(seed), \(hexadecimal(bytes)): \(error)")
      }
    }
    decode(Sample.self)
    decode([String: [Int]].self)
    decode([[Double?]].self)
    decode(Choice.self)
    decode(ByteString.self)
    decode([Resources].self)
    decode(Int16.self)
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func randomBytesDoNoHarm(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<300 {
      let count = Int.random(in: 0...64, using: &generator)
      decodeAll((0..<count).map { _ in .random(in: 0...255, using: &generator) }, seed: seed)
    }
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func mutatedEncodingsDoNoHarm(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<20 {
      let original = try CBOREncoder().encode(sample(&generator))
      _ = try CBORDecoder().decode(Sample.self, from: original)
      for _ in 0..<10 {
        var bytes = original
        for _ in 0..<Int.random(in: 1...3, using: &generator) where !bytes.isEmpty {
          let index = Int.random(in: 0..<bytes.count, using: &generator)
          switch Int.random(in: 0..<5, using: &generator) {
          case 0: bytes[index] = .random(in: 0...255, using: &generator)
          case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
          case 2: bytes.remove(at: index)
          case 3: bytes.insert([0x9F, 0xBF, 0xFF, 0xC1, 0x5B, 0xF6].randomElement(using: &generator)!, at: index)
          default: bytes.removeLast(bytes.count - index)
          }
        }
        decodeAll(bytes, seed: seed)
      }
    }
  }

  @Test func everyPrefixOfAnEncodingIsAnError() throws {
    var generator = SeededGenerator(seed: 1)
    let bytes = try CBOREncoder().encode(sample(&generator))
    for count in bytes.indices {
      #expect(throws: DecodingError.self) { try CBORDecoder().decode(Sample.self, from: bytes[..<count]) }
      #expect(throws: MobulaError.self) { try CBORValue(decoding: Array(bytes[..<count])) }
    }
  }
}
