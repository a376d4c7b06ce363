internal import Glibc
internal import MobulaCore
internal import Synchronization

/// A client's way to call its store: a connection that is made again, and shows again who it is, when the
/// store was started again meanwhile. One call at a time.
final class StoreCalls: Sendable {
  private let path: String
  private let client: StoreClientID
  private let secret: ClientSecret
  private let socket: Mutex<SharedDescriptor?>

  init(
    path: String, client: StoreClientID, secret: ClientSecret, socket: SharedDescriptor?
  ) {
    self.path = path
    self.client = client
    self.secret = secret
    self.socket = Mutex(socket)
  }

  /// Calls the store, waiting for it to come back if it has to. Blocks.
  ///
  /// - Throws: the store's error; `MobulaError` (`unavailable`) at the deadline.
  func call(
    _ operation: StoreProtocol.Operation, _ words: [UInt64], within patience: Duration = .seconds(30)
  ) throws(MobulaError) -> StoreProtocol.Answer {
    let deadline = ContinuousClock.now + patience
    var attempts = 0
    return try socket.withLock { socket throws(MobulaError) in
      while true {
        do throws(MobulaError) {
          if socket == nil { socket = try connect() }
          return try Self.exchange(operation, words, on: socket!, patience: patience)
        } catch {
          guard error.code == .connectionClosed || error.code == .unavailable && socket == nil else {
            // An answer that comes late would be taken for the next call's.
            if [.deadlineExceeded, .protocolViolation].contains(error.code) { socket = nil }
            throw error
          }
          socket = nil
          guard ContinuousClock.now < deadline else {
            throw MobulaError(
              .unavailable,
              "The store at \(path) did not answer within \(patience): is its host still running (`mobula status`)?")
          }
          attempts += 1
          if attempts % 50 == 0 {
            let directory = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[..<$0]) } ?? ""
            // Whoever runs a host without `mobula start` has ways of his own to start it again.
            if access(HostPaths.configuration(in: directory), F_OK) == 0,
              HostPaths.isSupervised(in: directory) == false
            {
              throw HostPaths.hasStopped(in: directory)
            }
          }
          usleep(5000)
        }
      }
    }
  }

  /// Calls the store once, and does not mind if it is away.
  func tryOnce(_ operation: StoreProtocol.Operation, _ words: [UInt64]) {
    socket.withLock { socket in
      guard let connected = try? socket ?? connect() else { return }
      _ = try? Self.exchange(operation, words, on: connected, patience: .seconds(1))
      socket = nil
    }
  }

  private func connect() throws(MobulaError) -> SharedDescriptor {
    let socket = try Self.connect(path)
    _ = try Self.exchange(.resume, [client.number, secret.high, secret.low], on: socket)
    return socket
  }

  static func connect(_ path: String) throws(MobulaError) -> SharedDescriptor {
    try UnixSocket.check(path)
    let socket = try UnixSocket.make(type: SOCK_SEQPACKET)
    try UnixSocket.setTimeout(StoreProtocol.patience, on: socket)
    let failure = UnixSocket.connect(socket, to: path)
    guard failure == 0 else {
      throw MobulaError(
        .unavailable,
        "No store answers at \(path) (\(errnoText(failure))): start `mobula host`, and share its folder with this process."
      )
    }
    return SharedDescriptor(socket)
  }

  static func exchange(
    _ operation: StoreProtocol.Operation, _ words: [UInt64], text: String = "", descriptors: [CInt] = [],
    on socket: SharedDescriptor, patience: Duration = StoreProtocol.patience
  ) throws(MobulaError) -> StoreProtocol.Answer {
    let closed = MobulaError(.connectionClosed, "The store closed the connection: try again, or start its host again.")
    let request = StoreProtocol.encode([StoreProtocol.magic, operation.rawValue] + words, text: text)
    guard PacketSocket.send(request, descriptors, to: socket.rawValue) == 0 else { throw closed }
    // It answers at its own deadline; this one is for a store that hangs.
    try UnixSocket.setTimeout(patience + StoreProtocol.patience, SO_RCVTIMEO, on: socket.rawValue)
    switch PacketSocket.receive(from: socket.rawValue, waits: true, largest: StoreProtocol.largestPacket) {
    case .end: throw closed
    case .failure(let number):
      if number == EAGAIN {
        throw MobulaError(.deadlineExceeded, "The store did not answer in time: is the machine out of memory?")
      }
      throw closed
    case .packet(let packet):
      guard let (answer, text) = StoreProtocol.decode(packet.bytes), let status = answer.first else {
        throw MobulaError(
          .protocolViolation, "The store answered with bytes that mean nothing: stop the host and report this.")
      }
      guard status == 0 else { throw StoreProtocol.error(text) }
      guard !packet.isIncomplete else {
        throw MobulaError(.full, "This process has no file descriptors left: raise its limit (ulimit -n).")
      }
      return .init(words: Array(answer.dropFirst()), descriptors: packet.descriptors)
    }
  }
}
