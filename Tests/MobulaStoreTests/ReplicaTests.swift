import Glibc
import MobulaCore
import Testing

@testable import MobulaStore

/// Replicas that arrive chunk by chunk: three chunks of 64 KiB, the last one short.
struct ReplicaTests {
  private let object = ObjectID(1)
  private let geometry = try! ChunkGeometry(objectSize: 150_000, chunkSize: 65_536)
  private var soon: ContinuousClock.Instant { .now + .seconds(20) }

  @Test func chunksAreClaimedOnce() throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    #expect(writer.claimChunk(from: 1) == 1)
    #expect(writer.claimChunk(from: 0) == 0)
    #expect(writer.claimChunk(from: 0) == 2)
    #expect(writer.claimChunk(from: 0) == nil)
    writer.abandon(1)
    #expect(writer.claimChunk(from: 0) == 1)
    #expect(writer.memory(of: 2).count == 150_000 - 2 * 65_536)
    writer.commit(1, checksum: 5)
    #expect(writer.claimChunk(from: 0) == nil)
    #expect(writer.chunkMap.contains(1) && writer.chunkMap.verifiedCount == 1)
    #expect(host.store.contains(object) == .partial(verified: 1, of: 3))
  }

  @Test func chunksCanBeSentOnWhileOthersArrive() throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    let source = try #require(host.store.source(object))
    #expect(source.geometry == geometry && source.digest == nil)
    fill(writer, 1, with: 9)
    #expect(try source.waitForChunk(1, until: soon) == crc32c(of: 9, count: 65_536))
    var byte: UInt8 = 0
    #expect(pread(source.descriptor, &byte, 1, off_t(source.offset + 65_536)) == 1)
    #expect(byte == 9)
    #expect(code { _ = try source.waitForChunk(0, until: .now) } == .deadlineExceeded)
    #expect(code { _ = try writer.complete() } == .unavailable)
    #expect(host.store.inventory().isEmpty)

    fill(writer, 0, with: 8)
    fill(writer, 2, with: 7)
    let digest = try writer.complete()
    #expect(try writer.complete() == digest)
    #expect(source.digest == digest)
    let checksums = try (0..<3).map { try source.waitForChunk($0, until: .now) }
    #expect(digest == ObjectDigest(geometry: geometry, checksums: checksums))
    #expect(host.store.inventory() == [ReplicaInfo(object: object, geometry: geometry, digest: digest)])
  }

  @Test func aWaiterWakesWhenItsChunkArrives() async throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    let source = try #require(host.store.source(object))
    let until = soon
    async let checksum = onThread(named: "waiter") { try source.waitForChunk(2, until: until) }
    fill(writer, 0, with: 1)
    fill(writer, 2, with: 2)
    #expect(try await checksum == crc32c(of: 2, count: 150_000 - 2 * 65_536))
  }

  @Test func aWaiterWakesWhenTheReplicaIsGivenUp() async throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    let source = try #require(host.store.source(object))
    fill(writer, 0, with: 1)
    let until = soon
    let waiting = Task { try await onThread(named: "waiter") { try source.waitForChunk(2, until: until) } }
    writer.abandonReplica(MobulaError(.notFound, "S3 has it no more."))
    await #expect(throws: MobulaError.self) { try await waiting.value }
    #expect(code { _ = try source.waitForChunk(1, until: soon) } == .notFound)
    #expect(try source.waitForChunk(0, until: soon) == crc32c(of: 1, count: 65_536), "what is verified stays")
    #expect(writer.claimChunk(from: 0) == nil)
    #expect(code { _ = try writer.complete() } == .notFound)
    #expect(host.store.contains(object) == nil)
  }

  @Test func memoryOfAnAbandonedReplicaWaitsForWritersAndSources() throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    var source = host.store.source(object)
    #expect(source != nil)
    #expect(writer.claimChunk(from: 0) == 0)
    writer.abandonReplica(MobulaError(.notFound, "Given up."))
    source = nil
    #expect(host.store.statistics.segments == 1, "somebody is writing chunk 0")
    writer.memory(of: 0)[0] = 1
    writer.abandon(0)
    #expect(host.store.statistics.segments == 0 && host.store.statistics.used == 0)
  }

  @Test func aForgottenWriterGivesItsReplicaUp() throws {
    let host = try TemporaryStore()
    var writer: (any ReplicaWriter)? = try host.store.receive(object, geometry: geometry)
    #expect(writer?.claimChunk(from: 0) == 0)
    let source = try #require(host.store.source(object))
    writer = nil
    #expect(code { _ = try source.waitForChunk(0, until: soon) } == .notFound)
    #expect(host.store.statistics.segments == 1)
    withExtendedLifetime(source) {}
  }

  @Test func aDeletedReplicaWakesItsWaitersAndCannotBeCompleted() throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    let source = try #require(host.store.source(object))
    #expect(host.store.delete(object))
    #expect(code { _ = try source.waitForChunk(0, until: soon) } == .notFound)
    #expect(code { _ = try writer.complete() } == .notFound)
    let again = try host.store.receive(object, geometry: geometry)
    #expect(again.claimChunk(from: 0) == 0)
  }

  @Test func anObjectArrivesOnce() async throws {
    let host = try TemporaryStore()
    let writer = try host.store.receive(object, geometry: geometry)
    #expect(code { _ = try host.store.receive(object, geometry: geometry) } == .alreadyExists)
    for index in 0..<3 { fill(writer, index, with: 0) }
    _ = try writer.complete()
    #expect(code { _ = try host.store.receive(object, geometry: geometry) } == .alreadyExists)
    #expect(host.store.delete(object))
    #expect(host.store.statistics.used == 0, "a complete replica is not pinned by its writer")
  }

  @Test func aSourcePinsASealedObject() async throws {
    let host = try TemporaryStore()
    let info = try await host.put(object, randomBytes(2_000_000, seed: 5), by: host.store.attach())
    var source = host.store.source(object)
    #expect(source?.digest == info.digest)
    #expect(host.store.statistics.pinned == 2_000_000)
    #expect(host.store.delete(object))
    #expect(host.store.statistics.segments == 1)
    source = nil
    #expect(host.store.statistics.segments == 0)
    #expect(host.store.source(object) == nil)
  }

  private func crc32c(of byte: UInt8, count: Int) -> UInt32 {
    [UInt8](repeating: byte, count: count).withUnsafeBytes { MobulaCore.crc32c($0) }
  }
}
