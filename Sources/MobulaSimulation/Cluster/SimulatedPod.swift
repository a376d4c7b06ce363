import MobulaControl
import MobulaCore

/// A process of a pod: what `Pod` is around its books, without I/O.
final class SimulatedPod: SimulatedPeer {
  static let total: Resources = ["CPU": 2]

  unowned let machine: SimulatedMachine
  let world: ClusterSimulation
  private(set) var isAlive = true
  private(set) var books = PodBooksStateMachine(total: total)
  private(set) var nonce: ProcessNonce
  private var incarnation: UInt64 = 0
  private var epoch: UInt64 = 0
  private var session: UInt64?
  private var link: SimulatedLink?
  private var isRegistered = false
  private(set) var workers: [WorkerID: SimulatedClient] = [:]
  private var starting: [WorkerID: (Bool) -> Void] = [:]
  private var uses: [WorkerID: Int] = [:]
  private var lost: [LeaseID] = []
  /// When the head last knew of it.
  private var heardAt = Duration.zero

  init(on machine: SimulatedMachine) {
    self.machine = machine
    world = machine.world
    nonce = ProcessNonce(high: 2, low: world.number())
    askSoon()
  }

  var isCurrent: Bool { isAlive && isRegistered }

  func end() {
    isAlive = false
    for (_, worker) in workers.sorted(by: { $0.key < $1.key }) { worker.end() }
    link?.close()
    link = nil
  }

  /// Whether its actors that may be started again begin nothing, since they may have been.
  var isFenced: Bool { world.now - heardAt >= ClusterSimulation.actorFenceAtPod }

  func heard(since instant: Duration) { heardAt = max(heardAt, instant) }

  private func askSoon() {
    world.after(.milliseconds(500)) {
      guard self.isAlive else { return }
      self.askSoon()
      guard self.isRegistered, let link = self.link else { return }
      let asked = self.world.now
      link.call("hears", within: .seconds(2)) { head, call in
        head.tell(call) { _ throws(MobulaError) in .done }
      } then: {
        if case .success = $0 { self.heard(since: asked) }
      }
    }
  }

  // MARK: Registering

  func connect() {
    world.after(world.milliseconds(5...60)) {
      guard self.isAlive, self.link == nil else { return }
      guard let head = self.world.reachableHead(from: self.machine), head.epoch >= self.epoch else {
        return self.connect()
      }
      let link = SimulatedLink("pod \(self.machine.name)", to: head, from: self.machine, in: self.world)
      link.below = self
      self.link = link
      link.onClose = { [weak self] in
        guard let self else { return }
        self.link = nil
        self.isRegistered = false
        if self.isAlive { self.connect() }
      }
      self.register(on: link)
    }
  }

  private func register(on link: SimulatedLink) {
    var registration = PodRegistration(
      pod: machine.podID, name: machine.name, host: machine.hostID, incarnation: incarnation, resources: Self.total,
      leases: books.leases.values.sorted { $0.lease < $1.lease })
    registration.nonce = nonce
    registration.epoch = epoch
    registration.session = session
    world.detail("pod \(machine.name) registers with \(registration.leases.map(\.lease))")
    let (all, id, pod, nonce) = (registration, link.id, machine.podID, nonce)
    link.call("register \(link.name)") { head, call in
      head.askRival({ $0.rival(of: all) }, call) {
        head.ask(
          call,
          proof: { reply, journal in
            guard case .registration(let reply) = reply else { return false }
            let record = journal.state.pods[pod]
            return record?.nonce == nonce && record?.incarnation == reply.incarnation
              && record?.session == reply.session
          }
        ) { $0.register($1, all, on: id) }
      }
    } then: { result in
      guard self.isAlive, self.link === link else { return }
      guard case .success(.registration(let reply)) = result else { return link.close() }
      self.registered(reply, on: link)
    }
  }

