internal import Glibc
public import MobulaCore
internal import NIOCore
internal import NIOPosix
internal import NIOSSL
internal import Synchronization

/// Accepts connections at one endpoint, each authenticated before anything else.
public final class RPCServer: Sendable {
  private struct State: Sendable {
    /// Of all accepted connections that are not closed.
    var channels: [ObjectIdentifier: any Channel] = [:]
    var connections: [UInt64: RPCConnection] = [:]
    /// Of those whose peers have not proved themselves. A head that is started again hears from all hosts at once.
    var quota = HandshakeQuota<ObjectIdentifier>(total: 1024, perAddress: 256)
    var isClosing = false
  }

  /// What every accepted connection gets.
  struct Service: Sendable {
    var token: ClusterToken
    var hello: Hello
    var router: RPCRouter
    var options: RPCOptions
    var tls: ClusterTLS?
    var onConnect: (@Sendable (RPCConnection) async -> Void)?
    var onDisconnect: (@Sendable (RPCConnection) async -> Void)?
  }

  /// Where the server listens, with the real port when it was bound to port 0.
  public let endpoint: Endpoint
  private let listener: any Channel
  private let file: UnixSocketFile?
  private let registry: Registry

  /// The connections, apart from the server so that accepting can begin before the server's port is known.
  private final class Registry: Sendable {
    let state = Mutex(State())

    /// Takes a connection whose peer has still to prove itself; another may have to go for it.
    ///
    /// - Returns: false when the server is closing.
    func insert(_ channel: any Channel) -> Bool {
      let key = ObjectIdentifier(channel)
      // A Unix socket's peers have no addresses.
      let address = channel.remoteAddress?.ipAddress ?? ""
      let (isOpen, surplus) = state.withLock { state -> (Bool, (any Channel)?) in
        if state.isClosing { return (false, nil) }
        state.channels[key] = channel
        return (true, state.quota.accepted(key, from: address).flatMap { state.channels[$0] })
      }
      surplus?.close(promise: nil)
      if isOpen {
        channel.closeFuture.whenComplete { _ in
          self.state.withLock { state in
            state.channels[key] = nil
            state.quota.left(key)
          }
        }
      }
      return isOpen
    }

    /// The peer has proved itself.
    func insert(_ connection: RPCConnection) {
      state.withLock { state in
        state.quota.left(ObjectIdentifier(connection.channel))
        state.connections[connection.id] = connection
      }
      connection.channel.closeFuture.whenComplete { _ in
        _ = self.state.withLock { $0.connections.removeValue(forKey: connection.id) }
      }
    }

    func close() -> (connections: [RPCConnection], channels: [any Channel]) {
      state.withLock { state in
        state.isClosing = true
        return (Array(state.connections.values), Array(state.channels.values))
      }
    }
  }

  private init(endpoint: Endpoint, listener: any Channel, file: UnixSocketFile?, registry: Registry) {
    self.endpoint = endpoint
    self.listener = listener
    self.file = file
    self.registry = registry
  }

  /// Listens at `endpoint`; a Unix socket that nobody listens at any more is replaced.
  ///
  /// - Parameters:
  ///   - tls: for TCP; a Unix socket is plain.
  ///   - maximumFrame: the longest frame's body, sent or received.
  ///   - onConnect: called when a peer has proved itself, beside its first calls.
  ///   - onDisconnect: called when that connection is gone and `onConnect` has returned.
  /// - Throws: `MobulaError`: `alreadyExists` when the endpoint is taken, `invalidArgument` when it can't be one of
  ///   this machine's, else `inputOutput`.
  public static func bind(
    to endpoint: Endpoint, token: ClusterToken, hello: Hello, router: RPCRouter,
    tls: ClusterTLS? = nil, maximumFrame: ByteCount = Frame.defaultLimit,
    onConnect: (@Sendable (RPCConnection) async -> Void)? = nil,
    onDisconnect: (@Sendable (RPCConnection) async -> Void)? = nil
  ) async throws -> RPCServer {
    var options = RPCOptions()
    options.maximumFrame = maximumFrame
    return try await bind(
      to: endpoint, token: token, hello: hello, router: router, tls: tls, options: options,
      onConnect: onConnect, onDisconnect: onDisconnect)
  }

