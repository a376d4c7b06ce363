import MobulaCore
import Testing

@testable import MobulaControl

/// The control plane as a transcript: events in, actions out, with numbers alone.
@Suite struct ClusterStateTests {
  let first = ProcessNonce(high: 1, low: 1), second = ProcessNonce(high: 2, low: 2)

  /// A state with an empty journal.
  private func journalled(_ journal: JournalState = JournalState()) -> ClusterState {
    var settings = ClusterSettings(cluster: ClusterID(high: 0, low: 1), epoch: 1)
    settings.hostTimeout = .seconds(10)
    var state = ClusterState(settings)
    state.load(journal)
    _ = state.takeActions()
    return state
  }

  private func registration(_ nonce: ProcessNonce, session: UInt64? = nil) -> PodRegistration {
    var registration = PodRegistration(
      pod: PodID(high: 0, low: 1), name: "pod", host: HostID(high: 0, low: 1), incarnation: 0,
      resources: ["CPU": 1], leases: [])
    registration.nonce = nonce
    registration.session = session
    return registration
  }

  /// What was decided, in short.
  private func said(_ state: inout ClusterState) -> [String] {
    state.takeActions().compactMap { action in
      switch action {
      case .commit(let id, let records): "commit \(id): \(records.map(Self.short).joined(separator: ", "))"
      case .answer(let id, let reply): "answer \(id.number): \(Self.short(reply))"
      case .refuse(let id, let error): "refuse \(id.number): \(error.code)"
      case .watch(let connection): "watch \(connection.number)"
      case .close(let connection): "close \(connection.number)"
      default: nil
      }
    }
  }

  private static func short(_ record: JournalRecord) -> String {
    switch record {
    case .pod(let pod): "pod \(pod.incarnation) in session \(pod.session), \(pod.state)"
    case .job(let job): "job \(job.job)"
    case .jobForgotten(let job): "job \(job) is over"
    case .counter(_, let limit): "numbers below \(limit)"
    case .name(let name): "\(name.name) is \(name.known.object.low)"
    case .nameRemoved(let name): "\(name) is nothing"
    default: "\(record)"
    }
  }

  private static func short(_ reply: ClusterReply) -> String {
    switch reply {
    case .registration(let reply): "incarnation \(reply.incarnation ?? 0) in session \(reply.session ?? 0)"
    case .job(let reply): "job \(reply.job)"
    case .name(let reply): reply.isNamed ? "named" : "not named"
    default: "done"
    }
  }

  @Test func aPodIsNotAnsweredBeforeItIsWrittenDown() {
    var state = journalled()
    state.register(1, registration(first), on: 7)
    #expect(said(&state) == ["commit 1: pod 1 in session 1, member"])
    // Another attempt waits for the first one.
    state.register(2, registration(first), on: 8)
    #expect(said(&state) == ["refuse 2: unavailable"])
    state.committed(CommitID(1), nil)
    #expect(said(&state) == ["watch 7", "answer 1: incarnation 1 in session 1"])
    // What is written down already needs nothing.
    state.register(3, registration(first, session: 1), on: 8)
    #expect(said(&state) == ["watch 8", "close 7", "answer 3: incarnation 1 in session 1"])
  }

  @Test func aPodThatIsLostWhileItIsWrittenDownIsWrittenDownAnew() {
    var state = journalled()
    state.register(1, registration(first), on: 7)
    state.committed(CommitID(1), nil)
    state.disconnected(7)
    state.now = .seconds(9)
    state.register(2, registration(second), on: 8)
    _ = said(&state)
    // Its time is over before the journal has it: the session is another one.
    state.now = .seconds(11)
    state.tick()
    #expect(said(&state) == ["commit 3: pod 1 in session 2, absent"])
    state.committed(CommitID(2), nil)
    #expect(said(&state) == ["commit 4: pod 2 in session 3, member"])
    state.committed(CommitID(3), nil)
    state.committed(CommitID(4), nil)
    #expect(said(&state) == ["watch 8", "answer 2: incarnation 2 in session 3"])
    #expect(state.mayLease(PodID(high: 0, low: 1)) == false)
  }

  private func registered(_ host: HostRegistration, in state: inout ClusterState) {
    state.register(100, host, on: 9)
    for action in state.takeActions() { if case .commit(let id, _) = action { state.committed(id, nil) } }
    _ = state.takeActions()
  }

