internal import CMobula
internal import Glibc
internal import MobulaCore

/// Unix sockets of packets that carry descriptors.
enum PacketSocket {
  struct Packet: Sendable {
    var bytes: [UInt8]
    var descriptors: [SharedDescriptor]
    /// Whether more descriptors were attached: above four, or this process has no number left.
    var isIncomplete: Bool
  }

  enum Reception: Sendable {
    case packet(Packet)
    /// The peer is gone. A packet without bytes looks the same, and no message has none.
    case end
    /// An errno value.
    case failure(CInt)
  }

  /// Two connected sockets, close-on-exec, which the caller owns.
  static func pair() throws(MobulaError) -> (CInt, CInt) {
    var ends: [CInt] = [-1, -1]
    try systemCall("A socket pair can't be made") {
      socketpair(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends)
    }
    return (ends[0], ends[1])
  }

  static func isOne(_ descriptor: CInt) -> Bool {
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
    return option(SO_TYPE, of: descriptor) == CInt(SOCK_SEQPACKET.rawValue)
      && option(SO_DOMAIN, of: descriptor) == AF_UNIX
  }

  private static func option(_ name: CInt, of descriptor: CInt) -> CInt? {
    var value: CInt = 0
    var size = socklen_t(MemoryLayout<CInt>.size)
    return getsockopt(descriptor, SOL_SOCKET, name, &value, &size) == 0 ? value : nil
  }

  /// Sends a message with its descriptors, and returns 0 or an errno value.
  static func send(_ message: KeeperMessage, _ descriptors: [CInt] = [], to socket: CInt) -> CInt {
    send(message.encoded(), descriptors, to: socket)
  }

  static func send(_ bytes: [UInt8], _ descriptors: [CInt] = [], to socket: CInt) -> CInt {
    while mobula_send_packet(socket, descriptors, descriptors.count, bytes, bytes.count) < 0 {
      if errno != EINTR { return errno }
    }
    return 0
  }

  /// Receives a packet; one longer than `largest` is cut to a byte more than that.
  static func receive(
    from socket: CInt, waits: Bool, largest: Int = KeeperMessage.largestPacket
  ) -> Reception {
    var descriptors = [CInt](repeating: -1, count: Int(MOBULA_LARGEST_ATTACHMENT))
    var bytes = [UInt8](repeating: 0, count: largest + 1)
    var count = 0
    var incomplete: CInt = 0
    while true {
      let length = mobula_receive_packet(
        socket, &descriptors, &count, &incomplete, &bytes, bytes.count, waits ? 1 : 0)
      if length < 0, errno == EINTR { continue }
      if length < 0 { return .failure(errno) }
      // Owned before anything else, so that they are closed whatever the packet is.
      let owned = descriptors.prefix(count).map { SharedDescriptor(OwnedDescriptor(owning: $0)) }
      if length == 0 { return .end }
      return .packet(
        Packet(bytes: Array(bytes.prefix(length)), descriptors: owned, isIncomplete: incomplete != 0))
    }
  }
}
