import Distributed
import Logging
import MobulaCore
import MobulaStore
package import MobulaWire
import Synchronization

/// A process's view of a cluster: puts and gets objects, runs tasks, spawns actors.
///
/// It is also the `ActorSystem` of distributed actors: `typealias ActorSystem = Cluster`.
public final class Cluster: Sendable {
  /// What it was connected with.
  public let options: ClusterOptions
  let store: StoreSession
  let head: HeadSession
  let token: ClusterToken
  let hello: Hello
  let job: JobID
  /// What workers of this job run; `nil` for the command line, which starts no work.
  let program: WorkerProgram?
  let references = ReferenceTable()
  let actors = ActorTable()
  let workers: WorkerConnections
  let calls: ActorCalls
  let log: Logger
  /// `nil` where no work can be started.
  private let queue = Mutex<TaskQueue?>(nil)
  var tasks: TaskQueue? { queue.withLock { $0 } }

  init(
    options: ClusterOptions, store: StoreSession, head: HeadSession, token: ClusterToken, hello: Hello, job: JobID,
    program: WorkerProgram?, workers: WorkerConnections, log: Logger
  ) {
    self.options = options
    self.store = store
    self.head = head
    self.token = token
    self.hello = hello
    self.job = job
    self.program = program
    self.workers = workers
    self.log = log
    calls = ActorCalls(workers, holds: store.holds, most: options.queueLimit.bytes)
    calls.cluster = self
    guard let program else { return }
    var settings = TaskQueueStateMachine.Settings()
    // What a task submits and waits for in the next moment runs on its own lease.
    if hello.role == .worker { settings.askDelay = .milliseconds(1) }
    let surroundings = TaskQueue.Surroundings(
      head: head, workers: workers, holds: store.holds, job: job, program: program, log: log,
      most: options.queueLimit.bytes
    ) { [weak self] in await self?.make($0, $1) }
    queue.withLock { $0 = TaskQueue(settings, surroundings) }
  }

  /// Connects through the host that runs on this machine, and starts a job, which
  /// lasts until `close()` or the end of this process.
  ///
  /// - Throws: `MobulaError`: `unavailable` when no host runs here or its head can't
  ///   be reached, `unauthenticated` for a wrong token.
  public static func connect(_ options: ClusterOptions = ClusterOptions()) async throws -> Cluster {
    try options.checkWorkerEnvironment()
    let executable = try Executable.path()
    let build = try await onThread(named: "build id") { try BuildID.compute(executable) }
    let cluster = try await connect(
      options, role: .driver, name: executable,
      program: WorkerProgram(
        executable: executable, build: build,
        environment: options.workerEnvironment.isEmpty ? nil : options.workerEnvironment))
    return cluster
  }

  /// Connects without starting a job: what it puts has to be named to last.
  ///
  /// The head is connected to when something is asked that the host can't ask of it.
  /// - Throws: `MobulaError`: `unavailable` when no host runs here, `unauthenticated` for a wrong token.
  public static func connectTool(_ options: ClusterOptions = ClusterOptions()) async throws -> Cluster {
    try await connect(options, role: .tool, name: "mobula", program: nil)
  }

  /// How the host on this machine is, and its connection to the head, also while the head is away.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when no host runs here.
  package static func hostState(_ options: ClusterOptions) async throws -> HostState? {
    try await StoreSession.state(
      directory: options.directory, token: try StoreSession.token(in: options.directory, for: .tool))
  }

