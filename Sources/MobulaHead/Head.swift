public import Logging
internal import MobulaControl
public import MobulaCore
package import MobulaJournal
public import MobulaWire
internal import Synchronization

/// The control plane of a cluster: which hosts and pods there are, where objects are and who
/// holds them, and who works where.
///
/// This is the shell around `ClusterState`, which decides, under one lock; connections, callers and the journal are
/// here. Names, jobs, members and counters are written down before anybody sees them; what else it knows is rebuilt from
/// the registrations of hosts and pods when it is restarted.
public final class Head: Sendable {
  let configuration: HeadConfiguration
  private let logger: Logger
  private let contents: Mutex<HeadContents>
  private let server = Mutex<RPCServer?>(nil)
  private let effects: AsyncStream<HeadEffect>
  private let outbox: AsyncStream<HeadEffect>.Continuation
  private let start = ContinuousClock.now
  private let journal: (any Journal)?
  /// What hosts are to be told, on each connection.
  private let orders = Mutex<[ConnectionID: HostOrderQueue]>([:])
  private let commits = Mutex((waiting: [(id: CommitID, records: [JournalRecord])](), isDraining: false))

  private init(
    _ configuration: HeadConfiguration, journal: (any Journal)?, knowing before: JournalState, logger: Logger
  ) {
    self.configuration = configuration
    self.logger = logger
    self.journal = journal
    var state = ClusterState(configuration.settings)
    if journal != nil { state.load(before) }
    contents = Mutex(HeadContents(state: state))
    (effects, outbox) = AsyncStream.makeStream(of: HeadEffect.self)
  }

  /// A head that listens; `run` makes it act.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when the endpoint is taken, `invalidArgument` when it is not this machine's.
  public static func bind(
    _ configuration: HeadConfiguration, token: ClusterToken, tls: ClusterTLS? = nil,
    logger: Logger = Logger(label: "mobula.head")
  ) async throws -> Head {
    try await bind(configuration, token: token, tls: tls, journal: nil, knowing: JournalState(), logger: logger)
  }

  /// A head that listens, and writes down what must outlive it.
  ///
  /// - Parameters:
  ///   - journal: has the epoch already.
  ///   - before: what was in it.
  package static func bind(
    _ configuration: HeadConfiguration, token: ClusterToken, tls: ClusterTLS? = nil, journal: (any Journal)?,
    knowing before: JournalState, logger: Logger = Logger(label: "mobula.head")
  ) async throws -> Head {
    let head = Head(configuration, journal: journal, knowing: before, logger: logger)
    var hello = Hello(
      role: .head, name: configuration.name, cluster: configuration.cluster, epoch: configuration.epoch)
    hello.notices = [HeadAPI.output.name]
    let server = try await RPCServer.bind(
      to: configuration.endpoint, token: token, hello: hello, router: router(of: head), tls: tls)
    head.server.withLock { $0 = server }
    return head
  }

  /// Where the head is reached, with the real port.
  public var endpoint: Endpoint {
    configuration.advertised ?? server.withLock { $0?.endpoint } ?? configuration.endpoint
  }

  /// The cluster as it is now.
  package func status(_ page: StatusRequest = StatusRequest()) -> ClusterStatus {
    let endpoint = endpoint
    return perform { $0.status(at: endpoint, page) }
  }

  /// Does what the head decides, until the calling task is cancelled; then closes every connection.
  public func run() async {
    // What was written down has its deadlines, too.
    perform { $0.tick() }
    await withDiscardingTaskGroup { group in
      var timer = HeadTimer()
      for await effect in effects {
        switch effect {
        case .wakeAt(let instant):
          timer.arm(instant, now: now) { [start] in
            try? await Task.sleep(until: start + instant, clock: .continuous)
            if !Task.isCancelled { self.perform { $0.tick() } }
          }
        case .order(let order, let connection):
          // In the order of the decisions, which tasks do not keep.
          guard let next = orders.withLock({ $0[connection.number, default: HostOrderQueue()].add(order) }) else {
            break
          }
          group.addTask { await self.tell(next, connection) }
        default: group.addTask { await self.act(effect) }
        }
      }
      timer.disarm()
      await close()
      group.cancelAll()
    }
  }

  /// Stops listening and closes every connection; their calls fail.
  public func close() async {
    let server = server.withLock { server in
      defer { server = nil }
      return server
    }
    await server?.close()
  }

  /// Since the head's start; what the state machines call an instant.
  var now: Duration { start.duration(to: .now) }

