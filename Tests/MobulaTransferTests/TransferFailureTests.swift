import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import MobulaTransfer

@Suite(.timeLimit(.minutes(2))) struct TransferFailureTests {
  /// A sender that waits for its own replica sees at these intervals that its connection is gone.
  private let keepalive = TransferTimeouts(keepalive: .milliseconds(10))

  @Test func aKilledSourceIsReplacedAtTheMissingChunk() async throws {
    let original = try makeReplica(chunks: 50)
    let dying = try MemoryReplica(object: original.object, geometry: original.geometry)
    for index in 0..<20 { dying.fill(index, seed: original.object.low) }
    let first = try TestHost(serving: [dying], timeouts: keepalive), second = try TestHost(serving: [original])
    let copy = try original.empty()
    let exchange = ObjectExchange(
      into: copy, own: TransferPeer(host: .random(), bulk: TestHost.anywhere), token: TestHost.token,
      hello: TestHost.hello(.random())
    ) { known, failed in
      // As a head does: who has a source waits for another.
      if known.isEmpty, failed == [first.id] { return [second.peer] }
      try await Task.sleep(for: .seconds(3600))
      return []
    }
    async let fetched = exchange.run(from: [first.peer])
    for chunk in 0..<20 { try await copy.verified(chunk) }
    await first.close()
    #expect(try await fetched.chunks == 50)
    #expect(exchange.lastFailure?.code == .connectionClosed)
    #expect(copy.digest == original.digest)
    #expect(copy.commits == 50)
    await second.close()
    #expect(second.server.bytesSent == original.geometry.objectSize - 20 * 65_536)
  }

  @Test func theOnlySourceFailsWhileTheHeadLooksForOthers() async throws {
    let host = try TestHost(serving: [])
    let copy = try makeReplica(chunks: 1, filled: false)
    let exchange = ObjectExchange(
      into: copy, own: TransferPeer(host: .random(), bulk: TestHost.anywhere), token: TestHost.token,
      hello: TestHost.hello(.random())
    ) { known, failed in
      if known.isEmpty { throw MobulaError(.unavailable, "All of \(failed.count) hosts failed.") }
      try await Task.sleep(for: .seconds(3600))
      return []
    }
    let error = await #expect(throws: MobulaError.self) { try await exchange.run(from: [host.peer]) }
    #expect(error?.message.hasPrefix("All of 1 hosts failed. The last source failed so:") == true)
    await host.close()
  }

  /// An object that is deleted while it arrives comes from nowhere: neither sources nor who fills it are waited for.
  @Test func anObjectThatIsDeletedEndsItsExchange() async throws {
    let copy = try makeReplica(chunks: 2, filled: false)
    let exchange = ObjectExchange(
      into: copy, own: TransferPeer(host: .random(), bulk: TestHost.anywhere), token: TestHost.token,
      hello: TestHost.hello(.random()), isFilled: true
    ) { _, _ in
      try await Task.sleep(for: .seconds(3600))
      return []
    }
    let fetching = Task { try await exchange.run(from: []) }
    copy.fail(MobulaError(.notFound, "It was deleted while it was arriving."))
    let error = await #expect(throws: MobulaError.self) { try await fetching.value }
    #expect(error?.code == .notFound)
  }

  @Test func aSourceThatSendsABadChunkIsReplacedByTheOther() async throws {
    let original = try makeReplica(chunks: 40)
    let changed = try MemoryReplica(object: original.object, geometry: original.geometry, seed: original.object.low)
    for chunk in 0..<40 where chunk % 7 == 3 { changed.memory(of: chunk)[1000] ^= 1 }
    let bad = try TestHost(serving: [changed]), good = try TestHost(serving: [original])
    let copy = try original.empty()
    #expect(try await fetch(into: copy, from: [bad.peer, good.peer]).chunks == 40)
    #expect(copy.digest == original.digest)
    #expect(copy.commits == 40)
    await bad.close()
    await good.close()
  }

  @Test func bytesChangedAfterTheirChecksumAreFoundOut() async throws {
    let original = try makeReplica(chunks: 10)
    let changed = try MemoryReplica(object: original.object, geometry: original.geometry, seed: original.object.low)
    changed.memory(of: 3)[1000] ^= 1
    let bad = try TestHost(serving: [changed]), good = try TestHost(serving: [original])
    let copy = try original.empty()
    let before = TransferCounters.corruptedChunks
    let error = await #expect(throws: MobulaError.self) { try await bad.fetch(into: copy) }
    #expect(error?.code == .corrupted)
    #expect(error?.message.contains("Chunk 3 ") == true)
    #expect(error?.message.contains(original.object.description) == true)
    #expect(error?.message.contains(bad.id.short) == true)
    #expect(TransferCounters.corruptedChunks > before)
    #expect(!copy.chunkMap.contains(3))
    #expect(copy.claimedChunks.isEmpty)

    let missing = 10 - copy.chunkMap.verifiedCount
    #expect(try await good.fetch(into: copy).chunks == missing)
    #expect(copy.digest == original.digest)
    await bad.close()
    await good.close()
  }

  @Test func anUnknownObjectIsNotFound() async throws {
    let host = try TestHost(serving: [])
    let copy = try makeReplica(chunks: 1, filled: false)
    #expect(await errorCode { try await host.fetch(into: copy) } == .notFound)
    #expect(copy.claimedChunks.isEmpty)
    await host.close()
  }

  @Test func aReplicaThatIsGivenUpEndsItsForwarding() async throws {
    let partial = try makeReplica(chunks: 3, filled: false)
    partial.fill(0, seed: 0)
    let host = try TestHost(serving: [partial], timeouts: keepalive)
    let copy = try partial.empty()
    async let fetched = errorCode { try await host.fetch(into: copy) }
    try await copy.verified(0)
    partial.fail(MobulaError(.notFound, "The replica was given up."))
    #expect(await fetched == .notFound)
    #expect(copy.claimedChunks.isEmpty)
    await host.close()
  }

  @Test func nobodyListeningIsUnavailable() async throws {
    let port = try SilentPort()
    let copy = try makeReplica(chunks: 1, filled: false)
    let error = await #expect(throws: MobulaError.self) {
      try await fetch(into: copy, from: [TransferPeer(host: .random(), bulk: port.endpoint)])
    }
    #expect(error?.code == .unavailable)
    #expect(error?.message.contains("\(port.endpoint)") == true)
  }

  @Test func anAddressThatCannotBeIsRefused() async throws {
    let copy = try makeReplica(chunks: 1, filled: false)
    for (endpoint, code) in [
      (Endpoint.unix(path: "/nowhere"), MobulaError.Code.invalidArgument),
      (.tcp(host: "no such name", port: 1), .unavailable),
    ] {
      let found = await errorCode {
        try await fetch(into: copy, from: [TransferPeer(host: .random(), bulk: endpoint)])
      }
      #expect(found == code)
    }
    #expect(throws: MobulaError.self) {
      try TransferServer(
        endpoint: .unix(path: "/nowhere"), token: TestHost.token, hello: TestHost.hello(.random()), source: { _ in nil }
      )
    }
  }

  @Test func aTakenPortIsUnavailable() async throws {
    let host = try TestHost(serving: [])
    let error = #expect(throws: MobulaError.self) {
      try TransferServer(
        endpoint: host.server.endpoint, token: TestHost.token, hello: TestHost.hello(.random()), source: { _ in nil })
    }
    #expect(error?.code == .unavailable)
    await host.close()
  }

  @Test func aWrongTokenIsUnauthenticated() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    let token = try ClusterToken("another-token-just-as-long")
    let code = await errorCode {
      try await fetch(into: copy, from: [host.peer], token: token)
    }
    #expect(code == .unauthenticated)
    #expect(copy.chunkMap.verifiedCount == 0)
    #expect(try await host.fetch(into: copy).chunks == 1)
    await host.close()
  }

  @Test func anotherHostAtTheAddressIsAMismatch() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    let code = await errorCode {
      try await fetch(into: copy, from: [TransferPeer(host: .random(), bulk: host.server.endpoint)])
    }
    #expect(code == .mismatch)
    await host.close()
  }

  @Test func cancellationEndsAFetchThatWaits() async throws {
    let partial = try makeReplica(chunks: 3, filled: false)
    partial.fill(0, seed: 0)
    let host = try TestHost(serving: [partial], timeouts: keepalive)
    let copy = try partial.empty()
    let task = Task { await errorCode { try await host.fetch(into: copy) } }
    try await copy.verified(0)
    task.cancel()
    #expect(await task.value == .cancelled)
    #expect(copy.claimedChunks.isEmpty)
    await host.close()
  }

  @Test func aCancelledTaskDoesNotEvenConnect() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return await errorCode { try await host.fetch(into: copy) }
    }
    #expect(await task.value == .cancelled)
    await host.close()
    #expect(host.server.bytesSent == 0)
  }

  @Test func bytesThatNobodyHasAreFoundMissing() async throws {
    let partial = try makeReplica(chunks: 3, filled: false)
    for chunk in 0..<2 { partial.fill(chunk, seed: 0) }
    let host = try TestHost(serving: [partial], timeouts: TransferTimeouts(keepalive: .milliseconds(5)))
    let copy = try partial.empty()
    let exchange = ObjectExchange(
      into: copy, own: TransferPeer(host: .random(), bulk: TestHost.anywhere), token: TestHost.token,
      hello: TestHost.hello(.random()), timeouts: TransferTimeouts(stall: .milliseconds(200))
    ) { _, _ in throw MobulaError(.notFound, "Its last replica was on host first.") }
    let error = await #expect(throws: MobulaError.self) { try await exchange.run(from: [host.peer]) }
    #expect(error?.code == .notFound)
    #expect(error?.message.contains("on host first") == true)
    #expect(copy.chunkMap.verifiedCount == 2)
    await host.close()
  }
}