  /// A journal that could not keep a name's end must not write it down later, when the name has come to be again.
  @Test func whatCouldNotBeKeptIsWrittenDownAsItIsThen() {
    var state = journalled()
    let model = object(1, job: 0)
    var host = HostRegistration(
      host: HostID(high: 0, low: 1), name: "host", incarnation: 0, bulk: .tcp(host: "10.0.0.1", port: 1),
      capacity: .gigabytes(1), replicas: [ReplicaReport(object: model, geometry: geometry, digest: digest())],
      holds: [model], names: [:])
    host.nonce = first
    registered(host, in: &state)
    let full = MobulaError(.full, "no room")
    state.setName(1, NameRequest(name: "model", object: model))
    #expect(said(&state) == ["commit 2: model is 1"])
    state.committed(CommitID(2), full)
    #expect(said(&state) == ["refuse 1: full"])
    // It is given after all, and then taken away, while what is so is still to be written down again.
    state.setName(2, NameRequest(name: "model", object: model))
    state.committed(CommitID(3), nil)
    #expect(said(&state) == ["commit 3: model is 1", "answer 2: named"])
    state.now = .seconds(5)
    state.tick()
    // Nothing is left to be written down: the last record says how it is.
    #expect(said(&state) == [])
    state.removeName(3, "model")
    state.committed(CommitID(4), full)
    #expect(said(&state) == ["commit 4: model is nothing", "refuse 3: full"])
    state.now = .seconds(10)
    state.tick()
    #expect(said(&state) == ["commit 5: model is 1"])
  }

  @Test func aJobThatTheJournalLostIsWrittenDownWhenItsDriverIsBack() throws {
    var lost = JournalState()
    lost.isRecovering = true
    var state = journalled(lost)
    var host = HostRegistration(
      host: HostID(high: 0, low: 1), name: "host", incarnation: 0, bulk: .tcp(host: "10.0.0.1", port: 1),
      capacity: .gigabytes(1), replicas: [], holds: [object(1, job: 3)], names: [:])
    host.nonce = first
    registered(host, in: &state)
    let secret = JobSecret(high: 1, low: 1)
    state.resumeJob(1, JobResumption(job: JobID(3), secret: secret, leases: []), host: nil, on: 5)
    #expect(said(&state) == ["commit 2: job 3"])
    state.committed(CommitID(2), nil)
    #expect(said(&state) == ["watch 5", "answer 1: done"])
    // From now on it is known.
    state.resumeJob(2, JobResumption(job: JobID(3), secret: secret, leases: []), host: nil, on: 6)
    #expect(said(&state) == ["watch 6", "answer 2: done"])
  }

  /// A host that registers late, while others are waited for, makes no running job of one that has ended.
  @Test func aJobThatHasEndedStaysEnded() throws {
    var lost = JournalState()
    lost.isRecovering = true
    var state = journalled(lost)
    func host(_ number: UInt64) -> HostRegistration {
      var host = HostRegistration(
        host: HostID(high: 0, low: number), name: "host \(number)", incarnation: 0,
        bulk: .tcp(host: "10.0.0.1", port: 1),
        capacity: .gigabytes(1), replicas: [], holds: [object(1, job: 3)], names: [:])
      host.nonce = ProcessNonce(high: 9, low: number)
      return host
    }
    registered(host(1), in: &state)
    #expect(state.isRunning(JobID(3)) && state.isSettling)
    try state.driverEnded(DriverEnded(host: HostID(high: 0, low: 1), job: JobID(3)), on: 9)
    for action in state.takeActions() { if case .commit(let id, _) = action { state.committed(id, nil) } }
    #expect(!state.isRunning(JobID(3)))
    registered(host(2), in: &state)
    #expect(!state.isRunning(JobID(3)))
  }

  /// While the end of a job is written down, a host that registers makes no running job of it.
  @Test func aJobThatEndsIsNotHeardOfAgain() throws {
    var lost = JournalState()
    lost.isRecovering = true
    var state = journalled(lost)
    let job = JobID(3)
    func brings(_ number: UInt64) -> HostRegistration {
      hostRegistration(number, holds: [object(1, job: 3)])
    }
    registered(brings(1), in: &state)
    try state.driverEnded(DriverEnded(host: HostID(high: 0, low: 1), job: job), on: 9)
    #expect(said(&state) == ["commit 2: job 3 is over"])
    state.register(5, brings(2), on: 8)
    state.committed(CommitID(3), nil)
    _ = said(&state)
    #expect(!state.isRunning(job))
    // Nor does its driver go on with it, which has asked for that before.
    state.resumeJob(6, JobResumption(job: job, secret: JobSecret(high: 1, low: 1), leases: []), host: nil, on: 5)
    state.committed(CommitID(2), nil)
    #expect(said(&state).filter { $0.hasPrefix("refuse") } == ["refuse 6: notFound"])
    #expect(!state.isRunning(job) && state.hasEnded(job))
  }