  private static func connect(
    _ options: ClusterOptions, role: PeerRole, name: String, program: WorkerProgram?
  ) async throws -> Cluster {
    let token = try StoreSession.token(in: options.directory, for: program == nil ? .tool : .driver)
    var hello = Hello(role: role, name: name)
    hello.build = program?.build
    let store = try await StoreSession.connect(directory: options.directory, token: token, hello: hello)
    do {
      hello.cluster = store.welcome.cluster
      hello.host = store.welcome.host
      let tls = try HostPaths.tls(in: options.directory)
      let workers = WorkerConnections(tls: tls, hello: hello)
      let log = Logger(label: "mobula")
      var way = HeadSession.Way(endpoint: store.welcome.head, token: token, tls: tls, hello: hello, log: log)
      if program != nil, options.workerOutput.handle != nil {
        way.output = options.workerOutput
        way.hello.notices = [DriverControlAPI.output.name]
      }
      let head: HeadSession
      var job = JobID.commandLine
      if program == nil {
        head = HeadSession(way, workers)
      } else {
        (head, job) = try await HeadSession.startJob(way, workers)
      }
      if job != .commandLine { await store.drives(job) }
      workers.use(nil, renewing: { [job] in try await head.jobToken($0 ?? job, token) })
      return Cluster(
        options: options, store: store, head: head, token: token, hello: hello, job: job, program: program,
        workers: workers, log: log)
    } catch {
      await store.close()
      throw error
    }
  }

  /// Ends the job: its work stops, and its objects go, but for those with a name.
  public func close() async {
    await tasks?.close()
    // What workers printed last is on its way.
    if program != nil, hello.role == .driver, options.workerOutput.handle != nil, workers.haveWorked {
      try? await Task.sleep(for: .milliseconds(100))
    }
    await workers.close()
    await head.close()
    await store.close()
  }

  // MARK: - Objects

  /// Puts a value into this host's store.
  ///
  /// Its big buffers are copied once, into shared memory that every process of the host can map.
  /// - Throws: `MobulaError` (`full`) when the store has no room; what `Value` throws when it is encoded.
  public func put<Value: Codable & Sendable>(_ value: Value) async throws -> ObjectRef<Value> {
    // References that come and go faster than the host hears of it would fill this process's memory.
    if store.holds.isBehind { try await store.holds.deliver() }
    let object = ObjectID.random(job: job)
    let reference = newReference(to: object)
    try await make(object, EncodedValue(value), holds: true)
    return ObjectRef(reference)
  }

  /// Waits until `count` of the references have their value, or an error in its place, or until the timeout.
  ///
  /// - Parameters:
  ///   - count: one unless told otherwise.
  ///   - timeout: for as long as it takes unless told otherwise.
  /// - Returns: those that have one, in the order given, and the others.
  public func wait<Value>(
    for references: some Collection<ObjectRef<Value>>, count: Int = 1, timeout: Duration? = nil
  ) async throws -> (ready: [ObjectRef<Value>], pending: [ObjectRef<Value>]) {
    let all = references.map(\.reference)
    let timeout = timeout ?? .untilItComes
    let isOwn = all.allSatisfy { $0.task != nil }
    let ready = try await RunningWork.waiting {
      if isOwn { return try await done(all, count: count, within: timeout) }
      return try await self.ready(of: shared(all), count: count, within: timeout)
    }
    return (references.filter { ready.contains($0.id) }, references.filter { !ready.contains($0.id) })
  }

  /// Of tasks of this process those that have ended, which nobody has to be asked for.
  private func done(_ references: [AnyReference], count: Int, within timeout: Duration) async throws -> Set<ObjectID> {
    let wanted = min(count, references.count)
    let (ends, continuation) = AsyncStream.makeStream(of: Void.self)
    let timer = Task {
      try? await Task.sleep(for: timeout)
      continuation.finish()
    }
    defer { timer.cancel() }
    let left = Atomic(wanted)
    var watched: [(task: TaskRecord, ticket: UInt64)] = []
    defer { for (task, ticket) in watched { task.stopWatching(ticket) } }
    var isEnough = wanted <= 0
    for reference in references where !isEnough {
      guard let task = reference.task else { continue }
      let ticket = task.whenDone {
        if left.subtract(1, ordering: .acquiringAndReleasing).newValue <= 0 { continuation.finish() }
      }
      if let ticket {
        watched.append((task, ticket))
      } else {
        isEnough = left.subtract(1, ordering: .acquiringAndReleasing).newValue <= 0
      }
    }
    if !isEnough { for await _ in ends {} }
    try Task.checkCancellation()
    return Set(references.filter { $0.task?.outcome != nil }.map(\.object))
  }

