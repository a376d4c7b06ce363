import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import MobulaTransfer

@Suite struct TransferFailureTests {
  /// A sender that waits for its own replica sees at these intervals that its connection is gone.
  private let keepalive = TransferTimeouts(keepalive: .milliseconds(10))

  @Test func aKilledSourceIsReplacedAtTheMissingChunk() async throws {
    let original = try makeReplica(chunks: 50)
    let dying = try MemoryReplica(object: original.object, geometry: original.geometry)
    for index in 0..<20 { dying.fill(index, seed: original.object.low) }
    let first = try TestHost(serving: [dying], timeouts: keepalive), second = try TestHost(serving: [original])
    let copy = try original.empty()
    async let fetched = errorCode { try await first.fetch(into: copy) }
    try await copy.verified(19)
    await first.close()
    #expect(await fetched == .connectionClosed)
    #expect(copy.claimedChunks.isEmpty)
    #expect(copy.chunkMap.verifiedCount == 20)

    let report = try await second.fetch(into: copy)
    #expect(report.isComplete)
    #expect(report.chunks == 30)
    #expect(copy.digest == original.digest)
    #expect(copy.commits == 50)
    await second.close()
    #expect(second.server.bytesSent == original.geometry.objectSize - 20 * 65_536)
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

    #expect(try await good.fetch(into: copy).bytes == original.geometry.objectSize - 3 * 65_536)
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
      try await fetchChunks(
        into: copy, from: port.endpoint, token: TestHost.token, hello: TestHost.hello(.random()), expecting: .random())
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
        try await fetchChunks(
          into: copy, from: endpoint, token: TestHost.token, hello: TestHost.hello(.random()), expecting: .random())
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
      try await fetchChunks(
        into: copy, from: host.server.endpoint, token: token, hello: TestHost.hello(.random()), expecting: host.id)
    }
    #expect(code == .unauthenticated)
    #expect(copy.chunkMap.verifiedCount == 0)
    #expect(try await host.fetch(into: copy).isComplete)
    await host.close()
  }

  @Test func anotherHostAtTheAddressIsAMismatch() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let copy = try original.empty()
    let code = await errorCode {
      try await fetchChunks(
        into: copy, from: host.server.endpoint, token: TestHost.token, hello: TestHost.hello(.random()),
        expecting: .random())
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

  @Test func theCallersDeadlineEndsAFetchFromASourceThatMakesNoProgress() async throws {
    let partial = try makeReplica(chunks: 3, filled: false)
    let host = try TestHost(serving: [partial], timeouts: TransferTimeouts(keepalive: .milliseconds(5)))
    let copy = try partial.empty()
    #expect(
      await errorCode { try await host.fetch(into: copy, deadline: .now + .milliseconds(60)) } == .deadlineExceeded)
    #expect(copy.claimedChunks.isEmpty)
    await host.close()
  }
}
