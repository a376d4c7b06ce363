import FoundationEssentials
import Glibc
import MobulaCore

/// What this machine is and has.
enum Machine {
  static func cpus() -> Int { max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN))) }

  static func memory() -> ByteCount { ByteCount(sysconf(CInt(_SC_PHYS_PAGES)) * pageSize) }

  static func name() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard gethostname(&buffer, buffer.count - 1) == 0 else { return "host" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// This machine's address on the way to `endpoint`, found by connecting a datagram socket, which sends nothing.
  ///
  /// - Throws: `MobulaError` (`unavailable`) when there is no way.
  static func address(towards endpoint: Endpoint) throws -> String {
    guard case .tcp(let host, let port) = endpoint else { return "127.0.0.1" }
    var hints = addrinfo()
    hints.ai_family = AF_INET
    hints.ai_socktype = CInt(SOCK_DGRAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, "\(port)", &hints, &list) == 0, let found = list else {
      throw MobulaError(.unavailable, "\(host) is not a known name or IPv4 address: check --address.")
    }
    defer { freeaddrinfo(list) }
    let probe = OwnedDescriptor(
      owning: try systemCall("A socket can't be made") {
        socket(AF_INET, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
      })
    let raw = probe.rawValue
    guard connect(raw, found.pointee.ai_addr, found.pointee.ai_addrlen) == 0 else {
      throw MobulaError(
        .unavailable,
        "There is no way from here to \(host) (\(errnoText(currentErrno()))): check --address and the network.")
    }
    var own = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try systemCall("This machine's address can't be found") {
      withUnsafeMutableBytes(of: &own) {
        getsockname(raw, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
      }
    }
    var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
    inet_ntop(AF_INET, &own.sin_addr, &text, socklen_t(text.count))
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Numbers that grow with every start.
enum Incarnation {
  /// Milliseconds since 1970.
  static func now() -> UInt64 { UInt64(Date().timeIntervalSince1970 * 1000) }
}

/// A small text file, whole.
func readText(_ path: String) throws -> String {
  String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
}
