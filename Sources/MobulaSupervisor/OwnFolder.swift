import Glibc
package import MobulaCore

/// Folders that this user alone writes to.
package enum OwnFolder {
  /// Makes it, and those around it, as far as they aren't there.
  ///
  /// - Parameter flag: the option that chooses another.
  /// - Throws: `MobulaError`: `inputOutput` when it can't be made, `denied` when it is another user's or others may write
  ///   to it, `invalidArgument` when it is no folder.
  package static func make(_ path: String, _ flag: String) throws(MobulaError) {
    guard path.hasPrefix("/") else {
      throw MobulaError(
        .inputOutput, "The current folder is gone: change to another, or give a whole path with \(flag).")
    }
    var partial = ""
    for part in path.split(separator: "/") {
      partial += "/" + part
      if mkdir(partial, 0o700) == 0 { continue }
      // Of a folder that is there it doesn't matter why it can't be made.
      let number = currentErrno()
      if access(partial, F_OK) == 0 { continue }
      throw MobulaError.system("The folder \(path) can't be made (choose one with \(flag))", number: number)
    }
    var status = stat()
    try systemCall("The folder \(path) can't be looked at") { stat(path, &status) }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw MobulaError(.invalidArgument, "\(path) is no folder: choose another with \(flag).")
    }
    var root = stat()
    guard stat("/", &root) == 0, root.st_ino != status.st_ino || root.st_dev != status.st_dev else {
      throw MobulaError(.invalidArgument, "Nothing is kept in / itself: choose a folder in it with \(flag).")
    }
    guard status.st_uid == getuid() else {
      throw MobulaError(.denied, "The folder \(path) belongs to another user: choose one with \(flag).")
    }
    guard status.st_mode & 0o022 == 0 else {
      throw MobulaError(
        .denied,
        "Others may write to the folder \(path) (mode \(String(status.st_mode & 0o7777, radix: 8))): run `chmod go-w \(path)`, or choose another with \(flag)."
      )
    }
  }
}
