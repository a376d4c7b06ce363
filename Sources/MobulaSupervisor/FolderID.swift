import Glibc
package import MobulaCore

extension FolderID {
  /// The folder at `path`, by the machine's start, the file system, and its number there; `nil` when none is there.
  package init?(of path: String) {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    // Two machines have different ones, and so do two starts of one.
    let boot = (try? readText("/proc/sys/kernel/random/boot_id"))?.filter(\.isHexDigit) ?? ""
    self.init(
      high: UInt64(boot.prefix(16), radix: 16) ?? 0,
      low: UInt64(truncatingIfNeeded: status.st_ino) ^ UInt64(truncatingIfNeeded: status.st_dev) << 48)
  }
}
