import MobulaControl
import MobulaCore

/// What is so, apart from what any process believes, and what was answered to whom.
struct ClusterTruth {
  static let geometry = try! ChunkGeometry(objectSize: 1000, chunkSize: 65_536)
  static let digest = ObjectDigest(geometry: geometry, checksums: [0])

  /// What is inside of objects, and stays with them.
  var contents: [ObjectID: Set<ObjectID>] = [:]
  /// What somebody has asked to remove, whoever holds it: it and its names may go at any time.
  var removed: Set<ObjectID> = []
  /// What each name may be: one thing, unless a call that changes it was not answered.
  var names: [Name: Set<ObjectID?>] = [:]
  /// All that each name ever was.
  private var history: [Name: Set<ObjectID?>] = [:]
  /// Objects that the head of now has given up rightly, and how many it has given up in all.
  var over: Set<ObjectID> = []
  var burials = 0
  /// Until when it hears of those who were there before it, where it has no journal of the head before; otherwise what
  /// was written down is all that there was.
  var learnsUntil = Duration.zero
  var hasLostJournal = false
  /// Calls that are made once, and have begun.
  var calls: Set<UInt64> = []
  /// All that drivers have asked for, and where they run.
  var actors: [SimulatedActor] = []
  var actorRuns: [RemoteActorID: [SimulatedActorRun]] = [:]
  /// Which process was called so.
  var processes: [String: UInt64] = [:]
  /// Since when machines' hosts have been away, and those that somebody said would not come back.
  var awaySince: [Int: Duration] = [:]
  var forgotten: Set<Int> = []
  var jobs: [JobID: UInt64] = [:]
  /// In which session of its pod a lease was asked for.
  var sessions: [LeaseID: UInt64] = [:]
  /// Machines whose host a copy has taken the place of, or which the head refused for good. A copy of a host's directory
  /// that registers while the original is away, or does not answer, is the host for good: what the original had is given
  /// up with that, and nothing is promised to its processes any more.
  var superseded: Set<Int> = []

  /// A head begins, and has been told nothing.
  mutating func headBegins(learningUntil end: Duration) { (over, burials, learnsUntil) = ([], 0, end) }

  mutating func mayBe(_ name: Name, _ object: ObjectID?) {
    names[name, default: [nil]].insert(object)
    history[name, default: [nil]].insert(object)
  }

  /// What was not written down elsewhere may be forgotten, and what was forgotten may be known to somebody.
  mutating func journalLost() {
    hasLostJournal = true
    for name in names.keys { names[name]!.formUnion(history[name] ?? [nil]) }
  }
}

extension ClusterSimulation {
  // MARK: At every step

  func checkHead(_ head: SimulatedHead) {
    let overbooked = head.state.overbooked
    if !overbooked.isEmpty { violation("the head has leased more of \(overbooked) than there is") }
    for machine in machines where !machine.copies.isEmpty && !truth.superseded.contains(machine.index) {
      guard let nonce = head.state.view(of: machine.hostID)?.nonce, machine.copies.contains(nonce) else { continue }
      note("a copy has taken the place of host \(machine.name)")
      truth.superseded.insert(machine.index)
    }
    checkRetirements(head)
    checkBurials(head)
  }

  /// A host is given up when it has been absent for long, or when somebody says so.
  private func checkRetirements(_ head: SimulatedHead) {
    for machine in machines {
      guard let view = head.state.view(of: machine.hostID), view.connection == nil else {
        truth.awaySince[machine.index] = nil
        truth.forgotten.remove(machine.index)
        continue
      }
      let since = truth.awaySince[machine.index] ?? now
      truth.awaySince[machine.index] = since
      guard view.isRetired, now - since < Self.retirement, !truth.forgotten.contains(machine.index) else { continue }
      violation("\(machine.name) is given up after \(now - since)")
    }
  }

