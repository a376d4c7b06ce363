import MobulaCore
import Testing

@testable import MobulaControl

/// Actors at the head as transcripts: what is decided, and what is written down before it.
@Suite struct ActorStateTests {
  private let pod = PodID(high: 0, low: 1), actor = RemoteActorID(high: 7, low: 7)
  private let endpoint = Endpoint.tcp(host: "10.0.0.1", port: 7601)

  /// A state with a job and a pod, whose connection is 2.
  private func cluster(_ journal: JournalState = JournalState(), leases: [LeaseRecord] = []) -> ClusterState {
    var settings = ClusterSettings(cluster: ClusterID(high: 0, low: 1), epoch: 1)
    settings.hostTimeout = .seconds(10)
    var state = ClusterState(settings)
    state.load(journal)
    _ = state.takeActions()
    if journal.isEmpty {
      state.startJob(1, JobStart(resumes: true), secret: JobSecret(high: 1, low: 1), host: nil, on: 1)
      commit(&state)
    }
    register(leases, at: &state)
    return state
  }

  private func register(_ leases: [LeaseRecord], at state: inout ClusterState) {
    var registration = PodRegistration(
      pod: pod, name: "pod", host: HostID(high: 0, low: 1), incarnation: 0, resources: ["CPU": 1], leases: leases)
    registration.nonce = ProcessNonce(high: 1, low: 1)
    registration.session = leases.isEmpty ? nil : 1
    state.register(2, registration, on: 2)
    commit(&state)
    try? state.confirmed(PodConfirmation(pod: pod, session: 1), on: 2)
  }

  /// Keeps what is to be written down, and says what was decided beside.
  @discardableResult
  private func commit(_ state: inout ClusterState, _ failure: MobulaError? = nil) -> [String] {
    var said: [String] = []
    while true {
      let actions = state.takeActions()
      if actions.isEmpty { return said }
      for action in actions {
        switch action {
        case .commit(let id, let records):
          said += records.compactMap { if case .actor(let record) = $0 { "write \(record.incarnation)" } else { nil } }
          state.committed(id, failure)
        case .ask(_, let request, _): said.append("ask \(request.lease == lease(1) ? "1" : "2")")
        case .runActor(_, let run, let connection):
          said.append("run \(run.incarnation)\(connection == nil ? " later" : "")")
        case .endActor(_, let ending, _): said.append("end within \(ending.seconds)")
        case .release: said.append("release")
        case .answer(let id, .actor(let listing)): said.append("\(id.number): \(listing.state) \(listing.incarnation)")
        case .answer(let id, .done): said.append("\(id.number): done")
        case .refuse(let id, let error): said.append("\(id.number): \(error.code)")
        default: break
        }
      }
    }
  }

  private func lease(_ incarnation: UInt64) -> LeaseID { ActorSpec.lease(of: actor, incarnation) }

  private func start(
    restarts: Int? = 0, name: String? = nil, detached: Bool = false, limit: Double? = nil, demand: Resources = [:]
  ) -> ActorStart {
    ActorStart(
      actor: actor, job: JobID(1),
      spec: ActorSpec(
        type: "A", configuration: ByteString([]), limit: 1, restarts: restarts, name: name, isDetached: detached,
        demand: demand, strategy: .pack, program: WorkerProgram(executable: "/a", build: "b"), startLimit: limit),
      ifTaken: .fail)
  }

  private func grant(_ incarnation: UInt64, at state: inout ClusterState) {
    state.podAnswered(
      pod, lease(incarnation),
      .granted(
        LeaseGrant(
          lease: lease(incarnation), host: HostID(high: 0, low: 1), pod: pod, podName: "pod",
          worker: WorkerID(high: 0, low: incarnation), endpoint: endpoint)))
  }

  private func alive(_ state: inout ClusterState, restarts: Int? = 0) {
    state.startActor(10, start(restarts: restarts), secret: JobSecret(high: 2, low: 2))
    commit(&state)
    grant(1, at: &state)
    commit(&state)
    state.actorStarted(actor, 1, .success(endpoint))
    commit(&state)
  }

  @Test func nothingRunsBeforeItIsWrittenDown() {
    var state = cluster()
    state.startActor(10, start(), secret: JobSecret(high: 2, low: 2))
    #expect(commit(&state) == ["write 0", "ask 1"])
    grant(1, at: &state)
    #expect(commit(&state) == ["write 1", "run 1"])
    state.actorStarted(actor, 1, .success(endpoint))
    #expect(commit(&state) == ["write 1", "10: alive 1"])
    // Who asks again is told where it is.
    state.startActor(11, start(), secret: JobSecret(high: 2, low: 2))
    #expect(commit(&state) == ["11: alive 1"])
  }

