import MobulaCore
import MobulaHead
import MobulaJournal
import MobulaWire
import Testing

/// A head on a free port of the loopback, for as long as `body` takes.
func withHead(
  _ change: (inout HeadConfiguration) -> Void = { _ in }, journal: MemoryJournal? = nil,
  _ body: (HeadFixture) async throws -> Void
) async throws {
  var configuration = HeadConfiguration(endpoint: .tcp(host: "127.0.0.1", port: 0))
  change(&configuration)
  let token = ClusterToken.random()
  let head = try await Head.bind(
    configuration, token: token, journal: journal, knowing: journal?.state ?? JournalState())
  let running = Task { await head.run() }
  do {
    try await body(HeadFixture(head: head, token: token))
  } catch {
    running.cancel()
    await running.value
    throw error
  }
  running.cancel()
  await running.value
}

struct HeadFixture: Sendable {
  let head: Head
  let token: ClusterToken

  func connect(_ role: PeerRole, _ name: String, _ router: RPCRouter = RPCRouter()) async throws -> RPCConnection {
    try await RPCConnection.connect(
      to: head.endpoint, token: token, hello: Hello(role: role, name: name), router: router)
  }

  /// A host that does nothing but note what it shall drop and keep, and what its objects are called.
  ///
  /// - Parameter answers: whether it says that it is there, when it is asked.
  func host(
    _ number: UInt64, incarnation: UInt64 = 1, nonce: ProcessNonce? = nil, beganAnew: Bool? = nil,
    replicas: [ReplicaReport] = [], holds: [ObjectID] = [], answers: Bool = true, folder: FolderID? = nil
  ) async throws -> FakeHost {
    let (drops, sink) = AsyncStream.makeStream(of: ObjectID.self)
    let (keeps, keepSink) = AsyncStream.makeStream(of: ObjectID.self)
    let (news, newsSink) = AsyncStream.makeStream(of: NameNews.self)
    var router = RPCRouter()
    router.on(HostControlAPI.drop) { request, _ in
      for object in request.objects { sink.yield(object) }
      return Empty()
    }
    router.on(HostControlAPI.keep) { request, _ in
      for object in request.objects { keepSink.yield(object) }
      return Empty()
    }
    router.on(HostControlAPI.names) { request, _ in
      newsSink.yield(request)
      return Empty()
    }
    router.on(MemberControlAPI.alive) { _, _ in
      if !answers { try await Task.sleep(for: .seconds(3600)) }
      return Empty()
    }
    let connection = try await connect(.host, "host \(number)", router)
    let id = HostID(high: 0, low: number)
    var registration = HostRegistration(
      host: id, name: "host \(number)", incarnation: incarnation,
      bulk: .tcp(host: "10.0.0.\(number)", port: 7601), capacity: .gigabytes(1), replicas: replicas, holds: holds,
      names: [:])
    registration.nonce = nonce
    registration.beganAnew = beganAnew
    registration.folder = folder
    let reply = try await connection.call(HeadAPI.registerHost, registration)
    return FakeHost(id: id, connection: connection, reply: reply, drops: drops, keeps: keeps, news: news)
  }

  /// A pod that grants whatever it is asked for, and notes what it shall give up.
  func pod(
    _ number: UInt64, _ resources: Resources, leases: [LeaseRecord] = [], nonce: ProcessNonce? = nil,
    session: UInt64? = nil, folder: FolderID? = nil
  ) async throws -> FakePod {
    let id = PodID(high: 0, low: number)
    let host = HostID(high: 0, low: number)
    let (releases, sink) = AsyncStream.makeStream(of: LeaseID.self)
    var router = RPCRouter()
    router.on(PodControlAPI.grantLease) { request, _ in
      LeaseGrant(
        lease: request.lease, host: host, pod: id, podName: "pod \(number)", worker: WorkerID(high: 0, low: number),
        endpoint: .unix(path: "/nowhere"))
    }
    router.on(PodControlAPI.releaseLease) { request, _ in
      sink.yield(request.lease)
      return Empty()
    }
    let connection = try await connect(.pod, "pod \(number)", router)
    var registration = PodRegistration(
      pod: id, name: "pod \(number)", host: host, incarnation: nonce == nil ? 1 : 0, resources: resources,
      leases: leases)
    registration.nonce = nonce
    registration.session = session
    registration.folder = folder
    let reply = try await connection.call(HeadAPI.registerPod, registration)
    return FakePod(id: id, connection: connection, reply: reply, releases: releases)
  }

  /// A driver that notes which of its leases were revoked.
  func driver() async throws -> FakeDriver {
    let (losses, sink) = AsyncStream.makeStream(of: LeaseLost.self)
    var router = RPCRouter()
    router.on(DriverControlAPI.leaseRevoked) { loss, _ in
      sink.yield(loss)
      return Empty()
    }
    let connection = try await connect(.driver, "driver", router)
    let job = try await connection.call(HeadAPI.startJob, JobStart()).job
    return FakeDriver(job: job, connection: connection, losses: losses)
  }
}

struct FakeHost: Sendable {
  let id: HostID
  let connection: RPCConnection
  let reply: RegistrationReply
  let drops: AsyncStream<ObjectID>
  let keeps: AsyncStream<ObjectID>
  let news: AsyncStream<NameNews>

  func changed(_ changes: ReplicaChange...) async throws {
    _ = try await connection.call(HeadAPI.replicasChanged, ReplicaChanges(host: id, changes: changes))
  }

  func holds(added: [ObjectID] = [], removed: [ObjectID] = []) async throws {
    _ = try await connection.call(HeadAPI.holdsChanged, HoldChanges(host: id, added: added, removed: removed))
  }

  func locate(_ object: ObjectID) async throws -> LocateReply {
    try await connection.call(HeadAPI.locate, LocateRequest(host: id, object: object))
  }

  func nextDrop() async -> ObjectID? { await drops.first { _ in true } }
  func nextKeep() async -> ObjectID? { await keeps.first { _ in true } }
  func nextNews() async -> NameNews? { await news.first { _ in true } }
}

struct FakePod: Sendable {
  let id: PodID
  let connection: RPCConnection
  let reply: RegistrationReply
  let releases: AsyncStream<LeaseID>

  func confirm() async throws {
    _ = try await connection.call(
      HeadAPI.confirmPod, PodConfirmation(pod: id, session: try #require(reply.session)))
  }

  func nextRelease() async -> LeaseID? { await releases.first { _ in true } }
}

struct FakeDriver: Sendable {
  let job: JobID
  let connection: RPCConnection
  let losses: AsyncStream<LeaseLost>

  func lease(
    _ number: UInt64, _ demand: Resources, deadline: Duration = .seconds(30)
  ) async throws -> LeaseGrant {
    try await connection.call(
      HeadAPI.requestLease,
      LeaseRequest(
        lease: LeaseID(high: 1, low: number), job: job, demand: demand, strategy: .pack,
        program: WorkerProgram(executable: "/bin/app", build: "")), deadline: deadline)
  }

  func nextLoss() async -> LeaseLost? { await losses.first { _ in true } }
}
