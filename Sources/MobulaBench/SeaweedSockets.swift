import FoundationEssentials
internal import Glibc
import MobulaCore

/// SeaweedFS makes Unix sockets in `/tmp`, wherever its data is, and leaves them there when it is killed.
enum SeaweedSockets {
  /// Removes those of this user's that nobody listens at any more.
  static func removeStale() {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/tmp")) ?? []
    for name in names where name.hasPrefix("seaweedfs-") && name.hasSuffix(".sock") {
      let path = "/tmp/" + name
      var status = stat()
      guard lstat(path, &status) == 0, status.st_uid == getuid(), status.st_mode & S_IFMT == S_IFSOCK else { continue }
      if isRefused(path) { unlink(path) }
    }
  }

  private static func isRefused(_ path: String) -> Bool {
    let raw = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { return false }
    defer { close(raw) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let result = withUnsafeBytes(of: &address) {
      connect(raw, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
    return result == -1 && errno == ECONNREFUSED
  }
}
