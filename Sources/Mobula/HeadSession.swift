import Logging
import MobulaCore
import MobulaWire
import Synchronization

/// A process's way to the head, which may be started again meanwhile: the process connects to the new one, says which
/// job it is of and which leases it has, and goes on.
final class HeadSession: Sendable {
  /// Who the process is to the head.
  enum Membership: Sendable {
    /// Asks, and starts no work.
    case tool
    case driver(JobID, JobSecret?)
    case worker(JobID)
  }

  /// Where the head is, and what a process shows there.
  struct Way: Sendable {
    var endpoint: Endpoint
    var token: ClusterToken
    var tls: ClusterTLS?
    var hello: Hello
    var log: Logger
    /// Told what workers of the job print.
    var output = WorkerOutput.none
  }

  private enum State {
    /// Nothing has been asked of the head yet. Can transition to: linking, closed.
    case idle
    /// The first connection is made, or was. Can transition to: idle, when that fails; closed.
    case linking(Task<PeerLink, any Error>)
    case closed
  }

  private let way: Way
  private let workers: WorkerConnections
  private let membership: Membership
  private let state: Mutex<State>
  private let running: Mutex<Task<Void, any Error>?>

  /// How long a process that starts waits for a head that is just being started again.
  private static let patience = Duration.seconds(2)

  /// For a process that starts no work: the connection is made when something is asked.
  init(_ way: Way, _ workers: WorkerConnections) {
    self.way = way
    self.workers = workers
    membership = .tool
    state = Mutex(.idle)
    running = Mutex(nil)
  }

  /// - Parameter first: a connection over which `membership` was said.
  init(_ way: Way, _ workers: WorkerConnections, _ membership: Membership, first: RPCConnection) {
    self.way = way
    self.workers = workers
    self.membership = membership
    let link = Self.link(way, first: first)
    state = Mutex(.linking(Task { link }))
    running = Mutex(Self.run(link, workers, membership, way.output, first: first))
  }

  /// Connects and starts a job.
  ///
  /// - Throws: `MobulaError`: `unavailable` when there is no head, `unauthenticated` for another token.
  static func startJob(_ way: Way, _ workers: WorkerConnections) async throws -> (HeadSession, JobID) {
    let first = try await connect(way, workers)
    do {
      let started = try await first.call(HeadAPI.startJob, JobStart(resumes: true))
      return (HeadSession(way, workers, .driver(started.job, started.secret), first: first), started.job)
    } catch {
      await first.close()
      throw error
    }
  }

  /// For a worker of a job.
  static func join(_ job: JobID, _ way: Way, _ workers: WorkerConnections) async throws -> HeadSession {
    HeadSession(way, workers, .worker(job), first: try await connect(way, workers))
  }

  private static func router(_ workers: WorkerConnections, _ output: WorkerOutput) -> RPCRouter {
    var router = RPCRouter()
    router.on(DriverControlAPI.leaseRevoked) { lost, _ in
      await workers.leaseLost(lost)
      return Empty()
    }
    router.on(DriverControlAPI.output) { report, _ in output.take(report) }
    return router
  }

  private static func connect(_ way: Way, _ workers: WorkerConnections) async throws -> RPCConnection {
    let end = ContinuousClock.now + patience
    while true {
      do {
        return try await RPCConnection.connect(
          to: way.endpoint, token: way.token, hello: way.hello, router: router(workers, way.output), tls: way.tls)
      } catch let error as MobulaError where error.code == .unavailable && ContinuousClock.now < end {
        try await Task.sleep(for: .milliseconds(50))
      }
    }
  }

  private static func link(_ way: Way, first: RPCConnection) -> PeerLink {
    PeerLink("head", at: way.endpoint, first: first, token: way.token, tls: way.tls, hello: way.hello, log: way.log)
  }

  private static func run(
    _ link: PeerLink, _ workers: WorkerConnections, _ membership: Membership, _ output: WorkerOutput,
    first: RPCConnection
  ) -> Task<Void, any Error> {
    let id = first.id
    return Task {
      try await link.run(router: router(workers, output)) { connection in
        // On the first one it was said already.
        guard connection.id != id else { return }
        try await register(membership, workers, on: connection)
      }
    }
  }

  /// The link, with a first connection.
  ///
  /// - Throws: `MobulaError`: `unavailable` when there is no head, or the session is closed; `unauthenticated`.
  private func link() async throws -> PeerLink {
    let linking = try state.withLock { state -> Task<PeerLink, any Error> in
      switch state {
      case .linking(let task): return task
      case .closed: throw MobulaError(.unavailable, "This process is shutting down.")
      case .idle:
        let task = Task { try await firstLink() }
        state = .linking(task)
        return task
      }
    }
    do {
      return try await withTaskCancellationHandler {
        try await linking.value
      } onCancel: {
        linking.cancel()
      }
    } catch {
      state.withLock { state in if case .linking(linking) = state { state = .idle } }
      throw error
    }
  }

