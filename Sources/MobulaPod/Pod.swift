public import Logging
public import MobulaCore
public import MobulaWire
import Synchronization

/// What a pod needs to know to start.
public struct PodConfiguration: Sendable {
  public var pod: PodID
  public var name: String
  public var host: HostID
  public var head: Endpoint
  public var token: ClusterToken
  /// For the connection to the head; plain without. Workers read theirs from the host's directory.
  public var tls: ClusterTLS?
  /// The host's directory, where the pod's socket and its workers' logs go too.
  public var directory: String
  /// Where the host's identity is kept; `nil` where nobody knows.
  public var folder: FolderID?
  /// The address that others reach this host's workers at.
  public var address: String
  /// The address that workers listen at; `address`, when `nil`.
  public var listen: String?
  public var resources: Resources
  /// Whether somebody waits to hear why this pod can't work: then, and only then, it ends when something without the
  /// token answers in the head's place for 15 s, or when the head refuses it.
  public var isFirstStart = false

  public init(
    pod: PodID, name: String, host: HostID, head: Endpoint, token: ClusterToken,
    directory: String, address: String, resources: Resources
  ) {
    self.pod = pod
    self.name = name
    self.host = host
    self.head = head
    self.token = token
    self.directory = directory
    self.address = address
    self.resources = resources
  }

  /// The socket that the pod's workers connect to.
  public var socket: String { HostPaths.pod(pod.short, in: directory) }
}

/// A pod: confirms leases by its own books, starts the workers for them, and watches those.
public final class Pod: Sendable {
  private struct State {
    var books: PodBooksStateMachine
    var processes: [WorkerID: ChildProcess] = [:]
    /// Grants that wait for their worker to listen.
    var starting: [WorkerID: CheckedContinuation<Endpoint, any Error>] = [:]
    /// Counts uses of a worker, so that an old idle timer does nothing.
    var uses: [WorkerID: Int] = [:]
    /// Did not listen in time, and were ended for it.
    var late: Set<WorkerID> = []
    /// Leases of which the head is to be told whether they are lent.
    var connections: [WorkerID: RPCConnection] = [:]
    var lent: Set<LeaseID> = []
    var isTellingLent = false
    /// Workers of actors that may be started again.
    var fenced: Set<WorkerID> = []
  }

  /// How long a worker may take to listen.
  static let startTimeout = Duration.seconds(20)
  /// How long a worker without a lease is kept.
  static let idleTimeout = Duration.seconds(10)

  public let configuration: PodConfiguration
  private let state: Mutex<State>
  private let programs = ProgramCheck()
  private let output: OutputTail
  /// What workers have written, for the head.
  private let reports: AsyncStream<OutputReport>
  private let identity = MemberIdentity()
  private let lifeline: Lifeline
  private let log: Logger

  /// - Throws: `MobulaError` (`inputOutput`) when the process has no descriptors left.
  public init(_ configuration: PodConfiguration, log: Logger) throws {
    self.configuration = configuration
    self.log = log
    lifeline = try Lifeline()
    // What is not told in time is in the logs all the same.
    let (reports, continuation) = AsyncStream.makeStream(
      of: OutputReport.self, bufferingPolicy: .bufferingNewest(1_000))
    self.reports = reports
    output = OutputTail(try WorkerLauncher.logFolder(configuration)) {
      [name = configuration.name] job, lines, dropped in
      for part in pages(of: lines, size: { $0.text.utf8.count + 32 }) {
        continuation.yield(OutputReport(job: job, pod: name, lines: part, dropped: 0))
      }
      if dropped > 0 { continuation.yield(OutputReport(job: job, pod: name, lines: [], dropped: dropped)) }
    }
    state = Mutex(State(books: PodBooksStateMachine(total: configuration.resources)))
  }

