internal import Glibc
internal import MobulaCore

/// The TCP ports of one SeaweedFS. Each of its services listens on a second one, 10000 above, for gRPC.
struct SeaweedPorts: Sendable {
  let master: Int
  let volume: Int
  let filer: Int
  let s3: Int
  let metrics: Int

  /// Free ones, drawn below the range from which the system gives ports to connections.
  ///
  /// Another process may take one before SeaweedFS does: then it does not start, and others are drawn.
  /// - Throws: `MobulaError` (`unavailable`) when there are none.
  static func free() throws(MobulaError) -> SeaweedPorts {
    var found: [Int] = []
    for port in (10_000..<22_000).shuffled() where found.count < 5 {
      if isFree(port), isFree(port + 10_000) { found.append(port) }
    }
    guard found.count == 5 else {
      throw MobulaError(.unavailable, "There are no free TCP ports from 10000 to 32000 for SeaweedFS: free some.")
    }
    return SeaweedPorts(master: found[0], volume: found[1], filer: found[2], s3: found[3], metrics: found[4])
  }

  private static func isFree(_ port: Int) -> Bool {
    let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { return false }
    defer { close(raw) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(port).bigEndian
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    } == 0
  }
}