  /// As above, with all options.
  public static func bind(
    to endpoint: Endpoint, token: ClusterToken, hello: Hello, router: RPCRouter, tls: ClusterTLS? = nil,
    options: RPCOptions, onConnect: (@Sendable (RPCConnection) async -> Void)? = nil,
    onDisconnect: (@Sendable (RPCConnection) async -> Void)? = nil
  ) async throws -> RPCServer {
    var service = Service(
      token: token, hello: hello, router: router, options: options, tls: nil, onConnect: onConnect,
      onDisconnect: onDisconnect)
    if case .tcp = endpoint { service.tls = tls }
    let registry = Registry()
    let bootstrap = ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .serverChannelOption(.backlog, value: 1024)
      .childChannelInitializer { [service] channel in accept(channel, service, registry) }
    switch endpoint {
    case .tcp(let host, let port):
      let tcp = bootstrap.serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      let listener = try await listening(at: endpoint) { try await tcp.bind(host: host, port: port).get() }
      let real = Endpoint.tcp(host: host, port: listener.localAddress?.port ?? port)
      return RPCServer(endpoint: real, listener: listener, file: nil, registry: registry)
    case .unix(let path):
      try UnixSocketFile.check(path)
      try UnixSocketFile.clear(path)
      let listener = try await listening(at: endpoint) { try await bootstrap.bind(unixDomainSocketPath: path).get() }
      return RPCServer(
        endpoint: endpoint, listener: listener, file: UnixSocketFile(bound: path), registry: registry)
    }
  }

  private static func accept(_ channel: any Channel, _ service: Service, _ registry: Registry) -> EventLoopFuture<Void>
  {
    guard registry.insert(channel) else { return channel.close() }
    return channel.eventLoop.makeCompletedFuture {
      let handshake = ServerHandshake(token: service.token, hello: service.hello)
      var gate: TLSGate?
      if let tls = service.tls {
        let below = TLSGate(refusal: handshake.refusal(of: TLSFailure.required))
        gate = below
        try channel.pipeline.syncOperations.addHandler(below)
        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls.server))
      }
      let handler = RPCChannelHandler(
        .server(handshake), endpoint: nil, token: service.token, router: service.router, options: service.options,
        gate: gate
      ) { result in
        guard case .success(let connection) = result else { return }
        registry.insert(connection)
        guard service.onConnect != nil || service.onDisconnect != nil else { return }
        Task {
          await service.onConnect?(connection)
          await connection.waitUntilClosed()
          await service.onDisconnect?(connection)
        }
      }
      try channel.pipeline.syncOperations.addHandler(handler)
    }
  }

  private static func listening(
    at endpoint: Endpoint, _ bind: () async throws -> any Channel
  ) async throws(MobulaError) -> any Channel {
    do {
      return try await bind()
    } catch let error as IOError {
      switch error.errnoCode {
      case EADDRINUSE:
        throw MobulaError(.alreadyExists, "\(endpoint) is taken: stop what listens there, or choose another address.")
      case EADDRNOTAVAIL:
        throw MobulaError(
          .invalidArgument, "\(endpoint) is no address of this machine: choose one of its own, or 0.0.0.0.")
      default: throw MobulaError.system("Listening at \(endpoint) is not possible", number: error.errnoCode)
      }
    } catch {
      throw MobulaError(.invalidArgument, "Listening at \(endpoint) is not possible (\(error)): check the address.")
    }
  }

  /// The connections whose peers said that they are this.
  package func connections(of role: PeerRole) -> [RPCConnection] {
    registry.state.withLock { state in state.connections.values.filter { $0.peer.role == role } }
  }

  /// Stops listening, closes all connections and waits until they are gone.
  public func close() async {
    let (connections, channels) = registry.close()
    try? await listener.close()
    file?.remove()
    await withDiscardingTaskGroup { group in
      for connection in connections { group.addTask { await connection.close() } }
    }
    // Those in the middle of their handshake.
    for channel in channels { try? await channel.close() }
  }
}
