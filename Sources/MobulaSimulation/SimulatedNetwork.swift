internal import MobulaCore

/// Hosts with network interfaces in virtual time, driven by one queue of events:
/// the same seed and the same calls give the same events.
///
/// An interface is shared as TCP shares it, about evenly among the connections that have something to send: long
/// messages go out in pieces, one of each connection in turn, and come in piece by piece in the order in which they
/// left. A connection has few pieces on their way at once, so that whoever sends to a busy host sends to the others
/// meanwhile. A piece streams through: two equal interfaces cost its time once. Messages of one connection arrive in
/// order, or not at all. A short message overtakes the pieces of other connections, and delays the next piece.
public struct SimulatedNetwork<Message> {
  /// A host, by its number from 0.
  public typealias Host = Int
  /// A connection, by its number from 0.
  public typealias Connection = Int

  public enum Event {
    /// A connection reached its server.
    case opened(Connection)
    /// The first piece of a long message is here.
    case began(Message, Connection, at: Host)
    case arrived(Message, Connection, at: Host)
    /// The last byte of a long message left `from`'s interface.
    case departed(Connection, from: Host)
    /// The connection is over at this end, which did not close it.
    case closed(Connection, at: Host)
    case timer(Int, at: Host)
  }

  private struct HostState {
    var inbound: Double
    var outbound: Double
    var inboundFree = 0
    /// Bytes of short messages that the next piece has to wait for.
    var outboundDebt = 0
    var inboundDebt = 0
    var isSending = false
    var isAlive = true
    /// Died without a word, and answers nobody.
    var isSilent = false
    var bytesSent = 0
    var bytesReceived = 0
    /// Lines with a piece to send, in turn; those before `turn` have had theirs.
    var ready: [Int32] = []
    var turn = 0
    var connections: [Int32] = []
  }

  /// One direction of a connection: twice its number towards the server, one more towards the client.
  private struct Line {
    let from: Int32
    let to: Int32
    /// The end that receives takes part.
    var isOpen = true
    /// Something was lost, so nothing that follows arrives either.
    var isBroken = false
    /// In the queue of its host.
    var isReady = false
    var inFlight: Int8 = 0
    /// Bytes of the long message on its way out that have not left.
    var left = 0
    var isAtStart = false
    var latest = 0
    /// The long messages on their way: the one that arrives first, and those that follow.
    var bulk: [Message] = []
    /// What follows it.
    var queue: [Waiting] = []

    var isBusy: Bool { left > 0 || !queue.isEmpty }
  }

  /// What is sent once a line is free; without a message the end of the connection.
  private struct Waiting {
    var message: Message?
    var bytes: Int
  }

  private enum Pending {
    case pieceDeparted(line: Int32, bytes: Int32)
    case pieceArrived(line: Int32, bytes: Int32, isFirst: Bool, isLast: Bool)
    case message(line: Int32, slot: Int32)
    case opened(Int32)
    case closed(line: Int32)
    case timer(Int, host: Int32)
  }

  private var hosts: [HostState] = []
  private var lines: [Line] = []
  private var messages: [Message?] = []
  private var freeMessages: [Int32] = []
  private var cuts: Set<[Host]> = []
  private var queue = TimeWheel<Pending>()
  private var following: Event?
  private var generator: SeededGenerator
  private let latency: Int
  private let handling: Int
  private let jitter: Double
  private let piece: Int
  private let piecesInFlight: Int8
  /// Virtual time since the start, in nanoseconds.
  public private(set) var nanoseconds = 0
  /// Events so far.
  public private(set) var eventCount = 0

  /// - Parameters:
  ///   - latency: from one interface to another.
  ///   - handling: until a short message that is there is read.
  ///   - jitter: up to this part of the latency is added to each short message, at random.
  ///   - piece: bytes that an interface sends for one connection before it turns to the next.
  ///   - piecesInFlight: pieces that a connection may have on their way at once; at least two, so that the line between
  ///     two hosts is never idle.
  public init(
    seed: UInt64, latency: Duration = .microseconds(100), handling: Duration = .zero, jitter: Double = 0.5,
    piece: Int = 65_536, piecesInFlight: Int = 2
  ) {
    precondition(piece > 0 && piecesInFlight > 1 && piecesInFlight < 100, "pieces of at least a byte, at least two")
    generator = SeededGenerator(seed: seed)
    self.latency = Int(latency / .nanoseconds(1))
    self.handling = Int(handling / .nanoseconds(1))
    self.jitter = jitter
    self.piece = piece
    self.piecesInFlight = Int8(piecesInFlight)
  }