  /// A head without the journal of the one before learns names from hosts: until all have had their time, it can't say
  /// that there is none.
  @Test func aNameThatAHostMayBringIsNotDenied() throws {
    var lost = JournalState()
    lost.isRecovering = true
    var state = journalled(lost)
    state.removeName(1, "model")
    #expect(said(&state) == ["refuse 1: unavailable"])
    #expect(throws: MobulaError.self) { try state.resolve("model") }
    let model = object(1, job: 0)
    let known = ["model": KnownName(model, .given)] as [Name: KnownName]
    registered(hostRegistration(1, replicas: [model], names: known), in: &state)
    #expect(try state.resolve("model").object == model)
    // What was taken away is not learned again from who comes later, which is told so.
    state.removeName(2, "model")
    _ = written(&state)
    #expect(throws: MobulaError.self) { try state.resolve("model") }
    state.register(3, hostRegistration(2, replicas: [model], names: known), on: 8)
    let news = written(&state).compactMap { if case .names(let news, _) = $0 { news.taken } else { nil } }
    #expect(news == [["model"]])
    #expect(throws: MobulaError.self) { try state.resolve("model") }
    // From then on it is sure that there is none.
    state.now = .seconds(10)
    state.tick()
    _ = written(&state)
    state.removeName(4, "model")
    #expect(said(&state) == ["refuse 4: notFound"])
  }

  /// An object that is named while its removal is written down loses that name, too, before the removal is answered.
  @Test func whatIsNamedWhileItIsRemovedIsNamedNothing() {
    var state = journalled()
    let model = object(1, job: 0)
    registered(hostRegistration(1, replicas: [model], holds: [model]), in: &state)
    state.setName(1, NameRequest(name: "model", object: model))
    #expect(said(&state) == ["commit 2: model is 1"])
    state.remove(2, Name("\(model)"))
    // Without a name there is nothing to be written down: it is gone at once, and the name with it.
    #expect(said(&state) == ["answer 2: done"])
    state.committed(CommitID(2), nil)
    #expect(said(&state) == ["refuse 1: notFound"])
    state.now = .seconds(1)
    state.tick()
    #expect(said(&state) == ["commit 3: model is nothing"])
    let other = object(2, job: 0)
    registered(hostRegistration(1, replicas: [other], holds: [other]), in: &state)
    state.setName(3, NameRequest(name: "a", object: other))
    state.committed(CommitID(4), nil)
    state.setName(4, NameRequest(name: "b", object: other))
    state.remove(5, "a")
    _ = said(&state)
    state.committed(CommitID(5), nil)
    state.committed(CommitID(6), nil)
    #expect(said(&state) == ["answer 4: named", "commit 7: b is nothing"])
    state.committed(CommitID(7), nil)
    #expect(said(&state).contains("answer 5: done"))
  }

  /// A name that this head has given is not free because the host that has the object comes too late to be waited for.
  @Test func aNameThatIsGivenMeanwhileStays() throws {
    var lost = JournalState()
    lost.isRecovering = true
    var state = journalled(lost)
    let model = object(1, job: 0)
    registered(hostRegistration(1, holds: [model]), in: &state)
    state.setName(1, NameRequest(name: "model", object: model))
    _ = written(&state)
    try state.changed(HoldChanges(host: host(1), added: [], removed: [model]), on: 9)
    state.now = .seconds(10)
    state.tick()
    _ = written(&state)
    #expect(!state.isSettling)
    state.register(2, hostRegistration(2, replicas: [model]), on: 8)
    let drops = written(&state).filter { if case .drop = $0 { true } else { false } }
    #expect(drops.isEmpty)
    #expect(try state.resolve("model").hosts == [host(2)])
  }

