internal import CMobula
internal import Glibc
public import MobulaCore
public import MobulaWire
internal import Synchronization

/// Serves the replicas of a host, complete and partial, to other hosts.
///
/// Listens from `init` until `close`, and serves from `start` on; each connection serves one object, or small ones.
public final class TransferServer: Sendable {
  /// Where it listens, with the real port when it was bound to port 0.
  public let endpoint: Endpoint

  private let token: ClusterToken
  private let tls: ClusterTLS?
  private let hello: Hello
  private let maximumConnections: Int
  private let timeouts: TransferTimeouts
  private let traffic: TrafficControl
  private let offers = OfferBook()
  private let gate = SendGate()
  private let listener: TransferSocket
  private let listenerDescriptor: CInt
  private let sent = Atomic<Int>(0)
  private let state = Mutex(State())

  /// What the server serves from.
  private struct Replicas: Sendable {
    let source: @Sendable (ObjectID) -> (any ChunkSource)?
    let asked: @Sendable (ObjectID, TransferPeer) -> Void
    let isComing: @Sendable (ObjectID) -> Bool
  }

  private struct State {
    var isStarted = false
    var isClosed = false
    var connections: [UInt64: TransferSocket] = [:]
    /// Of those whose peers have not proved themselves: a thread each.
    var quota = HandshakeQuota<UInt64>(total: 256, perAddress: 128)
    /// Connections of each receiver of each object.
    var receivers: [Receiver: Int] = [:]
    var served = 0
    var nextConnection: UInt64 = 0
    /// Threads that accept or serve.
    var threads = 0
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  /// Binds; who connects waits until `start`.
  ///
  /// - Parameters:
  ///   - endpoint: TCP; port 0 for any free one.
  ///   - maximumConnections: receivers at once, the spare connections of one counted too, which get half of them at
  ///     most; others are told to come again. Who has not proved to have the token is not counted.
  ///   - traffic: what this host sends, by whatever server.
  /// - Throws: `MobulaError`: `unavailable` when the address can't be had, `invalidArgument` for a Unix socket.
  public init(
    endpoint: Endpoint, token: ClusterToken, tls: ClusterTLS? = nil, hello: Hello, maximumConnections: Int = 256,
    timeouts: TransferTimeouts = .init(), traffic: TrafficControl = .init()
  ) throws(MobulaError) {
    guard case .tcp(let host, _) = endpoint, let address = try SocketAddress.resolve(endpoint, passive: true).first
    else { throw MobulaError(.invalidArgument, "\(endpoint) is no HOST:PORT: objects move between hosts over TCP.") }
    let owned = try address.listen(at: endpoint)
    listenerDescriptor = owned.rawValue
    self.endpoint = .tcp(host: host, port: try SocketAddress.port(of: owned.rawValue))
    listener = TransferSocket(owned, peer: "the listener at \(endpoint)")
    self.token = token
    self.tls = tls
    self.hello = hello
    self.maximumConnections = maximumConnections
    self.timeouts = timeouts
    self.traffic = traffic
  }

  /// Serves from now on, once.
  ///
  /// - Parameters:
  ///   - source: the replica of an object, or `nil` when this host has none. Called on the connection's thread.
  ///   - asked: told of each host that asks for an object of which it serves its own chunks.
  ///   - isComing: whether an object of which there is no replica here will soon have one.
  package func start(
    source: @escaping @Sendable (ObjectID) -> (any ChunkSource)?,
    asked: @escaping @Sendable (ObjectID, TransferPeer) -> Void = { _, _ in },
    isComing: @escaping @Sendable (ObjectID) -> Bool = { _ in false }
  ) {
    let starts = state.withLock { state in
      guard !state.isStarted, !state.isClosed else { return false }
      state.isStarted = true
      state.threads = 1
      return true
    }
    guard starts else { return }
    let replicas = Replicas(source: source, asked: asked, isComing: isComing)
    detachThread(named: "accept chunks") { [self] in
      accept(replicas)
      threadEnded()
    }
  }

  /// Bytes of chunks that this server sent, without headers.
  public var bytesSent: Int { sent.load(ordering: .relaxed) }

  /// Connections being served now.
  public var connectionCount: Int { state.withLock { $0.connections.count } }

  /// Stops listening and cuts every connection. Returns at once; `waitUntilClosed` waits for the threads.
  public func close() {
    let (connections, wasStarted) = state.withLock { state in
      state.isClosed = true
      return (Array(state.connections.values), state.isStarted)
    }
    guard wasStarted else { return listener.close() }
    // A shut-down listener's `accept` fails, which ends its thread, which closes it.
    listener.shutDown()
    for connection in connections { connection.shutDown() }
  }

  /// Returns once the server was closed, its threads have ended and its sources are released.
  public func waitUntilClosed() async {
    await withCheckedContinuation { continuation in
      let isOver = state.withLock { state in
        if state.threads > 0 { state.waiting.append(continuation) }
        return state.threads == 0
      }
      if isOver { continuation.resume() }
    }
  }