  /// Serves until cancelled; then its workers are gone.
  ///
  /// - Throws: `MobulaError` when its socket can't be bound; at a first start, when the head refuses this pod.
  public func run() async throws {
    var hello = Hello(role: .pod, name: configuration.name)
    hello.host = configuration.host
    var workers = RPCRouter()
    workers.on(PodAPI.workerReady) { ready, connection in
      self.state.withLock { $0.connections[ready.worker] = connection }
      let continuation: CheckedContinuation<Endpoint, any Error>? = try self.state.withLock { state in
        guard state.books.ready(ready.worker, at: ready.endpoint) else {
          throw MobulaError(.notFound, "Worker \(ready.worker.short) is not expected here: it came too late.")
        }
        return state.starting.removeValue(forKey: ready.worker)
      }
      continuation?.resume(returning: ready.endpoint)
      return Empty()
    }
    let head = PeerLink(
      "head", at: configuration.head, token: configuration.token, tls: configuration.tls, hello: hello, log: log)
    let telling = Task { [reports] in
      for await report in reports {
        guard let connection = try? await head.connection(until: .now + .seconds(5)), connection.takes(HeadAPI.output)
        else { continue }
        try? connection.tell(HeadAPI.output, report)
      }
    }
    let fencing = Task { await self.tellHeard(head) }
    defer {
      telling.cancel()
      fencing.cancel()
    }
    workers.on(PodAPI.leaseLent) { lent, _ in
      self.lent(lent, head)
    }
    let server = try await RPCServer.bind(
      to: .unix(path: configuration.socket), token: configuration.token, hello: hello, router: workers)

    defer { stopAll() }
    do {
      try await keep(head)
    } catch {
      await server.close()
      throw error
    }
    await server.close()
  }

  /// Registers in two steps: leases that the head has revoked are over here before it gives any other.
  private func register(on connection: RPCConnection) async throws {
    try identity.check(connection.peer)
    let (me, heard) = (identity.values, HeadHeard(nanoseconds: bootNanoseconds()))
    var registration = PodRegistration(
      pod: configuration.pod, name: configuration.name, host: configuration.host, incarnation: me.incarnation,
      resources: configuration.resources,
      leases: state.withLock { $0.books.leases.values.sorted { $0.lease < $1.lease } })
    registration.nonce = me.nonce
    registration.epoch = me.epoch
    registration.session = me.session
    registration.folder = configuration.folder
    let reply = try await connection.call(HeadAPI.registerPod, registration)
    identity.registered(reply)
    if let session = reply.session, let leases = reply.end {
      await end(leases)
      _ = try await connection.call(HeadAPI.confirmPod, PodConfirmation(pod: configuration.pod, session: session))
    }
    tell(heard)
    log.notice("pod ready", metadata: ["pod": "\(configuration.name)", "resources": "\(configuration.resources)"])
  }

  /// Ends leases that are over, with their workers, which are gone when this returns.
  private func end(_ leases: [LeaseID]) async {
    let processes = leases.compactMap { lease in
      state.withLock { state -> ChildProcess? in
        guard case .stop(let worker) = state.books.released(lease, workerIsReusable: false) else { return nil }
        return state.processes[worker]
      }
    }
    for process in processes { process.signal(9) }
    for process in processes { _ = await process.waitForExit() }
    if !leases.isEmpty {
      log.notice("leases that the head had revoked are over", metadata: ["leases": "\(leases.count)"])
    }
  }

  /// Keeps the connection to the head until cancelled.
  private func keep(_ head: PeerLink) async throws {
    var control = RPCRouter()
    control.on(PodControlAPI.grantLease) { request, _ in try await self.grant(request, head: head) }
    control.on(PodControlAPI.releaseLease) { request, _ in
      self.release(request)
      return Empty()
    }
    control.on(PodControlAPI.runActor) { run, _ in try await self.run(run) }
    control.on(PodControlAPI.endActor) { ending, _ in
      guard let worker = self.worker(of: ending.lease)?.connection else { return Empty() }
      // Whoever does not answer is ended all the same.
      _ = try? await worker.call(PodAPI.endActor, ending, deadline: .seconds(ending.seconds + 1))
      return Empty()
    }
    control.on(MemberControlAPI.alive) { _, _ in Empty() }
    do {
      try await head.run(router: control, patience: configuration.isFirstStart ? .seconds(15) : nil) { connection in
        try await self.register(on: connection)
      }
    } catch let error as MobulaError where !configuration.isFirstStart || head.hadConnection {
      // Started again, it would take the place of the pod that the head knows instead.
      log.error("the head refuses this pod, whose workers end", metadata: ["error": "\(error)"])
      stopAll()
      while !Task.isCancelled { try await Task.sleep(for: .seconds(3600)) }
    }
  }