  /// The connections that hosts have made.
  var hosts: [RPCConnection] { server.withLock { $0?.connections(of: .host) } ?? [] }

  // MARK: Deciding

  /// Lets the state decide, then sees to what it decided.
  @discardableResult
  func perform<Answer: Sendable>(_ body: (inout ClusterState) -> Answer) -> Answer {
    decide { contents in body(&contents.state) }
  }

  private func decide<Answer: Sendable>(_ body: (inout HeadContents) -> Answer) -> Answer {
    let (answer, decisions) = contents.withLock { contents in
      contents.state.now = now
      let answer = body(&contents)
      let decisions = contents.takeDecisions()
      // In the order of the decisions.
      if !decisions.commits.isEmpty { commits.withLock { $0.waiting += decisions.commits } }
      return (answer, decisions)
    }
    for (caller, result) in decisions.answers { caller.resume(with: result) }
    for effect in decisions.effects { outbox.yield(effect) }
    drain()
    return answer
  }

  /// Hands what waits to the journal, in order. Whoever comes while another does so leaves it to that one.
  private func drain() {
    guard let journal else { return }
    while true {
      let next = commits.withLock { commits -> (id: CommitID, records: [JournalRecord])? in
        guard !commits.isDraining, !commits.waiting.isEmpty else { return nil }
        commits.isDraining = true
        return commits.waiting.removeFirst()
      }
      guard let next else { return }
      journal.append(next.records) { result in
        switch result {
        case .success: self.perform { $0.committed(next.id, nil) }
        case .failure(let error): self.perform { $0.committed(next.id, error) }
        }
      }
      commits.withLock { $0.isDraining = false }
    }
  }

  /// As `perform`, for what may be refused.
  @discardableResult
  func attempt<Answer: Sendable>(
    _ body: (inout ClusterState) throws(MobulaError) -> Answer
  ) throws(MobulaError) -> Answer {
    try perform { state in Result { () throws(MobulaError) in try body(&state) } }.get()
  }

