internal import Glibc
import MobulaCore

/// TCP sockets of a probe, blocking.
enum ProbeSockets {
  /// A socket that listens on `address`, and its port.
  static func listening(on address: String) throws(MobulaError) -> (SharedDescriptor, port: UInt16) {
    let listener = try make()
    let raw = listener.rawValue
    var name = try socketAddress(address, port: 0)
    try systemCall("The probe can't listen on \(address)") { withSocketAddress(&name) { bind(raw, $0, $1) } }
    try systemCall("The probe can't listen on \(address)") { listen(raw, 16) }
    try systemCall("The probe's port can't be asked for") {
      withSocketAddress(&name) { address, length in
        var length = length
        return getsockname(raw, address, &length)
      }
    }
    return (SharedDescriptor(listener), UInt16(bigEndian: name.sin_port))
  }

  static func accepted(by listener: SharedDescriptor) throws(MobulaError) -> SharedDescriptor {
    let raw = listener.rawValue
    return SharedDescriptor(OwnedDescriptor(owning: try systemCall("The probe can't accept") { accept(raw, nil, nil) }))
  }

  static func connected(to address: String, port: UInt16) throws(MobulaError) -> SharedDescriptor {
    let connection = try make()
    let raw = connection.rawValue
    var name = try socketAddress(address, port: port)
    try systemCall("The probe can't connect to \(address):\(port)") {
      withSocketAddress(&name) { connect(raw, $0, $1) }
    }
    return SharedDescriptor(connection)
  }

  private static func make() throws(MobulaError) -> OwnedDescriptor {
    let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    return OwnedDescriptor(owning: try systemCall("The probe can't have a socket") { socket(AF_INET, type, 0) })
  }

  private static func socketAddress(_ address: String, port: UInt16) throws(MobulaError) -> sockaddr_in {
    var result = sockaddr_in()
    result.sin_family = sa_family_t(AF_INET)
    result.sin_port = port.bigEndian
    guard inet_pton(AF_INET, address, &result.sin_addr) == 1 else {
      throw MobulaError(.invalidArgument, "\(address) is no IPv4 address.")
    }
    return result
  }

  private static func withSocketAddress(
    _ name: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> CInt
  ) -> CInt {
    withUnsafeMutablePointer(to: &name) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
  }
}
