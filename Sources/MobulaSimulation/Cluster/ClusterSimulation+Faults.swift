import MobulaControl
import MobulaCore

extension ClusterSimulation {
  // MARK: The head

  static let hostTimeout = Duration.seconds(2), retirement = Duration.seconds(12)

  var settings: ClusterSettings {
    var settings = ClusterSettings(cluster: ClusterID(high: 0, low: 1), epoch: disk.state.epoch)
    settings.hostTimeout = Self.hostTimeout
    settings.retirement = options.mutation == .absentIsGone ? .milliseconds(1) : Self.retirement
    settings.jobTimeout = .seconds(5)
    settings.infeasibleTimeout = .seconds(4)
    settings.leaseTimeout = .seconds(5)
    settings.actorFence = options.mutation == .actorsAreNotFenced ? .zero : Self.actorFence
    if options.mutation == .headDoesNotSettle { settings.hostTimeout = .milliseconds(1) }
    return settings
  }

  func startHead() {
    guard head == nil else { return }
    // Before it listens.
    disk.keep([.epoch(disk.state.epoch + 1)])
    truth.headBegins(learningUntil: disk.state.isRecovering ? now + Self.hostTimeout : .zero)
    let new = SimulatedHead(settings, knowing: disk.state, in: self)
    note("head of epoch \(new.epoch) begins")
    head = new
  }

  func crashHead(losingJournal: Bool = false) {
    guard let old = head else { return }
    note("the head ends\(losingJournal ? ", and its journal is lost" : "")")
    old.crash()
    head = nil
    if losingJournal {
      truth.journalLost()
      for driver in drivers { driver.isKnown = false }
      disk.recover(epoch: 1_000_000 * (old.epoch / 1_000_000 + 1))
    }
    let isLong = chance(15)
    after(milliseconds(isLong ? 1500...6000 : 10...800)) { self.startHead() }
  }

  /// The head, for a process that can reach it now.
  func reachableHead(from machine: SimulatedMachine) -> SimulatedHead? { machine.isPartitioned ? nil : head }

  // MARK: Processes

  func startDriver(on machine: SimulatedMachine) {
    guard machine.isUp else { return after(.milliseconds(500)) { self.startDriver(on: machine) } }
    drivers.append(SimulatedDriver(on: machine, in: self))
  }

  func newObject(of job: JobID) -> ObjectID { ObjectID(high: UInt64(job.number) << 32, low: number()) }

  /// Workers let go of what they are given, fetch it, and make something of it.
  func workerStarted(_ worker: SimulatedClient) {
    after(milliseconds(30...300)) {
      guard worker.isAlive else { return }
      if !self.isQuiet, let object = worker.owned.randomElement(using: &self.random) {
        switch Int.random(in: 0..<4, using: &self.random) {
        case 0: worker.machine.host?.fetch(object)
        case 1:
          let result = self.newObject(of: object.job)
          if worker.put(result, containing: self.chance(30) ? [object] : []),
            let other = self.drivers.filter({ !$0.isOver }).randomElement(using: &self.random)
          {
            worker.pass(result, to: other.client)
            worker.letGo(result)
            if self.chance(50) { worker.letGo(object) }
          }
        default: worker.letGo(object)
        }
      }
      self.workerStarted(worker)
    }
  }

  // MARK: What goes wrong

  func scheduleFaults() {
    let kinds = ClusterSimulationOptions.Fault.allCases.filter(options.faults.contains)
    guard !kinds.isEmpty else { return }
    for _ in 0..<Int.random(in: 2...9, using: &random) {
      let kind = kinds.randomElement(using: &random)!
      // What changes most of what may be expected is rare.
      if [.journalLost, .clone, .forget].contains(kind), chance(70) { continue }
      let time = Duration.milliseconds(Int.random(in: 1000...Int(options.time / .milliseconds(1)), using: &random))
      after(time) { if !self.isHealing { self.cause(kind) } }
    }
  }

  private func cause(_ fault: ClusterSimulationOptions.Fault) {
    let machine = machines.randomElement(using: &random)!
    switch fault {
    case .headCrash: crashHead()
    case .journalLost: crashHead(losingJournal: true)
    case .journalFails:
      note("the journal's disk is full")
      disk.isFailing = true
      after(milliseconds(200...3000)) {
        self.note("the journal's disk has room")
        self.disk.isFailing = false
      }
    case .headHangs:
      note("the head hangs")
      head?.hang(milliseconds(300...3000))
    case .linkCut:
      if let link = links.filter({ !$0.isCut }).randomElement(using: &random) {
        note("the connection of \(link.name) breaks")
        link.cut()
      }
    case .partition:
      guard !machine.isPartitioned else { return }
      machine.setPartitioned(true)
      after(milliseconds(chance(30) ? 2000...8000 : 200...2000)) {
        if machine.isPartitioned { machine.setPartitioned(false) }
      }
    case .hostCrash:
      machine.crashHost()
      after(milliseconds(20...2500)) { machine.startHost() }
    case .podCrash:
      machine.crashPod()
      after(milliseconds(20...2500)) { machine.startPod() }
    case .machineCrash:
      machine.crash()
      after(milliseconds(500...6000)) {
        machine.boot()
        self.startDriver(on: machine)
      }
    case .workerCrash:
      let workers = machine.pod?.workers.sorted { $0.key < $1.key }.map(\.value) ?? []
      if let worker = workers.randomElement(using: &random) {
        note("\(worker.name) ends")
        worker.end()
      }
    case .driverCrash:
      if let driver = drivers.filter({ !$0.isOver }).randomElement(using: &random) {
        note("\(driver.client.name) ends")
        driver.client.end()
        let machine = driver.client.machine
        after(milliseconds(100...2000)) { self.startDriver(on: machine) }
      }
    case .clone:
      guard machine.clone == nil else { return }
      note("a copy of \(machine.name) begins")
      let clone = SimulatedHost(on: machine, isClone: true)
      machine.clone = clone
      clone.connect()
      after(milliseconds(500...3000)) {
        clone.end()
        machine.clone = nil
      }
    case .forget: forgetSomebody()
    }
  }

  /// Says of a host that is away that it is not coming back; as soon as there is one.
  private func forgetSomebody() {
    guard !isHealing else { return }
    let away = machines.filter { machine in
      head?.state.view(of: machine.hostID).map { $0.connection == nil && !$0.isRetired } == true
    }
    guard let head, let machine = away.randomElement(using: &random) else {
      return after(.milliseconds(200)) { self.forgetSomebody() }
    }
    note("\(machine.name) is to be forgotten")
    head.whenAwake {
      self.truth.forgotten.insert(machine.index)
      head.perform { try? $0.forget(Name(machine.name)) }
    }
  }

  /// From here on nothing goes wrong, and all that was down comes up.
  func heal() {
    note("nothing goes wrong any more")
    disk.isFailing = false
    for machine in machines {
      if machine.isPartitioned { machine.setPartitioned(false) }
      if machine.isUp {
        machine.startHost()
        machine.startPod()
      } else {
        machine.boot()
      }
    }
    startHead()
  }
}
