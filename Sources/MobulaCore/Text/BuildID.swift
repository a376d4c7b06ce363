internal import Crypto
internal import Glibc

/// What tells whether a file is still the one that was looked at.
public struct FileStamp: Hashable, Sendable {
  private var device: UInt64
  private var inode: UInt64
  private var size: Int
  private var modified: Int

  /// - Throws: `MobulaError` (`notFound`) when there is no such file.
  public init(of path: String) throws(MobulaError) {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw MobulaError(
        .notFound,
        "\(path) can't be found here (\(errnoText(currentErrno()))): install the program at the same path on every host."
      )
    }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    size = Int(status.st_size)
    modified = status.st_mtim.tv_sec &* 1_000_000_000 &+ status.st_mtim.tv_nsec
  }
}

/// Which build an executable is.
public enum BuildID {
  /// SHA-256 of the file, as 64 hexadecimal digits. Blocks for as long as reading it takes.
  public static func compute(_ path: String) throws(MobulaError) -> String {
    let file = OwnedDescriptor(
      owning: try systemCall("\(path) can't be read") { open(path, O_RDONLY | O_CLOEXEC) })
    let raw = file.rawValue
    var hash = SHA256()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
    defer { buffer.deallocate() }
    while true {
      let count = try systemCall("\(path) can't be read") { read(raw, buffer.baseAddress, buffer.count) }
      if count == 0 { return hexadecimal(hash.finalize()) }
      hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
  }
}
