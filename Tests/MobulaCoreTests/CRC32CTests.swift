import MobulaCore
import MobulaTestKit
import Testing

struct CRC32CTests {
  private func checksum(_ bytes: [UInt8], continuing crc: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { crc32c($0, continuing: crc) }
  }

  /// One bit at a time, by the definition. The state has no inversion: `~` at both ends is the caller's.
  private func step(_ state: UInt32, _ byte: UInt8) -> UInt32 {
    var state = state ^ UInt32(byte)
    for _ in 0..<8 { state = state & 1 == 1 ? state >> 1 ^ 0x82F6_3B78 : state >> 1 }
    return state
  }

  @Test func theCheckValueIsRight() {
    #expect(checksum(Array("123456789".utf8)) == 0xE306_9283)
    #expect(checksum([]) == 0)
    #expect(crc32c(UnsafeRawBufferPointer(start: nil, count: 0), continuing: 5) == 5)
  }

  /// RFC 3720, appendix B.4.
  @Test func theRFCsExamplesAreRight() {
    #expect(checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
    #expect(checksum([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
    #expect(checksum([UInt8](0..<32)) == 0x46DD_794E)
    #expect(checksum((0..<32).reversed()) == 0x113F_DB5C)
    let read = "01c00000000000000000000000000000140000000000040000000014000000182800000000000000020000" + "0000000000"
    #expect(checksum(bytes(hex: read)) == 0xD996_3A56)
  }

  /// Every alignment, with every length of up to 300 bytes and every remainder beyond
  /// one and several rounds of the three streams that long buffers are cut into.
  @Test func everyAlignmentAndLengthIsRight() {
    var generator = SeededGenerator(seed: 3)
    let words = (0..<3300).map { _ in generator.next() }
    words.withUnsafeBytes { bytes in
      #expect(UInt(bitPattern: bytes.baseAddress) % 8 == 0)
      for alignment in 0..<8 {
        var state = ~UInt32(0)
        for length in 0...26_000 {
          let round = length % 6144
          if length < 300 || round < 20 || round > 6130 {
            let slice = UnsafeRawBufferPointer(rebasing: bytes[alignment..<alignment + length])
            #expect(crc32c(slice) == ~state, "alignment \(alignment), length \(length)")
          }
          state = step(state, bytes[alignment + length])
        }
      }
    }
  }

  @Test(arguments: 1...10 as ClosedRange<UInt64>) func aChecksumContinues(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let bytes = (0..<20_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
    let cut = Int.random(in: 0...bytes.count, using: &generator)
    #expect(
      checksum(Array(bytes[cut...]), continuing: checksum(Array(bytes[..<cut]))) == checksum(bytes), "seed \(seed)")
  }
}