  /// A process was told its number: nobody else ever had it.
  func believed(_ host: HostID, _ incarnation: UInt64, _ number: UInt64) {
    believed("host \(host) \(incarnation)", number)
  }
  func believed(_ pod: PodID, _ incarnation: UInt64, _ number: UInt64) {
    believed("pod \(pod) \(incarnation)", number)
  }

  private func believed(_ process: String, _ number: UInt64) {
    if truth.hasLostJournal { return }
    if let other = truth.processes.updateValue(number, forKey: process), other != number {
      violation("two processes are \(process)")
    }
  }

  func refused(_ host: SimulatedHost) { if !host.isClone { truth.superseded.insert(host.machine.index) } }

  func started(_ job: JobID, by client: SimulatedClient) {
    if let other = truth.jobs.updateValue(client.number, forKey: job), other != client.number {
      violation("job \(job) was given to two drivers")
    }
  }

  func startedCall(_ call: UInt64, at worker: SimulatedClient) {
    guard worker.isAlive else { return }
    if !truth.calls.insert(call).inserted { violation("a call that is made once was begun twice") }
  }

  /// The head was told of an object, and keeps from now on what is inside.
  func madeIsKnown(_ object: ObjectID, _ contents: [ObjectID]) {
    guard let head else { return }
    truth.contents[object, default: []].formUnion(contents.filter { !head.state.hasBuried($0) })
  }

  /// A driver was given a lease: what drivers use of the pod is what it has, and nobody else uses the worker.
  func checkUse(of grant: LeaseGrant, by driver: SimulatedDriver) {
    guard let worker = driver.worker(of: grant), worker.isAlive else { return }
    var used = Resources()
    for other in drivers where !other.isOver {
      for (lease, theirs) in other.leases where theirs.pod == grant.pod {
        guard let process = other.worker(of: theirs), process.isAlive else { continue }
        used = used + ["CPU": 1]
        if process === worker, lease != grant.lease { violation("two leases have one worker") }
      }
    }
    if !SimulatedPod.total.covers(used) { violation("drivers use \(used) of a pod that has \(SimulatedPod.total)") }
  }

  /// A name was asked for while nobody changed it.
  func check(_ name: Name, is object: ObjectID?) {
    let possible = truth.names[name] ?? [nil]
    note("\(name) is \(object.map { "\($0)" } ?? "nothing")")
    if possible.contains(object) {
      truth.names[name] = [object]
    } else if object == nil, possible.allSatisfy({ $0.map(mayBeOver) ?? true }) {
      // After all hosts had been stopped, names of what none of them has are free.
      truth.names[name] = [nil]
    } else {
      violation("\(name) is \(object.map { "\($0)" } ?? "nothing"), and not one of \(described(possible))")
    }
  }

  /// In an order, so that a seed always says the same.
  private func described(_ possible: Set<ObjectID?>) -> [String] {
    possible.map { $0.map { "\($0)" } ?? "nothing" }.sorted()
  }

  private func has(_ machine: SimulatedMachine, _ object: ObjectID) -> Bool {
    machine.store[object] != nil && !truth.superseded.contains(machine.index)
  }

  private func mayBeOver(_ object: ObjectID) -> Bool { truth.removed.contains(object) || isNowhere(object) }

  private func isNowhere(_ object: ObjectID) -> Bool { !machines.contains { has($0, object) } }

  /// Whether no member has it. What lies only on a host that was given up is not there any more, although the host does
  /// not know that yet; nor is what lies only on one of which a head that has lost its journal has not heard.
  private func isNowhere(_ object: ObjectID, _ state: ClusterState) -> Bool {
    !machines.contains { has($0, object) && isMember($0, state) }
  }

  /// Whether what a machine's host has and what its processes hold counts. While a head without a journal is young,
  /// also those count of which it has not heard yet.
  private func isMember(_ machine: SimulatedMachine, _ state: ClusterState) -> Bool {
    if truth.superseded.contains(machine.index) { return false }
    if let view = state.view(of: machine.hostID) { return !view.isRetired }
    return now < truth.learnsUntil
  }