  public var now: SimulatedClock.Instant { .init(sinceStart: .nanoseconds(nanoseconds)) }

  /// Adds a host with an interface of so many bytes a second in each direction.
  public mutating func addHost(inbound: Double, outbound: Double) -> Host {
    hosts.append(HostState(inbound: inbound, outbound: outbound))
    return hosts.count - 1
  }

  public func isAlive(_ host: Host) -> Bool { hosts[host].isAlive }
  /// Bytes that left the host's interface.
  public func bytesSent(by host: Host) -> Int { hosts[host].bytesSent }
  /// Bytes that reached the host's interface.
  public func bytesReceived(by host: Host) -> Int { hosts[host].bytesReceived }
  public func client(of connection: Connection) -> Host { Int(lines[2 * connection].from) }
  public func server(of connection: Connection) -> Host { Int(lines[2 * connection].to) }
  /// Connections that the host has, or had.
  public func connections(of host: Host) -> [Connection] { hosts[host].connections.map(Int.init) }

  // MARK: Connections

  /// Connects; the client may send at once. A server that is dead answers with `closed`, one that can't be
  /// reached, or died silently, not at all.
  ///
  /// - Parameter delay: what it takes besides the latency.
  public mutating func connect(from client: Host, to server: Host, delay: Duration = .zero) -> Connection {
    let connection = lines.count / 2
    lines.append(Line(from: Int32(client), to: Int32(server)))
    lines.append(Line(from: Int32(server), to: Int32(client)))
    hosts[client].connections.append(Int32(connection))
    hosts[server].connections.append(Int32(connection))
    let arrival = nanoseconds + Int(delay / .nanoseconds(1)) + delayed()
    if isCut(2 * connection) {
      lines[2 * connection].isBroken = true
    } else if isAlive(server) {
      lines[2 * connection].latest = arrival
      queue.add(.opened(Int32(connection)), at: arrival)
    } else {
      lines[2 * connection].isOpen = false
      if !hosts[server].isSilent { queue.add(.closed(line: Int32(2 * connection + 1)), at: arrival) }
    }
    return connection
  }

  /// Sends `bytes` bytes. Lost when the other end is gone, or cut off, before they arrive.
  public mutating func send(_ message: Message, bytes: Int, over connection: Connection, from host: Host) {
    let line = self.line(connection, from: host)
    guard hosts[host].isAlive, lines[line ^ 1].isOpen else { return }
    if lines[line].isBusy {
      lines[line].queue.append(Waiting(message: message, bytes: bytes))
    } else {
      begin(message, bytes, line)
    }
  }

  /// Closes one end; what was sent before still arrives at the other, and then `closed`.
  public mutating func close(_ connection: Connection, at host: Host) {
    let line = self.line(connection, from: host)
    guard lines[line ^ 1].isOpen else { return }
    lines[line ^ 1].isOpen = false
    if lines[line].isBusy {
      lines[line].queue.append(Waiting(message: nil, bytes: 0))
    } else {
      begin(nil, 0, line)
    }
  }

  private func line(_ connection: Connection, from host: Host) -> Int {
    Int(lines[2 * connection].from) == host ? 2 * connection : 2 * connection + 1
  }

  private mutating func begin(_ message: Message?, _ bytes: Int, _ line: Int) {
    if bytes > 4096, let message {
      lines[line].bulk.append(message)
      lines[line].left = bytes
      lines[line].isAtStart = true
      makeReady(line)
      return
    }
    let arrival = max(nanoseconds + delayed() + handling, lines[line].latest)
    lines[line].latest = arrival
    guard let message else { return queue.add(.closed(line: Int32(line)), at: arrival) }
    hosts[Int(lines[line].from)].outboundDebt += bytes
    hosts[Int(lines[line].from)].bytesSent += bytes
    let slot: Int32
    if let free = freeMessages.popLast() {
      slot = free
      messages[Int(free)] = message
    } else {
      slot = Int32(messages.count)
      messages.append(message)
    }
    queue.add(.message(line: Int32(line), slot: slot), at: arrival)
  }

