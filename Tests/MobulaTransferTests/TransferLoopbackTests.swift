import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import MobulaTransfer

@Suite struct TransferLoopbackTests {
  @Test func anObjectArrivesWithItsDigest() async throws {
    let original = try makeReplica(chunks: 300, offset: 12_288)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    let report = try await host.fetch(into: copy)
    #expect(report == TransferReport(bytes: original.geometry.objectSize, chunks: 300, isComplete: true))
    #expect(copy.digest == original.digest)
    #expect(copy.hasSameBytes(as: original))
    #expect(copy.claimedChunks.isEmpty)
    await host.close()
    #expect(host.server.bytesSent == original.geometry.objectSize)
    #expect(host.server.connectionCount == 0)
    #expect(TransferCounters.bytesReceived >= original.geometry.objectSize)
    #expect(TransferCounters.bytesSent >= original.geometry.objectSize)
  }

  @Test func theSmallestObjectArrives() async throws {
    let geometry = try ChunkGeometry(objectSize: 1)
    let original = try MemoryReplica(object: .random(), geometry: geometry, seed: 1)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    #expect(try await host.fetch(into: copy).bytes == 1)
    #expect(copy.digest == original.digest)
    await host.close()
  }

  @Test func largeChunksArriveInPieces() async throws {
    let geometry = try ChunkGeometry(objectSize: 9_000_001, chunkSize: 4_194_304)
    let original = try MemoryReplica(object: .random(), geometry: geometry, seed: 2)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    #expect(try await host.fetch(into: copy).chunks == 3)
    #expect(copy.digest == original.digest)
    await host.close()
  }

  @Test func aPartialReplicaForwardsWhatItHas() async throws {
    let a = try makeReplica(chunks: 100, filled: false)
    let seed = a.object.low
    let b = try a.empty(), c = try a.empty()
    let hostA = try TestHost(serving: [a], timeouts: TransferTimeouts(keepalive: .milliseconds(5)))
    let hostB = try TestHost(serving: [b], timeouts: TransferTimeouts(keepalive: .milliseconds(5)))
    async let intoB = hostA.fetch(into: b)
    async let intoC = hostB.fetch(into: c)
    a.fill(0, seed: seed)
    a.fill(1, seed: seed)
    // The last host has a chunk while the first lacks 98.
    try await c.verified(1)
    #expect(a.chunkMap.verifiedCount == 2)
    #expect(c.chunkMap.verifiedCount <= 2)
    for index in 2..<100 { a.fill(index, seed: seed) }
    #expect(try await intoB.isComplete)
    #expect(try await intoC.isComplete)
    #expect(c.digest == a.digest)
    await hostA.close()
    await hostB.close()
    #expect(hostA.server.bytesSent == a.geometry.objectSize)
    #expect(hostB.server.bytesSent == a.geometry.objectSize)
  }

  @Test func twoSourcesFillOneSinkAndSendNothingTwice() async throws {
    let original = try makeReplica(chunks: 200)
    let one = try TestHost(serving: [original]), two = try TestHost(serving: [original])
    let copy = try original.empty()
    async let first = one.fetch(into: copy)
    async let second = two.fetch(into: copy)
    let bytes = try await first.bytes + second.bytes
    #expect(bytes == original.geometry.objectSize)
    #expect(copy.digest == original.digest)
    #expect(copy.commits == 200)
    await one.close()
    await two.close()
    #expect(one.server.bytesSent + two.server.bytesSent == original.geometry.objectSize)
  }

  @Test func whatOthersHaveClaimedIsLeftToThem() async throws {
    let original = try makeReplica(chunks: 3)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    #expect(copy.claimChunk(from: 1) == 1)
    let report = try await host.fetch(into: copy)
    #expect(report.chunks == 2)
    #expect(!report.isComplete)
    copy.abandon(1)
    #expect(try await host.fetch(into: copy).isComplete)
    await host.close()
  }

  @Test func manyReceiversAreServedAtOnce() async throws {
    let original = try makeReplica(chunks: 20)
    let host = try TestHost(serving: [original])
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for _ in 0..<8 {
        group.addTask {
          let copy = try original.empty()
          return try await host.fetch(into: copy).isComplete && copy.digest == original.digest
        }
      }
      for try await isRight in group { #expect(isRight) }
    }
    await host.close()
  }

  @Test func anAddressMayBeANameOrIPv6() async throws {
    let original = try makeReplica(chunks: 2)
    for name in ["localhost", "::1"] {
      let id = HostID.random()
      // A machine without IPv6 has no ::1 to bind to.
      guard
        let server = try? TransferServer(
          endpoint: .tcp(host: name, port: 0), token: TestHost.token, hello: TestHost.hello(id),
          source: { _ in original })
      else { continue }
      let copy = try original.empty()
      let report = try await fetchChunks(
        into: copy, from: server.endpoint, token: TestHost.token, hello: TestHost.hello(.random()), expecting: id)
      #expect(report.isComplete)
      server.close()
      await server.waitUntilClosed()
    }
  }
}
