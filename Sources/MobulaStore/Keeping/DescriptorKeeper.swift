internal import Glibc
public import MobulaCore
internal import Synchronization

/// Keeps duplicates of a store's descriptors in another process, so that its shared memory outlives it.
///
/// The supervisor has one for each store that it starts again when it dies. What a store keeps over a
/// `KeeperConnection` can be recovered by the next one.
public final class DescriptorKeeper: Sendable {
  private struct State: Sendable {
    var machine: DescriptorKeeperStateMachine<SharedDescriptor>
    var line: KeeperLine?
    var isClosed = false
  }

  /// What the keeper shares with its threads. They don't know the keeper itself, so that a forgotten one can go.
  private final class Shared: Sendable {
    let state: Mutex<State>
    let onProblem: (@Sendable (MobulaError) -> Void)?

    init(_ state: State, _ onProblem: (@Sendable (MobulaError) -> Void)?) {
      self.state = Mutex(state)
      self.onProblem = onProblem
    }
  }

  /// The most keys at a time.
  public static let largestEntryCount = 100_000
  /// So many descriptors are left for whatever else the process does.
  static let spareDescriptorCount = 128
  /// For a store to read the next part of a list, and for `close`.
  private static let patience = Duration.seconds(10)

  private let shared: Shared

  /// Keeps nothing yet. `raiseDescriptorLimit` comes first: all but 128 of the descriptors that the process
  /// may have now are there to be kept.
  ///
  /// - Parameter onProblem: called on a thread of the keeper when something could not be kept (`full`),
  ///   or a store was disconnected for what it sent (`protocolViolation`).
  public convenience init(onProblem: (@Sendable (MobulaError) -> Void)? = nil) {
    self.init(
      largestEntryCount: Self.largestEntryCount,
      largestDescriptorCount: max(0, descriptorLimit() - Self.spareDescriptorCount), onProblem: onProblem)
  }

  init(largestEntryCount: Int, largestDescriptorCount: Int, onProblem: (@Sendable (MobulaError) -> Void)? = nil) {
    let machine = DescriptorKeeperStateMachine<SharedDescriptor>(
      largestEntryCount: largestEntryCount, largestDescriptorCount: largestDescriptorCount)
    shared = Shared(State(machine: machine), onProblem)
  }

  // Doesn't wait for the threads.
  deinit { _ = stop() }

  /// The socket for the next store process, to be closed here once that process has been started with it.
  ///
  /// A connection before it takes in what was sent already, and nothing more; the new one is served then.
  ///
  /// - Throws: `MobulaError`: `cancelled` after `close`, else `inputOutput`, as when no descriptor is left.
  public func newConnection() throws(MobulaError) -> OwnedDescriptor {
    let (ours, theirs) = try PacketSocket.pair()
    let childsEnd = OwnedDescriptor(owning: theirs)
    let line = KeeperLine(SharedDescriptor(OwnedDescriptor(owning: ours)))
    try UnixSocket.setTimeout(Self.patience, SO_SNDTIMEO, on: ours)
    let (isClosed, former) = shared.state.withLock { state in
      let former = state.line
      if !state.isClosed { state.line = line }
      return (state.isClosed, former)
    }
    guard !isClosed else {
      throw MobulaError(.cancelled, "The keeper of descriptors is closed: make a new one.")
    }
    former?.stop()
    let (shared, formerEnd) = (shared, former?.hasEnded)
    detachThread(named: "keeper") {
      formerEnd?.waitUntilTrue()
      Self.serve(line, shared)
      shared.state.withLock { state in
        if state.line === line { state.line = nil }
      }
      line.hasEnded.update { $0 = true }
    }
    return childsEnd
  }

  /// How many keys there are.
  public var entryCount: Int { shared.state.withLock { $0.machine.entryCount } }

  /// Closes the connection and everything that is kept, and waits for the keeper's thread to end.
  public func close() {
    guard let line = stop() else { return }
    let end = ContinuousClock.now + Self.patience
    _ = try? line.hasEnded.wait(until: end) { $0 ? () : nil }
  }

  private func stop() -> KeeperLine? {
    let line = shared.state.withLock { state in
      state.isClosed = true
      state.machine.close()
      return state.line
    }
    line?.stop()
    return line
  }

  /// Reads until nothing more can come. After a failed send as well: a store may have died before it read
  /// its list, and after it sent something to keep.
  private static func serve(_ line: KeeperLine, _ shared: Shared) {
    defer { line.stop() }
    let socket = line.socket.rawValue
    var wasReset = false
    while true {
      switch PacketSocket.receive(from: socket, waits: true) {
      case .end: return
      // Said once, before what is still to be read, when the store died with something unread.
      case .failure(ECONNRESET) where !wasReset: wasReset = true
      case .failure: return
      case .packet(let packet):
        let action = shared.state.withLock { state in
          state.machine.received(packet.bytes, packet.descriptors, isIncomplete: packet.isIncomplete)
        }
        switch action {
        case .nothing: break
        case .report(let problem): shared.onProblem?(problem)
        case .answer(let entries): if !answer(entries, to: socket) { line.stop() }
        case .hangUp(let problem):
          if let problem { shared.onProblem?(problem) }
          return
        }
      }
    }
  }

  private static func answer(
    _ entries: [DescriptorKeeperStateMachine<SharedDescriptor>.Entry], to socket: CInt
  ) -> Bool {
    for entry in entries {
      let message = KeeperMessage.entry(key: entry.key, count: entry.descriptors.count)
      let number = withExtendedLifetime(entry) {
        PacketSocket.send(message, entry.descriptors.map(\.rawValue), to: socket)
      }
      guard number == 0 else { return false }
    }
    return PacketSocket.send(.end(count: entries.count), to: socket) == 0
  }
}

/// The keeper's end of one connection.
private final class KeeperLine: Sendable {
  let socket: SharedDescriptor
  let hasEnded = Monitor(false)

  init(_ socket: SharedDescriptor) { self.socket = socket }

  /// Nothing more is sent either way; what was sent before can still be read.
  func stop() { shutdown(socket.rawValue, CInt(SHUT_RDWR)) }
}

extension Monitor<Bool> {
  fileprivate func waitUntilTrue() {
    while (try? wait(until: .now + .seconds(3600), for: { $0 ? true : nil })) != true {}
  }
}
