internal import Glibc
public import MobulaCore

/// A TCP port of 127.0.0.1 that is taken as long as this lives, and at which nobody listens.
///
/// A port that was merely free a moment ago may be another test's by now.
public final class SilentPort: Sendable {
  private let socket: OwnedDescriptor
  public let port: Int

  /// - Throws: `MobulaError` (`inputOutput`) when no port is left.
  public init() throws(MobulaError) {
    let raw = try systemCall("A socket can't be made") {
      Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    }
    socket = OwnedDescriptor(owning: raw)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
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
    port = Int(UInt16(bigEndian: address.sin_port))
  }

  public var endpoint: Endpoint { .tcp(host: "127.0.0.1", port: port) }
}
