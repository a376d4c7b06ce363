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

  private let link: PeerLink
  private let running: Mutex<Task<Void, any Error>?>

  /// How long a process that starts waits for a head that is just being started again.
  private static let patience = Duration.seconds(2)

  private let membership: Membership

  /// - Parameter first: the connection on which the process has said who it is.
  private init(
    _ link: PeerLink, _ membership: Membership, first: RPCConnection, router: RPCRouter, workers: WorkerConnections
  ) {
    self.link = link
    self.membership = membership
    let id = first.id
    running = Mutex(
      Task {
        try await link.run(router: router) { connection in
          guard connection.id != id else { return }
          try await Self.register(membership, workers, on: connection)
        }
      })
  }

  /// - Parameter join: says who this process is, on the first connection.
  /// - Throws: `MobulaError`: `unavailable` when there is no head, `unauthenticated` for another token; what `join`
  ///   throws.
  static func connect(
    to endpoint: Endpoint, token: ClusterToken, tls: ClusterTLS?, hello: Hello, workers: WorkerConnections,
    log: Logger, join: (RPCConnection) async throws -> Membership
  ) async throws -> (session: HeadSession, membership: Membership) {
    var router = RPCRouter()
    router.on(DriverControlAPI.leaseRevoked) { lost, _ in
      await workers.leaseLost(lost)
      return Empty()
    }
    let first = try await connect(to: endpoint, token: token, tls: tls, hello: hello, router: router)
    let membership: Membership
    do {
      membership = try await join(first)
    } catch {
      await first.close()
      throw error
    }
    let link = PeerLink("head", at: endpoint, first: first, token: token, tls: tls, hello: hello, log: log)
    return (HeadSession(link, membership, first: first, router: router, workers: workers), membership)
  }

  private static func connect(
    to endpoint: Endpoint, token: ClusterToken, tls: ClusterTLS?, hello: Hello, router: RPCRouter
  ) async throws -> RPCConnection {
    let end = ContinuousClock.now + patience
    while true {
      do {
        return try await RPCConnection.connect(to: endpoint, token: token, hello: hello, router: router, tls: tls)
      } catch let error as MobulaError where error.code == .unavailable && ContinuousClock.now < end {
        try await Task.sleep(for: .milliseconds(50))
      }
    }
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
    try await link.call(method, request, deadline: deadline)
  }

  /// Calls the head once, as soon as there is one.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) when it went before it answered: `mayHaveRun` says whether it had the
  ///   request.
  func callOnce<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration
  ) async throws -> Response {
    let end = ContinuousClock.now + deadline
    let link = link
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

  /// The token with which the workers of the job, and who calls them, prove themselves.
  ///
  /// - Parameter own: this process's own, which may have been made from a cluster token that can make it, too.
  func jobToken(_ job: JobID, _ own: ClusterToken) async throws -> ClusterToken {
    while true {
      let connection = try await link.connection(until: .now + .seconds(30))
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
    if case .driver(let job, let secret?) = membership {
      await cleanUp { [link] in
        _ = try? await link.call(HeadAPI.endJob, JobEnd(job: job, secret: secret), deadline: .seconds(2))
      }
    }
    let task = running.withLock { $0.take() }
    task?.cancel()
    _ = await task?.result
  }
}
