package import MobulaCore
package import MobulaWire
internal import Synchronization

/// Takes small objects from one host over one connection, made when the first is wanted and kept for as long as others
/// follow.
package final class SmallObjectsLane: Sendable {
  package typealias Answer = Result<SmallObjects.Arrival, MobulaError>
  private typealias Waiter = @Sendable (ObjectID, Answer) -> Void

  private struct State {
    var isStarted = false
    /// Why nothing more can be taken over it.
    var end: MobulaError?
    var socket: TransferSocket?
    /// Whether the connection has been opened, so that it can be asked.
    var isOpen = false
    var waiting: [ObjectID: [Waiter]] = [:]
    /// What is to be said.
    var outbox: [UInt8] = []
    /// Objects that came, of which the sender was not told.
    var unacknowledged = 0
    /// When the last answer came, or an object was wanted by nobody before.
    var progressed = ContinuousClock.now
  }

  private let peer: TransferPeer
  private let token: ClusterToken
  private let tls: ClusterTLS?
  private let hello: Hello
  private let timeouts: TransferTimeouts
  private let traffic: TrafficFlow
  private let state = Mutex(State())
  /// One message at a time.
  private let sending = Mutex(())

  /// - Parameter traffic: what this host receives.
  package init(
    to peer: TransferPeer, token: ClusterToken, tls: ClusterTLS?, hello: Hello, timeouts: TransferTimeouts = .init(),
    traffic: TrafficControl
  ) {
    self.peer = peer
    self.token = token
    self.tls = tls
    self.hello = hello
    self.timeouts = timeouts
    self.traffic = traffic.flow(.get)
  }

  /// Whether nothing can be taken over it any more.
  package var isOver: Bool { state.withLock { $0.end != nil } }

  /// Takes objects, each of which the peer waits for if it is about to have it.
  ///
  /// - Parameter use: called for each as it comes, on the thread that received it, which receives nothing meanwhile; or
  ///   with why it does not come, a `MobulaError`: `notFound` when the peer neither has it nor gets it, `corrupted`, else
  ///   why the connection has ended, as `ObjectExchange`.
  package func take(_ objects: [ObjectID], _ use: @escaping @Sendable (ObjectID, Answer) -> Void) {
    let (end, starts, socket) = state.withLock { state -> (MobulaError?, Bool, TransferSocket?) in
      if let end = state.end { return (end, false, nil) }
      if state.waiting.isEmpty { state.progressed = .now }
      for object in objects {
        state.waiting[object, default: []].append(use)
        state.outbox += TransferMessage.want(object).frame
      }
      defer { state.isStarted = true }
      return (nil, !state.isStarted, state.isOpen ? state.socket : nil)
    }
    if let end { for object in objects { use(object, .failure(end)) } }
    if starts { detachThread(named: "take objects") { [self] in run() } }
    if let socket { flush(socket) }
  }

  /// As `take`, of one object.
  ///
  /// - Throws: why it does not come.
  package func take(_ object: ObjectID) async throws -> SmallObjects.Arrival {
    try await withCheckedThrowingContinuation { continuation in
      take([object]) { continuation.resume(with: $1) }
    }
  }

  /// Ends the connection; whoever waits fails.
  package func close() {
    end(MobulaError(.cancelled, "The connection was not wanted any more."))
  }

  private func end(_ error: MobulaError) {
    let (socket, waiting) = state.withLock { state in
      if state.end == nil { state.end = error }
      // Closed when nobody is in a call of it any more.
      defer { (state.waiting, state.socket) = ([:], nil) }
      return (state.socket, state.waiting)
    }
    socket?.shutDown()
    traffic.close()
    for (object, waiters) in waiting { for waiter in waiters { waiter(object, .failure(error)) } }
  }

  private func flush(_ socket: TransferSocket) {
    sending.withLock { _ in
      let frames = state.withLock { state in
        defer { state.outbox = [] }
        return state.outbox
      }
      // A peer that can't be told is found out by the thread that listens to it.
      if !frames.isEmpty { try? socket.send(frames) }
    }
  }

  private func run() {
    do throws(MobulaError) {
      let socket = try TransferSocket.open(to: peer, token: token, tls: tls, hello: hello, timeouts: timeouts) {
        socket throws(MobulaError) in try adopt(socket)
      }
      defer { socket.shutDown() }
      try socket.send(.openSmall(traffic.priority))
      state.withLock { $0.isOpen = true }
      flush(socket)
      while try takeNext(from: socket) {}
      try? socket.send(.done)
      end(MobulaError(.cancelled, "The connection was idle."))
    } catch {
      end(error)
    }
  }

  /// Names the socket that `close` shuts down.
  private func adopt(_ socket: TransferSocket) throws(MobulaError) {
    try state.withLock { state throws(MobulaError) in
      if let end = state.end { throw end }
      state.socket = socket
    }
    if let size = traffic.receiveBuffer { socket.setReceiveBuffer(size) }
  }

  /// - Returns: false when nothing has been wanted for a while: nobody will ask any more.
  private func takeNext(from socket: TransferSocket) throws(MobulaError) -> Bool {
    while true {
      let isWaitedFor = hasWaiters
      if try socket.waitUntilReadable(isWaitedFor ? timeouts.stall : SmallObjects.idle) { break }
      if isWaitedFor {
        throw MobulaError(.deadlineExceeded, "\(socket.peer) did not say for long that it is alive: look at that host.")
      }
      let isIdle = state.withLock { state in
        guard state.waiting.isEmpty else { return false }
        state.end = MobulaError(.cancelled, "The connection was idle.")
        return true
      }
      if isIdle { return false }
    }
    switch try socket.receiveMessage(Patience(stall: timeouts.stall)) {
    case .whole(let object, let objectSize, let chunkSize, let checksums):
      finish(object, try receive(objectSize, chunkSize, checksums, socket))
      acknowledge(over: socket)
    case .absent(let object):
      finish(object, .failure(MobulaError(.notFound, "\(socket.peer) does not have object \(object).")))
    case .alive:
      // A source says within that time that it does not get an object.
      let isLate = state.withLock {
        !$0.waiting.isEmpty && ContinuousClock.now - $0.progressed > SmallObjects.patience * 3
      }
      if isLate { throw MobulaError(.deadlineExceeded, "\(socket.peer) is alive, and sent none of what was wanted.") }
    case .refused(let code, let text), .failed(let code, let text): throw MobulaError(code, text)
    default:
      throw MobulaError(
        .protocolViolation, "\(socket.peer) sent what no source of small objects does: run one version on all hosts.")
    }
    return true
  }

  /// Has the sender let go of what has come: of several at a time, since it goes on meanwhile.
  private func acknowledge(over socket: TransferSocket) {
    let isDue = state.withLock { state in
      state.unacknowledged += 1
      guard state.unacknowledged >= Self.acknowledgedTogether || state.waiting.isEmpty else { return false }
      state.outbox += TransferMessage.acknowledge(state.unacknowledged).frame
      state.unacknowledged = 0
      return true
    }
    if isDue { flush(socket) }
  }

  private static let acknowledgedTogether = 16

  private var hasWaiters: Bool { state.withLock { !$0.waiting.isEmpty } }

  private func finish(_ object: ObjectID, _ answer: Answer) {
    let waiting = state.withLock { state in
      state.progressed = .now
      return state.waiting.removeValue(forKey: object) ?? []
    }
    for waiter in waiting { waiter(object, answer) }
  }

  private func receive(
    _ objectSize: Int, _ chunkSize: Int, _ checksums: [UInt32], _ socket: TransferSocket
  ) throws(MobulaError) -> Answer {
    guard SmallObjects.admits(objectSize: objectSize, chunkSize: chunkSize),
      let geometry = try? ChunkGeometry(objectSize: objectSize, chunkSize: chunkSize), checksums.count == geometry.count
    else {
      throw MobulaError(
        .protocolViolation, "\(socket.peer) sent an object of \(objectSize) bytes as a small one: run one version.")
    }
    var wrong: Int?
    var bytes = [UInt8](unsafeUninitializedCapacity: objectSize) { $1 = objectSize }
    for chunk in 0..<geometry.count {
      let range = geometry.range(of: chunk)
      let checksum = try bytes.withUnsafeMutableBufferPointer { buffer throws(MobulaError) in
        try receive(
          into: UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: buffer[range])), socket)
      }
      if checksum != checksums[chunk] { wrong = chunk }
    }
    if let wrong {
      TransferCounters.addCorruptedChunk()
      return .failure(
        MobulaError(.corrupted, "Chunk \(wrong) of a small object came from \(socket.peer) with a wrong checksum."))
    }
    return .success(SmallObjects.Arrival(geometry: geometry, bytes: bytes))
  }

  private func receive(into memory: UnsafeMutableRawBufferPointer, _ socket: TransferSocket) throws(MobulaError)
    -> UInt32
  {
    var checksum: UInt32 = 0
    var start = 0
    while start < memory.count {
      let piece = UnsafeMutableRawBufferPointer(rebasing: memory[start..<min(start + traffic.piece, memory.count)])
      while traffic.wait(piece.count, upTo: timeouts.keepalive) != .admitted {
        if let end = state.withLock({ $0.end }) { throw end }
        try sending.withLock { _ throws(MobulaError) in try socket.send(.alive) }
      }
      try socket.receive(into: piece, Patience(stall: timeouts.stall), isSmall: true)
      TransferCounters.addReceived(piece.count)
      checksum = crc32c(UnsafeRawBufferPointer(piece), continuing: checksum)
      start += piece.count
    }
    return checksum
  }
}