  // MARK: Interfaces

  private mutating func makeReady(_ line: Int) {
    let host = Int(lines[line].from)
    guard !lines[line].isReady, lines[line].left > 0, lines[line].inFlight < piecesInFlight else { return }
    lines[line].isReady = true
    hosts[host].ready.append(Int32(line))
    sendNext(host)
  }

  private mutating func sendNext(_ host: Int) {
    guard !hosts[host].isSending, hosts[host].isAlive else { return }
    while hosts[host].turn < hosts[host].ready.count {
      let line = Int(hosts[host].ready[hosts[host].turn])
      hosts[host].turn += 1
      if hosts[host].turn == hosts[host].ready.count {
        hosts[host].ready.removeAll(keepingCapacity: true)
        hosts[host].turn = 0
      } else if hosts[host].turn > 64 {
        hosts[host].ready.removeFirst(hosts[host].turn)
        hosts[host].turn = 0
      }
      lines[line].isReady = false
      // Its connection may be over.
      guard lines[line].left > 0 else { continue }
      let bytes = min(piece, lines[line].left)
      lines[line].inFlight += 1
      let time = Double(bytes + hosts[host].outboundDebt) / hosts[host].outbound
      hosts[host].outboundDebt = 0
      hosts[host].isSending = true
      queue.add(.pieceDeparted(line: Int32(line), bytes: Int32(bytes)), at: nanoseconds + Int(time * 1e9))
      return
    }
  }

  private mutating func pieceDeparted(_ line: Int, _ bytes: Int) -> Event? {
    let host = Int(lines[line].from)
    let target = Int(lines[line].to)
    hosts[host].isSending = false
    hosts[host].bytesSent += bytes
    var event: Event?
    if lines[line].left > 0 {
      lines[line].left -= bytes
      let isFirst = lines[line].isAtStart
      lines[line].isAtStart = false
      let time = Double(bytes + hosts[target].inboundDebt) / hosts[target].inbound
      hosts[target].inboundDebt = 0
      let arrival = max(nanoseconds + latency, hosts[target].inboundFree + Int(time * 1e9))
      hosts[target].inboundFree = arrival
      lines[line].latest = max(lines[line].latest, arrival)
      let isLast = lines[line].left == 0
      queue.add(
        .pieceArrived(line: Int32(line), bytes: Int32(bytes), isFirst: isFirst, isLast: isLast), at: arrival)
      if isLast {
        event = .departed(line >> 1, from: host)
        flush(line)
      } else {
        makeReady(line)
      }
    }
    sendNext(host)
    return hosts[host].isAlive ? event : nil
  }

  /// Sends what waited for the long message.
  private mutating func flush(_ line: Int) {
    while lines[line].left == 0, !lines[line].queue.isEmpty {
      let next = lines[line].queue.removeFirst()
      begin(next.message, next.bytes, line)
    }
  }

  private mutating func pieceArrived(_ line: Int, _ bytes: Int, isFirst: Bool, isLast: Bool) -> Event? {
    guard let host = receiver(of: line) else { return nil }
    hosts[host].bytesReceived += bytes
    lines[line].inFlight -= 1
    makeReady(line)
    guard lines[line].isOpen, let message = lines[line].bulk.first else { return nil }
    if isLast {
      lines[line].bulk.removeFirst()
      if isFirst { following = .arrived(message, line >> 1, at: host) }
      return isFirst ? .began(message, line >> 1, at: host) : .arrived(message, line >> 1, at: host)
    }
    return isFirst ? .began(message, line >> 1, at: host) : nil
  }