  private func registered(_ reply: RegistrationReply, on link: SimulatedLink) {
    epoch = max(epoch, reply.epoch)
    if let incarnation = reply.incarnation { self.incarnation = incarnation }
    if let session = reply.session { self.session = session }
    if let incarnation = reply.incarnation { world.believed(machine.podID, incarnation, nonce.low) }
    guard let session = reply.session, let end = reply.end else { return }
    if world.options.mutation != .podSkipsEnding { for lease in end { stop(lease, isReusable: false) } }
    let (confirmation, id) = (PodConfirmation(pod: machine.podID, session: session), link.id)
    world.note("\(link.name) is registered in session \(session), and ends \(end.count) leases")
    // Their ends take a moment.
    world.after(world.milliseconds(0...30)) {
      guard self.isAlive, self.link === link else { return }
      link.call("confirm \(link.name)") { head, call in
        head.tell(call) { state throws(MobulaError) in
          try state.confirmed(confirmation, on: id)
          return .done
        }
      } then: { result in
        guard self.isAlive, self.link === link else { return }
        guard case .success = result else { return link.close() }
        self.isRegistered = true
        let lost = self.lost
        self.lost = []
        for lease in lost { self.tellLost(lease) }
      }
    }
  }

  // MARK: Leases

  func grant(_ request: LeaseRequest, _ answer: @escaping (PodAnswer) -> Void) {
    guard isAlive else { return }
    let id = WorkerID(high: 3, low: world.number())
    switch books.offered(request, newWorker: id) {
    case .refuse(let error): answer(.refused(error))
    case .use(let worker, _):
      uses[worker, default: 0] += 1
      answer(.granted(grant(request, worker)))
    case .start(let worker):
      let process = SimulatedClient("worker \(worker.low)", on: machine)
      workers[worker] = process
      process.onEnd = { [weak self] in self?.ended(worker) }
      starting[worker] = { [weak self] started in
        guard let self, self.isAlive else { return }
        if started { return answer(.granted(self.grant(request, worker))) }
        answer(.refused(MobulaError(.workFailed, "The worker did not start.")))
      }
      world.after(world.milliseconds(20...300)) {
        guard self.isAlive, process.isAlive else { return }
        if self.world.chance(3) { return process.end() }
        guard self.books.ready(worker, at: .unix(path: "/w\(worker.low)")) else { return process.end() }
        self.starting.removeValue(forKey: worker)?(true)
        self.world.workerStarted(process)
      }
    }
  }

  private func grant(_ request: LeaseRequest, _ worker: WorkerID) -> LeaseGrant {
    LeaseGrant(
      lease: request.lease, host: machine.hostID, pod: machine.podID, podName: machine.name, worker: worker,
      endpoint: .unix(path: "/w\(worker.low)"))
  }

  func release(_ lease: LeaseReturn) {
    guard isAlive else { return }
    stop(lease.lease, isReusable: lease.workerIsReusable)
  }

  private func stop(_ lease: LeaseID, isReusable: Bool) {
    switch books.released(lease, workerIsReusable: isReusable) {
    case .nothing: break
    case .stop(let worker): workers[worker]?.end()
    case .keep(let worker):
      let use = uses[worker, default: 0]
      world.after(.seconds(2)) {
        guard self.isAlive, self.uses[worker, default: 0] == use, self.books.idleTooLong(worker) else { return }
        self.workers[worker]?.end()
      }
    }
  }

  private func ended(_ worker: WorkerID) {
    guard isAlive else { return }
    workers[worker] = nil
    let lease = books.workerGone(worker)
    starting.removeValue(forKey: worker)?(false)
    if let lease { tellLost(lease) }
  }

  private func tellLost(_ lease: LeaseID) {
    guard isRegistered, let link else { return lost.append(lease) }
    let (loss, id) = (LeaseLost(lease: lease, reason: "The worker ended."), link.id)
    link.call("lease lost") { head, call in
      head.tell(call) { state throws(MobulaError) in
        try state.leaseLost(loss, on: id)
        return .done
      }
    } then: {
      if case .failure = $0, self.isAlive { self.lost.append(lease) }
    }
  }
}