  private func grant(_ request: LeaseRequest, head: PeerLink) async throws -> LeaseGrant {
    try await programs.check(request.program)
    let worker = WorkerID.random()
    let action = state.withLock { $0.books.offered(request, newWorker: worker) }
    switch action {
    case .refuse(let error): throw error
    case .use(let worker, let endpoint):
      state.withLock { $0.uses[worker, default: 0] += 1 }
      return grant(request, worker, endpoint)
    case .start(let worker):
      do {
        return grant(request, worker, try await start(worker, for: request, head: head))
      } catch {
        _ = state.withLock { $0.books.workerGone(worker) }
        throw error
      }
    }
  }

  private func grant(_ request: LeaseRequest, _ worker: WorkerID, _ endpoint: Endpoint) -> LeaseGrant {
    LeaseGrant(
      lease: request.lease, host: configuration.host, pod: configuration.pod, podName: configuration.name,
      worker: worker, endpoint: endpoint)
  }

  private func start(_ worker: WorkerID, for request: LeaseRequest, head: PeerLink) async throws -> Endpoint {
    let gpus = state.withLock { $0.books.gpus(of: request.lease) }
    let process = try WorkerLauncher.launch(worker, for: request, gpus: gpus, in: configuration, lifeline: lifeline)
    state.withLock { $0.processes[worker] = process }
    let log = HostPaths.workerLog(worker, of: request.job, in: configuration.directory)
    output.add(worker, of: request.job, to: log)
    Task { await self.watch(worker, process, log, head: head) }
    let timer = Task {
      try await Task.sleep(for: Self.startTimeout)
      self.state.withLock { _ = $0.late.insert(worker) }
      process.signal(9)
    }
    defer { timer.cancel() }
    return try await withCheckedThrowingContinuation { continuation in
      let endpoint: Endpoint? = state.withLock { state in
        // It may have been ready before anybody waited for it.
        if let endpoint = state.books.endpoint(of: worker) { return endpoint }
        state.starting[worker] = continuation
        return nil
      }
      if let endpoint { return continuation.resume(returning: endpoint) }
      // It may have ended before the continuation was there for `watch` to find.
      if process.exit != nil { failStart(worker, process, log) }
    }
  }

  // MARK: Actors

  private func worker(of lease: LeaseID) -> (id: WorkerID, connection: RPCConnection)? {
    state.withLock { state in
      state.books.worker(of: lease).flatMap { worker in state.connections[worker].map { (worker, $0) } }
    }
  }

  private func run(_ run: ActorRun) async throws -> Endpoint {
    let ended = MobulaError(.unavailable, "The worker of lease \(run.lease.short) has ended.")
    guard let worker = worker(of: run.lease) else { throw ended }
    if run.spec.isRestartable {
      try worker.connection.tell(PodAPI.headHeard, HeadHeard(nanoseconds: bootNanoseconds()))
      _ = state.withLock { $0.fenced.insert(worker.id) }
    }
    do {
      return try await worker.connection.call(PodAPI.runActor, run, deadline: .seconds(10 * 365 * 86_400))
    } catch let error as MobulaError where error.code == .connectionClosed && !worker.connection.isOpen {
      throw ended
    }
  }

  /// Tells workers of actors that may be started again when the head last knew of this pod: where that is too long ago,
  /// they begin nothing, since another may do it.
  private func tellHeard(_ head: PeerLink) async {
    while (try? await Task.sleep(for: ActorFence.interval)) != nil {
      guard !state.withLock({ $0.fenced.isEmpty }) else { continue }
      // The time of the question: what was answered later was true then.
      let heard = HeadHeard(nanoseconds: bootNanoseconds())
      guard let connection = try? await head.connection(until: .now + .seconds(1)) else { continue }
      do { _ = try await connection.call(HeadAPI.hears, Empty(), deadline: ActorFence.interval) } catch {
        // A head of the build before has answered, too.
        guard (error as? MobulaError)?.code == .notFound else { continue }
      }
      tell(heard)
    }
  }

  private func tell(_ heard: HeadHeard) {
    for worker in state.withLock({ state in state.fenced.compactMap { state.connections[$0] } }) {
      try? worker.tell(PodAPI.headHeard, heard)
    }
  }

