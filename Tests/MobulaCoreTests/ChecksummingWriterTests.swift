import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaCore

struct ChecksummingWriterTests {
  private struct Refused: Error {}

  private func random(_ count: Int, _ generator: inout SeededGenerator) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: generator.next() >> 24) }
    return bytes
  }

  private func checksums(_ bytes: [UInt8], _ geometry: ChunkGeometry) -> [UInt32] {
    bytes.withUnsafeBytes { bytes in
      (0..<geometry.count).map { crc32c(UnsafeRawBufferPointer(rebasing: bytes[geometry.range(of: $0)])) }
    }
  }

  /// The memory after `body` wrote to it, with 100 bytes behind the object, and the chunks' checksums.
  private func written(
    _ geometry: ChunkGeometry, threads: Int? = nil, _ body: (inout ChecksummingWriter) -> Void
  ) -> (memory: [UInt8], checksums: [UInt32]) {
    var memory = [UInt8](repeating: 0xA5, count: geometry.objectSize + 100)
    let checksums = memory.withUnsafeMutableBytes { memory in
      var writer = ChecksummingWriter(memory, geometry: geometry, threads: threads)
      body(&writer)
      return writer.finish()
    }
    return (memory, checksums)
  }

  private func append(_ bytes: ArraySlice<UInt8>, to writer: inout ChecksummingWriter) {
    bytes.withUnsafeBytes { writer.append($0) }
  }

  @Test(arguments: 1...40 as ClosedRange<UInt64>) func randomPiecesGiveTheChunksChecksums(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let size = Int.random(in: 1...1_500_000, using: &generator)
    let geometry = try ChunkGeometry(objectSize: size, chunkSize: [65_536, 262_144].randomElement(using: &generator)!)
    var expected = random(size, &generator)
    let result = written(geometry) { writer in
      while writer.remaining > 0 {
        let start = writer.written
        let most = [0, 100, 10_000, 300_000].randomElement(using: &generator)!
        let end = start + min(Int.random(in: 0...most, using: &generator), writer.remaining)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0:
          writer.appendZeros(end - start)
          for index in start..<end { expected[index] = 0 }
        case 1:
          writer.fill(end - start) { $0.copyBytes(from: expected[start..<end]) }
        default:
          append(expected[start..<end], to: &writer)
        }
        let now = writer.written
        #expect(now == end)
      }
    }
    #expect(result.memory == expected + [UInt8](repeating: 0xA5, count: 100), "seed \(seed)")
    #expect(result.checksums == checksums(expected, geometry), "seed \(seed)")
  }

  /// Three calls that threads share, each beginning and ending within a chunk.
  @Test(arguments: [1, 2, 5]) func threadsShareLongPieces(threads: Int) throws {
    var generator = SeededGenerator(seed: 7)
    let piece = ChecksummingWriter.sharedSize + 1_000_003
    let geometry = try ChunkGeometry(objectSize: 3 * piece + 77, chunkSize: 262_144)
    var expected = random(geometry.objectSize, &generator)
    for index in 77 + piece..<77 + 2 * piece { expected[index] = 0 }
    let result = written(geometry, threads: threads) { writer in
      append(expected[..<77], to: &writer)
      append(expected[77..<77 + piece], to: &writer)
      writer.appendZeros(piece)
      writer.fill(piece) { $0.copyBytes(from: expected[(77 + 2 * piece)...]) }
    }
    #expect(result.memory == expected + [UInt8](repeating: 0xA5, count: 100))
    #expect(result.checksums == checksums(expected, geometry))
  }

  @Test func whatCouldNotBeFilledIsWrittenAgain() throws {
    var generator = SeededGenerator(seed: 8)
    let geometry = try ChunkGeometry(objectSize: 100_000, chunkSize: 65_536)
    let expected = random(geometry.objectSize, &generator)
    let result = written(geometry) { writer in
      append(expected[..<10], to: &writer)
      #expect(throws: Refused.self) {
        try writer.fill(70_000) { bytes throws(Refused) in
          bytes[0] = 1
          throw Refused()
        }
      }
      let (count, left) = (writer.written, writer.remaining)
      #expect(count == 10)
      #expect(left == 99_990)
      append(expected[10...], to: &writer)
    }
    #expect(result.checksums == checksums(expected, geometry))
  }

  @Test(arguments: [1, 2, 3, 1000], [1, 2, 4]) func everyPieceIsDoneOnce(count: Int, threads: Int) {
    final class Calls: Sendable {
      let ofPiece: Mutex<[Int]>
      init(count: Int) { ofPiece = Mutex(Array(repeating: 0, count: count)) }
    }
    let calls = Calls(count: count)
    SharedPieces.run(count, threads: threads) { index in calls.ofPiece.withLock { $0[index] += 1 } }
    #expect(calls.ofPiece.withLock { $0 } == [Int](repeating: 1, count: count))
  }
}