  /// The head has decided that objects are over: nothing that it must know of keeps them.
  private func checkBurials(_ head: SimulatedHead) {
    let buried = head.state.buried(after: truth.burials)
    if buried.isEmpty { return }
    truth.burials += buried.count
    let live = liveObjects(head)
    for object in buried {
      if let why = live[object] {
        violation("the head gives \(object) up, and \(why)")
      } else {
        truth.over.insert(object)
      }
    }
  }

  /// A host obeys an order to free an object: no living process has it.
  func checkDrop(of object: ObjectID, at machine: SimulatedMachine) {
    note("\(machine.name) drops \(object)")
    // What was over once stays so, also inside of what a host brings later that the head could not know of.
    guard let head, !truth.over.contains(object) || !head.state.hasBuried(object) else { return }
    guard isRunning(object.job, head) || !names(of: object).isEmpty else { return }
    let live = liveObjects(head)
    guard let why = live[object] else { return }
    let view = head.state.view(of: object).map { "\($0)" } ?? "nothing"
    violation("\(object) is dropped at \(machine.name), and \(why); the head knows \(view)")
  }

  /// A head without the journal of the one before it hears of jobs from those who have something of them: they have
  /// their time, too.
  private func isRunning(_ job: JobID, _ head: SimulatedHead) -> Bool {
    head.state.isRunning(job)
      || now < truth.learnsUntil && drivers.contains { $0.job == job && !$0.isOver }
  }

  private func names(of object: ObjectID) -> [Name] {
    truth.names.filter { $0.value == [object] }.keys.sorted()
  }

  /// A driver keeps a lease that it has until it gives it back, its job or its worker ends, or its pod is lost.
  func checkLeases(_ action: ClusterAction, _ head: SimulatedHead) {
    let lease: LeaseID
    switch action {
    case .ask(let pod, let request, _):
      truth.sessions[request.lease] = head.state.view(of: pod)?.session
      return
    case .revoke(let loss, _): lease = loss.lease
    case .release(_, let request, _): lease = request.lease
    default: return
    }
    guard !truth.hasLostJournal, let driver = drivers.first(where: { !$0.isOver && $0.leases[lease] != nil }),
      let grant = driver.leases[lease], let job = driver.job, head.state.isRunning(job),
      let worker = driver.worker(of: grant), worker.isAlive,
      head.state.view(of: grant.pod)?.session == truth.sessions[lease]
    else { return }
    violation("\(driver.client.name) loses lease \(lease) although its worker lives")
  }

  /// What nobody may free, with the reason.
  private func liveObjects(_ head: SimulatedHead) -> [ObjectID: String] {
    var live: [ObjectID: String] = [:]
    for machine in machines where isMember(machine, head.state) {
      for client in machine.clients {
        for object in client.relied(on: { isMember($0, head.state) })
        where isRunning(object.job, head) && !truth.removed.contains(object) {
          live[object] = "\(client.name) on \(machine.name) holds it"
        }
      }
    }
    for (name, possible) in truth.names.sorted(by: { $0.key < $1.key }) {
      // Names of what nobody has are free again once all have registered at a head.
      if possible.count == 1, let object = possible.first ?? nil, !isNowhere(object, head.state),
        !truth.removed.contains(object)
      {
        live[object] = "is called \(name)"
      }
    }
    // What lies in something that is live, and is somewhere, is live.
    var pending = live.keys.sorted()
    while let object = pending.popLast() {
      guard !isNowhere(object, head.state) else { continue }
      for content in (truth.contents[object] ?? []).sorted()

      where live[content] == nil && isRunning(content.job, head) && !truth.removed.contains(content) {
        live[content] = "lies in \(object)"
        pending.append(content)
      }
    }
    return live
  }

  // MARK: In the end

