import MobulaTestKit
import Testing

@testable import MobulaCore

/// Each way to compute a CRC32C, with and without a copy, against a bit-by-bit reference.
struct ChecksumTests {
  /// Random bytes that begin at a multiple of 64.
  private final class Bytes {
    let raw: UnsafeMutableRawBufferPointer

    init(count: Int, seed: UInt64) {
      raw = .allocate(byteCount: count, alignment: 64)
      var generator = SeededGenerator(seed: seed)
      for index in raw.indices { raw[index] = UInt8(truncatingIfNeeded: generator.next() >> 32) }
    }

    deinit { raw.deallocate() }
  }

  /// One bit at a time, by the definition.
  private func reference(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32 = 0) -> UInt32 {
    var state = ~crc
    for byte in bytes {
      state ^= UInt32(byte)
      for _ in 0..<8 { state = state & 1 == 1 ? state >> 1 ^ 0x82F6_3B78 : state >> 1 }
    }
    return ~state
  }

  /// Copies `range` of `source` to `place` of `target`, checks the checksum, the copy and the bytes around it.
  private func copies(
    _ range: Range<Int>, of source: Bytes, to place: Int, of target: Bytes, by method: ChecksumMethod,
    continuing crc: UInt32 = 0, expecting checksum: UInt32
  ) -> Bool {
    let from = UnsafeRawBufferPointer(rebasing: source.raw[range])
    let guarded = UnsafeMutableRawBufferPointer(rebasing: target.raw[max(0, place - 130)..<place + range.count + 130])
    guarded.initializeMemory(as: UInt8.self, repeating: 0xA5)
    let to = UnsafeMutableRawBufferPointer(rebasing: target.raw[place..<place + range.count])
    guard copyWithChecksum(from, to: to, continuing: crc, by: method) == checksum else { return false }
    guard crc32c(from, continuing: crc, by: method) == checksum else { return false }
    guard to.elementsEqual(from) else { return false }
    return target.raw[max(0, place - 130)..<place].allSatisfy { $0 == 0xA5 }
      && target.raw[(place + range.count)..<(place + range.count + 130)].allSatisfy { $0 == 0xA5 }
  }

  @Test(arguments: ChecksumMethod.allCases) func everyLengthIsRight(method: ChecksumMethod) {
    let source = Bytes(count: 1600, seed: 1)
    let target = Bytes(count: 2000, seed: 2)
    for crc in [0, 0xFFFF_FFFF, 0x1234_5678] as [UInt32] {
      for length in 0...1500 {
        let start = length % 61
        let expected = reference(UnsafeRawBufferPointer(rebasing: source.raw[start..<start + length]), continuing: crc)
        #expect(
          copies(
            start..<start + length, of: source, to: 128 + length % 67, of: target, by: method, continuing: crc,
            expecting: expected),
          "length \(length), continuing \(crc)")
      }
    }
  }

  /// Lengths on both sides of every limit in the code: rounds, streams, blocks, and non-temporal stores.
  @Test(arguments: ChecksumMethod.allCases) func everyAlignmentIsRight(method: ChecksumMethod) {
    let lengths = [1, 63, 64, 255, 256, 257, 319, 320, 575, 6143, 6144, 24_577, 65_535, 65_536, 65_599, 70_001]
    let source = Bytes(count: 80_000, seed: 3)
    let target = Bytes(count: 80_000, seed: 4)
    for from in 0..<64 {
      for length in lengths {
        let expected = reference(UnsafeRawBufferPointer(rebasing: source.raw[from..<from + length]))
        // Long copies take 16 of the 64 targets, other ones for each source.
        for to in stride(from: length < 1000 ? 0 : from % 4, to: 64, by: length < 1000 ? 1 : 4) {
          #expect(
            copies(from..<from + length, of: source, to: 192 + to, of: target, by: method, expecting: expected),
            "length \(length), from \(from), to \(to)")
        }
      }
    }
  }

  @Test(arguments: ChecksumMethod.allCases) func longCopiesAreRight(method: ChecksumMethod) {
    let source = Bytes(count: 5_000_100, seed: 5)
    let target = Bytes(count: 5_000_500, seed: 6)
    for length in [131_072, 1_048_576, 1_048_577, 4_999_999] {
      let expected = reference(UnsafeRawBufferPointer(rebasing: source.raw[7..<7 + length]), continuing: 99)
      #expect(
        copies(
          7..<7 + length, of: source, to: 181, of: target, by: method, continuing: 99, expecting: expected),
        "length \(length)")
    }
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func aCopyContinues(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let source = Bytes(count: 300_000, seed: seed)
    let target = Bytes(count: 300_000, seed: seed + 1000)
    var crc: UInt32 = 0
    var start = 0
    while start < source.raw.count {
      let most = [10, 1000, 100_000].randomElement(using: &generator)!
      let end = min(start + Int.random(in: 0...most, using: &generator), source.raw.count)
      crc = copyWithChecksum(
        UnsafeRawBufferPointer(rebasing: source.raw[start..<end]),
        to: UnsafeMutableRawBufferPointer(rebasing: target.raw[start...]), continuing: crc)
      start = end
    }
    #expect(crc == reference(UnsafeRawBufferPointer(source.raw)), "seed \(seed)")
    #expect(target.raw.elementsEqual(source.raw), "seed \(seed)")
  }

  @Test func nothingIsCopiedFromNowhere() {
    let nowhere = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    #expect(copyWithChecksum(UnsafeRawBufferPointer(nowhere), to: nowhere, continuing: 5) == 5)
  }
}
