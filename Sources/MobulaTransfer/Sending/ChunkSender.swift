internal import Dispatch
internal import Glibc
internal import MobulaCore
internal import Synchronization

/// Serves one object to one receiver: the calling thread takes in requests and
/// acknowledgements, a thread beside it tells what is there and sends what was asked for.
final class ChunkSender: Sendable {
  private let socket: TransferSocket
  private let object: ObjectID
  private let geometry: ChunkGeometry
  /// Pins the object, until the connection is destroyed.
  private let source: Mutex<(any ChunkSource)?>
  private let offers: OfferBook
  private let wantsNews: Bool
  private let number: OfferStateMachine.ReceiverID
  private let gate: SendGate
  private let timeouts: TransferTimeouts
  private let traffic: TrafficFlow
  private let count: @Sendable (Int) -> Void
  private let machine: Mutex<SenderStateMachine>
  private let work = WorkSignal()
  private let senderEnded = DispatchSemaphore(value: 0)

  /// - Parameters:
  ///   - number: that of the connection.
  ///   - count: told the bytes that left, as they leave.
  init(
    _ socket: TransferSocket, source: any ChunkSource, offers: OfferBook, number: OfferStateMachine.ReceiverID,
    gate: SendGate, timeouts: TransferTimeouts, traffic: TrafficFlow, count: @escaping @Sendable (Int) -> Void
  ) {
    self.socket = socket
    self.source = Mutex(source)
    self.offers = offers
    self.number = number
    object = source.object
    geometry = source.geometry
    self.gate = gate
    self.timeouts = timeouts
    self.traffic = traffic
    self.count = count
    machine = Mutex(SenderStateMachine(geometry: source.geometry))
    wantsNews = offers.join(number, source) { [work] in work.signal() }
  }

  /// Returns when the receiver is done or gone, the connection is destroyed and the source released.
  func run() {
    detachThread(named: "send chunks") { [self] in
      ignoreBrokenPipes()
      if let source = source.withLock({ $0 }) { serve(source) }
      senderEnded.signal()
    }
    // Whatever ended the conversation, the end is the same: the receiver sees it and goes elsewhere.
    try? takeInMessages()
    offers.leave(number, object)
    let isPinned = machine.withLock { machine in
      machine.closed()
      return !machine.pinned.isEmpty
    }
    work.close()
    traffic.close()
    socket.shutDown()
    senderEnded.wait()
    // First the connection, then the source: the kernel has references to pages, not copies,
    // and sends each as it is when it leaves. Aborting drops what has not left. (A page that
    // a network card still holds may go out changed; its chunk's checksum says so.)
    if isPinned { socket.abort() } else { socket.close() }
    source.withLock { $0 = nil }
  }

  private func takeInMessages() throws(MobulaError) {
    while true {
      guard try socket.waitUntilReadable(timeouts.idle) else {
        if machine.withLock({ $0.idled() }) == .close { return }
        continue
      }
      switch try socket.receiveMessage(Patience(stall: timeouts.idle)) {
      case .request(let chunk): try machine.withLock { machine throws(MobulaError) in try machine.requested(chunk) }
      case .cancel(let chunk): machine.withLock { $0.cancelled(chunk) }
      case .acknowledge(let chunk):
        try machine.withLock { machine throws(MobulaError) in try machine.acknowledged(chunk) }
        offers.acknowledged(number, object, chunk)
      case .prioritize(let priority): traffic.raise(to: priority)
      case .alive: machine.withLock { $0.progressed() }
      default: return
      }
      work.signal()
    }
  }

  private func serve(_ source: any ChunkSource) {
    do throws(MobulaError) {
      try socket.send(
        .opened(objectSize: geometry.objectSize, chunkSize: geometry.chunkSize, wantsNews: wantsNews))
      let observation = source.observe { [work] in work.signal() }
      defer { withExtendedLifetime(observation) {} }
      var wake = WorkSignal.Wake.work
      while wake != .closed {
        if wake == .timeout { try socket.send(.alive) }
        while try step(source) {}
        if let failure = source.failure {
          // Told why, the receiver closes the connection.
          return try socket.send(.failed(failure.code, failure.message))
        }
        wake = work.wait(timeouts.keepalive)
      }
    } catch {
      // One that can't be told anything is cut off.
      socket.shutDown()
    }
  }

  /// Tells the receiver what is new, and sends one chunk, or waits until it may; false when nothing was to be sent.
  private func step(_ source: any ChunkSource) throws(MobulaError) -> Bool {
    let news = offers.take(number, object, verified: source.chunkMap, foreign: source.foreignChunks)
    if !news.isEmpty {
      machine.withLock { $0.tell(news) }
      try socket.send(TransferMessage.offers(news).flatMap(\.frame))
    }
    guard machine.withLock({ $0.hasRequest }) else { return false }
    // Waits before a chunk is chosen: meanwhile the receiver may want others, and hears that we are alive.
    let first = min(traffic.piece, geometry.chunkSize)
    guard try isAdmitted(first, continues: false) else {
      try socket.send(.alive)
      return true
    }
    return try gate.pass { () throws(MobulaError) in try sendNext(from: source, piece: first) } > 0
  }

  /// Sends the chunk whose turn it is; returns its bytes, 0 when it was cancelled.
  private func sendNext(from source: any ChunkSource, piece: Int) throws(MobulaError) -> Int {
    guard let (chunk, range) = machine.withLock({ $0.next() }) else { return 0 }
    try socket.send(
      .chunk(ChunkHeader(index: chunk, length: range.count, checksum: source.checksum(of: chunk))), more: true)
    var sent = 0
    while sent < range.count {
      let count = min(piece, range.count - sent)
      if sent > 0 { while try !isAdmitted(count, continues: true) {} }
      try socket.sendFile(
        source.descriptor, offset: source.offset + range.lowerBound + sent, count: count, progress: moved)
      sent += count
    }
    machine.withLock { $0.sent() }
    return sent
  }

  private func moved(_ bytes: Int) {
    machine.withLock { $0.progressed() }
    count(bytes)
  }

  /// Whether so many bytes may be sent; false after a while, to be asked again.
  private func isAdmitted(_ bytes: Int, continues: Bool) throws(MobulaError) -> Bool {
    switch traffic.wait(bytes, continues: continues, upTo: timeouts.keepalive) {
    case .admitted: return true
    case .timeout:
      machine.withLock { $0.progressed() }
      return false
    case .closed: throw MobulaError(.connectionClosed, "The connection to \(socket.peer) has ended.")
    }
  }
}

/// `sendfile` has no flag against SIGPIPE, which would end the process when a receiver goes away.
private func ignoreBrokenPipes() {
  var signals = sigset_t()
  sigemptyset(&signals)
  sigaddset(&signals, SIGPIPE)
  pthread_sigmask(SIG_BLOCK, &signals, nil)
}
