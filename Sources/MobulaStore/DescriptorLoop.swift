internal import CMobula
internal import Glibc
internal import MobulaCore

/// The descriptor server's thread: waits for all connections at once, and
/// never for one of them.
struct DescriptorLoop: ~Copyable {
  private struct Connection {
    let socket: SharedDescriptor
    var request: [UInt8] = []
    var deadline: ContinuousClock.Instant

    /// Reads what has come, and answers a whole request. False when the connection is to be closed.
    mutating func serve(
      now: ContinuousClock.Instant, patience: Duration, _ redeem: (DescriptorTicket) -> SharedDescriptor?
    ) -> Bool {
      let socket = socket.rawValue
      var bytes = [UInt8](repeating: 0, count: DescriptorProtocol.requestSize - request.count)
      let count = recv(socket, &bytes, bytes.count, 0)
      guard count > 0 else { return count < 0 && (errno == EAGAIN || errno == EINTR) && now < deadline }
      request += bytes.prefix(count)
      guard request.count == DescriptorProtocol.requestSize else { return now < deadline }
      guard let ticket = DescriptorProtocol.ticket(in: request) else {
        answer(.malformed, to: socket)
        return false
      }
      guard let descriptor = redeem(ticket) else {
        answer(.refused, to: socket)
        return false
      }
      request.removeAll(keepingCapacity: true)
      deadline = now + patience
      var granted = DescriptorProtocol.Answer.granted.rawValue
      // A client that doesn't read its answers fills its socket, and is dropped for it.
      return mobula_send_descriptor(socket, descriptor.rawValue, &granted, 1) == 1
    }

    private func answer(_ answer: DescriptorProtocol.Answer, to socket: CInt) {
      var byte = answer.rawValue
      send(socket, &byte, 1, CInt(MSG_NOSIGNAL))
    }
  }

  private let listener: OwnedDescriptor
  private let woken: OwnedDescriptor
  private let largestCount: Int
  private let patience: Duration
  private let redeem: (DescriptorTicket) -> SharedDescriptor?
  private var connections: [Connection] = []

  init(
    listener: consuming OwnedDescriptor, woken: consuming OwnedDescriptor, largestCount: Int,
    patience: Duration, redeem: @escaping (DescriptorTicket) -> SharedDescriptor?
  ) {
    self.listener = listener
    self.woken = woken
    self.largestCount = largestCount
    self.patience = patience
    self.redeem = redeem
  }

  /// Serves until the other end of `woken` is shut down; all sockets are closed then.
  consuming func run() {
    while true {
      let accepts = connections.count < largestCount
      var polled = [pollfd(fd: woken.rawValue, events: Int16(POLLIN), revents: 0)]
      // A negative descriptor is passed over.
      polled.append(pollfd(fd: accepts ? listener.rawValue : -1, events: Int16(POLLIN), revents: 0))
      polled += connections.map { pollfd(fd: $0.socket.rawValue, events: Int16(POLLIN), revents: 0) }
      let ready = poll(&polled, nfds_t(polled.count), timeout())
      if ready < 0, errno != EINTR { usleep(10_000) }
      guard ready >= 0 else { continue }
      if polled[0].revents != 0 { return }
      let now = ContinuousClock.now
      for index in connections.indices.reversed() {
        let isReady = polled[index + 2].revents != 0
        let stays =
          isReady ? connections[index].serve(now: now, patience: patience, redeem) : now < connections[index].deadline
        if !stays { connections.remove(at: index) }
      }
      if polled[1].revents != 0 { accept(now: now) }
    }
  }

  /// Milliseconds until the first client is to be dropped; -1 without clients.
  private func timeout() -> CInt {
    guard let first = connections.map(\.deadline).min() else { return -1 }
    let left = ContinuousClock.now.duration(to: first)
    return left <= .zero ? 0 : CInt(min(left, patience) / .milliseconds(1)) + 1
  }

  private mutating func accept(now: ContinuousClock.Instant) {
    let raw = Glibc.accept(listener.rawValue, nil, nil)
    guard raw >= 0 else {
      // No descriptor is left: the client waits, and so does this thread, or it would spin.
      if errno == EMFILE || errno == ENFILE { usleep(10_000) }
      return
    }
    let socket = SharedDescriptor(OwnedDescriptor(owning: raw))
    _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
    _ = fcntl(raw, F_SETFL, O_NONBLOCK)
    connections.append(Connection(socket: socket, deadline: now + patience))
  }
}
