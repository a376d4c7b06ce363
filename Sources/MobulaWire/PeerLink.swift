public import Logging
public import MobulaCore
import Synchronization

/// A connection, to the head or to the host, that is made again whenever it is lost.
///
/// Calls wait for the connection within their deadline, and are repeated when it breaks under them:
/// everything that hosts and pods tell the head, or processes their host, may be told twice.
public final class PeerLink: Sendable {
  private enum State {
    case disconnected
    case connected(RPCConnection)
    case refused(MobulaError)
  }

  /// What it is a link to, for messages: `head` or `host`.
  private let role: String
  public let endpoint: Endpoint
  private let token: ClusterToken
  private let tls: ClusterTLS?
  private let hello: Hello
  private let router: RPCRouter
  private let register: @Sendable (RPCConnection) async throws -> Void
  private let log: Logger
  private let state = Mutex(State.disconnected)
  /// A connection that was made before, for the first round.
  private let first: Mutex<RPCConnection?>

  /// - Parameters:
  ///   - first: a connection to begin with.
  ///   - router: what the peer may call on this connection.
  ///   - register: runs on every new connection before anybody else uses it.
  public init(
    _ role: String, at endpoint: Endpoint, first: RPCConnection? = nil, token: ClusterToken,
    tls: ClusterTLS? = nil, hello: Hello, router: RPCRouter, log: Logger,
    register: @escaping @Sendable (RPCConnection) async throws -> Void
  ) {
    self.role = role
    self.endpoint = endpoint
    self.first = Mutex(first)
    self.token = token
    self.tls = tls
    self.hello = hello
    self.router = router
    self.log = log
    self.register = register
  }

  /// Connects, and connects again, until cancelled.
  ///
  /// - Throws: `MobulaError` when the peer refuses this process for good: a wrong
  ///   token, another version, an older incarnation.
  public func run() async throws {
    var pause = Duration.milliseconds(50)
    var isFirst = true
    while !Task.isCancelled {
      do {
        let given = first.withLock { $0.take() }
        let connection =
          if let given { given } else {
            try await RPCConnection.connect(to: endpoint, token: token, hello: hello, router: router, tls: tls)
          }
        do {
          try await register(connection)
        } catch {
          await connection.close()
          throw error
        }
        pause = .milliseconds(50)
        if !isFirst { log.notice("connected to the \(role) again", metadata: ["\(role)": "\(endpoint)"]) }
        isFirst = false
        state.withLock { $0 = .connected(connection) }
        await withTaskCancellationHandler {
          await connection.waitUntilClosed()
        } onCancel: {
          Task { await connection.close() }
        }
        state.withLock { $0 = .disconnected }
        if !Task.isCancelled { log.warning("the \(role) is gone; trying again", metadata: ["\(role)": "\(endpoint)"]) }
      } catch let error as MobulaError where [.unauthenticated, .mismatch].contains(error.code) {
        refuse(error)
        throw error
      } catch {
        if Task.isCancelled { break }
        log.debug("the \(role) can't be reached", metadata: ["error": "\(error)"])
        try? await Task.sleep(for: pause)
        pause = min(pause * 2, .seconds(1))
      }
    }
    refuse(MobulaError(.unavailable, "This process is shutting down."))
  }

  private func refuse(_ error: MobulaError) {
    state.withLock { $0 = .refused(error) }
  }

  /// Waits until a new connection was registered: what is to be reported is in its registration.
  ///
  /// - Parameter isCurrent: false once the registration has been taken.
  /// - Throws: what the peer refused this process with; `MobulaError` (`unavailable`) at the deadline.
  public func waitForRegistration(
    within deadline: Duration = .seconds(60), _ isCurrent: () -> Bool
  ) async throws {
    let end = ContinuousClock.now + deadline
    while true {
      switch state.withLock({ $0 }) {
      case .refused(let error): throw error
      case .connected where !isCurrent(): return
      case .connected, .disconnected: break
      }
      guard ContinuousClock.now < end else {
        throw MobulaError(
          .unavailable, "The \(role) at \(endpoint) did not come back within \(deadline): check that it runs.")
      }
      try await Task.sleep(for: .milliseconds(5))
    }
  }

  /// Whether the peer refused this process for good.
  public var isRefused: Bool { state.withLock { if case .refused = $0 { true } else { false } } }

  /// The connection, once there is one. Being without is rare and lasts long, so it looks again now and then.
  public func connection() async throws -> RPCConnection {
    while true {
      switch state.withLock({ $0 }) {
      case .connected(let connection): return connection
      case .refused(let error): throw error
      case .disconnected: try await Task.sleep(for: .milliseconds(10))
      }
    }
  }

  /// Calls the peer, waiting for it to come back if it has to.
  ///
  /// - Throws: the peer's error, or `MobulaError` (`unavailable`) at the deadline.
  public func call<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration = .seconds(30)
  ) async throws -> Response {
    let end = ContinuousClock.now + deadline
    return try await withThrowingTaskGroup(of: Response?.self) { group in
      group.addTask {
        while true {
          try Task.checkCancellation()
          let connection = try await self.connection()
          do {
            return try await connection.call(method, request, deadline: max(end - .now, .milliseconds(1)))
          } catch let error as MobulaError where error.code == .connectionClosed {
            // run() notices too, and makes a new one; give it the time to.
            try await Task.sleep(for: .milliseconds(20))
          }
        }
      }
      group.addTask {
        try await Task.sleep(until: end + .milliseconds(100), clock: .continuous)
        return nil
      }
      defer { group.cancelAll() }
      guard let first = try await group.next(), let response = first else {
        throw MobulaError(
          .unavailable,
          "The \(self.role) at \(self.endpoint) did not answer within \(deadline): check that it runs (`mobula status`)."
        )
      }
      return response
    }
  }
}
