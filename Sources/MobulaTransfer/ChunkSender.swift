internal import Dispatch
internal import Glibc
internal import MobulaCore
internal import Synchronization

/// Serves one object to one receiver: the calling thread takes in requests and
/// acknowledgements, a thread beside it waits for chunks and sends them.
final class ChunkSender: Sendable {
  private let socket: TransferSocket
  private let geometry: ChunkGeometry
  /// Pins the object, until the connection is destroyed.
  private let source: Mutex<(any ChunkSource)?>
  private let timeouts: TransferTimeouts
  private let count: @Sendable (Int) -> Void
  private let machine: Mutex<SenderStateMachine>
  private let turn = Mailbox<Int>()
  private let senderEnded = DispatchSemaphore(value: 0)

  /// - Parameter count: told the bytes that left, as they leave.
  init(
    _ socket: TransferSocket, source: any ChunkSource, timeouts: TransferTimeouts,
    count: @escaping @Sendable (Int) -> Void
  ) {
    self.socket = socket
    self.source = Mutex(source)
    geometry = source.geometry
    self.timeouts = timeouts
    self.count = count
    machine = Mutex(SenderStateMachine(geometry: source.geometry))
  }

  /// Returns when the receiver is done or gone, the connection is destroyed and the source released.
  func run() {
    detachThread(named: "send chunks") { [self] in
      ignoreBrokenPipes()
      if let source = source.withLock({ $0 }) { sendChunks(from: source) }
      senderEnded.signal()
    }
    // Whatever ended the conversation, the end is the same: the receiver sees it and goes elsewhere.
    try? takeInMessages()
    let isPinned = machine.withLock { machine in
      machine.closed()
      return !machine.pinned.isEmpty
    }
    turn.close()
    socket.shutDown()
    senderEnded.wait()
    // First the connection, then the source: the kernel has references to pages, not copies,
    // and sends each as it is when it leaves. Aborting drops what has not left. (A page that
    // a network card still holds may go out changed; its chunk's checksum says so.)
    if isPinned { socket.abort() } else { socket.close() }
    source.withLock { $0 = nil }
  }

  private func takeInMessages() throws(MobulaError) {
    try socket.send(.opened(objectSize: geometry.objectSize, chunkSize: geometry.chunkSize))
    while true {
      guard try socket.waitUntilReadable(timeouts.idle) else {
        if machine.withLock({ $0.idled() }) == .close { return }
        continue
      }
      switch try socket.receiveMessage(Patience(stall: timeouts.idle)) {
      case .request(let chunk):
        let action = try machine.withLock { machine throws(MobulaError) in try machine.requested(chunk) }
        if case .prepare(let chunk) = action { turn.put(chunk) }
      case .acknowledge(let chunk):
        try machine.withLock { machine throws(MobulaError) in try machine.acknowledged(chunk) }
      default: return
      }
    }
  }

  private func sendChunks(from source: any ChunkSource) {
    while var chunk = turn.take() {
      while true {
        do throws(MobulaError) {
          guard try send(chunk, from: source) else { return }
        } catch {
          // Told why, the receiver closes the connection; one that can't be told anything is cut off.
          guard let message = machine.withLock({ $0.failed(error) }), (try? socket.send(message)) != nil else {
            return socket.shutDown()
          }
          return
        }
        guard let next = machine.withLock({ $0.sent() }) else { break }
        chunk = next
      }
    }
  }

  /// Sends the chunk whose turn it is, once the source has it; false when the connection is closed.
  private func send(_ chunk: Int, from source: any ChunkSource) throws(MobulaError) -> Bool {
    guard let checksum = try wait(for: chunk, of: source),
      let (header, range) = machine.withLock({ $0.ready(checksum: checksum) })
    else { return false }
    try socket.send(.chunk(header), more: true)
    try socket.sendFile(
      source.descriptor, offset: source.offset + range.lowerBound, count: range.count, progress: count)
    return true
  }

  /// Blocks until the source has the chunk; `nil` once the connection is closed.
  private func wait(for chunk: Int, of source: any ChunkSource) throws(MobulaError) -> UInt32? {
    while true {
      do throws(MobulaError) {
        return try source.waitForChunk(chunk, until: .now + timeouts.keepalive)
      } catch {
        guard error.code == .deadlineExceeded else { throw error }
        guard machine.withLock({ $0.waiting() }) else { return nil }
        try socket.send(.waiting)
      }
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
