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
    /// Why leases ended that were not given back yet, as their pods say.
    var losses: [LeaseID: String] = [:]
    var waiting: [LeaseID: [CheckedContinuation<String?, Never>]] = [:]
    /// Leases that were asked for: a head that went away since may have had them granted.
    var requested: Set<LeaseID> = []
  }
  /// How long after the end of its worker's connection a lease's loss is waited for.
  private static let lossPatience = Duration.seconds(3)
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

  /// What a head that was restarted is told that this process has.
  var claimed: [LeaseID] { state.withLock { $0.requested.union($0.leases.keys).sorted() } }

  func requested(_ lease: LeaseID) {
    _ = state.withLock { $0.requested.insert(lease) }
  }

  func leased(_ lease: LeaseID, at endpoint: Endpoint) {
    state.withLock { state in
      state.requested.remove(lease)
      state.leases[lease] = endpoint
    }
  }

  func returned(_ lease: LeaseID) {
    let waiting = state.withLock { state in
      state.requested.remove(lease)
      state.leases[lease] = nil
      state.losses[lease] = nil
      return state.waiting.removeValue(forKey: lease) ?? []
    }
    for continuation in waiting { continuation.resume(returning: nil) }
  }

  /// Why the worker of a lease has ended, in the words of its pod, which come some time after the connection's end;
  /// `nil` when none come, or the lease is not this process's.
  func loss(of lease: LeaseID) async -> String? {
    let timer = Task {
      try await Task.sleep(for: Self.lossPatience)
      self.resume(lease, with: nil)
    }
    defer { timer.cancel() }
    return await withCheckedContinuation { continuation in
      let (isKnown, reason) = state.withLock { state -> (Bool, String?) in
        if let reason = state.losses[lease] { return (true, reason) }
        guard state.leases[lease] != nil else { return (true, nil) }
        state.waiting[lease, default: []].append(continuation)
        return (false, nil)
      }
      if isKnown { continuation.resume(returning: reason) }
    }
  }

  private func resume(_ lease: LeaseID, with reason: String?) {
    let waiting = state.withLock { $0.waiting.removeValue(forKey: lease) ?? [] }
    for continuation in waiting { continuation.resume(returning: reason) }
  }

  /// The head says that a lease is gone: its calls fail now, not at their deadline.
  func leaseLost(_ lost: LeaseLost) async {
    let connection = state.withLock { state -> RPCConnection? in
      guard let endpoint = state.leases.removeValue(forKey: lost.lease) else { return nil }
      state.losses[lost.lease] = lost.reason
      return state.connections[endpoint]
    }
    resume(lost.lease, with: lost.reason)
    await connection?.close()
  }

  func close() async {
    let connections = state.withLock { Array($0.connections.values) }
    for connection in connections { await connection.close() }
  }
}
