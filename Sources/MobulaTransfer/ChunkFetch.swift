public import MobulaCore
public import MobulaWire
internal import Synchronization

/// What one source gave.
public struct TransferReport: Hashable, Sendable {
  /// Bytes received, verified and committed, without headers.
  public var bytes: Int
  /// Chunks received, verified and committed.
  public var chunks: Int
  /// Whether the sink has every chunk. When not, others have claimed what is missing: wait
  /// for them, and fetch again should one of them fail.
  public var isComplete: Bool
}

/// Fetches the missing chunks of `sink` from one peer, until the sink is complete or others have
/// claimed the rest. Several fetches, from several peers, may fill one sink at once.
///
/// Chunks that were committed stay committed when it throws, and those it had claimed are given
/// back, so that the caller goes on with another source where this one stopped.
/// Cancelling the task ends it promptly, except while a host name is being looked up.
///
/// - Parameters:
///   - peer: the source's `TransferServer.endpoint`.
///   - host: who must answer there; a different host is refused.
///   - deadline: when to give up even though the source is alive; none by default.
/// - Throws: `MobulaError`: `unavailable` (nobody listens), `unauthenticated`, `notFound` (the source has no
///   replica, or gave it up), `corrupted` (a wrong checksum: don't use this source again),
///   `connectionClosed`, `deadlineExceeded`, `mismatch`, `protocolViolation`, `cancelled`.
public func fetchChunks(
  into sink: any ChunkSink, from peer: Endpoint, token: ClusterToken, hello: Hello, expecting host: HostID,
  timeouts: TransferTimeouts = .init(), deadline: ContinuousClock.Instant? = nil
) async throws -> TransferReport {
  let cancellation = FetchCancellation()
  return try await withTaskCancellationHandler {
    try await onThread(named: "fetch chunks") {
      let name = "Host \(host.short) at \(peer)"
      do throws(MobulaError) {
        let connectDeadline = min(ContinuousClock.now + timeouts.connect, deadline ?? .now + timeouts.connect)
        let socket = try TransferSocket.connect(to: peer, peer: name, by: connectDeadline) {
          socket throws(MobulaError) in try cancellation.adopt(socket)
        }
        defer { socket.close() }
        socket.setSendTimeout(timeouts.stall)
        let answered = try socket.authenticateAsClient(
          token: token, hello: hello, Patience(stall: timeouts.connect, deadline: connectDeadline))
        guard answered.host == host else {
          throw MobulaError(
            .mismatch,
            "At \(peer) host \(answered.host?.short ?? answered.name) answered instead of \(host.short): it may have restarted, so ask the head again."
          )
        }
        var fetch = ChunkFetch(
          sink: sink, socket: socket, patience: Patience(stall: timeouts.stall, deadline: deadline))
        return try fetch.run()
      } catch {
        throw cancellation.isCancelled
          ? MobulaError(.cancelled, "Fetching object \(sink.object) from \(name) was cancelled.") : error
      }
    }
  } onCancel: {
    cancellation.cancel()
  }
}

/// One connection's fetch, on the thread that it blocks.
struct ChunkFetch {
  /// Bytes taken from the network at a time: few enough to be in the cache still when they are checksummed.
  private static let piece = 262_144

  private let sink: any ChunkSink
  private let socket: TransferSocket
  private let patience: Patience
  private var machine: ReceiverStateMachine
  private var report = TransferReport(bytes: 0, chunks: 0, isComplete: false)
  /// Acknowledgements and requests that go out together before the next wait.
  private var outgoing: [UInt8] = []

  init(sink: any ChunkSink, socket: TransferSocket, patience: Patience) {
    self.sink = sink
    self.socket = socket
    self.patience = patience
    machine = ReceiverStateMachine(
      geometry: sink.geometry, window: ReceiverStateMachine.window(for: sink.geometry))
  }

  mutating func run() throws(MobulaError) -> TransferReport {
    defer { for chunk in machine.ended() { sink.abandon(chunk) } }
    outgoing = TransferMessage.open(sink.object).frame
    var step = ReceiverStateMachine.Step.receive
    while true {
      switch step {
      case .claim:
        switch machine.claimed(sink.claimChunk(from: 0)) {
        case .request(let chunk, let then):
          outgoing += TransferMessage.request(chunk).frame
          step = then
        case .proceed(let then): step = then
        }
      case .receive:
        try flush()
        step = try handle(socket.receiveMessage(patience))
      case .finish:
        outgoing += TransferMessage.done.frame
        // Everything is here and verified: a source that does not hear so loses nothing.
        try? flush()
        report.isComplete = sink.chunkMap.isComplete
        return report
      }
    }
  }

  private mutating func flush() throws(MobulaError) {
    try socket.send(outgoing)
    outgoing = []
  }

  private mutating func handle(_ message: TransferMessage) throws(MobulaError) -> ReceiverStateMachine.Step {
    switch message {
    case .opened(let objectSize, let chunkSize):
      return try machine.opened(objectSize: objectSize, chunkSize: chunkSize)
    case .waiting: return try machine.waiting()
    case .chunk(let header):
      _ = try machine.announced(header)
      return try arrived(header.index, checksum: receive(header.index))
    case .refused(let code, let text), .failed(_, let code, let text):
      throw MobulaError(code, text)
    case .open, .request, .acknowledge, .done:
      throw MobulaError(
        .protocolViolation,
        "\(socket.peer) sent a receiver's message although it is the source: run the same version on all hosts.")
    }
  }

  /// Receives a chunk straight into its place and returns its CRC32C.
  private func receive(_ chunk: Int) throws(MobulaError) -> UInt32 {
    let memory = sink.memory(of: chunk)
    var checksum: UInt32 = 0
    var start = 0
    while start < memory.count {
      let piece = UnsafeMutableRawBufferPointer(rebasing: memory[start..<min(start + Self.piece, memory.count)])
      try socket.receive(into: piece, patience)
      TransferCounters.addReceived(piece.count)
      checksum = crc32c(UnsafeRawBufferPointer(piece), continuing: checksum)
      start += piece.count
    }
    return checksum
  }

  private mutating func arrived(_ chunk: Int, checksum: UInt32) throws(MobulaError) -> ReceiverStateMachine.Step {
    switch machine.arrived(checksum: checksum) {
    case .commit(let chunk, let checksum, let then):
      sink.commit(chunk, checksum: checksum)
      report.bytes += sink.geometry.range(of: chunk).count
      report.chunks += 1
      outgoing += TransferMessage.acknowledge(chunk).frame
      return then
    case .reject(let chunk):
      TransferCounters.addCorruptedChunk()
      throw MobulaError(
        .corrupted,
        "Chunk \(chunk) of object \(sink.object) came from \(socket.peer) with a wrong checksum: fetch it from another source and look at that host's memory."
      )
    }
  }
}

/// Lets a task's cancellation reach the thread that works for it.
final class FetchCancellation: Sendable {
  private struct State {
    var isCancelled = false
    var socket: TransferSocket?
  }

  private let state = Mutex(State())

  var isCancelled: Bool { state.withLock { $0.isCancelled } }

  /// Names the socket that a cancellation shuts down.
  func adopt(_ socket: TransferSocket) throws(MobulaError) {
    try state.withLock { state throws(MobulaError) in
      if state.isCancelled { throw MobulaError(.cancelled, "The fetch was cancelled.") }
      state.socket = socket
    }
  }

  func cancel() {
    let socket = state.withLock { state in
      state.isCancelled = true
      return state.socket
    }
    socket?.shutDown()
  }
}
