internal import Glibc
internal import MobulaCore

/// Blocking stream sockets of the Unix kind.
enum UnixSocket {
  /// A socket's address holds this many bytes of path and a zero.
  static let longestPath = 107

  static func check(_ path: String) throws(MobulaError) {
    guard 1...longestPath ~= path.utf8.count, !path.utf8.contains(0) else {
      throw MobulaError(
        .invalidArgument,
        "The socket path \"\(path)\" has \(path.utf8.count) bytes, but 1 to \(longestPath) are possible: choose a shorter folder."
      )
    }
  }

  static func make(type: __socket_type = SOCK_STREAM) throws(MobulaError) -> OwnedDescriptor {
    OwnedDescriptor(
      owning: try systemCall("A socket can't be made") {
        socket(AF_UNIX, CInt(type.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
      })
  }

  /// Connects, or returns the errno value.
  static func connect(_ socket: borrowing OwnedDescriptor, to path: String) -> CInt {
    let raw = socket.rawValue
    while withAddress(path, { Glibc.connect(raw, $0, $1) }) == -1 {
      if errno != EINTR { return errno }
    }
    return 0
  }

  /// A socket that listens at `path`, in place of one that a dead process left there.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when somebody answers there, else `inputOutput`.
  static func listen(at path: String, type: __socket_type = SOCK_STREAM) throws(MobulaError) -> OwnedDescriptor {
    let probe = try make(type: type)
    switch connect(probe, to: path) {
    case 0:
      throw MobulaError(.alreadyExists, "A store serves \(path) already: stop its host, or choose another folder.")
    case ECONNREFUSED: unlink(path)
    default: break
    }
    let listener = try make(type: type)
    let raw = listener.rawValue
    try systemCall("The store can't listen at \(path)") { withAddress(path) { bind(raw, $0, $1) } }
    // Everybody may connect, since the pods of a host run as different users: tickets
    // say who gets what, and a ticket is only sent over an authenticated connection.
    try systemCall("The mode of \(path) can't be set") { chmod(path, 0o666) }
    try systemCall("The store can't listen at \(path)") { Glibc.listen(raw, 128) }
    return listener
  }

  /// Bounds how long a send, a receive or a connect may block.
  static func setTimeout(_ timeout: Duration, on socket: borrowing OwnedDescriptor) throws(MobulaError) {
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] { try setTimeout(timeout, option, on: socket.rawValue) }
  }

  /// Bounds how long one kind of call may block, which fails with `EAGAIN` then.
  static func setTimeout(_ timeout: Duration, _ option: CInt, on socket: CInt) throws(MobulaError) {
    let (seconds, attoseconds) = timeout.components
    var value = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
    try systemCall("A socket's timeout can't be set") {
      setsockopt(socket, SOL_SOCKET, option, &value, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  /// - Precondition: `check(path)` did not throw.
  private static func withAddress<Result>(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
