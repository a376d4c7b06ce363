import MobulaCore
import MobulaTestKit
import MobulaWire
import Synchronization
import Testing

@testable import MobulaTransfer

@Suite(.timeLimit(.minutes(2))) struct TransferLoopbackTests {
  @Test func anObjectArrivesWithItsDigest() async throws {
    let original = try makeReplica(chunks: 300, offset: 12_288)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    let report = try await host.fetch(into: copy)
    let size = original.geometry.objectSize
    #expect(report == TransferReport(bytes: size, chunks: 300, sources: [host.id: size]))
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
    #expect(try await intoB.chunks == 100)
    #expect(try await intoC.chunks == 100)
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
    #expect(try await fetch(into: copy, from: [one.peer, two.peer]).bytes == original.geometry.objectSize)
    #expect(copy.digest == original.digest)
    #expect(copy.commits == 200)
    await one.close()
    await two.close()
    #expect(one.server.bytesSent + two.server.bytesSent == original.geometry.objectSize)
    #expect(one.server.bytesSent > 0 && two.server.bytesSent > 0)
  }

  @Test func receiversGiveEachOtherWhatTheMakerSentOnce() async throws {
    let original = try makeReplica(chunks: 400)
    let maker = try TestHost(serving: [original])
    let receivers = try (0..<4).map { _ in try Receiver(of: original) }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (number, receiver) in receivers.enumerated() {
        // Each knows the maker and those before it; those after it make themselves known.
        let known = [maker.peer] + receivers[..<number].map(\.host.peer)
        group.addTask { try await receiver.run(from: known) }
      }
      try await group.waitForAll()
    }
    for receiver in receivers {
      #expect(receiver.copy.digest == original.digest)
      #expect(receiver.copy.commits == 400)
      await receiver.host.close()
    }
    await maker.close()
    let sent = [maker.server.bytesSent] + receivers.map(\.host.server.bytesSent)
    // Some were cancelled too late.
    #expect(sent.reduce(0, +) < 9 * original.geometry.objectSize / 2, "\(sent)")
    // Once, and what the receivers asked for at the end while it had nothing else to do.
    #expect(maker.server.bytesSent < 2 * original.geometry.objectSize, "\(sent)")
  }

  @Test func manyReceiversAreServedAtOnce() async throws {
    let original = try makeReplica(chunks: 20)
    let host = try TestHost(serving: [original])
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for _ in 0..<8 {
        group.addTask {
          let copy = try original.empty()
          return try await host.fetch(into: copy).chunks == 20 && copy.digest == original.digest
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
      let report = try await fetch(into: copy, from: [TransferPeer(host: id, bulk: server.endpoint)])
      #expect(report.chunks == 2)
      server.close()
      await server.waitUntilClosed()
    }
  }
}

/// A host that receives an object, and serves what it has of it.
private final class Receiver: Sendable {
  let copy: MemoryReplica
  let host: TestHost
  private let exchange: ObjectExchange

  init(of original: MemoryReplica) throws {
    let copy = try original.empty()
    let exchanges = ExchangeBox()
    self.copy = copy
    host = try TestHost(source: { _ in copy }, asked: { _, peer in exchanges.exchange?.offer(peer) })
    exchange = ObjectExchange(into: copy, own: host.peer, token: TestHost.token, hello: TestHost.hello(host.id)) {
      _, _ in throw MobulaError(.unavailable, "There is no other source.")
    }
    exchanges.exchange = exchange
  }

  func run(from sources: [TransferPeer]) async throws { _ = try await exchange.run(from: sources) }
}

private final class ExchangeBox: Sendable {
  private let content = Mutex<ObjectExchange?>(nil)
  var exchange: ObjectExchange? {
    get { content.withLock { $0 } }
    set { content.withLock { $0 = newValue } }
  }
}
