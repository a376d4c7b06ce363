import MobulaCore
import MobulaWire
import Synchronization

/// A driver's connections to the workers that it leases.
final class WorkerConnections: Sendable {
  private let token: ClusterToken
  private let tls: ClusterTLS?
  private let hello: Hello
  private struct State {
    var connections: [Endpoint: RPCConnection] = [:]
    /// By lease, so that a lease that is lost ends its calls at once.
    var leases: [LeaseID: Endpoint] = [:]
  }
  private let state = Mutex(State())

  init(token: ClusterToken, tls: ClusterTLS?, hello: Hello) {
    self.token = token
    self.tls = tls
    self.hello = hello
  }

  /// The connection to a worker, made when there is none that lives.
  func connection(to endpoint: Endpoint) async throws -> RPCConnection {
    if let connection = state.withLock({ $0.connections[endpoint] }) { return connection }
    let connection = try await RPCConnection.connect(to: endpoint, token: token, hello: hello, tls: tls)
    let (winner, isNew) = state.withLock { state in
      if let other = state.connections[endpoint] { return (other, false) }
      state.connections[endpoint] = connection
      return (connection, true)
    }
    if isNew {
      Task {
        await connection.waitUntilClosed()
        self.state.withLock { state in
          if state.connections[endpoint] === connection { state.connections[endpoint] = nil }
        }
      }
    } else {
      await connection.close()
    }
    return winner
  }

  /// The connection to the worker of a fresh lease.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) when the worker has ended meanwhile.
  func leasedConnection(to grant: LeaseGrant) async throws -> RPCConnection {
    do {
      return try await connection(to: grant.endpoint)
    } catch let error as MobulaError where [.unavailable, .deadlineExceeded].contains(error.code) {
      throw MobulaError(.connectionClosed, "The worker at \(grant.endpoint) ended before it was given work.")
    }
  }

  func leased(_ lease: LeaseID, at endpoint: Endpoint) {
    state.withLock { $0.leases[lease] = endpoint }
  }

  func returned(_ lease: LeaseID) {
    state.withLock { $0.leases[lease] = nil }
  }

  /// The head says that a lease is gone: its calls fail now, not at their deadline.
  func leaseLost(_ lost: LeaseLost) async {
    let connection = state.withLock { state -> RPCConnection? in
      guard let endpoint = state.leases.removeValue(forKey: lost.lease) else { return nil }
      return state.connections[endpoint]
    }
    await connection?.close()
  }

  func close() async {
    let connections = state.withLock { Array($0.connections.values) }
    for connection in connections { await connection.close() }
  }
}
