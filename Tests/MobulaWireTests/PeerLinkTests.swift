import Logging
import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaWire

/// Runs a link for the length of `body`.
private func running<Value>(
  _ link: PeerLink, patience: Duration? = nil,
  register: @escaping @Sendable (RPCConnection) async throws -> Void = { _ in }, _ body: () async throws -> Value
) async throws -> Value {
  let task = Task { try await link.run(patience: patience, register: register) }
  do {
    let value = try await body()
    task.cancel()
    _ = await task.result
    return value
  } catch {
    task.cancel()
    _ = await task.result
    throw error
  }
}

/// Looks until it is so, for up to a minute.
private func eventually(_ condition: () -> Bool) async throws {
  let end = ContinuousClock.now + .seconds(60)
  while !condition() {
    try #require(ContinuousClock.now < end, "it did not come about")
    try await Task.sleep(for: .milliseconds(10))
  }
}

@Suite struct PeerLinkTests {
  private let fixture = Fixture()

  private func link(to endpoint: Endpoint, tls: ClusterTLS? = nil) -> PeerLink {
    PeerLink(
      "head", at: endpoint, token: fixture.token, tls: tls, hello: Fixture.client,
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
  }

  private func server(at endpoint: Endpoint, tls: ClusterTLS? = nil) async throws -> RPCServer {
    try await RPCServer.bind(
      to: endpoint, token: fixture.token, hello: Fixture.server, router: fixture.router, tls: tls)
  }

  /// A peer that is gone for good is not waited for as long as a call may take.
  @Test(.timeLimit(.minutes(1))) func absenceHasALimitOfItsOwn() async throws {
    let link = link(to: try #require(Endpoint("127.0.0.1:1")))
    let running = Task { try await link.run { _ in } }
    defer { running.cancel() }
    let failure = await error(
      of: { _ = try await link.call(echo, "", deadline: .seconds(3600), absence: .milliseconds(100)) })
    #expect(failure.code == .connectionClosed && failure.message.contains("has been away for 0.1 s"))
  }

  private static func refusal(_ code: MobulaError.Code) -> [UInt8] {
    Frame.encode(Handshake.encode(Handshake.ServerReply(error: MobulaError(code, "go away"))))
  }

  /// A hello that is right, followed by a proof that is not.
  private static var wrongProof: [UInt8] {
    let hello = Handshake.ServerReply(hello: Fixture.server, nonce: Array(repeating: 7, count: 32))
    let proof = Handshake.ServerReply(proof: Array(repeating: 1, count: 32))
    return Frame.encode(Handshake.encode(hello)) + Frame.encode(Handshake.encode(proof))
  }

  private static var otherVersion: [UInt8] {
    var hello = Fixture.server
    (hello.wireVersion, hello.newestWireVersion) = (99, nil)
    return Frame.encode(
      Handshake.encode(Handshake.ServerReply(hello: hello, nonce: Array(repeating: 7, count: 32))))
  }

  static let forgeries: [(String, [UInt8]?)] = [
    ("unauthenticated", refusal(.unauthenticated)), ("mismatch", refusal(.mismatch)), ("denied", refusal(.denied)),
    ("a code of its own", refusal(.notFound)), ("another wire version", otherVersion), ("no proof", wrongProof),
    ("HTTP", Array("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".utf8)), ("zeros", [0, 0, 0, 0, 0]),
    ("a TLS alert", [0x15, 3, 3, 0, 2, 2, 80]), ("an endless frame", [0xFF, 0xFF, 0xFF, 0xFF, 1]),
    ("the end", nil),
  ]

  /// One after the other would take seconds each.
  @Test(arguments: [false, true]) func whatNobodyProvedEndsNothing(isSecure: Bool) async throws {
    let certificates = try TestCertificates()
    let tls = isSecure ? try certificates.tls() : nil
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (name, answer) in Self.forgeries {
        group.addTask {
          let rogue = try await RoguePort.bind(answer)
          let link = self.link(to: rogue.endpoint, tls: tls)
          try await running(link) {
            try await eventually { rogue.answers >= 2 }
            #expect([.unproven, .away].contains(link.status.state), "\(name): \(link.status)")
            await rogue.close()
            let server = try await self.server(at: rogue.endpoint, tls: tls)
            let connection = try await link.connection(until: .now + .seconds(60))
            let answer = try await connection.call(echo, name)
            #expect(answer == name)
            #expect(link.status.state == .connected && link.status.problem == nil)
            await server.close()
          }
        }
      }
      try await group.waitForAll()
    }
  }

  @Test func statusSaysThatSomethingWithoutTheTokenAnswers() async throws {
    let rogue = try await RoguePort.bind(Self.refusal(.unauthenticated))
    let link = link(to: rogue.endpoint)
    try await running(link) {
      try await eventually { link.status.state == .unproven }
      #expect(link.status.problem == "go away")
      let failure = await error(of: { _ = try await link.call(echo, "", deadline: .milliseconds(50)) })
      #expect(failure.code == .unavailable)
      #expect(failure.message.contains("can't prove that it has the cluster's token (go away)"))
    }
    await rogue.close()
  }

  @Test func aFirstStartSaysWhyAndEnds() async throws {
    let rogue = try await RoguePort.bind(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8))
    let failure = await error(of: { try await self.link(to: rogue.endpoint).run(patience: .zero) { _ in } })
    #expect(failure.code == .unauthenticated)
    await rogue.close()
    let other = try await RoguePort.bind(Self.refusal(.mismatch))
    let told = await error(of: { try await self.link(to: other.endpoint).run(patience: .zero) { _ in } })
    #expect(told == MobulaError(.mismatch, "go away", file: told.file, line: told.line))
    await other.close()
  }

