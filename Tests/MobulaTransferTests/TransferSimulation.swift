import MobulaCore
import MobulaTestKit

@testable import MobulaTransfer

/// A maker and receivers in a chain, each fetching from the one before it, by the real state
/// machines over a simulated network. Host 0 is the maker.
struct TransferSimulation {
  typealias Network = SimulatedNetwork<TransferMessage>
  typealias Connection = Network.Connection

  enum Fault: Sendable {
    case kill(Int, silently: Bool)
    case slow(Int, by: Double)
    case cut(Int, Int)
    /// The next chunk that arrives at a host is not what left.
    case corruptNext(Int)
  }

  /// A source connection that a host fetches over.
  struct Fetch {
    var connection: Connection
    var machine: ReceiverStateMachine
    var heardSinceTimer = false
  }

  /// A connection that a host serves.
  struct Service {
    var machine: SenderStateMachine
    /// The chunk whose turn it is and that the host lacks.
    var waitingFor: Int?
  }

  struct HostState {
    var map: ChunkMap
    var claimed: Set<Int> = []
    var fetch: Fetch?
    var services: [Connection: Service] = [:]
    /// For each message on its way out, whether it is a chunk.
    var outgoing: [Connection: [Bool]] = [:]
    var avoided: Set<Int> = []
    var completed: Duration?
    var arrivedChunks = 0
    var rejectedChunks = 0
    var failures = 0
    var corruptNext = false
  }

  private enum Timer {
    case stall(Connection)
    case keepalive(Connection, chunk: Int)
    case fault(Fault)
    case retry
  }

  let geometry: ChunkGeometry
  let timeouts = TransferTimeouts()
  private(set) var network: Network
  private(set) var hosts: [HostState] = []
  private var ids: [Network.Host] = []
  private var timers: [Timer] = []
  /// Whether every living receiver has completed; looked at anew when one completes or something breaks.
  private var isOver = false
  private let object = ObjectID(high: 1, low: 2)

  init(seed: UInt64, receivers: Int, geometry: ChunkGeometry, bandwidth: Double, faults: [(Duration, Fault)] = []) {
    self.geometry = geometry
    network = Network(seed: seed)
    for number in 0...receivers {
      ids.append(network.addHost(inbound: bandwidth, outbound: bandwidth))
      hosts.append(HostState(map: ChunkMap(count: geometry.count)))
      if number == 0 { for chunk in 0..<geometry.count { hosts[0].map.insert(chunk) } }
    }
    for (delay, fault) in faults { setTimer(.fault(fault), after: delay, at: 0) }
    for receiver in 1...receivers { startFetch(receiver) }
  }

  func isAlive(_ host: Int) -> Bool { network.isAlive(ids[host]) }
  func bytesSent(by host: Int) -> Int { network.bytesSent(by: ids[host]) }

  /// What every host computes for an intact chunk.
  private func checksum(of chunk: Int) -> UInt32 { UInt32(truncatingIfNeeded: chunk &* 2_654_435_761 &+ 7) }

  /// Runs until every living receiver is complete, or nothing happens any more, or an hour has passed.
  mutating func run() throws {
    while !isOver, network.now.sinceStart < .seconds(3600), let event = network.next() {
      switch event {
      case .opened: break
      case .arrived(let message, let connection, let host): try arrived(message, connection, at: host.number)
      case .departed(let connection, let host): departed(connection, from: host.number)
      case .closed(let connection, let host): closed(connection, at: host.number)
      case .timer(let tag, let host): fired(timers[tag], at: host.number)
      }
    }
  }

  private mutating func updateIsOver() {
    isOver = hosts.indices.dropFirst().allSatisfy { !isAlive($0) || hosts[$0].completed != nil }
  }

  // MARK: Receiving

  private mutating func startFetch(_ host: Int) {
    let candidates = (0..<host).reversed()
    if candidates.allSatisfy(hosts[host].avoided.contains) { hosts[host].avoided = [] }
    let source = candidates.first { !hosts[host].avoided.contains($0) }!
    let connection = network.connect(from: ids[host], to: ids[source])
    let machine = ReceiverStateMachine(geometry: geometry, window: ReceiverStateMachine.window(for: geometry))
    hosts[host].fetch = Fetch(connection: connection, machine: machine)
    send(.open(object), over: connection, from: host)
    setTimer(.stall(connection), after: timeouts.stall, at: host)
  }

  /// Leaves the source and goes on with another.
  private mutating func leaveSource(_ host: Int) {
    guard var fetch = hosts[host].fetch else { return }
    hosts[host].fetch = nil
    let abandoned = fetch.machine.ended()
    hosts[host].claimed.subtract(abandoned)
    hosts[host].failures += 1
    hosts[host].avoided.insert(fetch.connection.server.number)
    network.close(fetch.connection, at: ids[host])
    setTimer(.retry, after: .milliseconds(1), at: host)
  }

  private mutating func follow(_ first: ReceiverStateMachine.Step, at host: Int) {
    var step = first
    while let connection = hosts[host].fetch?.connection {
      switch step {
      case .receive: return
      case .claim:
        let chunk = claim(at: host)
        switch hosts[host].fetch!.machine.claimed(chunk) {
        case .request(let chunk, let then):
          send(.request(chunk), over: connection, from: host)
          step = then
        case .proceed(let then): step = then
        }
      case .finish:
        send(.done, over: connection, from: host)
        network.close(connection, at: ids[host])
        hosts[host].fetch = nil
        hosts[host].completed = network.now.sinceStart
        updateIsOver()
      }
    }
  }

