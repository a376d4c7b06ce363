import MobulaCore
import MobulaWire
import Synchronization

/// A driver's connections to the workers that it leases.
final class WorkerConnections: Sendable {
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
    /// The job's.
    var token: ClusterToken?
    var renewing: (@Sendable (JobID?) async throws -> ClusterToken)?
    /// Those of actors that are jobs of their own.
    var tokens: [JobID: ClusterToken] = [:]
    var listener: Listener?
    var haveWorked = false
    var calls: CallListener?
  }

  /// What is told of what workers say of tasks; notices where they are read.
  struct Listener: Sendable {
    var ended: @Sendable (WorkEnded, RPCConnection) throws -> Void
    var recalled: @Sendable (WorkRecall, RPCConnection) -> Void
    var storing: @Sendable (WorkStoring, RPCConnection) async throws -> Bool
  }

  /// What is told of what workers say of calls.
  struct CallListener: Sendable {
    var returned: @Sendable (ActorReturns, RPCConnection) throws -> Void
    var storing: @Sendable (ActorCalls.Numbers, RPCConnection) async throws -> Bool
  }

  /// How long after the end of its worker's connection a lease's loss is waited for.
  private static let lossPatience = Duration.seconds(3)
  private let state = Mutex(State())

  init(tls: ClusterTLS?, hello: Hello) {
    self.tls = tls
    self.hello = hello
  }

  /// The connection to a worker, made when there is none that lives.
  ///
  /// - Parameter job: the worker's, if it is another than this process's.
  func connection(to endpoint: Endpoint, of job: JobID? = nil) async throws -> RPCConnection {
    if let connection = state.withLock({ $0.connections[endpoint] }) { return connection }
    let connection = try await connect(to: endpoint, of: job)
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

  /// What workers of the job are shown; asked for once there is one to be called, when it is not given.
  func use(_ token: ClusterToken?, renewing: @escaping @Sendable (JobID?) async throws -> ClusterToken) {
    state.withLock { ($0.token, $0.renewing) = (token, renewing) }
  }

  func listen(_ listener: Listener) { state.withLock { $0.listener = listener } }
  func listen(_ listener: CallListener) { state.withLock { $0.calls = listener } }

  private func connect(to endpoint: Endpoint, of job: JobID?) async throws -> RPCConnection {
    let known = state.withLock { state in job.map { state.tokens[$0] } ?? state.token }
    var router = RPCRouter()
    router.on(WorkerAPI.ended) { [weak self] ended, connection in
      try self?.state.withLock { $0.listener }?.ended(ended, connection)
    }
    router.on(WorkerAPI.recalled) { [weak self] recalled, connection in
      self?.state.withLock { $0.listener }?.recalled(recalled, connection)
    }
    router.on(WorkerAPI.storing) { [weak self] storing, connection in
      try await self?.state.withLock { $0.listener }?.storing(storing, connection) ?? false
    }
    router.on(WorkerAPI.returned) { [weak self] returned, connection in
      try self?.state.withLock { $0.calls }?.returned(returned, connection)
    }
    router.on(WorkerAPI.storingCall) { [weak self] call, connection in
      try await self?.state.withLock { $0.calls }?.storing(call, connection) ?? false
    }
    if let known {
      do {
        return try await RPCConnection.connect(to: endpoint, token: known, hello: hello, router: router, tls: tls)
      } catch let error as MobulaError where error.code == .unauthenticated {
        // The cluster's token may have been rotated since this process got that of its job.
        guard let new = try? await newToken(of: job), new.text != known.text else { throw error }
        return try await RPCConnection.connect(to: endpoint, token: new, hello: hello, router: router, tls: tls)
      }
    }
    return try await RPCConnection.connect(
      to: endpoint, token: newToken(of: job), hello: hello, router: router, tls: tls)
  }

  private func newToken(of job: JobID?) async throws -> ClusterToken {
    guard let renewing = state.withLock({ $0.renewing }) else {
      throw MobulaError(.unavailable, "This process is just being connected: call workers when it is.")
    }
    let token = try await renewing(job)
    state.withLock { state in if let job { state.tokens[job] = token } else { state.token = token } }
    return token
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

  /// Whether there was ever a lease.
  var haveWorked: Bool { state.withLock { $0.haveWorked } }

  func leased(_ lease: LeaseID, at endpoint: Endpoint) {
    state.withLock { state in
      state.haveWorked = true
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
    let connections = state.withLock { state in
      state.renewing = nil
      return Array(state.connections.values)
    }
    for connection in connections { await connection.close() }
  }
}
