import MobulaControl
import MobulaCore

/// A user's program: what `HeadSession` and `WorkerConnections` are, and something to do.
final class SimulatedDriver: SimulatedPeer {
  let client: SimulatedClient
  let world: ClusterSimulation
  private(set) var job: JobID?
  private var secret: JobSecret?
  private var link: SimulatedLink?
  private var isIn = false
  /// Whether the journal that there is has had its job.
  var isKnown = false
  /// Since when it has not been at a head.
  private var lostSince = Duration.zero
  private(set) var leases: [LeaseID: LeaseGrant] = [:]
  private var requested: Set<LeaseID> = []
  private(set) var isOver = false
  private let names: [Name]
  private var busyNames: Set<Name> = []

  init(on machine: SimulatedMachine, in world: ClusterSimulation) {
    self.world = world
    let number = world.number()
    client = SimulatedClient("driver \(number)", on: machine)
    // All of one length, so that a registration has as many parts in whatever order it takes them.
    names = [Name("\(10_000 + number)/a"), Name("\(10_000 + number)/b")]
    client.onEnd = { [weak self] in self?.over() }
    world.note("\(client.name) begins on \(machine.name)")
    connect()
    actSoon()
  }

  var isThere: Bool { client.isAlive }
  /// The connection on which it is at the head; `nil` while it is at none.
  var currentLink: SimulatedLink? { isIn ? link : nil }

  private func over() {
    isOver = true
    link?.close()
    link = nil
    leases = [:]
  }

  // MARK: The head

  private func connect() {
    world.after(world.milliseconds(5...60)) {
      guard !self.isOver, self.link == nil else { return }
      guard let head = self.world.reachableHead(from: self.client.machine) else { return self.connect() }
      let link = SimulatedLink(self.client.name, to: head, from: self.client.machine, in: self.world)
      link.below = self
      self.link = link
      link.onClose = { [weak self] in
        guard let self else { return }
        self.link = nil
        if self.isIn { self.lostSince = self.world.now }
        self.isIn = false
        if !self.isOver { self.connect() }
      }
      if let job = self.job, let secret = self.secret {
        self.resume(job, secret, on: link)
      } else {
        self.start(on: link)
      }
    }
  }

  private func start(on link: SimulatedLink) {
    let (id, secret, host) = (link.id, JobSecret(high: 7, low: world.number()), client.machine.hostID)
    link.call("start job") { head, call in
      head.ask(
        call,
        proof: { reply, journal in
          guard case .job(let reply) = reply else { return false }
          return journal.kept.contains(.job(JobRecord(job: reply.job, secret: secret)))
        },
        { $0.startJob($1, JobStart(resumes: true), secret: secret, host: host, on: id) })
    } then: { result in
      guard !self.isOver, self.link === link else { return }
      guard case .success(.job(let reply)) = result else { return link.close() }
      self.world.note("\(self.client.name) has job \(reply.job)")
      self.world.started(reply.job, by: self.client)
      (self.job, self.secret, self.isIn, self.isKnown) = (reply.job, reply.secret, true, true)
      self.client.drivenJob = reply.job
    }
  }

  private func resume(_ job: JobID, _ secret: JobSecret, on link: SimulatedLink) {
    let (id, host) = (link.id, client.machine.hostID)
    let request = JobResumption(job: job, secret: secret, leases: requested.union(leases.keys).sorted())
    world.detail("\(client.name) resumes job \(job) with \(request.leases)")
    link.call("resume job") { head, call in
      head.ask(call) { $0.resumeJob($1, request, host: host, on: id) }
    } then: { result in
      guard !self.isOver, self.link === link else { return }
      switch result {
      case .success: (self.isIn, self.isKnown) = (true, true)
      case .failure(let error) where [.notFound, .denied].contains(error.code):
        let away = self.world.now - self.lostSince
        if away < .seconds(3), self.isKnown {
          self.world.violation("job \(job) was ended although its driver was away for \(away) only: \(error.message)")
        }
        self.world.note("\(self.client.name) can't go on: \(error.code)")
        self.client.end()
      case .failure: link.close()
      }
    }
  }

  // MARK: Leases

  private func requestLease() {
    guard isIn, let link, let job, leases.count + requested.count < 3 else { return }
    let request = LeaseRequest(
      lease: LeaseID(high: 5, low: world.number()), job: job, demand: ["CPU": 1],
      strategy: world.chance(50) ? .spread : .pack, program: WorkerProgram(executable: "/bin/app", build: ""))
    requested.insert(request.lease)
    world.detail("\(client.name) requests \(request.lease)")
    link.call("request lease", within: .seconds(6)) { head, call in
      call.abandon = { head in
        head.perform { $0.returned(LeaseReturn(lease: request.lease, workerIsReusable: true)) }
      }
      head.ask(call) { $0.requestLease($1, request) }
    } then: { result in
      guard !self.isOver else { return }
      self.requested.remove(request.lease)
      guard case .success(.lease(let grant)) = result else {
        return self.giveBack(request.lease, isReusable: true)
      }
      self.leases[grant.lease] = grant
      self.world.checkUse(of: grant, by: self)
      self.useOnce(grant)
    }
  }

  /// A call that is made once: nobody makes it again when it is lost.
  private func useOnce(_ grant: LeaseGrant) {
    let call = world.number()
    world.after(world.milliseconds(1...10)) {
      guard !self.isOver, self.leases[grant.lease] != nil, let worker = self.worker(of: grant) else { return }
      self.world.startedCall(call, at: worker)
      if let object = self.client.owned.randomElement(using: &self.world.random) {
        self.client.pass(object, to: worker)
      }
    }
  }

