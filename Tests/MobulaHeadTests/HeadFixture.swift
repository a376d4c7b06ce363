import MobulaCore
import MobulaHead
import MobulaWire

/// A head on a free port of the loopback, for as long as `body` takes.
func withHead(
  _ change: (inout HeadConfiguration) -> Void = { _ in }, _ body: (HeadFixture) async throws -> Void
) async throws {
  var configuration = HeadConfiguration(endpoint: .tcp(host: "127.0.0.1", port: 0))
  change(&configuration)
  let token = ClusterToken.random()
  let head = try await Head.bind(configuration, token: token)
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

  /// A host that does nothing but note what it shall drop.
  func host(
    _ number: UInt64, incarnation: UInt64 = 1, replicas: [ReplicaReport] = [], holds: [ObjectID] = []
  ) async throws -> FakeHost {
    let (drops, sink) = AsyncStream.makeStream(of: ObjectID.self)
    var router = RPCRouter()
    router.on(HostControlAPI.drop) { request, _ in
      for object in request.objects { sink.yield(object) }
      return Empty()
    }
    let connection = try await connect(.host, "host \(number)", router)
    let fake = FakeHost(id: HostID(high: 0, low: number), connection: connection, drops: drops)
    _ = try await connection.call(
      HeadAPI.registerHost,
      HostRegistration(
        host: fake.id, name: "host \(number)", incarnation: incarnation,
        bulk: .tcp(host: "10.0.0.\(number)", port: 7601), capacity: .gigabytes(1), replicas: replicas, holds: holds,
        names: [:]))
    return fake
  }

  /// A pod that grants whatever it is asked for, and notes what it shall give up.
  func pod(_ number: UInt64, _ resources: Resources, leases: [LeaseRecord] = []) async throws -> FakePod {
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
    _ = try await connection.call(
      HeadAPI.registerPod,
      PodRegistration(
        pod: id, name: "pod \(number)", host: host, incarnation: 1, resources: resources, leases: leases))
    return FakePod(id: id, connection: connection, releases: releases)
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
    let job = try await connection.call(HeadAPI.startJob, Empty()).job
    return FakeDriver(job: job, connection: connection, losses: losses)
  }
}

struct FakeHost: Sendable {
  let id: HostID
  let connection: RPCConnection
  let drops: AsyncStream<ObjectID>

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
}

struct FakePod: Sendable {
  let id: PodID
  let connection: RPCConnection
  let releases: AsyncStream<LeaseID>

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
