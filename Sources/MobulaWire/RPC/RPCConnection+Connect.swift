internal import Glibc
public import MobulaCore
internal import NIOCore
internal import NIOPosix
internal import NIOSSL

extension RPCConnection {
  /// Connects and proves to the other side, as it to this one, that both know the token.
  ///
  /// - Parameters:
  ///   - router: what the peer may call on this connection; nothing unless given.
  ///   - tls: for TCP; a Unix socket is plain.
  ///   - deadline: for connecting and the handshake together.
  /// - Throws: `MobulaError`: `unavailable` when nobody listens there or the name is unknown, `deadlineExceeded`,
  ///   `unauthenticated` for a wrong token or certificate, `mismatch` for another wire version or cluster, or when only
  ///   one side uses TLS; `protocolViolation` when something other than Mobula listens there; `CancellationError`.
  public static func connect(
    to endpoint: Endpoint, token: ClusterToken, hello: Hello, router: RPCRouter = RPCRouter(),
    tls: ClusterTLS? = nil, deadline: Duration = .seconds(10), options: RPCOptions = RPCOptions()
  ) async throws -> RPCConnection {
    do {
      return try await reach(
        endpoint, token: token, hello: hello, router: router, tls: tls, deadline: deadline, options: options)
    } catch let failure as ConnectFailure {
      throw failure.error
    }
  }

  /// As `connect`, and says whether anybody was there.
  ///
  /// - Throws: `ConnectFailure`, `CancellationError`; `MobulaError` (`invalidArgument`) for a path that is too long.
  static func reach(
    _ endpoint: Endpoint, token: ClusterToken, hello: Hello, router: RPCRouter, tls: ClusterTLS?,
    deadline: Duration = .seconds(10), options: RPCOptions = RPCOptions()
  ) async throws -> RPCConnection {
    if case .unix(let path) = endpoint { try UnixSocketFile.check(path) }
    let start = ContinuousClock.now
    let channel: any Channel
    do {
      channel = try await open(endpoint, deadline: deadline)
    } catch {
      throw ConnectFailure.unreachable(error)
    }
    var options = options
    options.handshakeTimeout = min(options.handshakeTimeout, deadline - start.duration(to: .now))
    let ready = channel.eventLoop.makePromise(of: RPCConnection.self)
    var secure: ClusterTLS?
    if case .tcp = endpoint { secure = tls }
    // The handler comes once the channel is connected: of the addresses that a
    // name has, several may be tried at a time, and only one is to shake hands.
    channel.eventLoop.execute { [options, secure] in
      let handler = RPCChannelHandler(
        .client(ClientHandshake(token: token, hello: hello)), endpoint: endpoint, token: token, router: router,
        options: options
      ) { ready.completeWith($0.mapError { $0 }) }
      do {
        if let secure {
          let below = try NIOSSLClientHandler(context: secure.client, serverHostname: nil)
          try channel.pipeline.syncOperations.addHandler(below)
        }
        try channel.pipeline.syncOperations.addHandler(handler)
      } catch {
        ready.fail(MobulaError(.connectionClosed, "\(endpoint) closed the connection at once: look at its log."))
      }
    }
    return try await withTaskCancellationHandler {
      do {
        return try await ready.futureResult.get()
      } catch {
        try Task.checkCancellation()
        throw (error as? MobulaError).map { ConnectFailure(handshake: $0) } ?? error
      }
    } onCancel: {
      channel.close(promise: nil)
    }
  }

  private static func open(_ endpoint: Endpoint, deadline: Duration) async throws(MobulaError) -> any Channel {
    let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .connectTimeout(TimeAmount(deadline))
    do {
      switch endpoint {
      case .tcp(let host, let port):
        let tcp = bootstrap.channelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
        return try await tcp.connect(host: host, port: port).get()
      case .unix(let path): return try await bootstrap.connect(unixDomainSocketPath: path).get()
      }
    } catch {
      throw connectError(error, endpoint, deadline)
    }
  }

  private static func connectError(_ error: any Error, _ endpoint: Endpoint, _ deadline: Duration) -> MobulaError {
    let nobody = MobulaError(
      .unavailable,
      "Nobody listens at \(endpoint): check the address, or start a head with `mobula start --head`.")
    switch error {
    case let error as NIOConnectionError:
      if let failure = error.connectionErrors.last {
        return connectError(failure.error, endpoint, deadline)
      }
      if error.dnsAError != nil || error.dnsAAAAError != nil {
        return MobulaError(
          .unavailable, "The name \(error.host) can't be resolved: check the address, or write it in numbers.")
      }
      return nobody
    case ChannelError.connectTimeout(_):
      return MobulaError(
        .deadlineExceeded, "\(endpoint) did not answer within \(deadline): check the address and the network between.")
    case let error as IOError:
      switch error.errnoCode {
      case ECONNREFUSED, ENOENT: return nobody
      case EHOSTUNREACH, ENETUNREACH:
        return MobulaError(
          .unavailable,
          "\(endpoint) can't be reached (\(errnoText(error.errnoCode))): check the address and the network.")
      default: return MobulaError.system("\(endpoint) can't be connected to", number: error.errnoCode)
      }
    default:
      return MobulaError(.unavailable, "\(endpoint) can't be connected to (\(error)): check the address.")
    }
  }
}
