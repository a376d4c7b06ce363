import MobulaControl
import MobulaCore

/// A process of a host: what `HostRegistrar` and `HostReports` are around the ledger, without I/O.
///
/// Beyond them it says that it awaits processes from before it (`awaitsProcesses`), and registers anew when all are back.
final class SimulatedHost: SimulatedPeer {
  enum Change {
    case sealed(ObjectID)
    /// Made here: whether it is held is looked up when it is told.
    case made(ObjectID)
    case partial(ObjectID)
    case gone(ObjectID)
  }

  private struct Batch {
    var changes: [Change]
    var holds: HoldLedgerStateMachine.Report
    var registration: Int
    var upTo: Int
  }

  unowned let machine: SimulatedMachine
  let isClone: Bool
  let world: ClusterSimulation
  private let number: UInt64
  private(set) var isAlive = true
  private(set) var nonce: ProcessNonce
  private var incarnation: UInt64 = 0
  private(set) var epoch: UInt64 = 0
  private var beganAnew = false
  /// The head refused it for good.
  private(set) var isRefused = false
  var link: SimulatedLink?
  var isRegistered = false

  private(set) var ledger = HoldLedgerStateMachine()
  var changes: [Change] = []
  private var ended: Set<ObjectID> = []
  private var registrations = 0
  private var asked = 0
  var isSending = false
  private var waiting: [(number: Int, then: (Bool) -> Void)] = []
  /// What objects here are called, for a head that has lost its journal.
  var notes: [Name: KnownName] = [:]
  /// Who was here before this process, and has not said what it holds.
  private var absentees: Set<UInt64> = []
  private var unsaidDrivers: [JobID] = []
  /// What is being brought here.
  var fetching: Set<ObjectID> = []

  private static let absent: UInt64 = 0
  private static let registering = UInt64.max

  init(on machine: SimulatedMachine, isClone: Bool) {
    self.machine = machine
    self.isClone = isClone
    world = machine.world
    number = world.number()
    let isReused = world.options.mutation == .nonceIsReused
    nonce = ProcessNonce(high: 1, low: isReused ? UInt64(machine.index) : world.number())
    if isClone { return }
    absentees = Set(machine.clients.map(\.number))
    if !absentees.isEmpty { ledger.hold(machine.store.keys.sorted(), by: Self.absent) }
  }

  /// A copy has an empty store of its own.
  var store: [ObjectID: SimulatedMachine.Replica] { isClone ? [:] : machine.store }

  func end() {
    isAlive = false
    link?.close()
    link = nil
    let waiting = waiting
    self.waiting = []
    for waiter in waiting { waiter.then(false) }
  }

  // MARK: Registering

  func connect() {
    world.after(world.milliseconds(5...60)) {
      guard self.isAlive, !self.isRefused, self.link == nil else { return }
      guard let head = self.world.reachableHead(from: self.machine), head.epoch >= self.epoch else {
        return self.connect()
      }
      let link = SimulatedLink(
        "host \(self.machine.name)\(self.isClone ? " (copy)" : "")", to: head, from: self.machine, in: self.world)
      link.below = self
      self.link = link
      link.onClose = { [weak self] in self?.lostLink() }
      self.register(on: link)
    }
  }

  private func lostLink() {
    link = nil
    isRegistered = false
    if isAlive { connect() }
  }

  private func register(on link: SimulatedLink) {
    let all = store.sorted { $0.key < $1.key }
    ledger.hold(all.map(\.key), by: Self.registering)
    ended.formUnion(ledger.untoldEnds)
    registrations += 1
    var registration = HostRegistration(
      host: machine.hostID, name: machine.name, incarnation: incarnation, bulk: .tcp(host: "10.0.0.1", port: 7601),
      capacity: .gigabytes(1),
      replicas: all.map {
        ReplicaReport(
          object: $0.key, geometry: ClusterTruth.geometry, digest: ClusterTruth.digest, contains: $0.value.contents,
          isPrimary: $0.value.isPrimary)
      },
      holds: ledger.takeRegistration(), names: notes.filter { store[$0.value.object] != nil })
    if world.options.mutation == .hostForgetsHolds { registration.holds = [] }
    world.detail("host \(machine.name) registers with \(all.map(\.key)), holds \(registration.holds)")
    if !absentees.isEmpty { registration.awaitsProcesses = true }
    registration.nonce = nonce
    registration.epoch = epoch
    registration.beganAnew = beganAnew
    let (first, rest) = registration.parts(of: world.chance(20) ? 200 : 100_000)
    call(first, rest[...], registration, on: link)
  }