  @Test func whatCannotBeWrittenDownIsNot() {
    var state = cluster()
    state.startActor(10, start(name: "n"), secret: JobSecret(high: 2, low: 2))
    #expect(commit(&state, MobulaError(.full, "The disk is full.")) == ["write 0", "10: full"])
    state.startActor(11, start(name: "n"), secret: JobSecret(high: 2, low: 2))
    #expect(commit(&state).first == "write 0", "its name is free")
  }

  @Test func theNextBeginsWhenTheEndIsCertain() {
    var state = cluster()
    alive(&state, restarts: 1)
    // Its pod says so.
    try? state.leaseLost(LeaseLost(lease: lease(1), reason: "Signal 9."), on: 2)
    #expect(commit(&state) == ["write 1"])
    state.now = .seconds(1)
    state.tick()
    #expect(commit(&state) == ["ask 2"])
    grant(2, at: &state)
    #expect(commit(&state) == ["write 2", "run 2"])
    state.actorStarted(actor, 2, .success(endpoint))
    _ = commit(&state)
    // Once, and no more.
    state.askActor(20, ActorQuestion(actor: actor, after: 2, wish: .end))
    try? state.leaseLost(LeaseLost(lease: lease(2), reason: "Signal 9."), on: 2)
    #expect(commit(&state) == ["20: dead 2"])
  }

  @Test func oneThatCannotBeReachedIsWaitedFor() {
    var state = cluster()
    alive(&state, restarts: nil)
    state.now = .seconds(1)
    state.disconnected(2)
    _ = commit(&state)
    state.now = .seconds(11)
    state.tick()
    #expect(commit(&state) == ["write 1"], "its pod is lost")
    state.now = .seconds(60)
    state.tick()
    #expect(commit(&state) == [], "it may live there")
    state.now = .seconds(61)
    state.tick()
    // Its pod is not there to be asked.
    #expect(commit(&state) == [])
    #expect(state.listActors(ActorsRequest()).actors.map(\.incarnation) == [2])
  }

  @Test func aStopIsAnsweredOnceItIsWrittenDown() {
    var state = cluster()
    alive(&state)
    state.stopActor(20, ActorEnd(actor: actor, seconds: 5, restarts: false))
    #expect(commit(&state) == ["end within 5.0"])
    // Another, which does not wait for calls.
    state.stopActor(21, ActorEnd(actor: actor, seconds: 0, restarts: false))
    #expect(commit(&state) == ["release", "20: done", "21: done"])
    state.askActor(22, ActorQuestion(actor: actor, wish: .place))
    state.stopActor(23, ActorEnd(actor: actor, seconds: 0, restarts: false))
    #expect(commit(&state) == ["22: actorDied", "23: done"])
    state.startActor(24, start(), secret: JobSecret(high: 2, low: 2))
    #expect(commit(&state) == ["24: actorDied"], "a start that comes late")
  }

  @Test(arguments: [.nan, -.infinity, .infinity, -1, 1e300, 0] as [Double]) func oddLimitsAreLimits(_ limit: Double) {
    var state = cluster()
    state.startActor(10, start(limit: limit, demand: ["CPU": 2]), secret: JobSecret(high: 2, low: 2))
    var said = commit(&state)
    state.now = .seconds(2e8)
    state.tick()
    said += commit(&state)
    #expect(said.contains("10: unschedulable"), "\(said)")
  }

  /// The head was started again: the pod has the actor, or not any more.
  @Test(arguments: [true, false]) func anotherHeadGoesOn(isThere: Bool) throws {
    var journal = JournalState()
    var record = ActorRecord(actor: actor, job: JobID(1), incarnation: 3, restarts: 0, spec: start(restarts: nil).spec)
    (record.hasLived, record.pod, record.endpoint) = (true, pod, endpoint)
    journal.apply([
      .job(JobRecord(job: JobID(1), secret: JobSecret(high: 1, low: 1))), .actor(record),
      .pod(
        PodRecord(
          pod: pod, host: HostID(high: 0, low: 1), nonce: ProcessNonce(high: 1, low: 1), incarnation: 1, session: 1,
          name: "pod")),
    ])
    let lease = ActorSpec.lease(of: actor, 3)
    var state = cluster(
      journal,
      leases: isThere
        ? [LeaseRecord(lease: lease, job: JobID(1), demand: [:])]
        : [LeaseRecord(lease: LeaseID(high: 1, low: 1), job: JobID(1), demand: [:])])
    _ = commit(&state)
    let listing = try #require(state.listActors(ActorsRequest()).actors.first)
    #expect(listing.state == (isThere ? .alive : .restarting) && listing.incarnation == 3)
    #expect(listing.restarts == (isThere ? 0 : 1))
  }
}
