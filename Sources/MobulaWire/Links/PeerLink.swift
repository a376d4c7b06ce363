public import Logging
public import MobulaCore
import Synchronization

/// A connection, to the head or to the host, that is made again whenever it is lost.
///
/// Calls wait for the connection within their deadline, and are repeated when it breaks under them:
/// everything that hosts and pods tell the head, or processes their host, may be told twice.
///
/// Whatever is at the peer's address before it has proved that it has the token ends nothing: it is tried again
/// for ever. Final is only what the peer says of the registration, on a connection over which both have proved it.
public final class PeerLink: Sendable {
  private enum Phase {
    /// Can transition to: connected, refused, stopped.
    case disconnected
    /// Can transition to: disconnected, stopped.
    case connected(RPCConnection)
    /// The peer has refused this process for good. Can transition to: disconnected, when it is run again.
    case refused(MobulaError)
    /// Nobody runs the link any more.
    case stopped
  }

  private struct State {
    var phase = Phase.disconnected
    /// Connections that there were so far.
    var connections = 0
    var hadConnection: Bool { connections > 0 }
    /// Why the last attempt to connect failed.
    var trouble: ConnectFailure?
    /// Why the peer did not take the last registration, which is tried again.
    var objection: MobulaError?
    /// Whether the connection is closed to register anew.
    var isRenewing = false
    /// Since when it has been as `status` shows it.
    var since = ContinuousClock.now
    /// Counts changes of the phase.
    var changes: UInt64 = 0
    var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
    var lastTicket: UInt64 = 0

    var shown: LinkStatus.State {
      switch (phase, trouble) {
      case (.connected, _): .connected
      case (.refused, _): .refused
      case (.disconnected, .unproven): .unproven
      case (.disconnected, _), (.stopped, _): .away
      }
    }
  }

  /// What a peer says of a registration that saying it again would not change.
  private static let finalCodes: Set<MobulaError.Code> = [.mismatch, .unauthenticated, .denied]
  /// For how long another process may be this one at a first start.
  private static let patienceWithRivals = Duration.seconds(14)
  /// Repeats of one call after the connection broke within a second of it, one time after the other: it may be what
  /// ends the peer.
  private static let maximumQuickRepeats = 3
  /// Repeats of one call after the connection broke, however long it took.
  private static let maximumRepeats = 1000
  private static let quick = Duration.seconds(1)

  /// What it is a link to, for messages: `head` or `host`.
  private let role: String
  public let endpoint: Endpoint
  private let token: ClusterToken
  private let tls: ClusterTLS?
  private let hello: Hello
  private let log: Logger
  private let state = Mutex(State())
  /// A connection that was made before, for the first round.
  private let first: Mutex<RPCConnection?>
  /// Why the peer will not come back, once that is certain.
  private let isGone: @Sendable () -> MobulaError?

  /// A link that `run` connects.
  ///
  /// - Parameters:
  ///   - first: a connection to begin with.
  ///   - isGone: asked whenever nobody answers: why nobody ever will, where that is certain.
  public init(
    _ role: String, at endpoint: Endpoint, first: RPCConnection? = nil, token: ClusterToken,
    tls: ClusterTLS? = nil, hello: Hello, log: Logger, isGone: @escaping @Sendable () -> MobulaError? = { nil }
  ) {
    self.isGone = isGone
    self.role = role
    self.endpoint = endpoint
    self.first = Mutex(first)
    self.token = token
    self.tls = tls
    self.hello = hello
    self.log = log
  }

  // MARK: Connecting

