import Glibc
import Logging
import MobulaCore
import MobulaStore
import MobulaWire
import Synchronization

/// A process's connection to its host: the host's memory, and the holds of this process.
///
/// The host may be started again meanwhile: what is mapped stays, puts into this process's own memory go
/// on, and calls wait until it is back.
final class StoreSession: Sendable {
  let welcome: WelcomeReply
  let client: StoreClient
  let link: PeerLink
  let holds: ProcessHolds
  private let running: Mutex<Task<Void, any Error>?>
  /// The job that this process drives.
  private let driven: Driven

  private init(welcome: WelcomeReply, client: StoreClient, link: PeerLink) {
    self.welcome = welcome
    self.client = client
    self.link = link
    let holds = ProcessHolds(link)
    self.holds = holds
    let driven = Driven()
    self.driven = driven
    let request = AttachRequest(client: client.id, secret: client.secret)
    running = Mutex(
      Task {
        try await link.run { connection in
          _ = try await connection.call(HostAPI.attach, request)
          try await holds.register(on: connection)
          // The host tells the head when this process has ended, and with it the job. One of an older version can't.
          if let job = driven.job { _ = try? await connection.call(HostAPI.drives, DriverNotice(job: job)) }
        }
      })
  }

  /// Connects to the host whose sockets are in `directory`.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when no host runs there, `unauthenticated` for another token.
  static func connect(directory: String, token: ClusterToken, hello: Hello) async throws -> StoreSession {
    let endpoint = Endpoint.unix(path: HostPaths.host(in: directory))
    let connection = try await connect(to: endpoint, directory: directory, token: token, hello: hello)
    do {
      let welcome = try await connection.call(HostAPI.welcome, Empty())
      let client = try await onThread(named: "attach") {
        try StoreClient(socket: welcome.storeSocket, ticket: welcome.ticket, name: hello.name)
      }
      // Whoever runs a host without a supervisor has ways of its own to start it again.
      let wasSupervised = HostPaths.isSupervised(in: directory) == true
      let link = PeerLink(
        "host", at: endpoint, first: connection, token: token, hello: hello, log: Logger(label: "mobula")
      ) {
        guard wasSupervised, HostPaths.isSupervised(in: directory) == false else { return nil }
        return HostPaths.hasStopped(in: directory)
      }
      return StoreSession(welcome: welcome, client: client, link: link)
    } catch {
      await connection.close()
      throw error
    }
  }

  /// Asks the host whose sockets are in `directory` how it is, which needs no head.
  ///
  /// - Returns: `nil` for a host of a version that doesn't say.
  /// - Throws: as `connect`.
  static func state(directory: String, token: ClusterToken) async throws -> HostState? {
    let endpoint = Endpoint.unix(path: HostPaths.host(in: directory))
    let hello = Hello(role: .tool, name: "mobula")
    let connection = try await connect(to: endpoint, directory: directory, token: token, hello: hello)
    do {
      let state = try await connection.call(HostAPI.state, Empty(), deadline: .seconds(5))
      await connection.close()
      return state
    } catch {
      await connection.close()
      if (error as? MobulaError)?.code == .notFound { return nil }
      throw error
    }
  }

  /// A host that died is back in a moment, and has left its socket behind meanwhile.
  private static func connect(
    to endpoint: Endpoint, directory: String, token: ClusterToken, hello: Hello
  ) async throws -> RPCConnection {
    let deadline = ContinuousClock.now + .seconds(2)
    while true {
      do {
        return try await RPCConnection.connect(to: endpoint, token: token, hello: hello)
      } catch let error as MobulaError where error.code == .unavailable {
        guard ContinuousClock.now < deadline, access(HostPaths.host(in: directory), F_OK) == 0 else {
          throw nothingRuns("nobody answers at \(endpoint)")
        }
        try await Task.sleep(for: .milliseconds(20))
      }
    }
  }

  /// The token that a host keeps beside its sockets, narrowed to what the process is.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when nothing was ever started there.
  static func token(in directory: String, for role: TokenRole) throws(MobulaError) -> ClusterToken {
    let file = HostPaths.token(in: directory)
    guard access(file, F_OK) == 0 else {
      guard currentErrno() == ENOENT || currentErrno() == ENOTDIR else {
        throw MobulaError(
          .denied,
          "\(file) can't be looked at (\(errnoText(currentErrno()))): a host's directory is its user's alone, so run this as that user."
        )
      }
      throw nothingRuns("there is no \(file)")
    }
    let token = try ClusterToken.following(file)
    // Another than the cluster's was put there by somebody, for what it is good for.
    return token.claims.isEmpty ? try token.narrowed(TokenClaims(role: role)) : token
  }

  private static func nothingRuns(_ why: String) -> MobulaError {
    MobulaError(
      .unavailable,
      "No Mobula host runs here (\(why)): start one with `mobula start --head`, or `mobula start --address HOST:PORT` to join a cluster."
    )
  }