  /// Nothing has gone wrong for long: everybody knows the same.
  func checkConvergence() {
    guard let head else { return violation("there is no head") }
    let state = head.state
    if state.isSettling { violation("the head still waits for who was there before it") }
    let unfinished = state.unfinished
    if !unfinished.questions.isEmpty || unfinished.proposals > 0 || unfinished.unsaved > 0 {
      violation("the head has not finished: \(unfinished)")
    }
    if !state.countsAreRight { violation("what the head counts along is not what there is") }
    for link in links { for what in link.overdue(.seconds(9)) { violation("a wait did not end: \(what)") } }
    for machine in machines where !truth.superseded.contains(machine.index) { check(machine, state) }
    for driver in drivers where !driver.isOver { check(driver, state) }
    checkActors(state)
    for (name, possible) in truth.names.sorted(by: { $0.key < $1.key }) {
      let object = state.named(name)
      if possible.contains(object) || object == nil && possible.allSatisfy({ $0.map(mayBeOver) ?? true }) { continue }
      violation("in the end \(name) is \(object.map { "\($0)" } ?? "nothing"), and not one of \(described(possible))")
    }
  }

  private func check(_ machine: SimulatedMachine, _ state: ClusterState) {
    guard let host = machine.host, host.isCurrent else { return violation("\(machine.name) has no host at the head") }
    let view = state.view(of: machine.hostID)
    if view?.nonce != host.nonce || view?.connection == nil { violation("the head knows another host \(machine.name)") }
    let held = Set(machine.clients.flatMap(\.held))
    if held != Set(host.ledger.held) { violation("host \(machine.name) does not know what its processes hold") }
    var (holders, complete): (Set<ObjectID>, Set<ObjectID>) = ([], [])
    for object in state.objects {
      let view = state.view(of: object)!
      if view.holders.contains(machine.hostID) { holders.insert(object) }
      if view.complete.contains(machine.hostID) { complete.insert(object) }
      if view.partial.contains(machine.hostID), !host.fetching.contains(object) {
        violation("\(machine.name) brings \(object) no more, and is a source of it")
      }
      if view.absent.contains(machine.hostID) { violation("\(machine.name) is there, and \(object) is absent") }
    }
    // Holds of what is gone for good are not kept.
    let known = held.filter { !state.hasBuried($0) }
    if !known.isSubset(of: holders) || !holders.isSubset(of: held) {
      violation(
        "holds of \(machine.name) differ: \(known.subtracting(holders).sorted()) are unknown, \(holders.subtracting(held).sorted()) are over"
      )
    }
    let stored = Set(machine.store.keys)
    if stored != complete {
      violation(
        "replicas at \(machine.name) differ: \(stored.subtracting(complete).sorted()) are unknown, \(complete.subtracting(stored).sorted()) are gone"
      )
    }
    for object in stored.sorted() where !state.isLive(object) {
      violation("nothing keeps \(object) alive, and \(machine.name) has it")
    }
    guard let pod = machine.pod, pod.isCurrent else { return violation("\(machine.name) has no pod at the head") }
    if !state.mayLease(machine.podID) { violation("pod \(machine.name) is given nothing") }
    let books = state.leases(of: machine.podID)
    if Set(books.keys) != Set(pod.books.leases.keys) || books.values.contains(where: { $0 != .held }) {
      violation("the books of pod \(machine.name) differ: \(pod.books.leases.keys.sorted()), at the head \(books)")
    }
  }

  private func check(_ driver: SimulatedDriver, _ state: ClusterState) {
    guard let job = driver.job else { return violation("\(driver.client.name) has no job") }
    if !state.isRunning(job) { violation("\(driver.client.name) goes on with job \(job), which has ended") }
    if state.leases(of: job).filter({ !state.isActors($0) }) != driver.leases.keys.sorted() {
      violation(
        "\(driver.client.name) has leases \(driver.leases.keys.sorted()), and the head knows \(state.leases(of: job))")
    }
  }
}
