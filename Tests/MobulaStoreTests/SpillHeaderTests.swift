import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// The header of a spill file, as bytes only. Fuzz tests repeat with their seed, which a failure names.
struct SpillHeaderTests {
  private func decode(_ bytes: [UInt8], fileSize: Int) throws(MobulaError) -> SpillHeader {
    try SpillHeader(decoding: bytes, fileSize: fileSize, file: "x.spill")
  }

  /// Puts the right checksum over fields that are wrong.
  private func withChecksum(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    let front = bytes[..<16].withUnsafeBytes { crc32c($0) }
    let sum = bytes[20...].withUnsafeBytes { crc32c($0, continuing: front) }
    for index in 0..<4 { bytes[16 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * index)) }
    return bytes
  }

  private func set(_ value: UInt64, at offset: Int, count: Int = 8, in bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    return bytes
  }

  /// A header whose checksums nobody verifies.
  private func random(_ generator: inout SeededGenerator) throws -> SpillHeader {
    let chunkSize = 1 << Int.random(in: 16...26, using: &generator)
    let geometry = try ChunkGeometry(
      objectSize: .random(in: 1...2000 * chunkSize, using: &generator), chunkSize: chunkSize)
    return SpillHeader(
      object: .random(using: &generator), geometry: geometry, flags: generator.next(),
      checksums: (0..<geometry.count).map { _ in UInt32(truncatingIfNeeded: generator.next()) },
      contains: (0..<Int.random(in: 0...300, using: &generator)).map { _ in .random(using: &generator) })
  }

  @Test(arguments: 1...50 as ClosedRange<UInt64>) func comesBackAsItWas(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let header = try random(&generator)
    let bytes = header.encoded()
    #expect(bytes.count == header.length && bytes.count.isMultiple(of: 4096), "seed \(seed)")
    #expect(try decode(bytes, fileSize: header.fileSize) == header, "seed \(seed)")
    #expect(try decode(bytes + [1, 2, 3], fileSize: header.fileSize) == header, "seed \(seed)")
    let prefix = Array(bytes.prefix(SpillHeader.prefixLength))
    #expect(
      try SpillHeader.length(ofPrefix: prefix, fileSize: header.fileSize, file: "") == bytes.count, "seed \(seed)")
  }

  /// As the table in `SpillHeader` says, byte for byte. The checksum was computed by Python, bit by bit.
  @Test func hasThePublishedLayout() throws {
    let header = SpillHeader(
      object: ObjectID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718),
      geometry: try ChunkGeometry(objectSize: 65_537, chunkSize: 65_536), flags: 0x2122_2324_2526_2728,
      checksums: [0x3132_3334, 0x4142_4344], contains: [ObjectID(high: 5, low: 6)])
    let bytes = header.encoded()
    let expected: [UInt8] =
      Array("MBSP0001".utf8) + [0, 16, 0, 0, 0, 0, 0, 0] + [0xEB, 0x75, 0xA8, 0x07] + [0, 0, 1, 0]
      + [8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11] + [1, 0, 1, 0, 0, 0, 0, 0]
      + [0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21] + [1, 0, 0, 0, 0, 0, 0, 0]
      + [0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41] + [5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]
    #expect(Array(bytes.prefix(expected.count)) == expected)
    #expect(bytes[expected.count...].allSatisfy { $0 == 0 } && bytes.count == 4096)
    #expect(header.fileSize == 4096 + 65_537)
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func randomBytesAreAnError(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<200 {
      let count = Int.random(in: 0...9000, using: &generator)
      var bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
      let fileSize = Bool.random(using: &generator) ? count : Int.random(in: 0...Int.max, using: &generator)
      #expect(code { _ = try decode(bytes, fileSize: fileSize) } == .corrupted, "seed \(seed)")
      // The same behind the right magic, and under the right checksum.
      guard count >= 64 else { continue }
      bytes.replaceSubrange(0..<8, with: "MBSP0001".utf8)
      #expect(code { _ = try decode(withChecksum(bytes), fileSize: fileSize) } == .corrupted, "seed \(seed)")
    }
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func flippedBitsAreAnError(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let header = try random(&generator)
    let original = header.encoded()
    for _ in 0..<200 {
      var bytes = original
      // Up to three bits: CRC32C finds all of these.
      var flipped: Set<Int> = []
      let limit = Bool.random(using: &generator) ? 8 * 64 : 8 * bytes.count
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        flipped.insert(.random(in: 0..<limit, using: &generator))
      }
      for bit in flipped { bytes[bit / 8] ^= 1 << UInt8(bit % 8) }
      #expect(
        code { _ = try decode(bytes, fileSize: header.fileSize) } == .corrupted, "seed \(seed), bits \(flipped)")
    }
  }

  /// Wrong fields under the right checksum: what is accepted at all has lengths that agree.
  @Test(arguments: 1...20 as ClosedRange<UInt64>) func wrongFieldsDoNoHarm(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let header = try random(&generator)
    let original = header.encoded()
    let extremes: [UInt64] = [0, 1, 64, 4095, 4096, 65_536, .max, 1 << 63, 1 << 62, 1 << 60, 1 << 59, UInt64(Int.max)]
    for _ in 0..<200 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let offset = [8, 20, 24, 40, 48, 56].randomElement(using: &generator)!
        let value = Bool.random(using: &generator) ? extremes.randomElement(using: &generator)! : generator.next()
        bytes = set(value, at: offset, count: offset == 20 ? 4 : 8, in: bytes)
      }
      bytes = withChecksum(bytes)
      let sizes = [header.fileSize, 0, bytes.count, .max, .random(in: 0...Int.max, using: &generator)]
      let fileSize = sizes.randomElement(using: &generator)!
      do throws(MobulaError) {
        let decoded = try decode(bytes, fileSize: fileSize)
        #expect(decoded.fileSize == fileSize && decoded.encoded() == bytes, "seed \(seed)")
      } catch {
        #expect(error.code == .corrupted, "seed \(seed)")
      }
    }
  }

  @Test(arguments: 1...5 as ClosedRange<UInt64>) func everyTruncationIsAnError(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let header = try random(&generator)
    let bytes = header.encoded()
    for count in Array(0...70) + (0..<50).map({ _ in Int.random(in: 0..<bytes.count, using: &generator) }) {
      let part = Array(bytes.prefix(count))
      #expect(code { _ = try decode(part, fileSize: header.fileSize) } == .corrupted, "seed \(seed), \(count) bytes")
      #expect(code { _ = try decode(part, fileSize: count) } == .corrupted, "seed \(seed), \(count) bytes")
    }
    for size in [header.fileSize - 1, header.fileSize + 1, 0, .max] {
      #expect(code { _ = try decode(bytes, fileSize: size) } == .corrupted, "seed \(seed), file of \(size) bytes")
    }
  }
}