  private func call(
    _ first: HostRegistration?, _ rest: ArraySlice<RegistrationPart>, _ all: HostRegistration, on link: SimulatedLink
  ) {
    let id = link.id
    let isLast = rest.isEmpty || first == nil && rest.count == 1
    let (host, nonce) = (machine.hostID, all.nonce)
    let proof: SimulatedHead.Proof = { reply, journal in
      guard isLast, case .registration(let reply) = reply, let incarnation = reply.incarnation else { return true }
      let record = journal.state.hosts[host]
      return record?.incarnation ?? 0 > incarnation || record?.nonce == nonce && record?.incarnation == incarnation
    }
    link.call("register \(link.name)") { head, call in
      if let first {
        head.askRival({ $0.rival(of: first) }, call) {
          head.ask(call, proof: proof) { $0.register($1, first, on: id) }
        }
      } else if let part = rest.first {
        head.ask(call, proof: proof) { $0.registerMore($1, part, on: id) }
      }
    } then: { result in
      guard self.isAlive, self.link === link else { return self.letGo(Self.registering) }
      switch result {
      case .success(.registration(let reply)):
        let rest = first == nil ? rest.dropFirst() : rest
        if !rest.isEmpty { return self.call(nil, rest, all, on: link) }
        self.letGo(Self.registering)
        self.registered(reply, on: link)
        // All have said what they hold since this began.
        if all.awaitsProcesses == true, self.absentees.isEmpty { link.close() }
      case .success: self.world.violation("a registration was answered with something else")
      case .failure(let error):
        self.letGo(Self.registering)
        if [.mismatch, .denied].contains(error.code) {
          self.world.note("\(link.name) is refused: \(error.code)")
          self.isRefused = true
          self.world.refused(self)
        }
        link.close()
      }
    }
  }

  private func registered(_ reply: RegistrationReply, on link: SimulatedLink) {
    if reply.isRetired == true, world.options.mutation != .retiredHostGoesOn {
      giveUp()
      return register(on: link)
    }
    if reply.isRetired == true { return }
    epoch = max(epoch, reply.epoch)
    if let incarnation = reply.incarnation { self.incarnation = incarnation }
    beganAnew = false
    isRegistered = true
    world.note("\(link.name) is registered as \(incarnation) at epoch \(reply.epoch)")
    if let incarnation = reply.incarnation { world.believed(machine.hostID, incarnation, number) }
    for job in unsaidDrivers { driverEnded(job) }
    unsaidDrivers = []
    asked += 1
    pump()
  }

  /// Ends what the processes here have of the cluster first, then drops it.
  private func giveUp() {
    world.note("host \(machine.name) was given up, and begins anew")
    if !isClone {
      for client in machine.clients { client.end() }
      for object in machine.store.keys.sorted() { drop(object) }
    }
    ledger = HoldLedgerStateMachine()
    (changes, ended, notes, absentees) = ([], [], [:], [])
    let epoch = epoch
    nonce = ProcessNonce(high: 1, low: world.number())
    (incarnation, beganAnew, self.epoch) = (0, true, epoch)
  }

  // MARK: Reporting

  private func pump() {
    guard isAlive, isRegistered, !isSending, let link else { return }
    guard !changes.isEmpty || ledger.hasChanges || !ended.isEmpty || !waiting.isEmpty else { return }
    isSending = true
    var some = changes
    changes = []
    if world.options.mutation == .reportsOvertakeEachOther {
      some.shuffle(using: &world.random)
      if !some.isEmpty, world.chance(50) { changes = [some.removeLast()] }
    }
    var told: [ReplicaChange] = []
    for change in some {
      if let change = replicaChange(change, tells: true) { told.append(change) }
    }
    var holds = ledger.takeReport()
    holds.removed += ended.subtracting(holds.removed).filter { !ledger.isHeld($0) }.sorted()
    ended = []
    world.detail("host \(machine.name) reports \(told), +\(holds.added) -\(holds.removed)")
    let batch = Batch(changes: some, holds: holds, registration: registrations, upTo: asked)
    let report = ReplicaChanges(host: machine.hostID, changes: told)
    if told.isEmpty { return tellHolds(batch, on: link) }
    tell(report, on: link, what: "replicas") { isThere in
      isThere ? self.tellHolds(batch, on: link) : self.lost(batch)
    }
  }

