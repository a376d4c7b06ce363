internal import MobulaCore
internal import MobulaWire
internal import Synchronization

/// One connection of an exchange, and the thread that listens to it.
final class ExchangeLane: Sendable {
  /// Bytes taken from the network at a time, at most: few enough to be in the cache still when they are checksummed.
  private static let piece = TrafficStateMachine.maximumPiece

  private struct State {
    var isClosed = false
    var socket: TransferSocket?
  }

  /// What the source was told.
  private struct Told {
    var isOpen = false
    /// When it was told last that we are alive, for all that the chunk takes.
    var alive = ContinuousClock.now
  }

  let number: ExchangeStateMachine.LaneID
  private let peer: TransferPeer
  private let timeouts: TransferTimeouts
  private let traffic: TrafficFlow
  private let state = Mutex(State())
  /// One message at a time.
  private let sending = Mutex(Told())
  private let outbox = Mutex<[UInt8]>([])

  init(
    _ number: ExchangeStateMachine.LaneID, to peer: TransferPeer, timeouts: TransferTimeouts, traffic: TrafficFlow
  ) {
    self.traffic = traffic
    self.number = number
    self.peer = peer
    self.timeouts = timeouts
  }

  /// Something to be said, after all that was to be said before.
  func enqueue(_ frame: [UInt8]) { outbox.withLock { $0 += frame } }

  /// Says what is to be said.
  func flush() {
    guard let socket = state.withLock({ $0.socket }) else { return }
    sending.withLock { _ in
      let frames = outbox.withLock { outbox in
        defer { outbox = [] }
        return outbox
      }
      if !frames.isEmpty { try? socket.send(frames) }
    }
  }

  /// The object is wanted more than before.
  func raise(to priority: TransferPriority) {
    traffic.raise(to: priority)
    guard let socket = state.withLock({ $0.socket }) else { return }
    // Before it was opened, the opening says it.
    sending.withLock { if $0.isOpen { try? socket.send(.prioritize(priority)) } }
  }

  /// The thread's calls fail from now on.
  func close() {
    let socket = state.withLock { state in
      state.isClosed = true
      return state.socket
    }
    socket?.shutDown()
    traffic.close()
  }

  /// Names the socket that `close` shuts down.
  private func adopt(_ socket: TransferSocket) throws(MobulaError) {
    try state.withLock { state throws(MobulaError) in
      if state.isClosed { throw MobulaError(.cancelled, "The connection was not wanted any more.") }
      state.socket = socket
    }
    if let size = traffic.receiveBuffer { socket.setReceiveBuffer(size) }
  }

  /// Receives until the lane is closed or its source fails.
  ///
  /// - Throws: `MobulaError`: `unavailable` (nobody listens), `unauthenticated`, `notFound` (the source has no
  ///   replica, or gave it up), `corrupted` (a wrong checksum), `connectionClosed`, `deadlineExceeded`, `mismatch`,
  ///   `protocolViolation`.
  func run(
    for exchange: ObjectExchange, own: TransferPeer, token: ClusterToken, tls: ClusterTLS?, hello: Hello
  ) throws(MobulaError) {
    let socket = try TransferSocket.open(to: peer, token: token, tls: tls, hello: hello, timeouts: timeouts) {
      socket throws(MobulaError) in try adopt(socket)
    }
    // Closed only when no other thread can be in a call: `adopt`ed sockets are shut down before.
    defer { socket.shutDown() }
    try sending.withLock { told throws(MobulaError) in
      try socket.send(.open(exchange.sink.object, bulk: own.bulk.description, priority: traffic.priority))
      told.isOpen = true
    }
    while true { try handle(socket.receiveMessage(Patience(stall: timeouts.stall)), socket, exchange) }
  }