  /// After the proof a refusal is the cluster's own.
  @Test func whatAProvenPeerRefusesIsFinal() async throws {
    try await fixture.serve { server in
      let link = self.link(to: server.endpoint)
      let failure = await error(of: { try await link.run { _ in throw MobulaError(.mismatch, "outdated") } })
      #expect(failure.code == .mismatch)
      #expect(link.status.state == .refused)
      let told = await error(of: { _ = try await link.connection() })
      #expect(told == failure, "nobody waits for what won't come")
    }
  }

  @Test func otherErrorsOfARegistrationAreTriedAgain() async throws {
    try await fixture.serve { server in
      let attempts = Mutex(0)
      let link = self.link(to: server.endpoint)
      let register: @Sendable (RPCConnection) async throws -> Void = { _ in
        let number = attempts.withLock { attempts in
          attempts += 1
          return attempts
        }
        if number == 1 { throw MobulaError(.full, "not now") }
      }
      try await running(link, register: register) {
        let connection = try await link.connection(until: .now + .seconds(60))
        #expect(connection.isOpen && attempts.withLock { $0 } == 2)
      }
    }
  }

  @Test func whoWaitsIsWokenByConnectionDeadlineAndCancellation() async throws {
    let nobody = Endpoint.tcp(host: "127.0.0.1", port: 9)
    let link = link(to: nobody)
    let failure = await error(of: { _ = try await link.connection(until: .now + .milliseconds(20)) })
    #expect(failure.code == .unavailable)
    let waiting = Task { try await link.connection() }
    waiting.cancel()
    await #expect(throws: CancellationError.self) { try await waiting.value }
    try await fixture.serve { server in
      let link = self.link(to: server.endpoint)
      let waiting = (0..<100).map { _ in Task { try await link.connection() } }
      try await running(link) {
        for task in waiting {
          let connection = try await task.value
          #expect(connection.isOpen)
        }
      }
      let stopped = await error(of: { _ = try await link.connection() })
      #expect(stopped.code == .unavailable, "nobody runs it any more")
    }
  }

  @Test func aCallThatEndsItsPeerIsNotRepeatedForEver() async throws {
    let calls = Mutex(0)
    var router = fixture.router
    router.on(RPCMethod<Empty, Empty>("test.poison")) { _, connection in
      calls.withLock { $0 += 1 }
      await connection.close()
      return Empty()
    }
    let server = try await RPCServer.bind(
      to: fixture.endpoint, token: fixture.token, hello: Fixture.server, router: router)
    let link = link(to: server.endpoint)
    try await running(link) {
      let failure = await error(of: {
        _ = try await link.call(RPCMethod<Empty, Empty>("test.poison"), Empty(), deadline: .seconds(60))
      })
      #expect(failure.code == .connectionClosed && failure.message.contains("test.poison"))
      #expect(calls.withLock { $0 } == 4)
      let answer = try await link.call(echo, "others go on")
      #expect(answer == "others go on")
    }
    await server.close()
  }

  /// An answer is an answer, whatever it says of other connections.
  @Test func whatThePeerAnswersIsNoLossOfItsConnection() async throws {
    let calls = Mutex(0)
    var router = RPCRouter()
    router.on(echo) { _, _ in
      calls.withLock { $0 += 1 }
      throw MobulaError(.connectionClosed, "Another one is gone.")
    }
    let server = try await RPCServer.bind(
      to: fixture.endpoint, token: fixture.token, hello: Fixture.server, router: router)
    let link = link(to: server.endpoint)
    try await running(link) {
      let failure = await error(of: { _ = try await link.call(echo, "") })
      #expect(failure.message == "Another one is gone." && calls.withLock { $0 } == 1)
    }
    await server.close()
  }
}

@Suite struct RetryPauseTests {
  @Test func nobodyIsTriedOften() {
    var pause = RetryPause()
    let pauses = (0..<7).map { _ in pause.next(after: .nobody) }
    #expect(pauses == [50, 100, 200, 400, 800, 1000, 1000].map { .milliseconds($0) })
  }

  @Test func refusalsAreTriedEverMoreSeldom() {
    var pause = RetryPause()
    let pauses = (0..<8).map { _ in pause.next(after: .refusal) }
    #expect(pauses == [1, 2, 4, 8, 16, 30, 30, 30].map { .seconds($0) })
    #expect(pause.next(after: .nobody) == .seconds(1))
  }

  @Test func aConnectionThatHeldBeginsAnew() {
    var pause = RetryPause()
    for _ in 0..<9 { _ = pause.next(after: .refusal) }
    #expect(pause.lost(after: .seconds(2)) == .zero)
    #expect(pause.next(after: .refusal) == .seconds(1))
    var other = RetryPause()
    #expect((0..<3).map { _ in other.lost(after: .milliseconds(5)) } == [50, 100, 200].map { .milliseconds($0) })
  }

  @Test func oneMessageAMinute() {
    var throttle = MessageThrottle()
    let start = ContinuousClock.now
    let admitted = [0, 1, 59, 60, 61, 119, 121].filter { throttle.admits(at: start + .seconds($0)) }
    #expect(admitted == [0, 60, 121])
    throttle.reset()
    let isNews = throttle.admits(at: start + .seconds(122))
    #expect(isNews)
  }
}
