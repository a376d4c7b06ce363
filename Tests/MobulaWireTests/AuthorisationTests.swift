import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaWire

/// Calls over real connections, by peers with each kind of token.
@Suite struct AuthorisationTests {
  private let cluster = ClusterToken.random()

  private func serve(
    _ token: ClusterToken? = nil, _ router: RPCRouter? = nil, _ body: (RPCServer) async throws -> Void
  ) async throws {
    let server = try await RPCServer.bind(
      to: .tcp(host: "127.0.0.1", port: 0), token: token ?? cluster, hello: Fixture.server,
      router: router ?? self.router)
    do {
      try await body(server)
    } catch {
      await server.close()
      throw error
    }
    await server.close()
  }

  /// Requests are texts: one that can't be read shows whether it was looked at.
  private var router: RPCRouter {
    var router = RPCRouter()
    for name in ["head.registerHost", "head.list", "head.endJob", "worker.recall", "test.unlisted"] {
      router.on(RPCMethod<String, String>(name)) { text, _ in "did \(name) \(text)" }
    }
    return router
  }

  private func connect(_ token: ClusterToken, to server: RPCServer) async throws -> RPCConnection {
    try await RPCConnection.connect(to: server.endpoint, token: token, hello: Fixture.client)
  }

  @Test func callsAreRefusedBeforeTheirBodiesAreRead() async throws {
    try await serve { server in
      let worker = try await connect(cluster.ofJob(JobID(7)), to: server)
      #expect(worker.wireVersion == 3)
      #expect(try await worker.call(RPCMethod<String, String>("worker.recall"), "x") == "did worker.recall x")
      for name in ["head.registerHost", "head.list", "head.endJob", "test.unlisted"] {
        // A number where a text is expected: a violation of the protocol, if it were looked at.
        let refused = await error { _ = try await worker.call(RPCMethod<Int, String>(name), 5) }
        #expect(
          refused.code == .denied && refused.message.contains("A worker's token (job 7) may not call \"\(name)\""))
      }
      let unknown = await error { _ = try await worker.call(RPCMethod<Int, String>("head.fromTheFuture"), 5) }
      #expect(unknown.code == .notFound)
      // The connection goes on.
      #expect(try await worker.call(RPCMethod<String, String>("worker.recall"), "y") == "did worker.recall y")
      await worker.close()
      let host = try await connect(cluster, to: server)
      for name in ["head.registerHost", "test.unlisted"] {
        #expect(try await host.call(RPCMethod<String, String>(name), "z") == "did \(name) z")
      }
      await host.close()
    }
  }

  @Test func anExpiredTokenIsRefused() async throws {
    try await serve { server in
      let list = RPCMethod<String, String>("head.list")
      let over = try cluster.narrowed(TokenClaims(role: .viewer, expires: secondsSince1970() - 1, name: "old"))
      let late = try await connect(over, to: server)
      let refused = await error { _ = try await late.call(list, "") }
      #expect(refused.code == .denied && refused.message.contains("A viewer's token (old) expired at"))
      await late.close()
      let good = try cluster.narrowed(TokenClaims(role: .viewer, expires: secondsSince1970() + 3600))
      let viewer = try await connect(good, to: server)
      #expect(try await viewer.call(list, "") == "did head.list ")
      await viewer.close()
    }
  }

  /// A server may refuse a token that it can verify, such as that of a job which has ended.
  @Test func aServerMayAdmitFewer() async throws {
    final class Box: Sendable {
      let hasEnded = Mutex(false)
    }
    let box = Box()
    var router = router
    router.admit { authority throws(MobulaError) in
      if authority.job == JobID(7), box.hasEnded.withLock({ $0 }) { throw MobulaError(.denied, "Job 7 has ended.") }
    }
    try await serve(nil, router) { server in
      let run = RPCMethod<String, String>("worker.recall")
      let worker = try await connect(cluster.ofJob(JobID(7)), to: server)
      #expect(try await worker.call(run, "x") == "did worker.recall x")
      box.hasEnded.withLock { $0 = true }
      #expect(await error { _ = try await worker.call(run, "x") }.message == "Job 7 has ended.")
      let other = try await connect(cluster.ofJob(JobID(8)), to: server)
      #expect(try await other.call(run, "x") == "did worker.recall x")
      for connection in [worker, other] { await connection.close() }
    }
  }

  /// What a process offers on a connection that it made is for the peer, which has proved that it has the token.
  @Test func theServerMayCallWhatItIsOffered() async throws {
    let asked = RPCMethod<String, String>("driver.asked")
    var own = RPCRouter()
    own.on(asked) { text, _ in "heard \(text)" }
    var router = RPCRouter()
    router.on(RPCMethod<String, String>("head.startJob")) { text, connection in try await connection.call(asked, text) }
    try await serve(nil, router) { server in
      let driver = try await RPCConnection.connect(
        to: server.endpoint, token: cluster.narrowed(TokenClaims(role: .driver)), hello: Fixture.client, router: own)
      #expect(try await driver.call(RPCMethod<String, String>("head.startJob"), "it") == "heard it")
      await driver.close()
    }
  }

  @Test func jobsAndObjectsOfOthersAreNotTouched() async throws {
    let touch = RPCMethod<JobID, Empty>("worker.recall")
    let take = RPCMethod<ObjectID, Empty>("worker.call")
    var router = RPCRouter()
    router.on(touch) { job, connection in
      try connection.check(job)
      return Empty()
    }
    router.on(take) { object, connection in
      try connection.check(object)
      return Empty()
    }
    try await serve(nil, router) { server in
      let worker = try await connect(cluster.ofJob(JobID(7)), to: server)
      _ = try await worker.call(touch, JobID(7))
      _ = try await worker.call(take, .random(job: JobID(7)))
      #expect(await error { _ = try await worker.call(touch, JobID(8)) }.message.contains("may not touch job 8"))
      for other in [JobID.commandLine, JobID(8)] {
        #expect(await error { _ = try await worker.call(take, .random(job: other)) }.code == .denied)
      }
      await worker.close()
      let host = try await connect(cluster, to: server)
      _ = try await host.call(touch, JobID(8))
      _ = try await host.call(take, .random(job: JobID(8)))
      await host.close()
    }
  }

  @Test func secretsAreSealedForOneConnectionAndOneSide() async throws {
    let sealed = RPCMethod<Empty, ByteString>("head.list")
    var router = RPCRouter()
    router.on(sealed) { _, connection in connection.seal("a secret that is told") }
    let back = RPCMethod<ByteString, String>("head.status")
    router.on(back) { bytes, connection in try connection.open(bytes) }
    try await serve(nil, router) { server in
      let viewer = try cluster.narrowed(TokenClaims(role: .viewer))
      let one = try await connect(viewer, to: server)
      let other = try await connect(viewer, to: server)
      let bytes = try await one.call(sealed, Empty())
      #expect(!String(decoding: bytes.bytes, as: UTF8.self).contains("secret"))
      #expect(try one.open(bytes) == "a secret that is told")
      #expect(try await one.call(back, one.seal("mine")) == "mine")
      #expect(await error { _ = try other.open(bytes) }.code == .protocolViolation)
      // What it said itself does not come back to it.
      #expect(await error { _ = try await one.call(back, bytes) }.code == .protocolViolation)
      var changed = bytes
      changed.bytes[changed.bytes.count - 1] ^= 1
      #expect(await error { _ = try one.open(changed) }.code == .protocolViolation)
      for connection in [one, other] { await connection.close() }
    }
  }

  // MARK: Rotation

  /// The head gets a new token and gives it to the hosts that are connected; one that comes later with the old one gets
  /// it when it registers; connections go on all the while.
  @Test func aTokenIsRotatedUnderLiveConnections() async throws {
    try await withFolder { folder in
      let files = ["head", "a", "b"].map { "\(folder)/\($0)" }
      for file in files { try cluster.write(file: file) }
      let tokens = try files.map { try ClusterToken.following($0) }
      final class Box: Sendable {
        let server = Mutex<RPCServer?>(nil)
      }
      let box = Box()
      var router = RPCRouter()
      router.giveTokens(
        hosts: { box.server.withLock { $0?.connections(of: .host) ?? [] } }, mayHave: { _, _ in })
      let register = RPCMethod<Empty, Empty>("head.registerHost")
      router.on(register) { _, connection in
        await connection.renewToken()
        return Empty()
      }
      func host(_ number: Int) async throws -> RPCConnection {
        var own = RPCRouter()
        own.takeTokens(tokens[number])
        let connection = try await RPCConnection.connect(
          to: box.server.withLock { $0!.endpoint }, token: tokens[number],
          hello: Hello(role: .host, name: "host \(number)"), router: own)
        _ = try await connection.call(register, Empty())
        return connection
      }
      try await serve(tokens[0], router) { server in
        box.server.withLock { $0 = server }
        let a = try await host(1)
        let tool = try await connect(cluster, to: server)
        let both = try tokens[0].rotated()
        let reply = try await tool.call(HeadAPI.rotateToken, TokenNews(sealed: tool.seal(both.text)))
        #expect(reply.taken == ["host 1"] && reply.failed.isEmpty)
        #expect(try files.map { try ClusterToken.read(file: $0).text } == [both.text, both.text, cluster.text])
        _ = try await a.call(register, Empty())
        // One that was away comes with the old token, and has the new one then.
        let b = try await host(2)
        #expect(try ClusterToken.read(file: files[2]).text == both.text)
        // The old one is taken, and so is the new.
        let new = try both.finishingRotation()
        for token in [cluster, new] { try await connect(token, to: server).close() }
        let last = try await tool.call(HeadAPI.rotateToken, TokenNews(sealed: tool.seal(new.text)))
        #expect(last.taken == ["host 1", "host 2"])
        #expect(try files.map { try ClusterToken.read(file: $0).text } == [new.text, new.text, new.text])
        #expect(await error { try await connect(cluster, to: server).close() }.code == .unauthenticated)
        try await connect(new, to: server).close()
        for connection in [a, b] {
          _ = try await connection.call(register, Empty())
          await connection.close()
        }
        await tool.close()
        box.server.withLock { $0 = nil }
      }
    }
  }

  @Test func nobodyElseRotatesIt() async throws {
    try await withFolder { folder in
      let file = folder + "/token"
      try cluster.write(file: file)
      var router = RPCRouter()
      router.giveTokens(hosts: { [] }, mayHave: { _, _ in })
      try await serve(ClusterToken.following(file), router) { server in
        let tool = try await connect(cluster.narrowed(TokenClaims(role: .tool)), to: server)
        let news = TokenNews(sealed: tool.seal(try cluster.rotated().text))
        #expect(await error { _ = try await tool.call(HeadAPI.rotateToken, news) }.code == .denied)
        await tool.close()
        let root = try await connect(cluster, to: server)
        let strange = TokenNews(sealed: root.seal(ClusterToken.random().text))
        #expect(await error { _ = try await root.call(HeadAPI.rotateToken, strange) }.code == .denied)
        await root.close()
        #expect(try ClusterToken.read(file: file).text == cluster.text)
      }
    }
  }

  @Test func theTokenOfAJobIsGivenToWhoMayHaveIt() async throws {
    var router = RPCRouter()
    router.giveTokens(hosts: { [] }) { job, connection in
      try connection.check(job)
      if job == JobID(9) { throw MobulaError(.denied, "Not this one.") }
    }
    try await serve(nil, router) { server in
      let driver = try await connect(cluster.narrowed(TokenClaims(role: .driver)), to: server)
      let reply = try await driver.call(HeadAPI.jobToken, JobTokenRequest(job: JobID(7)))
      #expect(try driver.open(reply.sealed) == cluster.ofJob(JobID(7)).text)
      #expect(
        await error { _ = try await driver.call(HeadAPI.jobToken, JobTokenRequest(job: JobID(9))) }.code == .denied)
      await driver.close()
      let worker = try await connect(cluster.ofJob(JobID(7)), to: server)
      #expect(
        await error { _ = try await worker.call(HeadAPI.jobToken, JobTokenRequest(job: JobID(8))) }.code == .denied)
      await worker.close()
    }
  }
}
