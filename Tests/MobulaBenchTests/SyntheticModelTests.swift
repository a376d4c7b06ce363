import MobulaCore
import Testing

@testable import MobulaBench

@Suite struct SyntheticModelTests {
  private let model = SyntheticModel(size: 100_003, seed: 7)

  @Test func theBytesFollowFromTheSeed() {
    let known = SyntheticModel(size: 16, seed: 0).bytes(in: 0..<16)
    // SplitMix64 from 0 begins with e220a8397b1dcdaf, 6e789e6aa1b965f4.
    #expect(known == [0xAF, 0xCD, 0x1D, 0x7B, 0x39, 0xA8, 0x20, 0xE2, 0xF4, 0x65, 0xB9, 0xA1, 0x6A, 0x9E, 0x78, 0x6E])
    #expect(SyntheticModel(size: 100_003, seed: 8).digest() != model.digest())
  }

  @Test(arguments: [1, 3, 8, 4096, 99_999, 100_003])
  func piecesMakeUpTheWhole(pieceSize: Int) {
    let whole = model.bytes(in: 0..<model.size)
    #expect(model.pieces(of: pieceSize).flatMap { model.bytes(in: $0) } == whole)
  }

  @Test func theDigestIsThatOfTheBytes() {
    let big = SyntheticModel(size: 3 << 20 | 5, seed: 1)
    let bytes = big.bytes(in: 0..<big.size)
    #expect(bytes.withUnsafeBytes { SyntheticModel.Digest(of: $0) } == big.digest())
    #expect(SyntheticModel(size: 0, seed: 1).digest().crc32c == 0)
  }

  @Test func oneWrongBitIsFound() throws {
    var bytes = model.bytes(in: 0..<model.size)
    try bytes.withUnsafeBytes { try SyntheticModel.verify($0, against: model.digest()) }
    bytes[77_777] ^= 1
    #expect(throws: MobulaError.self) {
      try bytes.withUnsafeBytes { try SyntheticModel.verify($0, against: model.digest()) }
    }
    bytes[77_777] ^= 1
    #expect(throws: MobulaError.self) {
      try bytes.dropLast().withUnsafeBytes { try SyntheticModel.verify($0, against: model.digest()) }
    }
  }
}
