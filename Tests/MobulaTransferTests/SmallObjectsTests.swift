import Glibc
import MobulaCore
import MobulaTestKit
import MobulaWire
import Synchronization
import Testing

@testable import MobulaTransfer

/// Small objects, many of them over one connection.
@Suite(.timeLimit(.minutes(2))) struct SmallObjectsTests {
  private func lane(
    to peer: TransferPeer, timeouts: TransferTimeouts = .init(), traffic: TrafficControl = .init()
  ) -> SmallObjectsLane {
    SmallObjectsLane(
      to: peer, token: TestHost.token, tls: nil, hello: TestHost.hello(.random()), timeouts: timeouts, traffic: traffic)
  }

  private func bytes(of replica: MemoryReplica) -> [UInt8] {
    Array(UnsafeRawBufferPointer(replica.bytes)[..<replica.geometry.objectSize])
  }

  @Test func manyObjectsComeOverOneConnection() async throws {
    let originals = try (0..<200).map { _ in try makeReplica(chunks: .random(in: 1...3)) }
    let host = try TestHost(serving: originals)
    let lane = lane(to: host.peer)
    try await withThrowingTaskGroup { group in
      for original in originals {
        group.addTask {
          let arrival = try await lane.take(original.object)
          #expect(arrival.geometry == original.geometry)
          #expect(arrival.bytes == self.bytes(of: original))
        }
      }
      try await group.waitForAll()
    }
    #expect(host.server.connectionCount == 1)
    #expect(host.server.bytesSent == originals.reduce(0) { $0 + $1.geometry.objectSize })
    lane.close()
    await host.close()
  }

  @Test func whatIsOnItsWayIsWaitedForAndKeepsNobodyWaiting() async throws {
    let (there, coming) = (try makeReplica(chunks: 1), try makeReplica(chunks: 2))
    let isThere = Mutex(false)
    let id = HostID.random()
    let server = try TransferServer(
      endpoint: TestHost.anywhere, token: TestHost.token, hello: TestHost.hello(id))
    server.start(
      source: { object in
        object == there.object ? there : object == coming.object && isThere.withLock { $0 } ? coming : nil
      }, isComing: { object in object == coming.object && !isThere.withLock { $0 } })
    let lane = lane(to: TransferPeer(host: id, bulk: server.endpoint))
    async let later = lane.take(coming.object)
    #expect(try await lane.take(there.object).bytes == bytes(of: there))
    isThere.withLock { $0 = true }
    #expect(try await later.bytes == bytes(of: coming))
    lane.close()
    server.close()
    await server.waitUntilClosed()
  }

  @Test func whatNobodyHasIsSaidToBeAbsentAndTheNextComes() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let lane = lane(to: host.peer)
    #expect(await errorCode { try await lane.take(.random()) } == .notFound)
    #expect(try await lane.take(original.object).bytes == bytes(of: original))
    lane.close()
    await host.close()
  }

  /// What is no small object has to come as others do.
  @Test func whatIsTooBigIsAbsent() async throws {
    let original = try makeReplica(chunks: 5)
    let host = try TestHost(serving: [original])
    let lane = lane(to: host.peer)
    #expect(await errorCode { try await lane.take(original.object) } == .notFound)
    lane.close()
    await host.close()
  }

  @Test func aPeerThatGoesFailsAllWhoWait() async throws {
    try await withFakeSource({ socket in
      _ = try socket.receiveMessage(patience)
      _ = try socket.receiveMessage(patience)
    }) { endpoint, id in
      let lane = lane(to: TransferPeer(host: id, bulk: endpoint))
      #expect(await errorCode { try await lane.take(.random()) } == .connectionClosed)
      #expect(lane.isOver)
    }
  }

  @Test func aPeerThatSaysNothingIsGivenUp() async throws {
    var timeouts = TransferTimeouts()
    timeouts.stall = .milliseconds(300)
    try await withFakeSource({ socket in
      while true { _ = try socket.receiveMessage(patience) }
    }) { [timeouts] endpoint, id in
      let lane = lane(to: TransferPeer(host: id, bulk: endpoint), timeouts: timeouts)
      #expect(await errorCode { try await lane.take(.random()) } == .deadlineExceeded)
    }
  }

  static let forged: [[TransferMessage]] = [
    [.whole(.random(), objectSize: 1 << 40, chunkSize: 65_536, checksums: [])],
    [.whole(.random(), objectSize: 10, chunkSize: 0, checksums: [1])],
    [.whole(.random(), objectSize: 10, chunkSize: 65_536, checksums: [])],
    [.whole(.random(), objectSize: 10, chunkSize: 65_536, checksums: [1, 2])],
    [.chunk(ChunkHeader(index: 0, length: 10, checksum: 0))],
    [.opened(objectSize: 10, chunkSize: 65_536, wantsNews: false)], [.want(.random())],
  ]

  @Test(arguments: forged) func aForgedAnswerEndsTheConnection(messages: [TransferMessage]) async throws {
    try await withFakeSource({ socket in
      _ = try socket.receiveMessage(patience)
      for message in messages { try socket.send(message) }
      while true { _ = try socket.receiveMessage(patience) }
    }) { endpoint, id in
      let lane = lane(to: TransferPeer(host: id, bulk: endpoint))
      #expect(await errorCode { try await lane.take(.random()) } == .protocolViolation)
    }
  }

  @Test func wrongBytesAreNobodys() async throws {
    let object = ObjectID.random()
    try await withFakeSource({ socket in
      _ = try socket.receiveMessage(patience)
      _ = try socket.receiveMessage(patience)
      try socket.send(.whole(object, objectSize: 3, chunkSize: 65_536, checksums: [7]))
      try socket.send([1, 2, 3] as [UInt8])
      while true { _ = try socket.receiveMessage(patience) }
    }) { endpoint, id in
      let lane = lane(to: TransferPeer(host: id, bulk: endpoint))
      #expect(await errorCode { try await lane.take(object) } == .corrupted)
      #expect(!lane.isOver)
      lane.close()
    }
  }

  @Test(arguments: [
    TransferMessage.acknowledge(1), .request(0), .open(.random(), bulk: ""), .offer([0..<1]),
    .whole(.random(), objectSize: 1, chunkSize: 1, checksums: []),
  ]) func aReceiverThatSaysWhatNoneSaysIsCutOff(message: TransferMessage) async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let socket = try host.connect()
    try socket.send(.openSmall(.get))
    try socket.send(message)
    #expect(await errorCode { try socket.receiveMessage(patience) } == .connectionClosed)
    socket.close()
    let lane = lane(to: host.peer)
    #expect(try await lane.take(original.object).bytes == bytes(of: original))
    lane.close()
    await host.close()
  }

  @Test func oneThatIsClosedTakesNothing() async throws {
    let host = try TestHost(serving: [])
    let lane = lane(to: host.peer)
    lane.close()
    #expect(await errorCode { try await lane.take(.random()) } == .cancelled)
    await host.close()
  }
}