  private func failStart(_ worker: WorkerID, _ process: ChildProcess, _ path: String) {
    let (continuation, isLate) = state.withLock { state in
      (state.starting.removeValue(forKey: worker), state.late.remove(worker) != nil)
    }
    guard let continuation else { return }
    let program = "The program did not start as a worker of pod \(configuration.name)"
    let log = WorkerLog.end(of: path)
    let error =
      if isLate {
        MobulaError(
          .workFailed,
          "\(program): it did not listen within \(Self.startTimeout), as MobulaApp and Worker.main() do. \(log)")
      } else if process.exit == .status(WorkerEnvironment.notNowStatus) {
        // Its host was away, or the like: it may work a moment later.
        MobulaError(.unavailable, "\(program) for now (\(process.exit!)). \(log)")
      } else {
        // Nobody would have more luck with it here; the head asks other pods, and then the driver is told.
        MobulaError(.workFailed, "\(program) (\(process.exit.map { "\($0)" } ?? "no exit")). \(log)")
      }
    continuation.resume(throwing: error)
  }

  private func watch(_ worker: WorkerID, _ process: ChildProcess, _ path: String, head: PeerLink) async {
    let exit = await process.waitForExit()
    output.remove(path)
    failStart(worker, process, path)
    let lease = state.withLock { state in
      state.processes[worker] = nil
      state.connections[worker] = nil
      state.fenced.remove(worker)
      state.uses[worker] = nil
      return state.books.workerGone(worker)
    }
    guard let lease else { return }
    log.warning("a worker ended under its lease", metadata: ["worker": "\(worker.short)", "exit": "\(exit)"])
    let said = WorkerLog.end(of: path)
    let reason = "The worker \(worker.short) of pod \(configuration.name) ended with \(exit). \(said)"
    _ = try? await head.call(HeadAPI.leaseLost, LeaseLost(lease: lease, reason: reason))
  }

  /// A worker says that what it does for a lease waits, or goes on.
  ///
  /// - Returns: whether it is so.
  private func lent(_ lent: LeaseLent, _ head: PeerLink) -> Bool {
    let (isSo, tells) = state.withLock { state in
      let hasChanged = state.books.lent(lent.lease, lent.isLent)
      let isSo = (state.books.leases[lent.lease]?.isLent == true) == lent.isLent
      guard hasChanged else { return (isSo, false) }
      state.lent.insert(lent.lease)
      defer { state.isTellingLent = true }
      return (isSo, !state.isTellingLent)
    }
    if tells { Task { await self.tellLent(head) } }
    return isSo
  }

  /// Tells the head how it is now with each lease, one after the other.
  private func tellLent(_ head: PeerLink) async {
    while true {
      let next = state.withLock { state -> LeaseLent? in
        guard let lease = state.lent.popFirst() else {
          state.isTellingLent = false
          return nil
        }
        return LeaseLent(lease: lease, isLent: state.books.leases[lease]?.isLent == true)
      }
      guard let next else { return }
      do { _ = try await head.call(HeadAPI.leaseLent, next) } catch {
        // A head of the build before does not want to know; any other is told again.
        if (error as? MobulaError)?.code == .notFound { continue }
        _ = state.withLock { $0.lent.insert(next.lease) }
        try? await Task.sleep(for: .seconds(1))
        if Task.isCancelled { return }
      }
    }
  }

  private func release(_ request: LeaseReturn) {
    let action = state.withLock {
      $0.books.released(request.lease, workerIsReusable: request.workerIsReusable)
    }
    switch action {
    case .nothing: break
    case .stop(let worker): state.withLock { $0.processes[worker] }?.signal(9)
    case .keep(let worker):
      let use = state.withLock { $0.uses[worker, default: 0] }
      Task { try await self.endIdle(worker, since: use) }
    }
  }

  /// Ends a worker that nobody has had for a while, once nothing goes on that it has submitted.
  private func endIdle(_ worker: WorkerID, since use: Int) async throws {
    while true {
      try await Task.sleep(for: Self.idleTimeout)
      let (isIdle, connection) = state.withLock { state in
        (state.uses[worker, default: 0] == use && state.processes[worker] != nil, state.connections[worker])
      }
      guard isIdle else { return }
      // One that does not answer, or knows no such question, has nothing to say against it.
      let mayEnd = try? await connection?.call(PodAPI.mayEnd, Empty(), deadline: .seconds(5))
      if mayEnd == false { continue }
      let process = state.withLock { state -> ChildProcess? in
        guard state.uses[worker, default: 0] == use, state.books.idleTooLong(worker) else { return nil }
        return state.processes[worker]
      }
      process?.signal(9)
      return
    }
  }

  private func stopAll() {
    for process in state.withLock({ Array($0.processes.values) }) { process.signal(9) }
  }
}
