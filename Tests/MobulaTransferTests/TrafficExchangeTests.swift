import MobulaCore
import MobulaTestKit
import MobulaWire
import Synchronization
import Testing

@testable import MobulaTransfer

/// Limits and priorities over real connections.
@Suite(.timeLimit(.minutes(2))) struct TrafficExchangeTests {
  private static let token = try! ClusterToken("the-token-of-these-tests")

  /// A host that serves replicas on loopback.
  private struct Source {
    let peer: TransferPeer
    let server: TransferServer

    init(_ replicas: [MemoryReplica], _ traffic: TrafficControl, timeouts: TransferTimeouts = .init()) throws {
      let host = HostID.random()
      server = try TransferServer(
        endpoint: .tcp(host: "127.0.0.1", port: 0), token: token,
        hello: Hello(role: .host, name: "source", host: host), timeouts: timeouts, traffic: traffic,
        source: { object in replicas.first { $0.object == object } })
      peer = TransferPeer(host: host, bulk: server.endpoint)
    }

    func close() async {
      server.close()
      await server.waitUntilClosed()
    }
  }

  private func replica(_ bytes: Int) throws -> MemoryReplica {
    let object = ObjectID.random()
    return try MemoryReplica(
      object: object, geometry: ChunkGeometry(objectSize: bytes, chunkSize: 262_144), seed: object.low)
  }

  private func exchange(
    _ original: MemoryReplica, _ source: Source, _ priority: TransferPriority = .get,
    receiving: TrafficControl = .init(), timeouts: TransferTimeouts = .init()
  ) throws -> (sink: MemoryReplica, exchange: ObjectExchange) {
    let sink = try MemoryReplica(object: original.object, geometry: original.geometry)
    let host = HostID.random()
    let exchange = ObjectExchange(
      into: sink, own: TransferPeer(host: host, bulk: .tcp(host: "127.0.0.1", port: 1)), token: Self.token,
      hello: Hello(role: .host, name: "receiver", host: host), timeouts: timeouts, traffic: receiving,
      priority: priority
    ) { _, _ in
      // As the head, which has no other source, and waits.
      try await Task.sleep(for: .seconds(60))
      return []
    }
    return (sink, exchange)
  }

  /// Slower than every timeout: a chunk takes a multiple of the time after which a silent peer is given up.
  @Test(arguments: [true, false])
  func whoIsSlowOnPurposeIsNotGivenUp(_ limitsTheSender: Bool) async throws {
    let timeouts = TransferTimeouts(
      stall: .milliseconds(400), idle: .milliseconds(400), keepalive: .milliseconds(50))
    let original = try replica(1_000_000)
    let slow = TrafficControl(limit: LinkRate("400kB/s"))
    let source = try Source([original], limitsTheSender ? slow : TrafficControl(), timeouts: timeouts)
    let (sink, exchange) = try exchange(
      original, source, receiving: limitsTheSender ? TrafficControl() : slow, timeouts: timeouts)
    let report = try await exchange.run(from: [source.peer])
    #expect(report.bytes == 1_000_000)
    #expect(sink.chunkMap.isComplete)
    await source.close()
  }

  /// Of what a source sends while somebody waits, others get a share; counted in bytes.
  @Test(arguments: [LinkRate("60MB/s"), nil])
  func aGetOvertakesABroadcast(_ limit: LinkRate?) async throws {
    let (copied, wanted) = (try replica(256_000_000), try replica(24_000_000))
    let source = try Source([copied, wanted], TrafficControl(limit: limit))
    let background = try exchange(copied, source, .background)
    let copying = Task { try await background.exchange.run(from: [source.peer]) }
    while background.sink.chunkMap.verifiedCount == 0 { try await Task.sleep(for: .milliseconds(1)) }
    let get = try exchange(wanted, source)
    let before = background.sink.chunkMap.verifiedCount
    _ = try await get.exchange.run(from: [source.peer])
    let meanwhile = (background.sink.chunkMap.verifiedCount - before) * 262_144
    #expect(meanwhile < 24_000_000, "\(meanwhile) bytes of a copy while 24 MB were waited for")
    // Raised, it has nobody to wait for.
    background.exchange.raise(to: .get)
    copying.cancel()
    _ = await copying.result
    await source.close()
  }

  /// A copy that somebody begins to wait for is no longer behind.
  @Test func aRaisedExchangeIsServedAsAGet() async throws {
    let (copied, wanted) = (try replica(12_000_000), try replica(256_000_000))
    let source = try Source([copied, wanted], TrafficControl(limit: LinkRate("60MB/s")))
    let get = try exchange(wanted, source)
    let getting = Task { try await get.exchange.run(from: [source.peer]) }
    while get.sink.chunkMap.verifiedCount == 0 { try await Task.sleep(for: .milliseconds(1)) }
    let copy = try exchange(copied, source, .background)
    let copying = Task { try await copy.exchange.run(from: [source.peer]) }
    while copy.sink.chunkMap.verifiedCount == 0 { try await Task.sleep(for: .milliseconds(1)) }
    copy.exchange.raise(to: .get)
    let before = get.sink.chunkMap.verifiedCount
    _ = try await copying.value
    let meanwhile = (get.sink.chunkMap.verifiedCount - before) * 262_144
    // Behind, it would have had a twentieth of what the other had.
    #expect(meanwhile < 100_000_000, "\(meanwhile) bytes of the other while 12 MB came")
    getting.cancel()
    _ = await getting.result
    await source.close()
  }

  /// A connection that is ended may be on its way to ask.
  @Test(.timeLimit(.minutes(1))) func whoAsksAfterTheEndIsToldAtOnce() {
    let flow = TrafficControl().flow(.get)
    flow.close()
    let began = ContinuousClock.now
    for _ in 0..<2 { #expect(flow.wait(1000, upTo: .seconds(20)) == .closed) }
    // Not the 20 s that it might have waited; the machine may be busy.
    #expect(ContinuousClock.now - began < .seconds(15))
  }

  @Test func theFramesSayThePriority() throws {
    let object = ObjectID(high: 1, low: 2)
    for priority in TransferPriority.allCases {
      for message in [TransferMessage.open(object, bulk: "7601", priority: priority), .prioritize(priority)] {
        #expect(try TransferMessage(Array(message.frame.dropFirst(4))) == message)
      }
    }
    var wrong = Array(TransferMessage.prioritize(.get).frame.dropFirst(4))
    wrong[1] = 3
    #expect(throws: MobulaError.self) { try TransferMessage(wrong) }
  }
}
