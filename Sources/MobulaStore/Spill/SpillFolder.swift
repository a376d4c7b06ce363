internal import CMobula
internal import Glibc
public import MobulaCore

/// One folder of spill files, and the lock that shows others that this instance lives.
///
/// Files are reached through the folder's descriptor, whatever becomes of its path.
final class SpillFolder: Sendable {
  /// As it was given, for messages.
  let path: String
  let instance: SpillInstance
  private let directory: OwnedDescriptor
  /// Held to the end; the system gives it back when the process dies, however it dies.
  private let lock: OwnedDescriptor
  private let device: dev_t
  private let inode: ino_t

  /// Large writes are cut into pieces of this many bytes.
  private static let pieceSize = 8_388_608

  /// Makes the folder with its parents (mode 0700) where they are missing, locks it for the
  /// instance, and removes what the instance was writing when it died.
  ///
  /// - Parameter others: folders that it must not be the same as.
  /// - Throws: `MobulaError`: `invalidArgument` for a path that can't be used or one of `others`, `denied` when
  ///   the folder is another user's or others may write there, `alreadyExists` when the instance is alive in
  ///   another process (after a second), else `inputOutput`.
  init(path: String, instance: SpillInstance, others: [SpillFolder]) throws(MobulaError) {
    try Self.make(path)
    let directory = OwnedDescriptor(
      owning: try systemCall("The spill folder \(path) can't be opened") {
        Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
      })
    let raw = directory.rawValue
    var status = stat()
    try systemCall("The spill folder \(path) can't be looked at") { fstat(raw, &status) }
    try Self.checkRights(status, path)
    guard !others.contains(where: { $0.device == status.st_dev && $0.inode == status.st_ino }) else {
      throw MobulaError(.invalidArgument, "The spill folder \(path) is given twice: leave one out.")
    }
    try systemCall("The spill folder \(path) can't be written into") {
      faccessat(raw, ".", W_OK | X_OK, AT_EACCESS)
    }
    self.lock = try Self.waitForLock(of: instance, in: directory, path: path)
    self.directory = directory
    self.path = path
    self.instance = instance
    (device, inode) = (status.st_dev, status.st_ino)
    for case .temporary(let object, instance, let number) in names() {
      remove(.temporary(object, instance, number))
    }
  }

  private static func checkRights(_ status: stat, _ path: String) throws(MobulaError) {
    guard status.st_uid == geteuid() else {
      throw MobulaError(.denied, "The spill folder \(path) belongs to another user: choose one of your own.")
    }
    guard status.st_mode & 0o022 == 0 else {
      throw MobulaError(
        .denied, "Other users may write into the spill folder \(path): `chmod 700` it, or choose another.")
    }
  }

