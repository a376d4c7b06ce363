internal import MobulaControl
package import MobulaCore
internal import MobulaTransfer

/// One object's way from its maker to all others over a simulated network, decided by the state machines that the
/// runtime itself uses: the head's directory, each receiver's exchange, what each source offers and sends.
///
/// What their shells do is done here in virtual time; see `ObjectExchange`, `ExchangeLane`, `ChunkSender`,
/// `OfferBook`, and on the way from and to the head `ReplicaFetcher`.
package struct TransferSimulation {
  typealias Network = SimulatedNetwork<SimulatedMessage>
  typealias Connection = Network.Connection

  /// One connection for chunks: the client receives.
  struct Link {
    var lane: Int
    var sender: SenderStateMachine?
    var isSending = false
    /// The client's lane is there still.
    var isUsed = true
    /// What arrives has been announced and is to be kept.
    var isWanted = false
    /// The last chunk is being verified.
    var isVerifying = false
    /// The chunk after it has begun to arrive; and whether all of it has.
    var next: (chunk: Int, isDamaged: Bool)?
    var nextIsHere = false
    var isDamaged = false
  }

  struct Host {
    let id: HostID
    var exchange: ExchangeStateMachine
    var offers: OfferStateMachine?
    /// Connections on which it receives.
    var lanes: [(lane: Int, connection: Connection)] = []
    /// Connections on which it sends.
    var services: [Connection] = []
    var hasReplica = false
    var corruptNext = false
    var sources: [HostID] = []
    var hasBegun = false
    var completed: Duration?
    var failure: MobulaError?
    var commits = 0
  }

  let options: TransferSimulationOptions
  let object: ObjectID
  let head: Int
  var network: Network
  var hosts: [Host] = []
  /// By connection; those of the first connections, to the head, are not used.
  var links: [Link] = []
  var directory = ObjectDirectoryStateMachine()
  var headFree = 0
  var headInbox: [(host: Int, message: SimulatedMessage)] = []
  /// Whose question it is, by its number.
  var questions: [Int] = []
  var timers: [Timer] = []
  var freeTimers: [Int] = []
  /// Receivers that are neither complete nor dead nor have failed.
  var waiting: Int
  package private(set) var headMessages = 0
  package private(set) var headBytes = 0
  /// What must never happen.
  package internal(set) var violations: [String] = []

  enum Timer {
    case tick
    case verified(Connection)
    case stalled(Connection)
    case idle(Connection)
    case headWork(Int)
    case hostLost(Int)
    case fault(TransferSimulationOptions.Fault)
  }

  package init(_ options: TransferSimulationOptions) {
    self.options = options
    let costs = options.costs
    let geometry = options.geometry
    let piece = costs.piece ?? max(16_384, geometry.chunkSize / 4)
    let inFlight = Int(options.bandwidth * (costs.latency * 2).inSeconds) / piece + 2
    network = Network(
      seed: options.seed, latency: costs.latency, handling: costs.message, piece: piece,
      piecesInFlight: min(64, inFlight))
    var generator = SeededGenerator(seed: options.seed)
    object = ObjectID(high: 7, low: generator.next())
    head = options.receivers + 1
    waiting = options.receivers
    for number in 0...options.receivers {
      _ = network.addHost(inbound: options.bandwidth, outbound: options.bandwidth)
      let id = HostID(high: generator.next() | 1, low: UInt64(number))
      hosts.append(
        Host(
          id: id,
          exchange: ExchangeStateMachine(
            geometry: geometry, own: id, verified: number == 0 ? ChunkMap(completeOf: geometry.count) : nil,
            limits: options.limits, seed: generator.next())))
    }
    _ = network.addHost(inbound: options.bandwidth, outbound: options.bandwidth)
    for number in 0...options.receivers {
      _ = network.connect(from: number, to: head)
      links.append(Link(lane: 0))
    }
    for (delay, fault) in options.faults { setTimer(.fault(fault), after: delay, at: head) }
    hosts[0].hasReplica = true
    let digest = ObjectDigest(geometry: geometry, checksums: Array(repeating: 0, count: geometry.count))
    let replica = SealedReplica(object: object, geometry: geometry, digest: digest, isHeld: true)
    // With a name it lives on when its maker dies.
    _ = try? directory.named("object", object)
    _ = directory.changed(hosts[0].id, [.sealed(replica)])
    for receiver in stride(from: 1, through: options.receivers, by: 1) {
      tellHead(.locate(known: [], failed: []), from: receiver)
    }
  }

  /// Virtual time since the start.
  package var now: Duration { .nanoseconds(network.nanoseconds) }
  package var eventCount: Int { network.eventCount }
  package var receiversWaiting: Int { waiting }
  package func isAlive(_ host: Int) -> Bool { network.isAlive(host) }
  package func bytesSent(by host: Int) -> Int { network.bytesSent(by: host) }
  package func completion(of host: Int) -> Duration? { hosts[host].completed }
  package func failure(of host: Int) -> MobulaError? { hosts[host].failure }
  package func isComplete(_ host: Int) -> Bool { hosts[host].exchange.chunksMissing == 0 }
  package func chunksMissing(at host: Int) -> Int { hosts[host].exchange.chunksMissing }
  package func commits(at host: Int) -> Int { hosts[host].commits }

  /// Goes on for up to so many events.
  ///
  /// - Returns: whether there is more to come.
  package mutating func run(events: Int = .max) -> Bool {
    let end = events == .max ? Int.max : network.eventCount + events
    while waiting > 0, network.eventCount < end {
      guard now < options.deadline, let event = network.next() else { return false }
      handle(event)
    }
    return waiting > 0
  }

  private mutating func handle(_ event: Network.Event) {
    switch event {
    case .opened(let connection): if connection > options.receivers { accepted(connection) }
    case .began(.chunk(let chunk, let isDamaged), let connection, _): began(chunk, isDamaged, connection)
    case .began: break
    case .arrived(let message, let connection, let host):
      if connection <= options.receivers {
        if host == head { reachedHead(message, from: connection) } else { headSaid(message, to: host) }
      } else if network.client(of: connection) == host {
        sourceSaid(message, connection, host)
      } else {
        receiverSaid(message, connection, host)
      }
    case .departed(let connection, let host): departed(connection, host)
    case .closed(let connection, let host):
      guard connection > options.receivers else { return }
      if network.client(of: connection) == host {
        laneEnded(connection, host, MobulaError(.connectionClosed, "The source closed the connection."))
      } else {
        serviceEnded(connection, host)
      }
    case .timer(let number, let host):
      let timer = timers[number]
      freeTimers.append(number)
      fired(timer, at: host)
    }
  }

  private mutating func fired(_ timer: Timer, at host: Int) {
    switch timer {
    case .tick:
      guard !hosts[host].exchange.isOver else { return }
      let actions = hosts[host].exchange.tick(now: now)
      perform(actions, host)
      setTimer(.tick, after: options.limits.tick, at: host)
    case .verified(let connection): verified(connection, host)
    case .stalled(let connection):
      laneEnded(connection, host, MobulaError(.deadlineExceeded, "The source said nothing any more."))
    case .idle(let connection): serviceEnded(connection, host)
    case .headWork(let slot): headDoes(slot)
    case .hostLost(let lost): apply(directory.hostsLost([hosts[lost].id]))
    case .fault(let fault): happen(fault)
    }
  }

  mutating func setTimer(_ timer: Timer, after delay: Duration, at host: Int) {
    let number: Int
    if let free = freeTimers.popLast() {
      number = free
      timers[free] = timer
    } else {
      number = timers.count
      timers.append(timer)
    }
    network.setTimer(number, after: delay, at: host)
  }

  // MARK: Faults

  private mutating func happen(_ fault: TransferSimulationOptions.Fault) {
    switch fault {
    case .kill(let victim, let silently):
      guard network.isAlive(victim) else { return }
      if victim > 0, hosts[victim].completed == nil, hosts[victim].failure == nil { waiting -= 1 }
      for connection in network.connections(of: victim) where connection > options.receivers {
        lose(connection, at: network.client(of: connection) == victim ? network.server(of: connection) : nil)
      }
      network.kill(victim, silently: silently)
      setTimer(.hostLost(victim), after: options.costs.hostTimeout, at: head)
    case .slow(let victim, let factor): network.slow(victim, by: factor)
    case .cut(let a, let b):
      network.cut(a, b)
      for connection in network.connections(of: a) where connection > options.receivers {
        let (client, server) = (network.client(of: connection), network.server(of: connection))
        if client == b || server == b { lose(connection, at: server) }
      }
    case .corruptNext(let victim): hosts[victim].corruptNext = true
    }
  }

  /// The two ends of a connection hear nothing of each other any more, and find that out.
  private mutating func lose(_ connection: Connection, at server: Int?) {
    setTimer(.stalled(connection), after: options.costs.stall, at: network.client(of: connection))
    if let server { setTimer(.idle(connection), after: options.costs.idle, at: server) }
  }

  // MARK: The head

  mutating func tellHead(_ message: SimulatedMessage, from host: Int) {
    count(message)
    network.send(message, bytes: message.bytes, over: host, from: host)
  }

  private mutating func headTells(_ message: SimulatedMessage, _ host: Int) {
    count(message)
    network.send(message, bytes: message.bytes, over: host, from: head)
  }

  private mutating func count(_ message: SimulatedMessage) {
    headMessages += 1
    headBytes += message.bytes
  }

  /// The head does one thing after the other.
  private mutating func reachedHead(_ message: SimulatedMessage, from host: Int) {
    headInbox.append((host, message))
    headFree = max(headFree, network.nanoseconds) + Int(options.costs.headMessage / .nanoseconds(1))
    setTimer(.headWork(headInbox.count - 1), after: .nanoseconds(headFree - network.nanoseconds), at: head)
  }

  private mutating func headDoes(_ slot: Int) {
    let (number, message) = headInbox[slot]
    headInbox[slot].message = .done
    let host = hosts[number].id
    switch message {
    case .locate(let known, let failed):
      questions.append(number)
      apply(
        directory.locate(
          LocateQuestion(
            id: RequestID(UInt64(questions.count - 1)), host: host, object: object, excluded: failed, known: known)))
    case .partial:
      apply(directory.changed(host, [.partial(object, options.geometry)]))
      headTells(.done, number)
    case .sealed:
      let digest = ObjectDigest(
        geometry: options.geometry, checksums: Array(repeating: 0, count: options.geometry.count))
      let replica = SealedReplica(object: object, geometry: options.geometry, digest: digest)
      apply(directory.changed(host, [.sealed(replica)]))
      headTells(.done, number)
    case .gone:
      apply(directory.changed(host, [.gone(object)]))
      apply(directory.transferEnded(receiver: host, object: object))
    default: preconditionFailure("hosts say no such thing to the head")
    }
  }

  private mutating func apply(_ actions: [DirectoryAction]) {
    for action in actions {
      switch action {
      case .answer(let id, .sources(let sources, _, _)): headTells(.located(sources), questions[Int(id.number)])
      case .answer(let id, .local): headTells(.located([]), questions[Int(id.number)])
      case .refuse(let id, let object, let refusal):
        headTells(.notLocated(refusal.error(for: object) { $0.short }), questions[Int(id.number)])
      case .keep: break
      case .drop, .reportCorrupt, .ready, .part: violations.append("the head said \(action)")
      }
    }
  }
}