  private func handle(
    _ message: TransferMessage, _ socket: TransferSocket, _ exchange: ObjectExchange
  ) throws(MobulaError) {
    switch message {
    case .opened(let objectSize, let chunkSize, let wantsNews):
      try exchange.ask { machine, now throws(MobulaError) in
        try machine.opened(number, objectSize: objectSize, chunkSize: chunkSize, wantsNews: wantsNews, now: now)
      }
    case .offer(let ranges):
      try exchange.act { machine, now throws(MobulaError) in try machine.offered(number, ranges, now: now) }
    case .alive: break
    case .chunk(let header):
      let arrival = try exchange.ask { machine, _ throws(MobulaError) in try machine.announced(number, header) }
      switch arrival {
      case .discard:
        try discard(header.length, socket)
        exchange.act { $0.discarded(number, now: $1) }
      case .receive: try receive(header, socket, exchange)
      }
    case .refused(let code, let text), .failed(let code, let text): throw MobulaError(code, text)
    case .whole, .absent:
      throw MobulaError(
        .protocolViolation, "\(socket.peer) sent a small object that was not wanted: run the same version on all hosts."
      )
    case .open, .openSmall, .want, .prioritize, .request, .cancel, .acknowledge, .done:
      throw MobulaError(
        .protocolViolation,
        "\(socket.peer) sent a receiver's message although it is the source: run the same version on all hosts.")
    }
  }

  /// Receives a chunk straight into its place, and commits it if its CRC32C is right.
  private func receive(
    _ header: ChunkHeader, _ socket: TransferSocket, _ exchange: ObjectExchange
  ) throws(MobulaError) {
    let sink = exchange.sink
    guard sink.claim(header.index) else {
      let error = MobulaError(.notFound, "The replica of object \(sink.object) was given up while it arrived.")
      exchange.giveUp(error)
      throw error
    }
    var checksum: UInt32 = 0
    do throws(MobulaError) {
      let memory = sink.memory(of: header.index)
      var start = 0
      while start < memory.count {
        let piece = UnsafeMutableRawBufferPointer(rebasing: memory[start..<min(start + traffic.piece, memory.count)])
        try admit(piece.count, socket)
        try socket.receive(into: piece, Patience(stall: timeouts.stall))
        TransferCounters.addReceived(piece.count)
        checksum = crc32c(UnsafeRawBufferPointer(piece), continuing: checksum)
        start += piece.count
      }
      guard checksum == header.checksum else {
        TransferCounters.addCorruptedChunk()
        throw MobulaError(
          .corrupted,
          "Chunk \(header.index) of object \(sink.object) came from \(socket.peer) with a wrong checksum: fetch it from another source and look at that host's memory."
        )
      }
    } catch {
      sink.abandon(header.index)
      throw error
    }
    sink.commit(header.index, checksum: checksum)
    exchange.arrived(number, from: peer.host, bytes: header.length)
  }

  /// Waits until so many bytes may be received; the source hears now and then that we are alive.
  private func admit(_ count: Int, _ socket: TransferSocket) throws(MobulaError) {
    while true {
      let answer = traffic.wait(count, upTo: timeouts.keepalive)
      try sending.withLock { told throws(MobulaError) in
        let now = ContinuousClock.now
        guard now - told.alive >= timeouts.keepalive else { return }
        told.alive = now
        try socket.send(.alive)
      }
      switch answer {
      case .admitted: return
      case .timeout: continue
      case .closed: throw MobulaError(.cancelled, "The connection was not wanted any more.")
      }
    }
  }

  /// Takes bytes that came too late from the network.
  private func discard(_ count: Int, _ socket: TransferSocket) throws(MobulaError) {
    var left = count
    try withUnsafeTemporaryAllocation(byteCount: Self.piece, alignment: 64) { buffer throws(MobulaError) in
      while left > 0 {
        let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(left, traffic.piece, buffer.count)])
        try admit(piece.count, socket)
        try socket.receive(into: piece, Patience(stall: timeouts.stall))
        TransferCounters.addReceived(piece.count)
        left -= piece.count
      }
    }
  }
}
