internal import Glibc
internal import MobulaCore

/// The file of a listening Unix socket: made way for before binding, removed at the end.
struct UnixSocketFile: Sendable {
  let path: String
  /// What was bound, so that a file that somebody else has put there since is left alone.
  private let device: dev_t
  private let inode: ino_t

  /// The longest path that fits into a socket's address, in bytes.
  static let pathLimit = 107

  /// - Throws: `MobulaError` (`invalidArgument`) for a path that no socket can have.
  static func check(_ path: String) throws(MobulaError) {
    guard 1...pathLimit ~= path.utf8.count else {
      throw MobulaError(
        .invalidArgument,
        "A Unix socket can't have the path \(path) of \(path.utf8.count) bytes: choose one of at most \(pathLimit).")
    }
  }

  /// Removes a socket that a dead process left behind.
  ///
  /// - Throws: `MobulaError` (`alreadyExists`) when somebody listens there, or when the file is no socket.
  static func clear(_ path: String) throws(MobulaError) {
    var information = stat()
    guard lstat(path, &information) == 0 else { return }
    guard information.st_mode & S_IFMT == S_IFSOCK else {
      throw MobulaError(.alreadyExists, "\(path) is there and no socket: remove it, or choose another path.")
    }
    guard try !isAnswering(path) else {
      throw MobulaError(.alreadyExists, "Another process listens at \(path): stop it, or choose another path.")
    }
    try systemCall("The old socket \(path) can't be removed") { unlink(path) }
  }

  private static func isAnswering(_ path: String) throws(MobulaError) -> Bool {
    // Non-blocking, since a listener with a full queue would hold us up.
    let type = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    let probe = OwnedDescriptor(
      owning: try systemCall("A socket can't be made") { socket(AF_UNIX, type, 0) })
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix(pathLimit)) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(probe.rawValue, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return result == 0 || currentErrno() != ECONNREFUSED
  }

  /// The socket that was just bound at `path`; `nil` when it is gone already.
  init?(bound path: String) {
    var information = stat()
    guard lstat(path, &information) == 0 else { return nil }
    self.path = path
    device = information.st_dev
    inode = information.st_ino
  }

  /// Removes the file if it is still the one that was bound.
  func remove() {
    var information = stat()
    guard lstat(path, &information) == 0, information.st_dev == device, information.st_ino == inode else { return }
    unlink(path)
  }
}