  /// Whether a folder can be spilled into, or be made; nothing is made by this.
  ///
  /// - Throws: `MobulaError`: `invalidArgument`, `denied`, `inputOutput`, as `init` would.
  static func check(_ path: String) throws(MobulaError) {
    guard !path.isEmpty, !path.utf8.contains(0) else {
      throw MobulaError(.invalidArgument, "\"\(path)\" is no path of a spill folder: choose another.")
    }
    var status = stat()
    if stat(path, &status) == 0 {
      guard status.st_mode & S_IFMT == S_IFDIR else {
        throw MobulaError(.invalidArgument, "The spill folder \(path) is no folder: choose another.")
      }
      try checkRights(status, path)
      try systemCall("The spill folder \(path) can't be written into") {
        faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS)
      }
      return
    }
    guard currentErrno() == ENOENT else { throw MobulaError.system("The spill folder \(path) can't be looked at") }
    // The nearest folder above it that is there has to take it.
    var parent = path
    repeat {
      while parent.hasSuffix("/"), parent != "/" { parent.removeLast() }
      let slash = parent.lastIndex(of: "/")
      parent = slash.map { $0 == parent.startIndex ? "/" : String(parent[..<$0]) } ?? "."
    } while stat(parent, &status) != 0 && currentErrno() == ENOENT && parent != "/" && parent != "."
    try systemCall("The spill folder \(path) can't be made in \(parent)") {
      faccessat(AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS)
    }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw MobulaError(.invalidArgument, "The spill folder \(path) can't be made: \(parent) is no folder.")
    }
  }

  fileprivate static func make(_ path: String) throws(MobulaError) {
    guard !path.isEmpty, !path.utf8.contains(0) else {
      throw MobulaError(.invalidArgument, "\"\(path)\" is no path of a spill folder: choose another.")
    }
    var partial = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
      partial += part
      // A folder on the way may be there and yet not ours to write into.
      if mkdir(partial, 0o700) != 0, case let number = currentErrno(), access(partial, F_OK) != 0 {
        throw MobulaError.system("The spill folder \(path) can't be made", number: number)
      }
      partial += "/"
    }
  }

  // MARK: Locks

  private static func waitForLock(
    of instance: SpillInstance, in directory: borrowing OwnedDescriptor, path: String
  ) throws(MobulaError) -> OwnedDescriptor {
    // Whoever looks whether this instance is alive has the lock too, for a moment.
    for _ in 0..<50 {
      if let lock = try tryLock(of: instance, in: directory, path: path) { return lock }
      usleep(20_000)
    }
    throw MobulaError(
      .alreadyExists,
      "Another process spills into \(path) as \(instance): stop that host, or choose another folder.")
  }

  /// The lock of an instance, or `nil` when somebody has it.
  private static func tryLock(
    of instance: SpillInstance, in directory: borrowing OwnedDescriptor, path: String
  ) throws(MobulaError) -> OwnedDescriptor? {
    let raw = directory.rawValue
    let name = "\(SpillFileName.lock(instance))"
    while true {
      let file = OwnedDescriptor(
        owning: try systemCall("\(path)/\(name) can't be opened") {
          openat(raw, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        })
      let descriptor = file.rawValue
      while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
        let number = currentErrno()
        if number == EWOULDBLOCK { return nil }
        if number != EINTR { throw MobulaError.system("\(path)/\(name) can't be locked", number: number) }
      }
      // Somebody may have removed the file between the two calls: its lock says nothing then.
      var status = stat()
      try systemCall("\(path)/\(name) can't be looked at") { fstat(descriptor, &status) }
      if status.st_nlink > 0 { return file }
    }
  }

  /// Removes all files of instances that don't live any more.
  func removeStale() {
    for other in Set(names().map(\.instance)) where other != instance {
      // An instance whose lock can't be tried is left alone.
      guard let lock = (try? Self.tryLock(of: other, in: directory, path: path)) ?? nil else { continue }
      removeFiles(of: other)
      // Held to here, so that an instance that comes back now does not lose what it writes.
      close(lock.release())
    }
  }

  /// Removes an instance's files, the lock as the last.
  func removeFiles(of instance: SpillInstance) {
    for name in names() where name.instance == instance && !name.isLock { remove(name) }
    remove(.lock(instance))
  }

  // MARK: Files

  func path(of name: SpillFileName) -> String { path.hasSuffix("/") ? "\(path)\(name)" : "\(path)/\(name)" }

  /// The spill files, temporary files and locks, of all instances; empty when the folder can't be read.
  func names() -> [SpillFileName] {
    // A descriptor of its own, since `closedir` closes it.
    let copy = openat(directory.rawValue, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard copy >= 0 else { return [] }
    guard let stream = fdopendir(copy) else {
      close(copy)
      return []
    }
    defer { closedir(stream) }
    return MobulaCore.names(in: stream).compactMap { SpillFileName($0) }
  }

  func remove(_ name: SpillFileName) { unlinkat(directory.rawValue, "\(name)", 0) }

  /// Gives a file that was written its name: 0, or an errno value.
  func rename(_ old: SpillFileName, to new: SpillFileName) -> CInt {
    renameat(directory.rawValue, "\(old)", directory.rawValue, "\(new)") == 0 ? 0 : currentErrno()
  }

  /// Opens a file for reading: its descriptor, or -1 and errno.
  func open(_ name: SpillFileName) -> CInt {
    openat(directory.rawValue, "\(name)", O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
  }

  /// Writes a new file (mode 0600), or leaves nothing. It is not made to outlive the machine.
  func write(
    _ name: SpillFileName, header: [UInt8], bytes: UnsafeRawBufferPointer
  ) throws(SpillFailure) {
    let raw = openat(directory.rawValue, "\(name)", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard raw >= 0 else { throw SpillFailure(folder: path, number: currentErrno()) }
    var number = header.withUnsafeBytes { Self.fill(raw, header: $0, bytes: bytes) }
    // Some network file systems tell only now that there was no room.
    if close(raw) != 0, number == 0 { number = currentErrno() }
    guard number == 0 else {
      remove(name)
      throw SpillFailure(folder: path, number: number)
    }
  }

  private static func fill(_ file: CInt, header: UnsafeRawBufferPointer, bytes: UnsafeRawBufferPointer) -> CInt {
    // All of it at once, so that a full disk is found before a long write.
    let number = mobula_reserve(file, 0, Int64(header.count + bytes.count))
    // Not every file system can reserve; the write itself finds out there.
    guard [0, EOPNOTSUPP, ENOSYS, EINVAL].contains(number) else { return number }
    for (part, start) in [(header, 0), (bytes, header.count)] {
      var done = 0
      while done < part.count {
        let count = min(pieceSize, part.count - done)
        let written = pwrite(file, part.baseAddress! + done, count, off_t(start + done))
        if written > 0 {
          done += written
        } else if written == 0 {
          return EIO
        } else if currentErrno() != EINTR {
          return currentErrno()
        }
      }
    }
    return 0
  }
}

/// Folders that a store may spill into.
public enum SpillFolders {
  /// Whether a folder can be spilled into, or be made, as far as that shows without a try.
  ///
  /// - Throws: `MobulaError`: `invalidArgument` for a path that is no folder's, `denied` for a folder of others, else
  ///   `inputOutput`.
  public static func check(_ path: String) throws(MobulaError) { try SpillFolder.check(path) }

  /// As `check`, and makes it, which shows whether it can be.
  public static func make(_ path: String) throws(MobulaError) {
    try SpillFolder.check(path)
    try SpillFolder.make(path)
  }
}
