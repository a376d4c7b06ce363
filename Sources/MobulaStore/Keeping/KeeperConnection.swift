internal import Glibc
public import MobulaCore
internal import Synchronization

/// A store's connection to the keeper of its descriptors (`DescriptorKeeper`), which its supervisor gave it.
///
/// Calls block, each at most as long as it says, and may come from several threads.
public final class KeeperConnection: Sendable {
  /// Names the descriptor of the connection to a process that was started with one.
  public static let environmentVariable = "MOBULA_KEEPER_FD"
  /// For one message to find room in the socket.
  private static let sendPatience = Duration.seconds(5)
  /// For the whole of `recover`.
  private static let recoverPatience = Duration.seconds(10)

  private let socket: SharedDescriptor
  private let recoverPatience: Duration
  /// Held while an answer is read, which one thread at a time can do.
  private let reading = Mutex(())

  /// Takes over a descriptor that this process was started with, and makes it close-on-exec.
  ///
  /// - Returns: `nil` when it is no socket of the keeper's kind; it stays as it is then.
  public convenience init?(inherited descriptor: CInt) {
    self.init(
      inherited: descriptor, sendPatience: Self.sendPatience, recoverPatience: Self.recoverPatience)
  }

  init?(inherited descriptor: CInt, sendPatience: Duration, recoverPatience: Duration) {
    guard PacketSocket.isOne(descriptor), fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0,
      (try? UnixSocket.setTimeout(sendPatience, SO_SNDTIMEO, on: descriptor)) != nil
    else { return nil }
    socket = SharedDescriptor(OwnedDescriptor(owning: descriptor))
    self.recoverPatience = recoverPatience
  }

  /// The connection that the environment names; `nil` without one.
  ///
  /// To be called once, before other threads are started: the variable is removed, so that nobody takes over
  /// the descriptor again and no child looks for it.
  public static func fromEnvironment() -> KeeperConnection? {
    guard let text = getenv(environmentVariable).map({ String(cString: $0) }) else { return nil }
    unsetenv(environmentVariable)
    guard let descriptor = CInt(text), descriptor > 2 else { return nil }
    return KeeperConnection(inherited: descriptor)
  }

  /// Has duplicates of 1 to 4 descriptors kept, in place of those that have this key.
  ///
  /// Once it returns they outlive this process, unless the keeper has no room. The same descriptors
  /// can be closed then. Blocks at most 5 seconds.
  ///
  /// - Parameter key: 1 to 200 bytes.
  /// - Throws: `MobulaError`: `invalidArgument`; `unavailable` when the keeper reads nothing;
  ///   `connectionClosed` when it is gone; else `inputOutput`.
  public func keep(_ key: String, _ descriptors: [CInt]) throws(MobulaError) {
    guard KeeperMessage.isKey(key) else {
      throw MobulaError(
        .invalidArgument,
        "The key of kept descriptors has \(key.utf8.count) bytes: choose one of 1 to \(KeeperMessage.longestKey).")
    }
    guard KeeperMessage.descriptorCounts ~= descriptors.count else {
      throw MobulaError(
        .invalidArgument, "\(descriptors.count) descriptors can't be kept under one key: give 1 to 4.")
    }
    try send(.keep(key: key, count: descriptors.count), descriptors)
  }

  /// Has the descriptors of a key closed; nothing happens when there are none. Blocks at most 5 seconds.
  ///
  /// - Returns: false when the keeper could not be told, so that it may still have them.
  @discardableResult
  public func drop(_ key: String) -> Bool {
    guard KeeperMessage.isKey(key) else { return true }
    do {
      try send(.drop(key: key))
      return true
    } catch {
      return false
    }
  }

  /// Everything that is kept, oldest first, as descriptors of this process, close-on-exec.
  ///
  /// Whatever was sent on this connection before is in it. Blocks at most 10 seconds.
  ///
  /// - Throws: `MobulaError`: `full` when this process can't have so many descriptors; and, with the
  ///   connection closed, `deadlineExceeded`, `protocolViolation`, `connectionClosed`, `inputOutput`.
  public func recover() throws(MobulaError) -> [(key: String, descriptors: [SharedDescriptor])] {
    try reading.withLock { (_) throws(MobulaError) in
      let deadline = ContinuousClock.now + recoverPatience
      do throws(MobulaError) {
        try send(.list)
        return try receiveList(until: deadline)
      } catch {
        // The rest of the answer would be taken for that of the next call.
        if error.code != .full { shutdown(socket.rawValue, CInt(SHUT_RDWR)) }
        throw error
      }
    }
  }

  private func receiveList(
    until deadline: ContinuousClock.Instant
  ) throws(MobulaError) -> [(key: String, descriptors: [SharedDescriptor])] {
    var entries: [(key: String, descriptors: [SharedDescriptor])] = []
    var count = 0
    var isFull = false
    while true {
      let packet = try receive(until: deadline)
      switch KeeperMessage(packet.bytes) {
      case .entry(let key, let expected) where packet.descriptors.count == expected && !packet.isIncomplete:
        count += 1
        if !isFull { entries.append((key, packet.descriptors)) }
      case .entry(_, let expected) where packet.descriptors.count < expected && packet.isIncomplete:
        count += 1
        isFull = true
        entries = []
      case .end(count) where packet.descriptors.isEmpty && isFull:
        throw MobulaError(
          .full,
          "This process can't have the descriptors of \(count) kept entries: raise its limit (ulimit -n).")
      case .end(count) where packet.descriptors.isEmpty: return entries
      default:
        throw MobulaError(
          .protocolViolation,
          "The keeper of descriptors sent what is no part of a list: start the host again, with the same version throughout."
        )
      }
    }
  }

  private func receive(until deadline: ContinuousClock.Instant) throws(MobulaError) -> PacketSocket.Packet {
    while true {
      switch PacketSocket.receive(from: socket.rawValue, waits: false) {
      case .packet(let packet): return packet
      case .end, .failure(ECONNRESET): throw closed
      case .failure(EAGAIN): break
      case .failure(let number): throw MobulaError.system("The keeper of descriptors can't be read", number: number)
      }
      let left = ContinuousClock.now.duration(to: deadline)
      guard left > .zero else {
        throw MobulaError(
          .deadlineExceeded,
          "The keeper of descriptors did not send all it has within \(recoverPatience): start the host again.")
      }
      var polled = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
      _ = poll(&polled, 1, CInt(left / .milliseconds(1)) + 1)
    }
  }

  private func send(_ message: KeeperMessage, _ descriptors: [CInt] = []) throws(MobulaError) {
    switch PacketSocket.send(message, descriptors, to: socket.rawValue) {
    case 0: break
    case EPIPE, ECONNRESET, ENOTCONN: throw closed
    case EAGAIN:
      throw MobulaError(
        .unavailable, "The keeper of descriptors did not read a message in time: try again, or start the host again.")
    case ETOOMANYREFS:
      throw MobulaError(
        .unavailable, "Too many descriptors of this user are on their way: try again later, or raise ulimit -n.")
    case let number: throw MobulaError.system("The keeper of descriptors can't be reached", number: number)
    }
  }

  private var closed: MobulaError {
    MobulaError(.connectionClosed, "The keeper of descriptors has closed the connection: start the host again.")
  }
}
