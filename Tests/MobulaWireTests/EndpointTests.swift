import Glibc
import MobulaCore
import MobulaTestKit
import NIOCore
import NIOPosix
import Testing

@testable import MobulaWire

@Suite struct EndpointTests {
  func connect(to endpoint: Endpoint) async -> MobulaError {
    await error { _ = try await RPCConnection.connect(to: endpoint, token: .random(), hello: Fixture.client) }
  }

  @Test func nobodyListens() async throws {
    let silent = try SilentPort()
    let tcp = await connect(to: silent.endpoint)
    #expect(tcp.code == .unavailable)
    #expect(
      tcp.message
        == "Nobody listens at \(silent.endpoint): check the address, or start a head with `mobula start --head`.")
    let unix = await connect(to: .unix(path: "/tmp/mobula-wire-nobody.sock"))
    #expect(unix.code == .unavailable)
    #expect(unix.message.hasPrefix("Nobody listens at unix:/tmp/mobula-wire-nobody.sock"))
  }

  @Test func unknownNames() async {
    let unknown = await connect(to: .tcp(host: "no-such-host.invalid", port: 1))
    #expect(unknown.code == .unavailable)
    #expect(unknown.message.contains("no-such-host.invalid can't be resolved"))
  }

  @Test func longPathsAreRefused() async throws {
    let path = "/tmp/" + String(repeating: "x", count: 103)
    #expect(path.utf8.count == 108)
    let connecting = await connect(to: .unix(path: path))
    #expect(connecting.code == .invalidArgument)
    let binding = await error { try await Fixture(endpoint: .unix(path: path)).serve { _ in } }
    #expect(binding.code == .invalidArgument)
    #expect(binding.message.contains("107"))
  }

  @Test func silentListenersMissTheDeadline() async throws {
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .bind(host: "127.0.0.1", port: 0).get()
    let port = try #require(listener.localAddress?.port)
    let late = await error {
      _ = try await RPCConnection.connect(
        to: .tcp(host: "127.0.0.1", port: port), token: .random(), hello: Fixture.client, deadline: .milliseconds(30))
    }
    #expect(late.code == .deadlineExceeded)
    #expect(late.message.contains("127.0.0.1:\(port)"))
    try await listener.close()
  }

  @Test func connectingCanBeCancelled() async throws {
    let (accepted, continuation) = AsyncStream<Void>.makeStream()
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        continuation.yield()
        return channel.eventLoop.makeSucceededVoidFuture()
      }
      .bind(host: "127.0.0.1", port: 0).get()
    let port = try #require(listener.localAddress?.port)
    let task = Task {
      _ = try await RPCConnection.connect(
        to: .tcp(host: "127.0.0.1", port: port), token: .random(), hello: Fixture.client)
    }
    for await _ in accepted { break }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    try await listener.close()
  }

  @Test func listenersThatHangUpAreReported() async throws {
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        channel.eventLoop.execute { channel.close(promise: nil) }
        return channel.eventLoop.makeSucceededVoidFuture()
      }
      .bind(host: "127.0.0.1", port: 0).get()
    let port = try #require(listener.localAddress?.port)
    let closed = await connect(to: .tcp(host: "127.0.0.1", port: port))
    #expect(closed.code == .connectionClosed)
    try await listener.close()
  }

  @Test func takenEndpointsAreSaid() async throws {
    try await withFolder { folder in
      let endpoint = Endpoint.unix(path: "\(folder)/rpc.sock")
      try await Fixture(endpoint: endpoint).serve { _ in
        let taken = await error { try await Fixture(endpoint: endpoint).serve { _ in } }
        #expect(taken.code == .alreadyExists)
        // The first server's socket is still there, and serves.
        #expect(await connect(to: endpoint).code == .unauthenticated)
      }
    }
    try await Fixture().serve { server in
      let taken = await error { try await Fixture(endpoint: server.endpoint).serve { _ in } }
      #expect(taken.code == .alreadyExists)
    }
  }

  @Test func socketsComeAndGoWithTheirServers() async throws {
    try await withFolder { folder in
      let path = "\(folder)/rpc.sock"
      // What a killed process leaves behind: a bound socket that nobody listens at.
      let stale = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
      let bound = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(stale, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      #expect(bound == 0)
      close(stale)
      #expect(access(path, F_OK) == 0)
      try await Fixture(endpoint: .unix(path: path)).withConnection { connection in
        let answer = try await connection.call(echo, "x")
        #expect(answer == "x")
      }
      #expect(access(path, F_OK) == -1)
    }
  }

  @Test func otherFilesAreLeftAlone() async throws {
    try await withFolder { folder in
      let path = "\(folder)/file"
      let file = try #require(fopen(path, "w"))
      fclose(file)
      let taken = await error { try await Fixture(endpoint: .unix(path: path)).serve { _ in } }
      #expect(taken.code == .alreadyExists)
      #expect(access(path, F_OK) == 0)
    }
  }
}
