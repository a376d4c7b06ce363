import MobulaCore
import Testing

@testable import MobulaS3

@Suite struct S3PartWriterTests {
  @Test func claimsWholeChunksUpToThePartSize() throws {
    let sink = try MemorySink(size: 5 * 65_536 + 7)
    #expect(S3PartWriter(claimingFrom: sink, partSize: 1)?.chunks == 0..<1)
    #expect(S3PartWriter(claimingFrom: sink, partSize: 2 * 65_536 + 9)?.chunks == 1..<3)
    #expect(S3PartWriter(claimingFrom: sink, partSize: .max / 2)?.chunks == 3..<6)
    #expect(S3PartWriter(claimingFrom: sink, partSize: 1)?.chunks == nil)
  }

  @Test func leavesOutWhatAnotherHasClaimed() throws {
    let sink = try MemorySink(size: 5 * 65_536)
    #expect(sink.claimChunk(from: 2) == 2)
    #expect(S3PartWriter(claimingFrom: sink, partSize: 1 << 30)?.chunks == 0..<2)
    #expect(S3PartWriter(claimingFrom: sink, partSize: 1 << 30)?.chunks == 3..<5)
    #expect(sink.free == [])
  }

  @Test(arguments: [1, 1000, 65_535, 65_536, 65_537, 200_000])
  func bytesOfAnyPiecesLandInPlace(pieceSize: Int) throws {
    let bytes = pattern(2 * 65_536 + 1000)
    let sink = try MemorySink(size: bytes.count)
    var part = try #require(S3PartWriter(claimingFrom: sink, partSize: 1 << 30))
    var committed = 0
    for start in stride(from: 0, to: bytes.count, by: pieceSize) {
      committed += bytes[start..<min(bytes.count, start + pieceSize)].withUnsafeBytes { part.write($0) }
    }
    #expect(committed == bytes.count)
    #expect(part.missing.isEmpty)
    #expect(sink.bytes == bytes)
    #expect(sink.order == [0, 1, 2])
    #expect(sink.isCompleteAndRight)
  }

  @Test func abandonsOnlyWhatIsIncomplete() throws {
    let sink = try MemorySink(size: 3 * 65_536)
    var part = try #require(S3PartWriter(claimingFrom: sink, partSize: 1 << 30))
    #expect(pattern(65_536 + 10).withUnsafeBytes { part.write($0) } == 65_536)
    #expect(part.missing == 65_546..<196_608)
    part.abandon()
    #expect(sink.free == [1, 2])
    #expect(Set(sink.checksums.keys) == [0])
  }
}
