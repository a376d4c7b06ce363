import MobulaCore
import MobulaStore
import MobulaTestKit
import Testing

@testable import MobulaHost

/// What failed fetches have left.
@Suite struct UnfinishedReplicasTests {
  /// A replica of four chunks, of which some are there.
  private final class Writer: ReplicaWriter {
    let replica: MemoryReplica

    init(_ chunks: [Int]) throws {
      replica = try MemoryReplica(
        object: .random(), geometry: ChunkGeometry(objectSize: 4 * 65_536 - 1, chunkSize: 65_536))
      for chunk in chunks where replica.claim(chunk) { replica.commit(chunk, checksum: 0) }
    }

    var object: ObjectID { replica.object }
    var geometry: ChunkGeometry { replica.geometry }
    var chunkMap: ChunkMap { replica.chunkMap }
    func claimChunk(from start: Int) -> Int? { replica.claimChunk(from: start) }
    func claim(_ index: Int) -> Bool { replica.claim(index) }
    func memory(of index: Int) -> UnsafeMutableRawBufferPointer { replica.memory(of: index) }
    func commit(_ index: Int, checksum: UInt32) { replica.commit(index, checksum: checksum) }
    func commit(_ index: Int, checksum: UInt32, isOwn: Bool) { replica.commit(index, checksum: checksum) }
    func abandon(_ index: Int) { replica.abandon(index) }
    func complete() throws(MobulaError) -> ObjectDigest { throw MobulaError(.unavailable, "Not all is there.") }
    func checkNotAbandoned() throws(MobulaError) {}
    func abandonReplica(_ error: MobulaError) {}
  }

  @Test func bytesAreThoseOfWholeChunks() throws {
    #expect(UnfinishedReplicas.Replica(writer: try Writer([]), check: nil).bytes == 0)
    #expect(UnfinishedReplicas.Replica(writer: try Writer([0, 3]), check: nil).bytes == 2 * 65_536 - 1)
  }

  @Test func eachIsTakenOnce() throws {
    var unfinished = UnfinishedReplicas()
    let writer = try Writer([1])
    _ = unfinished.keep(.init(writer: writer, check: nil))
    #expect(unfinished.take(.random()) == nil)
    #expect(unfinished.take(writer.object)?.writer === writer)
    #expect(unfinished.take(writer.object) == nil)
  }

  /// The time of one that was taken, and left again since, is not that of the later one.
  @Test func anEarlierTimeIsOver() throws {
    var unfinished = UnfinishedReplicas()
    let writer = try Writer([1])
    let first = unfinished.keep(.init(writer: writer, check: nil))
    _ = unfinished.take(writer.object)
    let second = unfinished.keep(.init(writer: writer, check: nil))
    #expect(unfinished.take(writer.object, first) == nil)
    #expect(unfinished.take(writer.object, second) != nil)
  }

  @Test func allAreTakenWhenRoomIsNeeded() throws {
    var unfinished = UnfinishedReplicas()
    for _ in 0..<3 { _ = unfinished.keep(.init(writer: try Writer([1]), check: nil)) }
    #expect(unfinished.takeAll().count == 3)
    #expect(unfinished.takeAll().isEmpty)
  }
}