  private mutating func claim(at host: Int) -> Int? {
    var next = hosts[host].map.firstMissing()
    while let chunk = next, hosts[host].claimed.contains(chunk) { next = hosts[host].map.firstMissing(from: chunk + 1) }
    if let next { hosts[host].claimed.insert(next) }
    return next
  }

  private mutating func chunkArrived(_ header: ChunkHeader, at host: Int) throws {
    hosts[host].arrivedChunks += 1
    _ = try hosts[host].fetch!.machine.announced(header)
    let arrived = hosts[host].corruptNext ? ~header.checksum : checksum(of: header.index)
    hosts[host].corruptNext = false
    switch hosts[host].fetch!.machine.arrived(checksum: arrived) {
    case .commit(let chunk, _, let then):
      guard hosts[host].map.insert(chunk) else {
        throw MobulaError(.alreadyExists, "Host \(host) fetched chunk \(chunk), which it had.")
      }
      hosts[host].claimed.remove(chunk)
      send(.acknowledge(chunk), over: hosts[host].fetch!.connection, from: host)
      for connection in hosts[host].services.keys.sorted(by: { $0.number < $1.number })
      where hosts[host].services[connection]?.waitingFor == chunk {
        prepare(chunk, over: connection, at: host)
      }
      follow(then, at: host)
    case .reject:
      hosts[host].rejectedChunks += 1
      leaveSource(host)
    }
  }

  // MARK: Sending

  private mutating func prepare(_ chunk: Int, over connection: Connection, at host: Int) {
    guard hosts[host].map.contains(chunk) else {
      hosts[host].services[connection]?.waitingFor = chunk
      setTimer(.keepalive(connection, chunk: chunk), after: timeouts.keepalive, at: host)
      return
    }
    hosts[host].services[connection]?.waitingFor = nil
    let checksum = checksum(of: chunk)
    if let (header, _) = hosts[host].services[connection]?.machine.ready(checksum: checksum) {
      send(.chunk(header), over: connection, from: host)
    }
  }

  private mutating func departed(_ connection: Connection, from host: Int) {
    let isChunk = hosts[host].outgoing[connection]?.removeFirst()
    guard isChunk == true, let next = hosts[host].services[connection]?.machine.sent() else { return }
    prepare(next, over: connection, at: host)
  }

  // MARK: Events

  private mutating func arrived(_ message: TransferMessage, _ connection: Connection, at host: Int) throws {
    if hosts[host].fetch?.connection == connection {
      hosts[host].fetch?.heardSinceTimer = true
      switch message {
      case .opened(let objectSize, let chunkSize):
        follow(try hosts[host].fetch!.machine.opened(objectSize: objectSize, chunkSize: chunkSize), at: host)
      case .chunk(let header): try chunkArrived(header, at: host)
      case .waiting: follow(try hosts[host].fetch!.machine.waiting(), at: host)
      default: throw MobulaError(.protocolViolation, "Host \(host) was sent \(message).")
      }
    } else if case .open = message {
      hosts[host].services[connection] = Service(machine: SenderStateMachine(geometry: geometry))
      send(.opened(objectSize: geometry.objectSize, chunkSize: geometry.chunkSize), over: connection, from: host)
    } else if hosts[host].services[connection] != nil {
      switch message {
      case .request(let chunk):
        let action = try hosts[host].services[connection]!.machine.requested(chunk)
        if case .prepare(let chunk) = action { prepare(chunk, over: connection, at: host) }
      case .acknowledge(let chunk): try hosts[host].services[connection]!.machine.acknowledged(chunk)
      case .done:
        guard hosts[host].services[connection]!.machine.pinned.isEmpty else {
          throw MobulaError(.protocolViolation, "Host \(host) still pins chunks for a receiver that is done.")
        }
      default: throw MobulaError(.protocolViolation, "Host \(host) was sent \(message).")
      }
    }
  }

  private mutating func closed(_ connection: Connection, at host: Int) {
    if hosts[host].fetch?.connection == connection { leaveSource(host) }
    hosts[host].services[connection] = nil
  }

  private mutating func fired(_ timer: Timer, at host: Int) {
    switch timer {
    case .stall(let connection):
      guard hosts[host].fetch?.connection == connection else { return }
      guard hosts[host].fetch?.heardSinceTimer == true else { return leaveSource(host) }
      hosts[host].fetch?.heardSinceTimer = false
      setTimer(.stall(connection), after: timeouts.stall, at: host)
    case .keepalive(let connection, let chunk):
      guard let service = hosts[host].services[connection], service.waitingFor == chunk, service.machine.waiting()
      else {
        return
      }
      send(.waiting, over: connection, from: host)
      setTimer(.keepalive(connection, chunk: chunk), after: timeouts.keepalive, at: host)
    case .fault(let fault):
      switch fault {
      case .kill(let victim, let silently): network.kill(ids[victim], silently: silently)
      case .slow(let victim, let factor): network.slow(ids[victim], by: factor)
      case .cut(let a, let b): network.cut(ids[a], ids[b])
      case .corruptNext(let victim): hosts[victim].corruptNext = true
      }
      updateIsOver()
    case .retry:
      if hosts[host].fetch == nil, !hosts[host].map.isComplete { startFetch(host) }
    }
  }

  private mutating func send(_ message: TransferMessage, over connection: Connection, from host: Int) {
    var bytes = message.frame.count
    var isChunk = false
    if case .chunk(let header) = message {
      bytes += header.length
      isChunk = true
    }
    hosts[host].outgoing[connection, default: []].append(isChunk)
    network.send(message, bytes: bytes, over: connection, from: ids[host])
  }

  private mutating func setTimer(_ timer: Timer, after delay: Duration, at host: Int) {
    timers.append(timer)
    network.setTimer(timers.count - 1, after: delay, at: ids[host])
  }
}