  /// Results of tasks become objects, which the head can be asked for together with others.
  private func shared(_ references: [AnyReference]) async throws -> [ObjectID] {
    for reference in references { reference.share() }
    try await store.holds.flush()
    return references.map(\.object)
  }

  /// The objects that are complete somewhere, once so many of them are, or at the timeout.
  private func ready(of objects: [ObjectID], count: Int, within timeout: Duration) async throws -> Set<ObjectID> {
    func ask(_ objects: [ObjectID], _ count: Int, _ timeout: Duration) async throws -> [ObjectID] {
      let end = ContinuousClock.now + timeout
      while true {
        let left = max(ContinuousClock.now.duration(to: end), .zero)
        do {
          let request = WaitRequest(objects: objects, count: count, timeout: left / .seconds(1))
          return try await head.callOnce(HeadAPI.waitForObjects, request, deadline: left + .seconds(10)).ready
        } catch let error as MobulaError where error.code == .connectionClosed && ContinuousClock.now < end {
          // The head was started again, and knows of no wait.
          continue
        }
      }
    }
    let parts = pages(of: objects) { _ in 17 }
    guard parts.count > 1 else { return Set(try await ask(objects, count, timeout)) }
    // More than fit into one question are asked for in turn.
    let deadline = ContinuousClock.now + timeout
    while true {
      var ready: Set<ObjectID> = []
      for part in parts { ready.formUnion(try await ask(part, part.count, .zero)) }
      if ready.count >= count || ContinuousClock.now >= deadline { return ready }
      try await Task.sleep(for: min(.milliseconds(500), max(.zero, ContinuousClock.now.duration(to: deadline))))
    }
  }

  /// Gives an object a name, which keeps it until the name is removed.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when another object has it, `invalidArgument` for names that begin with
  ///   `s3://`, `s3-version:` or `held/`, which the system gives.
  public func name(_ reference: ObjectRef<some Codable & Sendable>, _ name: String) async throws {
    try Self.checkName(name)
    try await giveName(reference, name)
  }

  private func giveName(_ reference: ObjectRef<some Codable & Sendable>, _ name: String) async throws {
    await reference.reference.shareWhole()
    _ = try await store.call(HostAPI.setName, NameRequest(name: Name(name), object: reference.id))
  }

  /// Keeps an object, whoever else holds it, until `release`: also beyond the end of this job.
  public func hold(_ reference: ObjectRef<some Codable & Sendable>) async throws {
    try await giveName(reference, Self.holdName(reference.id))
  }

  /// Ends a `hold`. The object goes when nothing else holds it; readers keep what they have.
  ///
  /// - Throws: `MobulaError` (`notFound`) when it was not held so.
  public func release(_ object: ObjectID) async throws {
    do {
      _ = try await store.call(HostAPI.removeName, ResolveRequest(Name(Self.holdName(object))))
    } catch let error as MobulaError where error.code == .notFound {
      throw MobulaError(.notFound, "Object \(object) is not held: `mobula ls` says \"(held)\" of what is.")
    }
  }

  package static func holdName(_ object: ObjectID) -> String { "\(ReservedNames.held)\(object)" }

  /// The object with this name, or this text form of an `ObjectID`.
  ///
  /// - Throws: `MobulaError` (`notFound`).
  public func object<Value: Codable & Sendable>(
    named nameOrID: String, as type: Value.Type = Value.self
  ) async throws -> ObjectRef<Value> {
    let listing = try await listing(of: nameOrID)
    let reference = reference(to: listing.object)
    try await store.holds.flush()
    return ObjectRef(reference)
  }

