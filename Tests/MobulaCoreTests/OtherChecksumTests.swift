import Testing

@testable import MobulaCore

/// CRC-32/ISO-HDLC and CRC-64/NVME against the catalogue of parametrised CRC algorithms and a bit-by-bit reference.
@Suite struct OtherChecksumTests {
  private func reference<Word: FixedWidthInteger & UnsignedInteger>(
    _ bytes: some Sequence<UInt8>, polynomial: Word, continuing crc: Word
  ) -> Word {
    var state = ~crc
    for byte in bytes {
      state ^= Word(byte)
      for _ in 0..<8 { state = state & 1 == 1 ? state >> 1 ^ polynomial : state >> 1 }
    }
    return ~state
  }

  /// The catalogue's check values.
  @Test(arguments: ChecksumMethod.allCases) func checkValues(method: ChecksumMethod) {
    Array("123456789".utf8).withUnsafeBytes { bytes in
      #expect(crc32(bytes, continuing: 0, by: method) == 0xCBF4_3926)
      #expect(crc32c(bytes, continuing: 0, by: method) == 0xE306_9283)
      #expect(crc64NVME(bytes, continuing: 0, by: method) == 0xAE8B_1486_0A79_9888)
    }
  }

  @Test(arguments: ChecksumMethod.allCases) func everyLengthIsRight(method: ChecksumMethod) {
    var generator = SeededGenerator(seed: 3)
    let bytes = (0..<700).map { _ in UInt8(truncatingIfNeeded: generator.next() >> 32) }
    for crc in [0, .max, 0x1234_5678_9ABC_DEF0] as [UInt64] {
      for length in 0...600 {
        let range = length % 17..<length % 17 + length
        bytes[range].withUnsafeBytes { part in
          #expect(
            crc64NVME(part, continuing: crc, by: method)
              == reference(bytes[range], polynomial: 0x9A6C_9329_AC4B_C9B5, continuing: crc), "length \(length)")
          let short = UInt32(truncatingIfNeeded: crc)
          #expect(
            crc32(part, continuing: short, by: method)
              == reference(bytes[range], polynomial: 0xEDB8_8320, continuing: short), "length \(length)")
        }
      }
    }
  }

  @Test func ofNothing() {
    #expect(crc32(UnsafeRawBufferPointer(start: nil, count: 0), continuing: 7) == 7)
    #expect(crc64NVME(UnsafeRawBufferPointer(start: nil, count: 0), continuing: 7) == 7)
  }
}