  /// Connects, and connects again, until cancelled. May be called again after it threw.
  ///
  /// - Parameters:
  ///   - router: what the peer may call on the connection; one that was given to begin with has its own.
  ///   - patience: for a first start alone: for how long something without a proof may answer before there
  ///     was ever a connection; without, for ever.
  ///   - register: runs on every new connection before anybody else uses it.
  /// - Throws: `MobulaError` when the peer refused this process for good, or patience was over.
  public func run(
    router: RPCRouter = RPCRouter(), patience: Duration? = nil,
    register: @Sendable (RPCConnection) async throws -> Void
  ) async throws {
    var pause = RetryPause()
    var throttle = MessageThrottle()
    var firstAnswer: ContinuousClock.Instant?
    var firstRival: ContinuousClock.Instant?
    var patience = patience
    change { $0.phase = .disconnected }
    while !Task.isCancelled {
      let wait: Duration
      do {
        let connection = try await registered(router, register)
        patience = nil
        throttle.reset()
        wait = pause.lost(after: await use(connection))
      } catch let failure as ConnectFailure {
        change { state in
          state.trouble = failure
          state.objection = nil
        }
        switch failure {
        case .unreachable(let error):
          if let end = isGone() { throw stop(refusing: end) }
          log.debug("the \(role) can't be reached", metadata: ["error": "\(error)"])
          wait = pause.next(after: .nobody)
        case .unproven(let error):
          let start = firstAnswer ?? .now
          firstAnswer = start
          if let patience, .now - start >= patience { throw stop(refusing: impostor(error)) }
          wait = pause.next(after: .refusal)
          if throttle.admits(at: .now) {
            log.warning(
              "something answers in the \(role)'s place that can't prove that it has the cluster's token; trying again",
              metadata: ["\(role)": "\(endpoint)", "error": "\(error)"])
          }
        }
      } catch let error as MobulaError where Self.finalCodes.contains(error.code) {
        throw stop(refusing: error)
      } catch let error as MobulaError where error.code == .alreadyExists && patience != nil {
        // Another process is this one already: it may be about to end, and whoever started this one waits to hear.
        let start = firstRival ?? .now
        firstRival = start
        change { $0.objection = error }
        if .now - start >= Self.patienceWithRivals { throw stop(refusing: MobulaError(.mismatch, error.message)) }
        wait = .seconds(1)
      } catch {
        if Task.isCancelled { break }
        let isLost = (error as? MobulaError)?.code == .connectionClosed
        if !isLost { change { $0.objection = error as? MobulaError } }
        wait = pause.next(after: isLost ? .nobody : .refusal)
        if !isLost, throttle.admits(at: .now) {
          log.warning("the \(role) did not take the registration; trying again", metadata: ["error": "\(error)"])
        }
      }
      // Of many that lost the same peer not all come back at once.
      try? await Task.sleep(for: wait * Double.random(in: 0.8...1))
    }
    change { $0.phase = .stopped }
  }

  /// A connection over which both sides have proved themselves, and this one has said who it is.
  private func registered(
    _ router: RPCRouter, _ register: @Sendable (RPCConnection) async throws -> Void
  ) async throws -> RPCConnection {
    let given = first.withLock { $0.take() }
    let connection =
      if let given { given } else {
        try await RPCConnection.reach(endpoint, token: token, hello: hello, router: router, tls: tls)
      }
    do {
      try await register(connection)
      return connection
    } catch {
      await connection.close()
      throw error
    }
  }

  /// Lets others use a connection until it is lost.
  ///
  /// - Returns: how long it lived.
  private func use(_ connection: RPCConnection) async -> Duration {
    let start = ContinuousClock.now
    let wasThere = change { state in
      defer { state.connections += 1 }
      state.phase = .connected(connection)
      state.objection = nil
      return state.hadConnection
    }
    if wasThere { log.notice("connected to the \(role) again", metadata: ["\(role)": "\(endpoint)"]) }
    await withTaskCancellationHandler {
      await connection.waitUntilClosed()
    } onCancel: {
      Task { await connection.close() }
    }
    let isRenewed = change { state in
      state.phase = .disconnected
      state.trouble = nil
      defer { state.isRenewing = false }
      return state.isRenewing
    }
    if isRenewed {
      log.debug("registering at the \(role) anew")
    } else if !Task.isCancelled {
      log.warning("the \(role) is gone; trying again", metadata: ["\(role)": "\(endpoint)"])
    }
    return .now - start
  }