  /// What this host's store holds.
  public func storeStatistics() async throws -> StoreStatistics { try await store.call(HostAPI.statistics, Empty()) }

  /// What the head knows of the cluster.
  public func status() async throws -> ClusterStatus {
    try await ClusterStatus.reading { try await head.call(HeadAPI.status, $0) }
  }

  /// Gives up a host that is away and not coming back, by its name or identifier, with all that it had and held.
  ///
  /// - Throws: `MobulaError`: `notFound` when no host is called so, `unavailable` when it is there.
  public func forgetHost(_ nameOrID: String) async throws {
    _ = try await head.call(HeadAPI.forgetHost, ResolveRequest(Name(nameOrID)))
  }

  /// A host is about to go: its pods get no more leases, and copies on other hosts become the ones that are kept. It
  /// stays so when the head is started again, until the host has gone, or with `cancels`.
  ///
  /// - Throws: `MobulaError` (`notFound`) when no host is called so.
  package func drainHost(_ nameOrID: String, cancels: Bool = false) async throws -> DrainReply {
    try await head.call(HeadAPI.drainHost, DrainRequest(nameOrID: Name(nameOrID), cancels: cancels ? true : nil))
  }

  // MARK: - Inside

  /// This process's reference to an object; holds are reported with the next flush.
  ///
  /// - Parameter container: the reference to the object in which it was found.
  func reference(to object: ObjectID, in container: AnyReference? = nil) -> AnyReference {
    references.reference(to: object) { number in
      if let inner = container?.innerReferences, inner.add(object, number) {
        return AnyReference(object, cluster: self, number: number, isShared: true, container: inner)
      }
      store.holds.hold(object, by: number)
      return AnyReference(object, cluster: self, number: number, isShared: true)
    }
  }

  /// A reference to an object that this process is about to make: making it tells of the hold.
  func newReference(to object: ObjectID) -> AnyReference {
    references.reference(to: object) { number in
      store.holds.holdSilently(object, by: number)
      return AnyReference(object, cluster: self, number: number, isShared: false)
    }
  }

  func make(_ object: ObjectID, _ value: EncodedValue, holds: Bool, confirms: Bool = false) async throws {
    // What it contains must be known as held before the object can be.
    if !value.references.isEmpty { try await store.holds.flush() }
    try await store.make(
      object, size: value.layout.size, holds: holds, contains: Array(Set(value.references.map(\.object))),
      confirms: confirms
    ) { writer in
      value.forEachPiece { piece in
        switch piece {
        case .bytes(let bytes): writer.append(bytes)
        case .zeros(let count): writer.appendZeros(count)
        }
      }
    }
    // The references inside were to live at least until the object holds them.
    withExtendedLifetime(value.references) {}
  }

  func decode<Value: Decodable>(
    _ type: Value.Type, from pin: any ObjectMemory, of reference: AnyReference
  ) throws -> Value {
    try StoredValue(reading: pin).decode(type, reader: ValueReader(cluster: self, container: reference))
  }

  /// The value of an object that is in this process or in this host's memory.
  ///
  /// - Throws: `Absent` for one that is not; as `decode`. (To return an optional would cost the making of that optional's
  ///   type at run time.)
  func present<Value: Decodable>(_ reference: AnyReference) throws -> Value {
    if let task = reference.task {
      switch task.outcome {
      case .inline(let bytes)?, .failed(let bytes)?:
        return try decode(Value.self, from: bytes, of: reference)
      case .stored?: break
      case nil: throw Absent()
      }
    }
    if CBORReader.isScalar(Value.self) {
      guard let pin = try store.client.pin(reference.object) else { throw Absent() }
      return try StoredValue.scalar(Value.self, in: pin.bytes)
    }
    guard let pinned = try store.pinned(reference.object) else { throw Absent() }
    return try decode(Value.self, from: pinned, of: reference)
  }
}

/// An object is not here.
struct Absent: Error {}
