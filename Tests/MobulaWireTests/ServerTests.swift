import Glibc
import MobulaCore
import MobulaTestKit
import NIOCore
import NIOPosix
import Testing

@testable import MobulaWire

@Suite struct ServerTests {
  @Test func wrongTokensAreRefused() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let refused = await error {
        _ = try await RPCConnection.connect(to: server.endpoint, token: .random(), hello: Fixture.client)
      }
      #expect(refused.code == .unauthenticated)
      #expect(refused.message.hasPrefix("The cluster token was refused: use the token"))
      // And the right one is still welcome.
      let connection = try await fixture.connect(to: server)
      let answer = try await connection.call(echo, "x")
      #expect(answer == "x")
    }
  }

  @Test func callsWithoutAHandshakeAreRefused() async throws {
    try await Fixture().serve { server in
      let peer = try await RawPeer.connect(to: server.endpoint)
      peer.send(.request(id: 1, method: "test.echo", milliseconds: 0, body: try CBOREncoder().encode("x")[...]))
      let frame = try #require(await peer.next())
      let reply = try CBORDecoder().decode(Handshake.ServerReply.self, from: frame)
      #expect(reply.error?.code == .protocolViolation)
      #expect(await peer.next() == nil)
    }
  }

  @Test func otherProtocolsAreRefused() async throws {
    try await Fixture().serve { server in
      let peer = try await RawPeer.connect(to: server.endpoint)
      peer.send(Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
      let frame = try #require(await peer.next())
      let reply = try CBORDecoder().decode(Handshake.ServerReply.self, from: frame)
      #expect(reply.error?.message.contains("at most 4096") == true)
      #expect(await peer.next() == nil)
    }
  }

  @Test func handshakesHaveADeadline() async throws {
    var fixture = Fixture()
    fixture.options.handshakeTimeout = .milliseconds(30)
    try await fixture.serve { server in
      let peer = try await RawPeer.connect(to: server.endpoint)
      #expect(await peer.next() == nil)
    }
  }

  @Test func oversizedFramesCloseTheConnection() async throws {
    var fixture = Fixture()
    fixture.options.maximumFrame = ByteCount(1000)
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      peer.send(Frame.header(count: 1001))
      let goodbye = try await peer.goodbye()
      #expect(goodbye?.code == .protocolViolation)
      #expect(goodbye?.message.contains("1001 bytes") == true)
    }
  }

  @Test func whoBreaksTheRulesIsToldWhy() async throws {
    try await Fixture().withConnection { connection in
      let request = RPCMessage.request(id: 99, method: "test.hang", milliseconds: 0, body: [0x60])
      let task = Task { try await connection.call(hang, "x") }
      for _ in 0..<2 { connection.sendUnchecked(request) }
      let lost = await error { _ = try await task.value }
      #expect(lost.code == .connectionClosed)
      #expect(lost.message.contains("used the number of a call twice"))
    }
  }

  @Test(
    arguments: [
      [12], [], [1, 0, 0], [9, 9], [4, 0, 0, 0, 0, 0, 0, 0],
    ] as [[UInt8]])
  func malformedMessagesCloseTheConnection(_ body: [UInt8]) async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      peer.send(Frame.encode(body))
      let goodbye = try await peer.goodbye()
      #expect(goodbye?.code == .protocolViolation)
    }
  }

  @Test func answersToNothingAreIgnored() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      for message: RPCMessage in [.response(id: 5, body: []), .end(id: 6), .cancel(id: 7), .credit(id: 8, count: 1)] {
        peer.send(message)
      }
      peer.send(.request(id: 1, method: "test.echo", milliseconds: 0, body: try CBOREncoder().encode("x")[...]))
      let frame = try #require(await peer.next())
      #expect(try RPCMessage(frame) == .response(id: 1, body: CBOREncoder().encode("x")[...]))
      await peer.close()
    }
  }

  @Test func malformedBodiesAreTheCallsError() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      peer.send(.request(id: 1, method: "test.echo", milliseconds: 0, body: [0xFF, 0x00]))
      let frame = try #require(await peer.next())
      guard case .error(id: 1, let body) = try RPCMessage(frame) else { throw Strange() }
      #expect(MobulaError(wire: body)?.code == .protocolViolation)
      await peer.close()
    }
  }

  @Test func anEndInsideAFrameCancelsHandlers() async throws {
    let fixture = Fixture()
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      peer.send(.request(id: 1, method: "test.hang", milliseconds: 0, body: try CBOREncoder().encode("a")[...]))
      #expect(await fixture.journal.next() == "started a")
      peer.send([0, 0])
      await peer.close()
      #expect(await fixture.journal.next() == "cancelled a")
    }
  }

  @Test func silentPeersArePingedAndThenLeft() async throws {
    var fixture = Fixture()
    fixture.options.pingInterval = .milliseconds(10)
    fixture.options.silenceLimit = .milliseconds(30)
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      #expect(try RPCMessage(try #require(await peer.next())) == .ping)
      while let frame = await peer.next() { #expect(try RPCMessage(frame) == .ping) }
    }
  }

  @Test func idlePeersThatAnswerPingsStay() async throws {
    var fixture = Fixture()
    fixture.options.pingInterval = .milliseconds(10)
    // Long enough for a busy machine, so that only the pings are seen here.
    fixture.options.silenceLimit = .seconds(60)
    try await fixture.serve { server in
      let peer = try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
      for _ in 0..<5 {
        #expect(try RPCMessage(try #require(await peer.next())) == .ping)
        peer.send(.pong)
      }
      await peer.close()
    }
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func randomBytesHurtNobody(seed: UInt64) async throws {
    let fixture = Fixture()
    var random = SeededGenerator(seed: seed)
    try await fixture.serve { server in
      for round in 0..<10 {
        let isKnown = Bool.random(using: &random)
        let peer =
          isKnown
          ? try await RawPeer.authenticated(to: server.endpoint, token: fixture.token)
          : try await RawPeer.connect(to: server.endpoint)
        for _ in 0..<20 {
          let count = Int.random(in: 0...60, using: &random)
          var body = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
          // Mostly kinds that exist and small numbers, so that more than the first check is met.
          if count > 9, Int.random(in: 0..<10, using: &random) > 0 {
            body[0] = UInt8.random(in: 1...11, using: &random)
            body.replaceSubrange(1..<9, with: [0, 0, 0, 0, 0, 0, 0, UInt8.random(in: 0...3, using: &random)])
          }
          peer.send(Bool.random(using: &random) || isKnown ? Frame.encode(body) : body)
        }
        await peer.close()
        let connection = try await fixture.connect(to: server)
        let answer = try await connection.call(echo, "\(round)")
        #expect(answer == "\(round)", "seed \(seed)")
        await connection.close()
      }
    }
  }
}

extension RPCConnection {
  /// Sends a message past the state machine.
  func sendUnchecked(_ message: RPCMessage) {
    var buffer = ByteBuffer()
    message.encode(into: &buffer)
    channel.writeAndFlush(buffer, promise: nil)
  }
}
