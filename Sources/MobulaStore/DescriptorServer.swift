internal import Glibc
internal import MobulaCore

/// Hands descriptors out for tickets at a Unix socket, on one thread for all clients.
final class DescriptorServer: Sendable {
  private enum Phase: Sendable {
    case idle
    /// Shutting this end of a socket pair down wakes the thread.
    case serving(wake: SharedDescriptor)
    case stopping
  }

  private let path: String
  private let largestCount: Int
  private let patience: Duration
  private let phase = Monitor(Phase.idle)

  /// - Parameters:
  ///   - largestCount: this many clients are served at a time; more of them wait until one has gone.
  ///   - patience: a client that sends no whole request for so long is dropped.
  /// - Throws: `MobulaError` (`invalidArgument`) for a path that no socket can have.
  init(
    path: String, largestCount: Int = 256, patience: Duration = DescriptorProtocol.patience
  ) throws(MobulaError) {
    try UnixSocket.check(path)
    self.path = path
    self.largestCount = largestCount
    self.patience = patience
  }

  // Doesn't wait: the thread itself may be the one that lets the last owner go.
  deinit { stop() }

  /// Binds the socket and serves it; nothing happens when it is served already.
  func start(_ redeem: @escaping @Sendable (DescriptorTicket) -> SharedDescriptor?) throws(MobulaError) {
    guard case .idle = phase.read({ $0 }) else { return }
    let listener = try UnixSocket.listen(at: path)
    let listening = listener.rawValue
    try systemCall("A socket can't be set up") { fcntl(listening, F_SETFL, O_NONBLOCK) }
    var pair: [CInt] = [-1, -1]
    try systemCall("A socket pair can't be made") {
      socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &pair)
    }
    phase.update { $0 = .serving(wake: SharedDescriptor(OwnedDescriptor(owning: pair[0]))) }
    // The thread knows the phase, not the server, so that a forgotten server can
    // go. It owns two plain numbers, since a closure can't give up what it captured.
    let (woken, phase, largestCount, patience) = (pair[1], phase, largestCount, patience)
    _ = listener.release()
    detachThread(named: "descriptors") {
      DescriptorLoop(
        listener: OwnedDescriptor(owning: listening), woken: OwnedDescriptor(owning: woken),
        largestCount: largestCount, patience: patience, redeem: redeem
      ).run()
      phase.update { $0 = .idle }
    }
  }

  /// Removes the socket, drops all connections and waits for the thread to end.
  func close() {
    stop()
    let end = ContinuousClock.now + DescriptorProtocol.patience
    _ = try? phase.wait(until: end) { phase in if case .idle = phase { () } else { nil } }
  }

  private func stop() {
    let wake = phase.update { phase -> SharedDescriptor? in
      guard case .serving(let wake) = phase else { return nil }
      phase = .stopping
      return wake
    }
    guard let wake else { return }
    unlink(path)
    shutdown(wake.rawValue, CInt(SHUT_RDWR))
  }
}