  /// Ends the connection, and all holds of this process. Views of objects stay good as long as they live.
  func close() async {
    await cleanUp { [link] in _ = try? await link.call(HostAPI.leave, Empty(), deadline: .seconds(2)) }
    let task = running.withLock { $0.take() }
    task?.cancel()
    _ = await task?.result
  }

  /// Says that the job ends with this process, now and whenever the host is started again.
  func drives(_ job: JobID) async {
    driven.job = job
    _ = try? await link.call(HostAPI.drives, DriverNotice(job: job), deadline: .seconds(5))
  }

  /// Waits until the host refused this process for good, or the session is closed.
  func waitUntilClosed() async {
    let task = running.withLock { $0 }
    _ = await task?.result
  }

  /// How long a host that is gone is waited for: its supervisor starts it again after 30 s at the latest.
  private static let absence = Duration.seconds(60)

  /// Calls the host, waiting for it to come back if it has to.
  func call<Request, Response>(
    _ method: RPCMethod<Request, Response>, _ request: Request, deadline: Duration = .seconds(30)
  ) async throws -> Response {
    try await link.call(method, request, deadline: deadline, absence: Self.absence)
  }

  // MARK: Reading

  /// Pins an object that is in this host's memory, without a call.
  func pinned(_ object: ObjectID) throws -> PinnedObject? {
    guard let bytes = try client.pin(object) else { return nil }
    return PinnedObject(bytes)
  }

  /// Pins an object once all its bytes are in this host's store.
  func pin(_ object: ObjectID, sources: SourcePolicy, deadline: Duration) async throws -> PinnedObject {
    if let pinned = try pinned(object) { return pinned }
    return try await bring(object, sources: sources, deadline: deadline).pinned
  }

  /// As `pin`, and what the host says of it.
  func bring(
    _ object: ObjectID, sources: SourcePolicy, deadline: Duration
  ) async throws -> (pinned: PinnedObject, digest: ObjectDigest, bytesCopied: Int) {
    let end = ContinuousClock.now + deadline
    var bytesCopied = 0
    while true {
      let reply: BringReply
      do {
        reply = try await link.call(
          HostAPI.bring, BringRequest(object: object, policy: sources, readsFiles: true),
          deadline: max(ContinuousClock.now.duration(to: end), .zero))
      } catch let error as MobulaError where error.code == .deadlineExceeded {
        throw MobulaError(
          .deadlineExceeded,
          "Object \(object) did not arrive within \(deadline): it is still being made, or no host that is there has it (`mobula ls`), or the time was too short."
        )
      }
      bytesCopied += reply.bytesCopied
      if let pinned = try pinned(object) { return (pinned, reply.digest, bytesCopied) }
      do {
        let client = client
        let isInFile = reply.isInFile == true
        let pinned = try await onThread(named: "pin") {
          if isInFile { return PinnedObject(try client.readSpilled(object)) }
          return PinnedObject(try client.pinSlowly(object))
        }
        return (pinned, reply.digest, bytesCopied)
      } catch let error as MobulaError where [.notFound, .unavailable].contains(error.code) {
        // Evicted again between the two, for want of room: once more.
        guard ContinuousClock.now < end else { throw error }
        try await Task.sleep(for: .milliseconds(1))
      }
    }
  }

  // MARK: Making

  /// Makes an object of `size` bytes, which `write` passes on in order, and seals it.
  ///
  /// - Parameter confirms: whether to wait until the store has taken it in, which tells `alreadyExists`.
  func make(
    _ object: ObjectID, size: Int, holds: Bool, contains: [ObjectID], confirms: Bool = false,
    write: @escaping @Sendable (inout ChecksummingWriter) throws -> Void
  ) async throws {
    // Copying blocks its thread for as long as memory takes; small copies are not worth a thread.
    if size < 1 << 20, let draft = try client.draftWithoutWaiting(object, size: size, contains: contains) {
      try Self.fill(draft, holds: holds, write)
    } else {
      let client = client
      try await onThread(named: "put") {
        try Self.fill(try client.draft(object, size: size, contains: contains), holds: holds, write)
      }
    }
    if confirms {
      let client = client
      try await onThread(named: "confirm") { try client.confirm(object) }
    }
  }

  private static func fill(
    _ draft: consuming ObjectDraft, holds: Bool, _ write: (inout ChecksummingWriter) throws -> Void
  ) throws {
    var writer = draft.writer()
    try write(&writer)
    try draft.seal(checksums: writer.finish(), holds: holds)
  }
}

private final class Driven: Sendable {
  private let content = Mutex<JobID?>(nil)
  var job: JobID? {
    get { content.withLock { $0 } }
    set { content.withLock { $0 = newValue } }
  }
}