  func worker(of grant: LeaseGrant) -> SimulatedClient? {
    world.machines.first { $0.podID == grant.pod }?.pod?.workers[grant.worker]
  }

  private func giveBack(_ lease: LeaseID, isReusable: Bool, until end: Duration? = nil) {
    leases[lease] = nil
    let end = end ?? world.now + .seconds(60)
    guard !isOver, world.now < end else { return }
    guard isIn, let link else {
      return world.after(.milliseconds(30)) { self.giveBack(lease, isReusable: isReusable, until: end) }
    }
    world.detail("\(client.name) returns \(lease)")
    link.call("return lease") { head, call in
      head.tell(call) { state throws(MobulaError) in
        state.returned(LeaseReturn(lease: lease, workerIsReusable: isReusable))
        return .done
      }
    } then: {
      if case .failure = $0 { self.giveBack(lease, isReusable: isReusable, until: end) }
    }
  }

  func revoked(_ loss: LeaseLost) {
    if leases.removeValue(forKey: loss.lease) != nil { world.note("\(client.name) lost a lease") }
  }

  // MARK: Something to do

  private func actSoon() {
    world.after(world.milliseconds(10...200)) {
      guard !self.isOver else { return }
      if !self.world.isQuiet { self.act() }
      self.actSoon()
    }
  }

  private func act() {
    guard let job else { return }
    let held = client.owned
    let some = held.randomElement(using: &world.random)
    switch Int.random(in: 0..<100, using: &world.random) {
    case 0..<25 where held.count < 8:
      let contents = world.chance(20) ? Array(held.prefix(2)) : []
      // What is inside is kept by the object from then on.
      if client.put(world.newObject(of: job), containing: contents), world.chance(50) {
        for content in contents { client.letGo(content) }
      }
    case 25..<45: if let some { client.letGo(some) }
    case 45..<60:
      let others =
        leases.sorted { $0.key < $1.key }.compactMap { worker(of: $0.value) }
        + world.drivers.filter { $0 !== self && !$0.isOver }.map(\.client)
      if let some, let other = others.randomElement(using: &world.random) { client.pass(some, to: other) }
    case 60..<67: requestLease()
    case 67..<70: actOnActors()
    case 70..<78:
      if let lease = leases.keys.sorted().randomElement(using: &world.random) {
        giveBack(lease, isReusable: world.chance(50))
      }
    case 78..<86: if let some { client.machine.host?.fetch(some) }
    case 86..<94: changeName(some)
    case 94..<97: resolveName()
    case 97: remove(some)
    default:
      let replicas = client.machine.store.keys.sorted()
      guard let replica = replicas.randomElement(using: &world.random) else { return }
      client.machine.host?.evict(replica)
      // Missing it at once: what is told of both must not change its order.
      if world.chance(50) { client.machine.host?.fetch(replica) }
    }
  }

  /// Names something that has no name, or takes a name away.
  private func changeName(_ object: ObjectID?) {
    guard let name = names.randomElement(using: &world.random), !busyNames.contains(name),
      let host = client.machine.host, client.isAttached
    else { return }
    let before = world.truth.names[name] ?? [nil]
    if before == [nil] {
      guard let object else { return }
      busyNames.insert(name)
      world.truth.mayBe(name, object)
      // Held until it is named.
      client.keep(object)
      host.setName(name, object) { result in
        self.isDone(with: name, result)
        self.client.unkeep(object)
        if case .success(.name(let reply)) = result {
          self.world.note("\(name) names \(object)")
          if reply.isNamed { self.world.truth.names[name] = [object] }
        }
      }
    } else {
      busyNames.insert(name)
      world.truth.mayBe(name, nil)
      host.removeName(name) { result in
        self.isDone(with: name, result)
        let isGone =
          switch result {
          case .success: true
          case .failure(let error): error.code == .notFound
          }
        if isGone { self.world.truth.names[name] = [nil] }
      }
    }
  }

  /// A change that was not answered may still come about, as long as the head has it before it: until then nobody can
  /// say what the name is.
  private func isDone(with name: Name, _ result: SimulatedLink.Answer) {
    if case .failure(let error) = result, [.unavailable, .connectionClosed, .deadlineExceeded].contains(error.code) {
      world.after(.seconds(4)) { self.busyNames.remove(name) }
    } else {
      busyNames.remove(name)
    }
  }

  /// As `mobula rm`: the object goes, whoever holds it.
  private func remove(_ object: ObjectID?) {
    guard let object, isIn, let link else { return }
    world.note("\(client.name) removes \(object)")
    world.truth.removed.insert(object)
    link.call("remove") { head, call in
      head.ask(
        call,
        proof: { reply, journal in
          guard case .listing(let listing) = reply else { return false }
          return journal.state.names.values.allSatisfy { $0.known.object != listing.object }
        },
        { $0.remove($1, Name("\(object)")) })
    } then: { _ in
    }
  }

  private func resolveName() {
    guard let name = names.randomElement(using: &world.random), !busyNames.contains(name), isIn, let link else {
      return
    }
    busyNames.insert(name)
    link.call("resolve") { head, call in
      head.tell(call) { state throws(MobulaError) in .listing(try state.resolve(name)) }
    } then: { result in
      self.busyNames.remove(name)
      switch result {
      case .success(.listing(let listing)): self.world.check(name, is: listing.object)
      case .failure(let error) where error.code == .notFound: self.world.check(name, is: nil)
      default: break
      }
    }
  }
}
