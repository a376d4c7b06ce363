import Glibc
import MobulaCore
import MobulaTestKit
import MobulaWire
import Testing

@testable import MobulaTransfer

/// Peers that send what no mobula host sends, or nothing.
@Suite(.timeLimit(.minutes(2))) struct HostilePeerTests {
  static let garbage: [[UInt8]] = [
    [0xFF, 0xFF, 0xFF, 0xFF], [0, 0, 0, 0], [0, 0, 0x10, 0x01], Array("GET / HTTP/1.1\r\n\r\n".utf8),
    [0, 0, 0, 2, 99, 1], TransferMessage.open(.random(), bulk: "").frame,
    TransferMessage.request(3).frame, TransferMessage.acknowledge(3).frame,
    TransferMessage.request(0xFFFF_FFFF).frame, TransferMessage.offer([0..<3]).frame,
  ]

  @Test(arguments: garbage) func aReceiverOfGarbageIsCutOffAndTheServerLives(bytes: [UInt8]) async throws {
    let original = try makeReplica(chunks: 3)
    let host = try TestHost(serving: [original])
    let socket = try host.connect()
    try socket.send(.open(original.object, bulk: ""))
    _ = try socket.receiveMessage(patience)
    _ = try socket.receiveMessage(patience)
    try socket.send(bytes)
    #expect(await errorCode { try socket.receiveMessage(patience) } == .connectionClosed)
    socket.close()
    let copy = try original.empty()
    _ = try await host.fetch(into: copy)
    #expect(copy.digest == original.digest)
    await host.close()
  }

  @Test(arguments: garbage) func garbageInsteadOfAHandshakeIsCutOff(bytes: [UInt8]) async throws {
    let original = try makeReplica(chunks: 3)
    let host = try TestHost(serving: [original])
    let socket = try TransferSocket.connect(to: host.server.endpoint, peer: "the server", by: .now + .seconds(10)) {
      _ in
    }
    try socket.send(bytes)
    // A refusal may come first; then the end.
    var ended = false
    for _ in 0..<3 where !ended {
      do { _ = try socket.receiveMessage(patience) } catch { ended = error.code == .connectionClosed }
    }
    #expect(ended)
    socket.close()
    let copy = try original.empty()
    _ = try await host.fetch(into: copy)
    #expect(copy.digest == original.digest)
    await host.close()
  }

  @Test func silentConnectionsKeepNoReceiverOut() async throws {
    let original = try makeReplica(chunks: 3)
    let host = try TestHost(serving: [original])
    let receiver = try host.connect()
    var silent: [TransferSocket] = []
    for _ in 0..<400 {
      silent.append(
        try TransferSocket.connect(to: host.server.endpoint, peer: "the server", by: .now + .seconds(10)) { _ in })
    }
    let copy = try original.empty()
    _ = try await host.fetch(into: copy)
    #expect(copy.digest == original.digest)
    // Whoever has proved itself is not concerned.
    try receiver.send(.open(original.object, bulk: ""))
    guard case .opened = try receiver.receiveMessage(patience) else {
      Issue.record("it was not served")
      return
    }
    receiver.close()
    for socket in silent { socket.close() }
    await host.close()
  }

  @Test func aFrameThatEndsTooEarlyIsDropped() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original])
    let socket = try host.connect()
    try socket.send([0, 0, 0, 17, 1, 2, 3])
    socket.close()
    let copy = try original.empty()
    _ = try await host.fetch(into: copy)
    #expect(copy.digest == original.digest)
    await host.close()
    #expect(host.server.connectionCount == 0)
  }

  /// A source that is busy has not failed.
  @Test func whoIsOneTooManyComesAgain() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original], maximumConnections: 1)
    let first = try host.connect()
    try first.send(.open(original.object, bulk: ""))
    _ = try first.receiveMessage(patience)
    let second = try host.connect()
    try second.send(.open(original.object, bulk: ""))
    guard case .refused(.full, _) = try second.receiveMessage(patience) else {
      Issue.record("the second is served")
      return
    }
    second.close()
    let copy = try original.empty()
    let fetching = Task { try await host.fetch(into: copy) }
    try await Task.sleep(for: .milliseconds(200))
    #expect(copy.chunkMap.verifiedCount == 0)
    first.close()
    _ = try await fetching.value
    #expect(copy.digest == original.digest)
    await host.close()
  }

  /// Of a source's places, one receiver's second connection gets none in the second half.
  @Test func spareConnectionsLeaveRoom() async throws {
    let original = try makeReplica(chunks: 1)
    let host = try TestHost(serving: [original], maximumConnections: 4)
    let receiver = HostID.random()
    var sockets: [TransferSocket] = []
    for isServed in [true, true, false] {
      let socket = try TransferSocket.connect(to: host.server.endpoint, peer: "the server", by: .now + .seconds(10)) {
        _ in
      }
      _ = try socket.authenticateAsClient(token: TestHost.token, hello: TestHost.hello(receiver), patience)
      try socket.send(.open(original.object, bulk: ""))
      let answer = try socket.receiveMessage(patience)
      if case .opened = answer { #expect(isServed) } else { #expect(!isServed, "\(answer)") }
      sockets.append(socket)
    }
    let copy = try original.empty()
    _ = try await host.fetch(into: copy)
    #expect(copy.digest == original.digest)
    for socket in sockets { socket.close() }
    await host.close()
  }

  typealias Script = @Sendable (TransferSocket) throws -> Void
  struct Source: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let code: MobulaError.Code
    let script: Script
  }

  /// Opens an object of two chunks of 64 KiB.
  private static func open(_ socket: TransferSocket) throws {
    _ = try socket.receiveMessage(patience)
    try socket.send(.opened(objectSize: 2 * 65_536 - 1, chunkSize: 65_536, wantsNews: false))
    try socket.send(.offer([0..<1]))
    #expect(try socket.receiveMessage(patience) == .request(0))
  }

  static let sources: [Source] = [
    Source(testDescription: "another shape", code: .protocolViolation) { socket in
      _ = try socket.receiveMessage(patience)
      try socket.send(.opened(objectSize: 65_536, chunkSize: 65_536, wantsNews: false))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "a chunk that nobody asked for", code: .protocolViolation) { socket in
      try open(socket)
      try socket.send(.chunk(ChunkHeader(index: 1, length: 65_535, checksum: 0)))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "a chunk too long", code: .protocolViolation) { socket in
      try open(socket)
      try socket.send(.chunk(ChunkHeader(index: 0, length: 0xFFFF_FFFF, checksum: 0)))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "a chunk before it opened", code: .protocolViolation) { socket in
      _ = try socket.receiveMessage(patience)
      try socket.send(.chunk(ChunkHeader(index: 0, length: 65_536, checksum: 0)))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "a frame too long", code: .protocolViolation) { socket in
      _ = try socket.receiveMessage(patience)
      try socket.send([0x7F, 0xFF, 0xFF, 0xFF, 16])
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "a receiver's message", code: .protocolViolation) { socket in
      _ = try socket.receiveMessage(patience)
      try socket.send(.request(0))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "an offer of what does not exist", code: .protocolViolation) { socket in
      try open(socket)
      try socket.send(.offer([0..<3]))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "an opened object twice", code: .protocolViolation) { socket in
      try open(socket)
      try socket.send(.opened(objectSize: 2 * 65_536 - 1, chunkSize: 65_536, wantsNews: false))
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "a chunk again", code: .protocolViolation) { socket in
      try open(socket)
      let bytes = [UInt8](repeating: 0, count: 65_536)
      let header = ChunkHeader(index: 0, length: 65_536, checksum: bytes.withUnsafeBytes { crc32c($0) })
      try socket.send(TransferMessage.chunk(header).frame + bytes + TransferMessage.chunk(header).frame)
      _ = try socket.receiveMessage(patience)
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "half a chunk", code: .connectionClosed) { socket in
      try open(socket)
      try socket.send(.chunk(ChunkHeader(index: 0, length: 65_536, checksum: 0)))
      try socket.send(Array(repeating: 1, count: 30_000))
    },
    Source(testDescription: "silence", code: .deadlineExceeded) { socket in
      try open(socket)
      _ = try socket.receiveMessage(patience)
    },
    Source(testDescription: "silence in a chunk", code: .deadlineExceeded) { socket in
      try open(socket)
      try socket.send(.chunk(ChunkHeader(index: 0, length: 65_536, checksum: 0)))
      try socket.send(Array(repeating: 1, count: 30_000))
      _ = try socket.receiveMessage(patience)
    },
  ]

  @Test(arguments: sources) func aSourceThatMisbehavesIsLeftWithoutItsChunks(source: Source) async throws {
    let sink = try makeReplica(chunks: 2, filled: false)
    let code = try await withFakeSource(source.script) { endpoint, host in
      await errorCode {
        try await fetch(
          into: sink, from: [TransferPeer(host: host, bulk: endpoint)],
          // Only silence is waited for.
          timeouts: TransferTimeouts(stall: source.code == .deadlineExceeded ? .milliseconds(100) : .seconds(20)))
      }
    }
    #expect(code == source.code)
    #expect(sink.claimedChunks.isEmpty)
    #expect(sink.chunkMap.verifiedCount == (source.testDescription == "a chunk again" ? 1 : 0))
  }
}