  /// Closes the connection and makes another: what was registered over it is not all any more. A registration that
  /// runs is left to itself.
  public func renew() {
    let connection = state.withLock { state -> RPCConnection? in
      guard case .connected(let connection) = state.phase else { return nil }
      state.isRenewing = true
      return connection
    }
    guard let connection else { return }
    Task { await connection.close() }
  }

  private func impostor(_ error: MobulaError) -> MobulaError {
    if Self.finalCodes.contains(error.code) { return error }
    return MobulaError(
      .unauthenticated,
      "What answers in the \(role)'s place, at \(endpoint), can't prove that it has the cluster's token: \(error)")
  }

  private func stop(refusing error: MobulaError) -> MobulaError {
    change { $0.phase = .refused(error) }
    return error
  }

  // MARK: Waiting

  /// Changes the state, and has everybody who waits look at it.
  @discardableResult
  private func change<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
    let (result, waiting) = state.withLock { state in
      let before = state.shown
      let result = body(&state)
      if state.shown != before { state.since = .now }
      state.changes += 1
      defer { state.waiting = [:] }
      return (result, Array(state.waiting.values))
    }
    for continuation in waiting { continuation.resume() }
    return result
  }

  /// Waits until `look` finds something.
  ///
  /// - Returns: what it found; `nil` at the deadline.
  /// - Throws: what `look` throws; `CancellationError`.
  private func wait<Found: Sendable>(
    until deadline: ContinuousClock.Instant?, _ look: (Phase) throws -> Found?
  ) async throws -> Found? {
    while true {
      try Task.checkCancellation()
      let (phase, changes) = state.withLock { ($0.phase, $0.changes) }
      if let found = try look(phase) { return found }
      if let deadline, .now >= deadline { return nil }
      await waitForChange(after: changes, until: deadline)
    }
  }

  /// Returns once there was a change, at the deadline, or when the task is cancelled.
  private func waitForChange(after changes: UInt64, until deadline: ContinuousClock.Instant?) async {
    let ticket = state.withLock { state in
      state.lastTicket += 1
      return state.lastTicket
    }
    let timer = deadline.map { deadline in
      Task {
        try? await Task.sleep(until: deadline, clock: .continuous)
        state.withLock { $0.waiting.removeValue(forKey: ticket) }?.resume()
      }
    }
    defer { timer?.cancel() }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let isOver = state.withLock { state in
          if state.changes != changes || Task.isCancelled || deadline.map({ .now >= $0 }) == true { return true }
          state.waiting[ticket] = continuation
          return false
        }
        if isOver { continuation.resume() }
      }
    } onCancel: {
      state.withLock { $0.waiting.removeValue(forKey: ticket) }?.resume()
    }
  }

  /// Waits until a new connection was registered: what is to be reported is in its registration.
  ///
  /// - Parameter isCurrent: false once the registration has been taken.
  /// - Throws: what the peer refused this process with; `MobulaError` (`unavailable`) at the deadline.
  public func waitForRegistration(
    within deadline: Duration = .seconds(60), _ isCurrent: () -> Bool
  ) async throws {
    let found = try await wait(until: .now + deadline) { phase -> Bool? in
      if case .connected = phase, !isCurrent() { return true }
      try check(phase)
      return nil
    }
    if found == nil { throw absent("did not come back within \(deadline)") }
  }

  /// The connection, once there is one.
  ///
  /// - Parameter deadline: until when to wait; without, for ever.
  /// - Throws: what the peer refused this process with; `MobulaError` (`unavailable`) at the deadline.
  public func connection(until deadline: ContinuousClock.Instant? = nil) async throws -> RPCConnection {
    let found = try await wait(until: deadline) { phase -> RPCConnection? in
      if case .connected(let connection) = phase { return connection }
      try check(phase)
      return nil
    }
    guard let found else { throw absent("did not come back in time") }
    return found
  }

  private func check(_ phase: Phase) throws {
    switch phase {
    case .connected, .disconnected: break
    case .refused(let error): throw error
    case .stopped: throw MobulaError(.unavailable, "This process is shutting down.")
    }
  }

  private func absent(_ what: String) -> MobulaError {
    let why: String =
      switch state.withLock({ ($0.trouble, $0.objection) }) {
      case (.unproven(let error), _):
        "something answers there that can't prove that it has the cluster's token (\(error))"
      case (_, let objection?): objection.message
      case (.unreachable, nil), (nil, nil): "check that it runs (`mobula status`)."
      }
    return MobulaError(.unavailable, "The \(role) at \(endpoint) \(what): \(why)")
  }

  /// Whether there will be no connection any more: the peer has refused this process, or nobody runs the link.
  public var isOver: Bool {
    state.withLock { state in
      switch state.phase {
      case .refused, .stopped: true
      case .connected, .disconnected: false
      }
    }
  }

  /// Whether this process was ever registered.
  public var hadConnection: Bool { state.withLock(\.hadConnection) }

  /// How often this process was registered: more often when the peer was started again.
  public var connections: Int { state.withLock(\.connections) }

  /// How the connection is now.
  public var status: LinkStatus {
    state.withLock { state in
      let problem: String? =
        switch (state.phase, state.trouble) {
        case (.refused(let error), _): error.message
        case (.disconnected, let trouble): state.objection?.message ?? trouble?.error.message
        case (.connected, _), (.stopped, _): nil
        }
      return LinkStatus(
        endpoint: endpoint, state: state.shown, problem: problem,
        seconds: max(.zero, .now - state.since) / .seconds(1))
    }
  }

  // MARK: Calling

  /// Calls the peer, waiting for it to come back if it has to.
  ///
  /// A call under which the connection breaks is repeated. One under which it breaks at once, several times, is not:
  /// it may be what ends the peer.
  ///
  /// - Parameter absence: how long a peer that is gone is waited for; up to the deadline by default.
  /// - Throws: the peer's error, or `MobulaError`: `unavailable`, `deadlineExceeded` at the deadline,
  ///   `connectionClosed` when the connection broke too often, or was not there for as long as `absence`.
  public func call<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration = .seconds(30),
    absence: Duration? = nil
  ) async throws -> Response {
    let end = ContinuousClock.now + deadline
    var (repeats, quickRepeats) = (0, 0)
    while true {
      let connection: RPCConnection
      let limit = absence.map { min(end, .now + $0) } ?? end
      do {
        connection = try await self.connection(until: limit)
      } catch let error as MobulaError where error.code == .unavailable && ContinuousClock.now >= limit {
        guard let absence, limit < end else { throw absent("did not answer within \(deadline)") }
        throw MobulaError(.connectionClosed, absent("has been away for \(absence)").message)
      }
      let start = ContinuousClock.now
      do {
        return try await connection.call(method, request, deadline: max(end - .now, .milliseconds(1)))
      } catch let error as MobulaError where error.code == .connectionClosed && !connection.isOpen {
        repeats += 1
        quickRepeats = .now - start < Self.quick ? quickRepeats + 1 : 0
        guard repeats <= Self.maximumRepeats, quickRepeats <= Self.maximumQuickRepeats else {
          throw MobulaError(
            .connectionClosed,
            "The connection to the \(role) at \(endpoint) broke \(repeats) times during the call \"\(method.name)\", which may be what ends it: look at its log."
          )
        }
        // `run` notices too, and makes a new one.
        await connection.waitUntilClosed()
        _ = try await wait(until: end) { phase -> Bool? in
          if case .connected(let current) = phase, current === connection { return nil }
          return true
        }
      }
    }
  }
}
