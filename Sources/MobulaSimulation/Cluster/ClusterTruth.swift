import MobulaControl
import MobulaCore

/// What is so, apart from what any process believes, and what was answered to whom.
struct ClusterTruth {
  static let geometry = try! ChunkGeometry(objectSize: 1000, chunkSize: 65_536)
  static let digest = ObjectDigest(geometry: geometry, checksums: [0])

  var contents: [ObjectID: [ObjectID]] = [:]
  /// What each name may be: one thing, unless a call that changes it was not answered.
  var names: [Name: Set<ObjectID?>] = [:]
  /// All that each name ever was.
  private var history: [Name: Set<ObjectID?>] = [:]
  var hasLostJournal = false
  /// Calls that are made once, and have begun.
  var calls: Set<UInt64> = []
  /// Which process was called so.
  var processes: [String: ProcessNonce] = [:]
  var jobs: [JobID: UInt64] = [:]
  /// Machines whose host a copy has taken the place of, or which the head refused for good.
  var superseded: Set<Int> = []

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
  }

  /// A process was told its number: nobody else ever had it.
  func believed(_ host: HostID, _ incarnation: UInt64, _ nonce: ProcessNonce) {
    believed("host \(host) \(incarnation)", nonce)
  }
  func believed(_ pod: PodID, _ incarnation: UInt64, _ nonce: ProcessNonce) {
    believed("pod \(pod) \(incarnation)", nonce)
  }

  private func believed(_ process: String, _ nonce: ProcessNonce) {
    if truth.hasLostJournal { return }
    if let other = truth.processes.updateValue(nonce, forKey: process), other != nonce {
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
    } else if object == nil, possible.allSatisfy({ $0.map(isNowhere) ?? true }) {
      // After all hosts had been stopped, names of what none of them has are free.
      truth.names[name] = [nil]
    } else {
      violation("\(name) is \(object.map { "\($0)" } ?? "nothing"), and not one of \(possible)")
    }
  }

  private func isNowhere(_ object: ObjectID) -> Bool { !machines.contains { $0.store[object] != nil } }

  /// A host obeys an order to free an object: no living process has it.
  func checkDrop(of object: ObjectID, at machine: SimulatedMachine) {
    note("\(machine.name) drops \(object)")
    guard let head, head.state.isRunning(object.job) || !names(of: object).isEmpty else { return }
    let live = liveObjects(head)
    guard let why = live[object] else { return }
    let view = head.state.view(of: object).map { "\($0)" } ?? "nothing"
    violation("\(object) is dropped at \(machine.name), and \(why); the head knows \(view)")
  }

  private func names(of object: ObjectID) -> [Name] {
    truth.names.filter { $0.value == [object] }.keys.sorted()
  }

  /// What nobody may free, with the reason.
  private func liveObjects(_ head: SimulatedHead) -> [ObjectID: String] {
    var live: [ObjectID: String] = [:]
    for machine in machines where !truth.superseded.contains(machine.index) {
      if head.state.view(of: machine.hostID)?.isRetired != false { continue }
      for client in machine.clients {
        for object in client.sure.sorted() where head.state.isRunning(object.job) {
          live[object] = "\(client.name) on \(machine.name) holds it"
        }
      }
    }
    for (name, possible) in truth.names {
      if possible.count == 1, let object = possible.first ?? nil { live[object] = "is called \(name)" }
    }
    // What lies in something that is live, and is somewhere, is live.
    var pending = live.keys.sorted()
    while let object = pending.popLast() {
      guard !isNowhere(object) else { continue }
      for content in truth.contents[object] ?? [] where live[content] == nil && head.state.isRunning(content.job) {
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
    for (name, possible) in truth.names.sorted(by: { $0.key < $1.key }) {
      let object = state.named(name)
      if possible.contains(object) || object == nil && possible.allSatisfy({ $0.map(isNowhere) ?? true }) { continue }
      violation("in the end \(name) is \(object.map { "\($0)" } ?? "nothing"), and not one of \(possible)")
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
    if state.leases(of: job) != driver.leases.keys.sorted() {
      violation(
        "\(driver.client.name) has leases \(driver.leases.keys.sorted()), and the head knows \(state.leases(of: job))")
    }
  }
}