  private func firstLink() async throws -> PeerLink {
    let first = try await Self.connect(way, workers)
    let link = Self.link(way, first: first)
    running.withLock { $0 = Self.run(link, workers, membership, way.output, first: first) }
    return link
  }

  private static func register(
    _ membership: Membership, _ workers: WorkerConnections, on connection: RPCConnection
  ) async throws {
    switch membership {
    case .tool: break
    case .worker(let job):
      let leases = workers.claimed
      if !leases.isEmpty { _ = try await connection.call(HeadAPI.claimLeases, LeaseClaims(job: job, leases: leases)) }
    case .driver(let job, let secret):
      guard let secret else { throw ended(job, "its head gave it no secret") }
      do {
        _ = try await connection.call(
          HeadAPI.resumeJob, JobResumption(job: job, secret: secret, leases: workers.claimed))
      } catch let error as MobulaError where [.notFound, .denied].contains(error.code) {
        throw ended(job, error.message)
      }
    }
  }

  /// Ends the link for good: everything that is called from now on fails so.
  private static func ended(_ job: JobID, _ why: String) -> MobulaError {
    MobulaError(.mismatch, "Job \(job) has ended (\(why)): run the program again.")
  }

  /// Calls the head, waiting for it to come back if it has to, and again when it goes meanwhile: for what may be done
  /// twice.
  func call<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration = .seconds(30)
  ) async throws -> Response {
    let end = ContinuousClock.now + deadline
    let link = try await link()
    return try await link.call(method, request, deadline: max(end - .now, .milliseconds(1)))
  }

  /// Calls the head once, as soon as there is one.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) when it went before it answered: `mayHaveRun` says whether it had the
  ///   request.
  func callOnce<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration
  ) async throws -> Response {
    let end = ContinuousClock.now + deadline
    let link = try await link()
    let connection = try await withThrowingTaskGroup(of: RPCConnection?.self) { group in
      group.addTask { try await link.connection() }
      group.addTask {
        try await Task.sleep(until: end, clock: .continuous)
        return nil
      }
      defer { group.cancelAll() }
      return try await group.next() ?? nil
    }
    guard let connection else {
      throw MobulaError(
        .unavailable, "The head at \(link.endpoint) did not come back within \(deadline): check that it runs.")
    }
    do {
      return try await connection.call(method, request, deadline: max(end - .now, .milliseconds(1)))
    } catch let error as MobulaError where error.code == .connectionClosed {
      // The link notices too, and makes a new one: who calls again finds that.
      try await Task.sleep(for: .milliseconds(20))
      throw error
    }
  }

  /// A lease is not needed any more. Also who is cancelled says so.
  func giveBack(_ notice: LeaseReturn) async {
    await cleanUp {
      if (try? await self.call(HeadAPI.returnLease, notice, deadline: .seconds(5))) != nil { return }
      // The head is away: nobody waits for it here, and it hears of it when it is back.
      Task { _ = try? await self.call(HeadAPI.returnLease, notice, deadline: .seconds(600)) }
    }
  }

  /// The token with which the workers of the job, and who calls them, prove themselves.
  ///
  /// - Parameter own: this process's own, which may have been made from a cluster token that can make it, too.
  func jobToken(_ job: JobID, _ own: ClusterToken) async throws -> ClusterToken {
    while true {
      let connection = try await link().connection(until: .now + .seconds(30))
      do {
        let reply = try await connection.call(HeadAPI.jobToken, JobTokenRequest(job: job))
        return try ClusterToken(connection.open(reply.sealed))
      } catch let error as MobulaError where error.code == .connectionClosed {
        // The link notices too, and makes a new one.
        try await Task.sleep(for: .milliseconds(20))
      } catch let error as MobulaError where error.code == .notFound {
        // A head of the build before, which gives no tokens.
        guard let cluster = own.elder else { throw error }
        return try cluster.ofJob(job)
      }
    }
  }

  /// Ends the job and the connection; what is called from now on fails.
  func close() async {
    if case .driver(let job, let secret?) = membership, let link = try? await link() {
      await cleanUp {
        _ = try? await link.call(HeadAPI.endJob, JobEnd(job: job, secret: secret), deadline: .seconds(2))
      }
    }
    let former = state.withLock { state in
      defer { state = .closed }
      return state
    }
    // One that is still being made is not waited for.
    if case .linking(let linking) = former { linking.cancel() }
    let task = running.withLock { $0.take() }
    task?.cancel()
    _ = await task?.result
  }
}