struct SpillFileNameTests {
  private let object = ObjectID(high: 0xABC, low: 1), instance = SpillInstance(high: 2, low: 0xDEF)

  @Test func namesComeBackAsTheyWere() {
    for name in [SpillFileName.object(object, instance), .temporary(object, instance, .max), .lock(instance)] {
      #expect(SpillFileName("\(name)") == name)
      #expect(name.instance == instance)
    }
    let text = "0000000000000abc0000000000000001.00000000000000020000000000000def"
    #expect("\(SpillFileName.object(object, instance))" == text + ".spill")
    #expect("\(SpillFileName.temporary(object, instance, 17))" == text + ".17.tmp")
    #expect("\(SpillFileName.lock(instance))" == "00000000000000020000000000000def.lock")
  }

  @Test func otherNamesAreNotTaken() {
    let text = "\(object).\(instance)"
    for name in [
      "", ".", "..", "spill", ".spill", "\(text)", "\(text).spill.", "\(text).Spill", "\(text).+1.tmp",
      "\(text).01.tmp",
      "\(text).tmp", "\(text).1.spill", "\(object).spill", "\(text).lock", "\(object).x.spill", "x\(text).spill",
      "\(text.uppercased()).spill", "\(text).99999999999999999999.tmp",
    ] {
      #expect(SpillFileName(name) == nil, "\(name)")
    }
  }
}
