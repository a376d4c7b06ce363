/// Hosts with network interfaces in virtual time, driven by one queue of events:
/// the same seed and the same calls give the same events.
///
/// An interface sends one message after the other at its bandwidth, and takes in one
/// after the other at its bandwidth; a message streams through, so that two equal
/// interfaces cost its time once. Messages of one connection arrive in order, or not at all.
public struct SimulatedNetwork<Message> {
  public typealias Instant = SimulatedClock.Instant

  /// A host, by its number from 0.
  public struct Host: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let number: Int
    public var description: String { "host \(number)" }
    public static func < (a: Self, b: Self) -> Bool { a.number < b.number }
  }

  public struct Connection: Hashable, Sendable {
    public let number: Int
    public let client: Host
    public let server: Host

    /// Who is at the other end from `host`.
    public func peer(of host: Host) -> Host { host == client ? server : client }
  }

  public enum Event {
    /// A connection reached its server.
    case opened(Connection)
    case arrived(Message, Connection, at: Host)
    /// The last byte of the oldest message on its way out left `from`'s interface.
    case departed(Connection, from: Host)
    /// The connection is over at this end, which did not close it.
    case closed(Connection, at: Host)
    case timer(Int, at: Host)
  }

  private struct HostState {
    var inbound: Double
    var outbound: Double
    var inboundFree = Instant.start
    var outboundFree = Instant.start
    var isAlive = true
    var bytesSent = 0
    var bytesReceived = 0
  }

  private struct ConnectionState {
    /// Ends that still take part.
    var open: Set<Host>
    /// A message was lost, so nothing after it arrives either.
    var isBroken = false
    /// When the latest message arrives at each end.
    var latest: [Host: Instant] = [:]
    /// When the first byte of the latest message reaches the interface of each end.
    var latestReach: [Host: Instant] = [:]
  }

  /// Two hosts, in whichever order they are given.
  private struct Link: Hashable {
    let low: Host
    let high: Host

    init(_ a: Host, _ b: Host) {
      low = min(a, b)
      high = max(a, b)
    }
  }

  private enum Pending {
    /// A message's first byte reaches the interface of its receiver; its last leaves the sender at `departure`.
    /// Without a message it is the connection's end.
    case reach(Message?, bytes: Int, Connection, to: Host, departure: Instant)
    case event(Event)
  }

  private var hosts: [HostState] = []
  private var connections: [Connection: ConnectionState] = [:]
  private var nextConnection = 0
  private var cuts: Set<Link> = []
  private var queue = EventQueue<Pending>()
  private var generator: SeededGenerator
  private let latency: Duration
  private let jitter: Double
  public private(set) var now = Instant.start

  /// - Parameters:
  ///   - latency: from one interface to another.
  ///   - jitter: up to this part of the latency is added to each message, at random.
  public init(seed: UInt64, latency: Duration = .microseconds(100), jitter: Double = 0.5) {
    generator = SeededGenerator(seed: seed)
    self.latency = latency
    self.jitter = jitter
  }

  /// Adds a host with an interface of so many bytes a second in each direction.
  public mutating func addHost(inbound: Double, outbound: Double) -> Host {
    hosts.append(HostState(inbound: inbound, outbound: outbound))
    return Host(number: hosts.count - 1)
  }

  public func isAlive(_ host: Host) -> Bool { hosts[host.number].isAlive }
  /// Bytes that left the host's interface, or were about to when it died.
  public func bytesSent(by host: Host) -> Int { hosts[host.number].bytesSent }
  /// Bytes that reached the host's interface.
  public func bytesReceived(by host: Host) -> Int { hosts[host.number].bytesReceived }

  /// Connects; the client may send at once. A server that is dead answers with `closed`, one that can't be
  /// reached not at all.
  public mutating func connect(from client: Host, to server: Host) -> Connection {
    let connection = Connection(number: nextConnection, client: client, server: server)
    nextConnection += 1
    connections[connection] = ConnectionState(open: [client, server])
    if isCut(connection) {
      connections[connection]?.isBroken = true
    } else if isAlive(server) {
      let arrival = now.advanced(by: delay())
      connections[connection]?.latest[server] = arrival
      queue.add(.event(.opened(connection)), at: arrival)
    } else {
      connections[connection]?.open.remove(server)
      queue.add(.event(.closed(connection, at: client)), at: now.advanced(by: delay()))
    }
    return connection
  }

  /// Sends `bytes` bytes. Lost when the other end is gone, or cut off, before they arrive.
  public mutating func send(_ message: Message, bytes: Int, over connection: Connection, from host: Host) {
    guard isAlive(host), isUp(connection, at: host) else { return }
    let departure = transmit(message, bytes: bytes, over: connection, from: host)
    hosts[host.number].bytesSent += bytes
    queue.add(.event(.departed(connection, from: host)), at: departure)
  }

  /// Closes one end; what was sent before still arrives at the other, and then `closed`.
  public mutating func close(_ connection: Connection, at host: Host) {
    guard connections[connection]?.open.remove(host) != nil else { return }
    _ = transmit(nil, bytes: 0, over: connection, from: host)
  }

  /// Returns when the last byte leaves.
  private mutating func transmit(
    _ message: Message?, bytes: Int, over connection: Connection, from host: Host
  ) -> Instant {
    let start = max(now, hosts[host.number].outboundFree)
    let departure = start.advanced(by: .seconds(Double(bytes) / hosts[host.number].outbound))
    hosts[host.number].outboundFree = departure
    let peer = connection.peer(of: host)
    let arrival = start.advanced(by: delay())
    let reach = max(arrival, connections[connection]?.latestReach[peer] ?? arrival)
    connections[connection]?.latestReach[peer] = reach
    queue.add(.reach(message, bytes: bytes, connection, to: peer, departure: departure), at: reach)
    return departure
  }

  /// Gives `host` a `timer` event with this tag later.
  public mutating func setTimer(_ tag: Int, after duration: Duration, at host: Host) {
    queue.add(.event(.timer(tag, at: host)), at: now.advanced(by: duration))
  }

  /// Stops a host for good. Its peers learn of it, as when a process dies, or don't, as when the power fails.
  public mutating func kill(_ host: Host, silently: Bool) {
    hosts[host.number].isAlive = false
    for connection in connections.keys.sorted(by: { $0.number < $1.number })
    where connections[connection]?.open.remove(host) != nil {
      connections[connection]?.isBroken = true
      if !silently, !isCut(connection) {
        queue.add(.event(.closed(connection, at: connection.peer(of: host))), at: now.advanced(by: delay()))
      }
    }
  }

  /// Cuts the link between two hosts; connections that lose a message by it never recover.
  public mutating func cut(_ a: Host, _ b: Host) { cuts.insert(Link(a, b)) }

  /// Joins two hosts again, for new connections.
  public mutating func join(_ a: Host, _ b: Host) { cuts.remove(Link(a, b)) }

  /// Makes a host's interface slower by this factor, for what it sends and receives from now on.
  public mutating func slow(_ host: Host, by factor: Double) {
    hosts[host.number].inbound /= factor
    hosts[host.number].outbound /= factor
  }

  /// Moves time to the next event that a host sees; `nil` when nothing is left to happen.
  public mutating func next() -> Event? {
    while let (instant, pending) = queue.popFirst() {
      now = instant
      switch pending {
      case .reach(let message, let bytes, let connection, let host, let departure):
        reach(message, bytes: bytes, connection, to: host, departure: departure)
      case .event(let event):
        if let event = seen(event) { return event }
      }
    }
    return nil
  }

  private mutating func reach(
    _ message: Message?, bytes: Int, _ connection: Connection, to host: Host, departure: Instant
  ) {
    guard !isCut(connection) else {
      connections[connection]?.isBroken = true
      return
    }
    guard isAlive(host), let state = connections[connection], !state.isBroken, state.open.contains(host) else { return }
    let start = max(now, hosts[host.number].inboundFree)
    let end = max(start.advanced(by: .seconds(Double(bytes) / hosts[host.number].inbound)), departure)
    hosts[host.number].inboundFree = end
    hosts[host.number].bytesReceived += bytes
    let arrival = max(end, state.latest[host] ?? end)
    connections[connection]?.latest[host] = arrival
    let event = message.map { Event.arrived($0, connection, at: host) } ?? .closed(connection, at: host)
    queue.add(.event(event), at: arrival)
  }

  /// The event, unless the host it is for is dead or has left the connection.
  private mutating func seen(_ event: Event) -> Event? {
    switch event {
    case .opened(let connection):
      return isAlive(connection.server) && isUp(connection, at: connection.server) ? event : nil
    case .arrived(_, let connection, let host), .departed(let connection, from: let host):
      return isAlive(host) && isUp(connection, at: host) ? event : nil
    case .closed(let connection, let host):
      guard isAlive(host), connections[connection]?.open.remove(host) != nil else { return nil }
      return event
    case .timer(_, let host): return isAlive(host) ? event : nil
    }
  }

  private func isUp(_ connection: Connection, at host: Host) -> Bool {
    guard let state = connections[connection] else { return false }
    return state.open.contains(host)
  }

  private func isCut(_ connection: Connection) -> Bool {
    !cuts.isEmpty && cuts.contains(Link(connection.client, connection.server))
  }

  private mutating func delay() -> Duration {
    latency + latency * Double.random(in: 0...max(jitter, .leastNormalMagnitude), using: &generator)
  }
}