  /// Waits for the answer to a question, which an action brings. The task's cancellation ends it, unless it is about to
  /// be written down.
  func ask(_ question: (inout ClusterState, RequestID) -> Void) async throws -> ClusterReply {
    let id = contents.withLock { $0.sessions.newRequest() }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        decide { contents in
          contents.sessions.wait(for: id, .one(continuation))
          question(&contents.state, id)
        }
        // A cancellation from before the caller was kept found nothing to cancel.
        if Task.isCancelled { perform { $0.cancel(id) } }
      }
    } onCancel: {
      perform { $0.cancel(id) }
    }
  }

  /// As `ask`, of several questions at once: under one lock, and for one caller.
  ///
  /// - Returns: an answer to each; `nil` for those that are refused.
  func askAll<Question: Sendable>(
    _ questions: [Question], _ ask: (inout ClusterState, RequestID, Question) -> Void
  ) async -> [ClusterReply?] {
    guard !questions.isEmpty else { return [] }
    let ids = contents.withLock { contents in questions.map { _ in contents.sessions.newRequest() } }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let all = HeadQuestions(questions.count, continuation)
        decide { contents in
          for (index, id) in ids.enumerated() {
            contents.sessions.wait(for: id, .among(all, index))
            ask(&contents.state, id, questions[index])
          }
        }
        if Task.isCancelled { perform { state in for id in ids { state.cancel(id) } } }
      }
    } onCancel: {
      perform { state in for id in ids { state.cancel(id) } }
    }
  }

  /// Knows a connection by its number as long as `body` takes, and as long as the state does from then on.
  func knowing<Answer>(
    _ connection: RPCConnection, _ body: (ConnectionID) async throws -> Answer
  ) async rethrows -> Answer {
    contents.withLock { $0.sessions.begin(connection) }
    defer { contents.withLock { $0.sessions.end(connection.number) } }
    return try await body(connection.number)
  }

  /// The connection that a host is called on.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) while there is none.
  func control(of host: HostID) throws(MobulaError) -> RPCConnection {
    try contents.withLock { contents in
      Result { () throws(MobulaError) in
        let id = try contents.state.control(of: host)
        guard let connection = contents.sessions[id] else {
          throw MobulaError(.connectionClosed, "The host's connection has just gone: try again.")
        }
        return connection
      }
    }.get()
  }

  /// The connection by this number, while it is there.
  func connection(_ choose: (ClusterState) -> ConnectionID?) -> RPCConnection? {
    contents.withLock { contents in choose(contents.state).flatMap { contents.sessions[$0] } }
  }

  // MARK: Acting

  private func act(_ effect: HeadEffect) async {
    switch effect {
    case .watch(let connection):
      await connection.waitUntilClosed()
      decide { contents in
        contents.sessions.closed(connection.number)
        contents.state.disconnected(connection.number)
      }
    case .close(let connection): await connection.close()
    case .ask(let pod, let request, let connection):
      let answer = await grant(request, at: connection)
      perform { $0.podAnswered(pod, request.lease, answer) }
    case .release(let pod, let lease, let connection):
      guard let connection, await call(PodControlAPI.releaseLease, lease, at: connection) else { return }
      perform { $0.podReleased(pod, lease.lease) }
    case .revoke(let loss, let connection): await call(DriverControlAPI.leaseRevoked, loss, at: connection)
    case .runActor(let run, let connection): await start(run, at: connection)
    case .endActor(let ending, let connection):
      if let connection {
        let deadline = Duration.seconds(ending.seconds) + configuration.callTimeout
        _ = try? await connection.call(PodControlAPI.endActor, ending, deadline: deadline)
      }
      perform { $0.actorStopped(ending.actor, ending.lease) }
    case .log(let level, let message): logger.log(level: Logger.Level(level), "\(message)")
    // `run` sees to these.
    case .order, .wakeAt: break
    }
  }

  /// Tells a host one order after the other, until there are no more.
  private func tell(_ order: HostOrder, _ connection: RPCConnection) async {
    var next = order
    while true {
      if next.patience > .zero {
        try? await Task.sleep(for: next.patience)
        next = orders.withLock { $0[connection.number]?.gathered(next) ?? next }
      }
      let isThere =
        switch next {
        case .drop(let request): await call(HostControlAPI.drop, request, at: connection)
        case .keep(let request): await call(HostControlAPI.keep, request, at: connection)
        case .names(let news): await call(HostControlAPI.names, news, at: connection)
        }
      let following = orders.withLock { orders -> HostOrder? in
        // What a host did not hear that is gone, it learns with its next registration.
        let following = isThere ? orders[connection.number]?.told() : nil
        if following == nil { orders[connection.number] = nil }
        return following
      }
      guard let following else { return }
      next = following
    }
  }

  private func grant(_ request: LeaseRequest, at connection: RPCConnection?) async -> PodAnswer {
    guard let connection else { return .unreachable }
    do {
      return .granted(
        try await connection.call(PodControlAPI.grantLease, request, deadline: configuration.grantTimeout))
    } catch let error as MobulaError where error.code != .connectionClosed && error.code != .deadlineExceeded {
      return .refused(error)
    } catch {
      return .unreachable
    }
  }

  /// Has a pod make an actor, for which it may take as long as it likes: its worker's end, and the pod's, are heard of.
  private func start(_ run: ActorRun, at connection: RPCConnection) async {
    let result: Result<Endpoint, MobulaError>
    do {
      result = .success(try await connection.call(PodControlAPI.runActor, run, deadline: .seconds(10 * 365 * 86_400)))
    } catch let error as MobulaError where error.code == .connectionClosed && !connection.isOpen {
      return
    } catch {
      result = .failure(MobulaError(describing: error))
    }
    perform { $0.actorStarted(run.actor, run.incarnation, result) }
  }

  /// Whether the peer took notice: false when its connection is gone, whose loss has its own consequences.
  @discardableResult
  private func call<Request>(
    _ method: RPCMethod<Request, Empty>, _ request: Request, at connection: RPCConnection
  ) async -> Bool {
    do {
      _ = try await connection.call(method, request, deadline: configuration.callTimeout)
    } catch let error as MobulaError where error.code != .connectionClosed {
      logger.warning("\(connection.peer.title) did not take \"\(method.name)\": \(error.message)")
    } catch {
      return false
    }
    return true
  }
}

/// The next instant at which time itself is an event.
private struct HeadTimer: ~Copyable {
  private var armed: (instant: Duration, task: Task<Void, Never>)?

  /// Sleeps with `body`, unless an earlier instant is still to come.
  mutating func arm(_ instant: Duration, now: Duration, _ body: @escaping @Sendable () async -> Void) {
    if let armed, armed.instant > now, armed.instant <= instant { return }
    armed?.task.cancel()
    armed = (instant, Task { await body() })
  }

  mutating func disarm() { armed?.task.cancel() }
}

extension Logger.Level {
  fileprivate init(_ level: ClusterAction.LogLevel) {
    switch level {
    case .info: self = .info
    case .notice: self = .notice
    case .warning: self = .warning
    case .error: self = .error
    }
  }
}