  /// A lease that was given back to the head before this one, or granted by it to a driver that never heard of it, is in
  /// its pod's books still.
  @Test func aLeaseThatNobodyClaimsIsGivenUp() throws {
    var journal = JournalState()
    let (job, secret) = (JobID(3), JobSecret(high: 1, low: 1))
    journal.apply([
      .job(JobRecord(job: job, secret: secret)),
      .pod(PodRecord(pod: pod(1), host: host(1), nonce: first, incarnation: 1, session: 1, name: "pod")),
    ])
    var state = journalled(journal)
    var registration = registration(first, session: 1)
    registration.leases = [1, 2].map { LeaseRecord(lease: lease($0), job: job, demand: ["CPU": 1]) }
    registration.resources = ["CPU": 2]
    state.register(1, registration, on: 7)
    _ = written(&state)
    try state.confirmed(PodConfirmation(pod: pod(1), session: 1), on: 7)
    #expect(state.leases(of: job) == [lease(1), lease(2)])
    // All are back that were there, so that nothing else is waited for.
    #expect(!state.isSettling)
    state.now = .seconds(1)
    state.resumeJob(2, JobResumption(job: job, secret: secret, leases: [lease(1)]), host: nil, on: 5)
    state.now = .seconds(10)
    state.tick()
    // A worker of the job may have it.
    #expect(state.leases(of: job) == [lease(1), lease(2)])
    _ = state.takeActions()
    state.now = .seconds(11)
    state.tick()
    #expect(state.leases(of: job) == [lease(1)])
    let released = state.takeActions().compactMap {
      if case .release(_, let lease, _) = $0 { lease.lease } else { nil }
    }
    #expect(released == [lease(2)])
  }

  /// What follows once the journal has what there is to be written down.
  private func written(_ state: inout ClusterState) -> [ClusterAction] {
    var all: [ClusterAction] = []
    while true {
      let actions = state.takeActions()
      if actions.isEmpty { return all }
      all += actions
      for case .commit(let id, _) in actions { state.committed(id, nil) }
    }
  }

  /// A host that is given up while its registration is written down is told so: what it goes on with is gone.
  @Test func aHostThatIsGivenUpWhileItRegistersIsTold() throws {
    var journal = JournalState()
    journal.apply([
      .host(HostRecord(host: host(1), nonce: first, incarnation: 1, session: 1, name: "host 1"))
    ])
    var state = journalled(journal)
    state.register(1, hostRegistration(1, holds: [object(1, job: 0)]), on: 7)
    try state.forget("host 1")
    let answers = written(&state).compactMap {
      if case .answer(1, .registration(let reply)) = $0 { reply.isRetired } else { nil }
    }
    #expect(answers == [true])
  }

  private func hostRegistration(
    _ number: UInt64, replicas: [ObjectID] = [], holds: [ObjectID] = [], names: [Name: KnownName] = [:]
  ) -> HostRegistration {
    var host = HostRegistration(
      host: HostID(high: 0, low: number), name: "host \(number)", incarnation: 0,
      bulk: .tcp(host: "10.0.0.1", port: 1), capacity: .gigabytes(1),
      replicas: replicas.map { ReplicaReport(object: $0, geometry: geometry, digest: digest()) }, holds: holds,
      names: names)
    host.nonce = ProcessNonce(high: 9, low: number)
    return host
  }

  /// What processes held that have not come back to a host's new process is held, until it says all.
  @Test func aHostThatAwaitsItsProcessesHoldsWhatItHeld() throws {
    var directory = ObjectDirectoryStateMachine()
    let (a, b) = (HostID(high: 0, low: 1), HostID(high: 0, low: 2))
    let model = object(1)
    _ = directory.changed(a, [sealed(model, held: true)])
    _ = directory.changed(b, [.held(model)])
    _ = directory.changed(a, [.released(model)])
    #expect(directory.registered(b, HostInventory(), isComplete: false) == [])
    #expect(directory.registered(b, HostInventory()) == [.drop(model, hosts: [a])])
  }

  /// One process lets go of what another holds that has not come back yet: the host can't know that it is still held.
  @Test func whatEndsWhileProcessesAreAwaitedEndsNoHoldFromBefore() throws {
    var directory = ObjectDirectoryStateMachine()
    let (a, b) = (HostID(high: 0, low: 1), HostID(high: 0, low: 2))
    let (model, later) = (object(1), object(2))
    _ = directory.changed(a, [sealed(model, held: true), sealed(later, held: true)])
    _ = directory.changed(b, [.held(model)])
    _ = directory.changed(a, [.released(model)])
    #expect(directory.registered(b, HostInventory(holds: [model]), isComplete: false) == [])
    #expect(directory.changed(b, [.released(model)]) == [])
    // What only those hold who are there ends as ever.
    #expect(directory.changed(b, [.held(later)]) == [])
    #expect(directory.changed(a, [.released(later)]) == [])
    #expect(directory.changed(b, [.released(later)]) == [.drop(later, hosts: [a])])
    #expect(directory.registered(b, HostInventory(holds: [model])) == [])
    #expect(directory.changed(b, [.released(model)]) == [.drop(model, hosts: [a])])
  }

  /// Of a million objects each should take little: a record, and 20 bytes for its place.
  @Test func recordsAreSmall() {
    #expect(MemoryLayout<ObjectRecord>.stride <= 200)
  }
}
