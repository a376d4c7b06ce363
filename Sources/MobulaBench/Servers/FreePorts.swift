internal import Glibc
import MobulaCore

/// TCP ports that nobody has, drawn below the range from which the system gives ports to connections.
enum FreePorts {
  /// - Parameter distance: how far above each of them another one has to be free too.
  /// - Throws: `MobulaError` (`unavailable`) when there are not that many.
  static func draw(_ count: Int, alsoFree distance: Int = 0) throws(MobulaError) -> [Int] {
    var found: [Int] = []
    for port in (10_000..<22_000).shuffled() where found.count < count {
      if isFree(port), isFree(port + distance) { found.append(port) }
    }
    guard found.count == count else {
      throw MobulaError(.unavailable, "There are no \(count) free TCP ports from 10000 to 32000: free some.")
    }
    return found
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