  /// The host that something arrives at, if it does.
  private mutating func receiver(of line: Int) -> Int? {
    if isCut(line) { lines[line].isBroken = true }
    let host = Int(lines[line].to)
    return hosts[host].isAlive && !lines[line].isBroken ? host : nil
  }

  // MARK: Faults

  /// Gives `host` a `timer` event with this tag later.
  public mutating func setTimer(_ tag: Int, after duration: Duration, at host: Host) {
    queue.add(.timer(tag, host: Int32(host)), at: nanoseconds + Int(duration / .nanoseconds(1)))
  }

  mutating func setTimer(_ tag: Int, at time: Int, at host: Host) {
    queue.add(.timer(tag, host: Int32(host)), at: max(time, nanoseconds))
  }

  /// Stops a host for good. Its peers learn of it, as when a process dies, or don't, as when the power fails.
  public mutating func kill(_ host: Host, silently: Bool) {
    guard hosts[host].isAlive else { return }
    hosts[host].isAlive = false
    hosts[host].isSilent = silently
    for connection in hosts[host].connections {
      let outgoing = line(Int(connection), from: host)
      guard lines[outgoing ^ 1].isOpen else { continue }
      lines[outgoing ^ 1].isOpen = false
      lines[outgoing].isBroken = true
      lines[outgoing].left = 0
      if !silently, !isCut(outgoing) { queue.add(.closed(line: Int32(outgoing)), at: nanoseconds + delayed()) }
    }
  }

  /// Cuts the link between two hosts; connections that lose a message by it never recover.
  public mutating func cut(_ a: Host, _ b: Host) { cuts.insert([min(a, b), max(a, b)]) }

  /// Joins two hosts again, for new connections.
  public mutating func join(_ a: Host, _ b: Host) { cuts.remove([min(a, b), max(a, b)]) }

  public func isCut(_ a: Host, _ b: Host) -> Bool { cuts.contains([min(a, b), max(a, b)]) }

  /// Makes a host's interface slower by this factor, for what it sends and receives from now on.
  public mutating func slow(_ host: Host, by factor: Double) {
    hosts[host].inbound /= factor
    hosts[host].outbound /= factor
  }

  private func isCut(_ line: Int) -> Bool {
    !cuts.isEmpty && isCut(Int(lines[line].from), Int(lines[line].to))
  }

  private mutating func delayed() -> Int {
    guard jitter > 0 else { return latency }
    let random = Double(generator.next() >> 11) * 0x1p-53
    return latency + Int(Double(latency) * jitter * random)
  }

  // MARK: Events

  /// Moves time to the next event that a host sees; `nil` when nothing is left to happen.
  public mutating func next() -> Event? {
    if let event = following {
      following = nil
      return event
    }
    while let (time, pending) = queue.popFirst() {
      nanoseconds = time
      eventCount += 1
      if let event = seen(pending) { return event }
    }
    return nil
  }

  private mutating func seen(_ pending: Pending) -> Event? {
    switch pending {
    case .pieceDeparted(let line, let bytes): return pieceDeparted(Int(line), Int(bytes))
    case .pieceArrived(let line, let bytes, let isFirst, let isLast):
      return pieceArrived(Int(line), Int(bytes), isFirst: isFirst, isLast: isLast)
    case .message(let line, let slot):
      let message = messages[Int(slot)].take()
      freeMessages.append(slot)
      guard let host = receiver(of: Int(line)), lines[Int(line)].isOpen, let message else { return nil }
      return .arrived(message, Int(line) >> 1, at: host)
    case .opened(let connection):
      let line = Int(connection) * 2
      guard receiver(of: line) != nil, lines[line].isOpen else { return nil }
      return .opened(Int(connection))
    case .closed(let line):
      let line = Int(line)
      let host = Int(lines[line].to)
      guard hosts[host].isAlive, lines[line].isOpen, !isCut(line) else { return nil }
      lines[line].isOpen = false
      // What it still had to send goes nowhere.
      lines[line ^ 1].left = 0
      lines[line ^ 1].queue = []
      return .closed(line >> 1, at: host)
    case .timer(let tag, let host): return hosts[Int(host)].isAlive ? .timer(tag, at: Int(host)) : nil
    }
  }
}