  private func replicaChange(_ change: Change, tells: Bool) -> ReplicaChange? {
    switch change {
    case .made(let object):
      return report(object).map { .sealed($0, held: tells ? ledger.takeHeld(with: object) : ledger.isHeld(object)) }
    case .sealed(let object):
      return report(object).map { .sealed($0, held: tells ? ledger.takeHeld(with: object) : false) }
    case .partial(let object): return .partial(object: object, geometry: ClusterTruth.geometry)
    case .gone(let object): return .gone(object: object)
    }
  }

  private func report(_ object: ObjectID) -> ReplicaReport? {
    store[object].map {
      ReplicaReport(
        object: object, geometry: ClusterTruth.geometry, digest: ClusterTruth.digest, contains: $0.contents,
        isPrimary: $0.isPrimary)
    }
  }

  private func tell(
    _ report: ReplicaChanges, on link: SimulatedLink, what: String, then: @escaping (Bool) -> Void
  ) {
    let id = link.id
    link.call("\(what) of \(link.name)") { head, call in
      head.tell(call) { state throws(MobulaError) in
        try state.changed(report, on: id)
        return .done
      }
    } then: { result in
      self.took(result, on: link, then)
    }
  }

  private func took(_ result: SimulatedLink.Answer, on link: SimulatedLink, _ then: (Bool) -> Void) {
    switch result {
    case .success: then(true)
    case .failure(let error):
      // The head knows less than it was to: a registration puts it right.
      if error.code != .connectionClosed { link.close() }
      then(false)
    }
  }

  private func tellHolds(_ batch: Batch, on link: SimulatedLink) {
    guard !batch.holds.isEmpty, registrations == batch.registration else { return sent(batch) }
    let holds = HoldChanges(host: machine.hostID, added: batch.holds.added, removed: batch.holds.removed)
    let id = link.id
    link.call("holds of \(link.name)") { head, call in
      head.tell(call) { state throws(MobulaError) in
        try state.changed(holds, on: id)
        return .done
      }
    } then: { result in
      self.took(result, on: link) { isThere in isThere ? self.sent(batch) : self.lost(batch) }
    }
  }

  /// The registration that follows says what is here and held; what else the report said is said again.
  private func lost(_ batch: Batch) {
    guard isAlive, !isRefused else { return }
    guard isRegistered, registrations > batch.registration, let link else {
      return world.after(.milliseconds(10)) { self.lost(batch) }
    }
    let told = batch.changes.compactMap { replicaChange($0, tells: false) }
    world.detail("host \(machine.name) reports again \(told)")
    if told.isEmpty { return sent(batch) }
    tell(ReplicaChanges(host: machine.hostID, changes: told), on: link, what: "replicas again") { isThere in
      var again = batch
      again.registration = self.registrations
      if !isThere { return self.lost(again) }
      self.sent(batch)
    }
  }

  private func sent(_ batch: Batch) {
    isSending = false
    let done = waiting.filter { $0.number <= batch.upTo }
    waiting.removeAll { $0.number <= batch.upTo }
    for waiter in done { waiter.then(true) }
    pump()
  }

  /// Says when all that was said before has been told to the head.
  private func flush(_ then: @escaping (Bool) -> Void) {
    guard isAlive, !isRefused else { return then(false) }
    asked += 1
    waiting.append((asked, then))
    pump()
  }

  func report(_ change: Change) {
    changes.append(change)
    asked += 1
    world.after(world.milliseconds(0...5)) { self.pump() }
  }

  // MARK: Processes