  private func threadEnded() {
    let waiting = state.withLock { state in
      state.threads -= 1
      guard state.threads == 0 else { return [CheckedContinuation<Void, Never>]() }
      defer { state.waiting = [] }
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }

  private func accept(_ replicas: Replicas) {
    while true {
      let raw = mobula_accept(listenerDescriptor)
      guard raw >= 0 else {
        if state.withLock({ $0.isClosed }) { break }
        // Out of descriptors, say: the waiting peer stays in the queue, so don't spin on it.
        if errno != EINTR, errno != ECONNABORTED { usleep(100_000) }
        continue
      }
      let address = SocketAddress.peer(of: raw)
      let socket = TransferSocket(OwnedDescriptor(owning: raw), peer: "A receiver of \(endpoint)")
      guard let number = admit(socket, from: address) else {
        socket.abort()
        continue
      }
      detachThread(named: "serve chunks") { [self] in
        try? serve(socket, number, replicas)
        socket.close()
        state.withLock { state in
          state.quota.left(number)
          state.connections[number] = nil
        }
        threadEnded()
      }
    }
    listener.close()
  }

  /// Connections beyond the maximum that are heard to be told so; others are closed unanswered.
  private static let unserved = 64

  private struct Receiver: Hashable {
    var host: HostID?
    /// `nil` for small objects.
    var object: ObjectID?
  }

  /// Takes a place for a receiver; false when there is none.
  ///
  /// Many that have a spare connection each must not keep those away that have none.
  private func enter(_ receiver: Receiver) -> Bool {
    state.withLock { state in
      let isSpare = receiver.host != nil && state.receivers[receiver] != nil
      guard state.served < (isSpare ? maximumConnections / 2 : maximumConnections) else { return false }
      state.served += 1
      state.receivers[receiver, default: 0] += 1
      return true
    }
  }

  private func leave(_ receiver: Receiver) {
    state.withLock { state in
      state.served -= 1
      state.receivers[receiver] = state.receivers[receiver].flatMap { $0 > 1 ? $0 - 1 : nil }
    }
  }

  /// Registers a connection whose peer has still to prove itself; another may have to go for it.
  ///
  /// - Returns: `nil` when the server was closed.
  private func admit(_ socket: TransferSocket, from address: String) -> UInt64? {
    let (number, surplus) = state.withLock { state -> (UInt64?, TransferSocket?) in
      guard !state.isClosed else { return (nil, nil) }
      state.nextConnection += 1
      state.threads += 1
      state.connections[state.nextConnection] = socket
      let surplus = state.quota.accepted(state.nextConnection, from: address)
      return (state.nextConnection, surplus.flatMap { state.connections[$0] })
    }
    // Its thread ends, and closes it.
    surplus?.shutDown()
    return number
  }

  /// A connection's peer has proved itself; false when there are far too many that have.
  private func prove(_ number: UInt64) -> Bool {
    state.withLock { state in
      state.quota.left(number)
      return state.connections.count - state.quota.count <= maximumConnections + Self.unserved
    }
  }

  private func serve(_ socket: TransferSocket, _ number: UInt64, _ replicas: Replicas) throws(MobulaError) {
    socket.setSendTimeout(timeouts.idle)
    socket.limitUnsent()
    let patience = Patience(stall: timeouts.connect, deadline: .now + timeouts.connect)
    try socket.secureAsServer(tls, token: token, hello: hello, patience)
    let receiver = try socket.authenticateAsServer(token: token, hello: hello, patience)
    guard prove(number) else { return }
    switch try socket.receiveMessage(patience) {
    case .open(let object, let bulk, let priority):
      try serve(object, to: receiver, at: bulk, priority, over: socket, number, replicas)
    case .openSmall(let priority): try serveSmall(receiver, priority, over: socket, replicas)
    default: return
    }
  }

  /// Serves small objects, as many as the receiver asks for.
  private func serveSmall(
    _ receiver: Hello, _ priority: TransferPriority, over socket: TransferSocket, _ replicas: Replicas
  ) throws(MobulaError) {
    let place = Receiver(host: receiver.host, object: nil)
    guard enter(place) else { return try refuse(socket) }
    defer { leave(place) }
    var sender = SmallObjectsSender(
      socket, gate: gate, timeouts: timeouts, traffic: traffic.flow(priority),
      presence: { object in
        // Asked first, since it costs less, and again and again.
        if replicas.isComing(object) { return .coming }
        if let source = replicas.source(object) {
          if source.digest != nil { return .here(source) }
          return source.failure == nil ? .coming : .unknown
        }
        return .unknown
      },
      count: counted)
    try sender.run()
  }

  private func serve(
    _ object: ObjectID, to receiver: Hello, at bulk: String, _ priority: TransferPriority, over socket: TransferSocket,
    _ number: UInt64, _ replicas: Replicas
  ) throws(MobulaError) {
    guard let source = replicas.source(object) else {
      return try socket.send(
        .refused(.notFound, "Host \(hello.name) has no replica of object \(object): fetch it from another source."))
    }
    let place = Receiver(host: receiver.host, object: object)
    guard enter(place) else { return try refuse(socket) }
    defer { leave(place) }
    if let host = receiver.host, let endpoint = Endpoint(bulk) {
      replicas.asked(object, TransferPeer(host: host, bulk: endpoint))
    }
    ChunkSender(
      socket, source: source, offers: offers, number: number, gate: gate, timeouts: timeouts,
      traffic: traffic.flow(priority), count: counted
    ).run()
  }

  private func refuse(_ socket: TransferSocket) throws(MobulaError) {
    try socket.send(.refused(.full, "Host \(hello.name) serves as many receivers as it may: ask it again, or another."))
  }

  private func counted(_ bytes: Int) {
    sent.add(bytes, ordering: .relaxed)
    TransferCounters.addSent(bytes)
  }
}
