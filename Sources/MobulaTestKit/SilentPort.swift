internal import Glibc
public import MobulaCore

/// A TCP port of 127.0.0.1 that is taken as long as this lives, and at which nobody listens before `listen`.
///
/// A port that was merely free a moment ago may be another test's by now.
public final class SilentPort: Sendable {
  private let socket: SharedDescriptor
  public let port: Int

  /// - Parameter port: which to take, though connections of who had it before may linger; any by default.
  /// - Throws: `MobulaError` (`inputOutput`) when it is taken, or no port is left.
  public init(port: Int = 0) throws(MobulaError) {
    let raw = try systemCall("A socket can't be made") {
      Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    }
    socket = SharedDescriptor(OwnedDescriptor(owning: raw))
    var on: CInt = 1
    if port != 0 { setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size)) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try systemCall("A port can't be taken") {
      withUnsafeBytes(of: &address) { bind(raw, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), length) }
    }
    try systemCall("A port can't be read") {
      withUnsafeMutableBytes(of: &address) {
        getsockname(raw, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
      }
    }
    self.port = Int(UInt16(bigEndian: address.sin_port))
  }

  /// Takes connections from now on, and serves each on a thread of its own; without `serve` nobody answers them.
  ///
  /// - Parameter name: of the threads.
  /// - Throws: `MobulaError` (`inputOutput`).
  public func listen(
    _ name: String, _ serve: (@Sendable (SilentConnection) -> Void)? = nil
  ) throws(MobulaError) {
    let socket = socket
    try systemCall("Port \(port) can't be listened at") { Glibc.listen(socket.rawValue, 64) }
    guard let serve else { return }
    detachThread(named: name) {
      while true {
        let connection = accept(socket.rawValue, nil, nil)
        guard connection >= 0 else { return }
        _ = fcntl(connection, F_SETFD, FD_CLOEXEC)
        let descriptor = SharedDescriptor(OwnedDescriptor(owning: connection))
        detachThread(named: name) { serve(SilentConnection(descriptor)) }
      }
    }
  }

  /// Ends the thread that accepts; the descriptor is closed when that has let go of it.
  public func stop() { shutdown(socket.rawValue, CInt(SHUT_RDWR)) }

  public var endpoint: Endpoint { .tcp(host: "127.0.0.1", port: port) }
}