  /// A process says who it is, and what it holds.
  func attach(_ client: SimulatedClient) {
    let (holds, known, holdings) = (client.held, ledger.held(by: client.number), client.holdings)
    let waiting = client.lastWaiting
    world.detail("\(client.name) attaches to host \(machine.name) with \(holds), known \(known), absent \(absentees)")
    ledger.hold(holds, by: client.number)
    ledger.release(known.subtracting(holds).sorted(), by: client.number)
    isBack(client.number)
    flush { if $0 { client.confirmed(holdings, upTo: waiting) } }
  }

  func hold(_ objects: [ObjectID], by client: SimulatedClient) {
    ledger.hold(objects, by: client.number)
    let holdings = client.holdings.filter { objects.contains($0.key) }
    let waiting = client.lastWaiting
    flush { if $0 { client.confirmed(holdings, upTo: waiting) } }
  }

  func release(_ objects: [ObjectID], by client: SimulatedClient) {
    ledger.release(objects, by: client.number)
    asked += 1
    world.after(world.milliseconds(0...3)) { self.pump() }
  }

  /// A process puts an object: it is there, and held, at once.
  func made(_ object: ObjectID, _ contents: [ObjectID], by client: SimulatedClient) {
    machine.store[object] = .init(contents: contents, isPrimary: true)
    ledger.hold([object], by: client.number)
    _ = ledger.takeHeld(with: object)
    report(.made(object))
    waiting.append((asked, { if $0 { self.world.madeIsKnown(object, contents) } }))
  }

  func gone(_ client: SimulatedClient) {
    ledger.holderGone(client.number)
    isBack(client.number)
    if let job = client.drivenJob { driverEnded(job) }
    asked += 1
    pump()
  }

  private func isBack(_ client: UInt64) {
    guard absentees.remove(client) != nil, absentees.isEmpty else { return }
    letGo(Self.absent)
    // What those before held that have ended meanwhile, only the head knows.
    if isRegistered { link?.close() }
  }

  private func letGo(_ holder: UInt64) {
    ledger.holderGone(holder)
    asked += 1
    pump()
  }

  private func driverEnded(_ job: JobID) {
    guard isRegistered, let link else { return unsaidDrivers.append(job) }
    let id = link.id
    let notice = DriverEnded(host: machine.hostID, job: job)
    link.call("driver ended") { head, call in
      head.tell(call) { state throws(MobulaError) in
        try state.driverEnded(notice, on: id)
        return .done
      }
    } then: { result in
      if case .failure = result, self.isAlive { self.unsaidDrivers.append(job) }
    }
  }

  /// Names an object at the head, after what is said of it.
  func setName(_ name: Name, _ object: ObjectID, then: @escaping (SimulatedLink.Answer) -> Void) {
    flush { isThere in
      guard isThere else { return then(.failure(MobulaError(.unavailable, "The host is away."))) }
      self.callRepeatedly("set name \(name)") { head, call in
        head.ask(
          call,
          proof: { $1.kept.contains(.name(NameRecord(name.text, KnownName(object, .given)))) },
          { $0.setName($1, NameRequest(name: name, object: object)) })
      } then: { result in
        if case .success = result { self.notes[name] = KnownName(object, .given) }
        then(result)
      }
    }
  }

  func removeName(_ name: Name, then: @escaping (SimulatedLink.Answer) -> Void) {
    notes[name] = nil
    callRepeatedly("remove name \(name)") { head, call in
      head.ask(call) { $0.removeName($1, name) }
    } then: {
      then($0)
    }
  }

  /// As `PeerLink.call`: again when the connection breaks, within the deadline.
  func callRepeatedly(
    _ what: String, until end: Duration? = nil, _ request: @escaping (SimulatedHead, SimulatedLink.Call) -> Void,
    then: @escaping (SimulatedLink.Answer) -> Void
  ) {
    let end = end ?? world.now + .seconds(8)
    guard isAlive, world.now < end else {
      return then(.failure(MobulaError(.unavailable, "\(what): the head is away.")))
    }
    guard isRegistered, let link else {
      return world.after(.milliseconds(20)) { self.callRepeatedly(what, until: end, request, then: then) }
    }
    link.call(what, within: end - world.now, request) { result in
      if case .failure(let error) = result, error.code == .connectionClosed {
        return self.callRepeatedly(what, until: end, request, then: then)
      }
      then(result)
    }
  }
}
