import MobulaCore
import MobulaHead
import MobulaWire
import Testing

/// What the holders of derived tokens can do at a head.
@Suite struct JobTokenTests {
  private func refusal(_ body: () async throws -> Void) async -> MobulaError? {
    do {
      try await body()
      return nil
    } catch { return error as? MobulaError }
  }

  private func connect(
    _ fixture: HeadFixture, _ token: ClusterToken, _ role: PeerRole = .worker
  ) async throws -> RPCConnection {
    try await RPCConnection.connect(
      to: fixture.head.endpoint, token: ClusterToken(token.text), hello: Hello(role: role, name: "limited"))
  }

  private func driver(_ fixture: HeadFixture) async throws -> (connection: RPCConnection, reply: JobReply) {
    let connection = try await connect(fixture, fixture.token.narrowed(TokenClaims(role: .driver)), .driver)
    return (connection, try await connection.call(HeadAPI.startJob, JobStart(resumes: true)))
  }

  private func lease(_ job: JobID) -> LeaseRequest {
    LeaseRequest(
      lease: .random(), job: job, demand: ["CPU": 1], strategy: .pack,
      program: WorkerProgram(executable: "/bin/app", build: ""))
  }

  @Test func aWorkerIsNoHost() async throws {
    try await withHead { fixture in
      let (driver, started) = try await driver(fixture)
      let worker = try await connect(fixture, fixture.token.ofJob(started.job))
      let registration = HostRegistration(
        host: .random(), name: "forged", incarnation: 1, bulk: .tcp(host: "127.0.0.1", port: 1),
        capacity: .gigabytes(1), replicas: [], holds: [], names: [:])
      #expect(await refusal { _ = try await worker.call(HeadAPI.registerHost, registration) }?.code == .denied)
      let pod = PodRegistration(
        pod: .random(), name: "forged", host: .random(), incarnation: 1, resources: ["CPU": 1], leases: [])
      for connection in [worker, driver] {
        #expect(await refusal { _ = try await connection.call(HeadAPI.registerPod, pod) }?.code == .denied)
      }
      #expect(await refusal { _ = try await worker.call(HeadAPI.list, ListRequest()) }?.code == .denied)
      let status = try await worker.call(HeadAPI.status, StatusRequest())
      #expect(status.hosts.isEmpty && status.pods.isEmpty && status.jobs == [started.job])
      await worker.close()
      await driver.close()
    }
  }

  @Test func aJobTouchesItselfAlone() async throws {
    try await withHead { fixture in
      let pod = try await fixture.pod(1, ["CPU": 4])
      let (mine, own) = try await driver(fixture)
      let (theirs, other) = try await driver(fixture)
      let worker = try await connect(fixture, fixture.token.ofJob(own.job))
      let end = JobEnd(job: other.job, secret: try #require(own.secret))
      for connection in [worker, mine] {
        #expect(await refusal { _ = try await connection.call(HeadAPI.endJob, end) }?.code == .denied)
        #expect(
          await refusal { _ = try await connection.call(HeadAPI.requestLease, lease(other.job)) }?.code == .denied)
        let token = JobTokenRequest(job: other.job)
        #expect(await refusal { _ = try await connection.call(HeadAPI.jobToken, token) }?.code == .denied)
        let granted = try await connection.call(HeadAPI.requestLease, lease(own.job))
        #expect(granted.pod == pod.id)
      }
      let claims = LeaseClaims(job: other.job, leases: [.random()])
      #expect(await refusal { _ = try await worker.call(HeadAPI.claimLeases, claims) }?.code == .denied)
      #expect(try await mine.call(HeadAPI.status, StatusRequest()).jobs == [own.job, other.job])
      for connection in [worker, mine, theirs, pod.connection] { await connection.close() }
    }
  }

  /// What a worker is told by name it knows; what else the object is called it does not hear.
  @Test func namesOfOthersAreNotTold() async throws {
    try await withHead { fixture in
      let (driver, started) = try await driver(fixture)
      let (foreign, own) = (ObjectID.random(job: .commandLine), ObjectID.random(job: started.job))
      let host = try await fixture.host(
        1, replicas: [foreign, own].map { ReplicaReport(object: $0, geometry: geometry, digest: digest()) },
        holds: [foreign, own])
      for (name, object) in [("told", foreign), ("secret", foreign), ("mine", own), ("also mine", own)] {
        _ = try await host.connection.call(HeadAPI.setName, NameRequest(name: Name(name), object: object))
      }
      let worker = try await connect(fixture, fixture.token.ofJob(started.job))
      func names(_ text: String) async throws -> [Name] {
        try await worker.call(HeadAPI.resolve, ResolveRequest(Name(text))).names
      }
      #expect(try await names("told") == ["told"])
      #expect(try await names("\(foreign)") == [])
      #expect(try await names("mine") == ["also mine", "mine"])
      #expect(await refusal { _ = try await worker.call(HeadAPI.remove, ResolveRequest("told")) }?.code == .denied)
      #expect(await refusal { _ = try await worker.call(HeadAPI.removeName, ResolveRequest("told")) }?.code == .denied)
      #expect(try await worker.call(HeadAPI.remove, ResolveRequest("mine")).object == own)
      let viewer = try await connect(fixture, fixture.token.narrowed(TokenClaims(role: .viewer)), .tool)
      #expect(try await viewer.call(HeadAPI.list, ListRequest()).map(\.names) == [["secret", "told"]])
      #expect(await refusal { _ = try await viewer.call(HeadAPI.remove, ResolveRequest("told")) }?.code == .denied)
      #expect(await refusal { _ = try await viewer.call(HeadAPI.startJob, JobStart()) }?.code == .denied)
      for connection in [worker, viewer, driver, host.connection] { await connection.close() }
    }
  }

  @Test func aJobsTokenEndsWithIt() async throws {
    try await withHead { fixture in
      let (driver, started) = try await driver(fixture)
      let worker = try await connect(fixture, fixture.token.ofJob(started.job))
      _ = try await worker.call(HeadAPI.status, StatusRequest())
      _ = try await driver.call(HeadAPI.endJob, JobEnd(job: started.job, secret: try #require(started.secret)))
      let over = await refusal { _ = try await worker.call(HeadAPI.status, StatusRequest()) }
      #expect(over?.code == .denied && over?.message.contains("Job \(started.job) has ended") == true)
      let late = try await connect(fixture, fixture.token.ofJob(started.job))
      #expect(await refusal { _ = try await late.call(HeadAPI.status, StatusRequest()) } == over)
      for connection in [worker, late, driver] { await connection.close() }
    }
  }

  @Test func aPodsTokenRegistersPods() async throws {
    try await withHead { fixture in
      let pod = try await connect(fixture, fixture.token.narrowed(TokenClaims(role: .pod)), .pod)
      let registration = PodRegistration(
        pod: .random(), name: "pod", host: .random(), incarnation: 1, resources: ["CPU": 1], leases: [])
      _ = try await pod.call(HeadAPI.registerPod, registration)
      #expect(await refusal { _ = try await pod.call(HeadAPI.startJob, JobStart()) }?.code == .denied)
      await pod.close()
    }
  }
}
