import Glibc
package import MobulaCore

/// Where a command writes an object's bytes to: what the path names stays what it is.
///
/// | at the path | what happens |
/// |---|---|
/// | nothing, or a symbolic link to nothing | the file appears whole or not at all |
/// | a file | it is replaced as a whole; mode and owner stay |
/// | a file with several names, one that is mounted, or in a folder where none can be made | it is written in place |
/// | a symbolic link | as what it leads to |
/// | a FIFO, a device | the bytes are written to it |
/// | a folder | a file of the object's name in it |
/// | a socket | an error |
package struct FileTarget: Sendable {
  /// What `write` did.
  package enum Outcome: Sendable, Hashable {
    /// The file is new, or was replaced at once.
    case whole
    /// The old file was written over; why it was not replaced.
    case inPlace(String)
    /// The bytes went into what is no file.
    case through
  }

  private enum Place: Sendable {
    case standardOutput
    /// One that this process has open.
    case descriptor(CInt)
    case new
    case file(mode: mode_t, owner: uid_t, group: gid_t, names: Int)
    case fifo
    case device
  }

  /// The path as messages give it: with the object's name, where a folder was given.
  package let path: String
  /// Behind all symbolic links.
  private let real: String
  private let place: Place
  /// To be made first, the outermost first: a folder that stays empty says that something is in it.
  private let missingFolders: [String]

  package var isStandardOutput: Bool { if case .standardOutput = place { true } else { false } }

  /// Looks at what is there; nothing is opened or made yet.
  ///
  /// - Parameters:
  ///   - path: of a file or a folder; `-` for standard output. A folder that is not there is made, where a `/` at its end
  ///     says that it is one.
  ///   - name: the file's name in a folder: the last part of this one.
  ///   - makesFolders: whether all folders on the way to it are made.
  /// - Throws: `MobulaError`: `invalidArgument` for what can't be written to, `inputOutput`.
  package init(_ path: String, name: String, makesFolders: Bool = false) throws(MobulaError) {
    guard !path.isEmpty else { throw MobulaError(.invalidArgument, "The output's path can't be empty: give a file.") }
    if path == "-" {
      guard fcntl(STDOUT_FILENO, F_GETFL) >= 0 else {
        throw MobulaError(.inputOutput, "Standard output is closed: nothing can be written to it.")
      }
      (self.path, real, place, missingFolders) = ("standard output", "-", .standardOutput, [])
      return
    }
    var status = stat()
    var isThere = stat(path, &status) == 0
    let isNewFolder = !isThere && path.hasSuffix("/")
    let missing = isNewFolder || !isThere && makesFolders ? try Self.missingFolders(to: path) : []
    if missing.count > 1, !makesFolders {
      throw MobulaError.system("The folder \(path) can't be made", number: ENOENT)
    }
    missingFolders = missing
    var path = path
    if isNewFolder {
      path += try Self.fileName(name)
    } else if isThere, status.st_mode & S_IFMT == S_IFDIR {
      path += (path.hasSuffix("/") ? "" : "/") + (try Self.fileName(name))
      isThere = stat(path, &status) == 0
    }
    self.path = path
    let real = try Self.resolve(path)
    self.real = real
    if let own = Self.ownDescriptor(real) {
      place = .descriptor(own)
      return
    }
    if !isThere {
      place = .new
      return
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG:
      // Who may not write to it may not replace it either, though the folder would allow it.
      try systemCall("\(path) can't be written") { faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) }
      place = .file(
        mode: status.st_mode & 0o7777, owner: status.st_uid, group: status.st_gid, names: Int(status.st_nlink))
    case S_IFIFO: place = .fifo
    case S_IFCHR, S_IFBLK: place = .device
    case S_IFDIR: throw MobulaError(.invalidArgument, "\(path) is a folder: give another path for the file.")
    case S_IFSOCK:
      throw MobulaError(.invalidArgument, "\(path) is a socket, to which no file can be written: give another path.")
    default: throw MobulaError(.invalidArgument, "\(path) is nothing that can be written to: give another path.")
    }
  }

  /// The last part of an object's name, which no folder can be left by.
  private static func fileName(_ name: String) throws(MobulaError) -> String {
    let last = String(decoding: name.utf8.split(separator: UInt8(ascii: "/")).last ?? [], as: UTF8.self)
    guard !last.isEmpty, last != ".", last != "..", !last.utf8.contains(0), last.utf8.count <= 255 else {
      throw MobulaError(
        .invalidArgument, "An object called \"\(name)\" gives no file's name: give the file's whole path.")
    }
    return last
  }

  /// Those that are not there, the outermost first.
  private static func missingFolders(to path: String) throws(MobulaError) -> [String] {
    var missing: [String] = []
    var next = folder(of: path)
    while true {
      var status = stat()
      if stat(next, &status) == 0 {
        guard status.st_mode & S_IFMT == S_IFDIR else {
          throw MobulaError(.invalidArgument, "\(next) is no folder: give another path for what is to be written.")
        }
        break
      }
      guard currentErrno() == ENOENT else { throw MobulaError.system("The folder \(next) can't be made") }
      missing.insert(next, at: 0)
      next = folder(of: next)
    }
    try systemCall("Nothing can be made in the folder \(next)") { faccessat(AT_FDCWD, next, W_OK | X_OK, AT_EACCESS) }
    return missing
  }

  /// The path behind symbolic links, of which the last may lead to nothing.
  private static func resolve(_ path: String) throws(MobulaError) -> String {
    var path = path
    for _ in 0..<40 {
      if ownDescriptor(path) != nil { return path }
      var status = stat()
      guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return path }
      var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
      let count = try systemCall("\(path) can't be read") { readlink(path, &buffer, buffer.count - 1) }
      let next = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
      path = next.hasPrefix("/") ? next : folder(of: path) + "/" + next
    }
    throw MobulaError.system("\(path) can't be written", number: ELOOP)
  }

  /// With `/dev/stdout`, `/dev/fd/3` and the like the descriptor is meant, with its place in a file.
  private static func ownDescriptor(_ path: String) -> CInt? {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")), let number = CInt(path[path.index(after: slash)...]),
      number >= 0, let folder = realpath(String(path[..<slash]), nil)
    else { return nil }
    defer { free(folder) }
    return String(cString: folder) == "/proc/\(getpid())/fd" && fcntl(number, F_GETFL) >= 0 ? number : nil
  }

  private static func folder(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// Writes the bytes. Blocks, for as long as whoever reads takes.
  ///
  /// - Throws: `MobulaError`: `connectionClosed` when who read at the other end of a pipe is gone, else `inputOutput`.
  ///   A file that was to be replaced is as it was.
  @discardableResult package func write(_ bytes: UnsafeRawBufferPointer, progress: (Int) -> Void = { _ in })
    throws(MobulaError) -> Outcome
  {
    switch place {
    case .standardOutput:
      try writeAll(bytes, to: STDOUT_FILENO, "Standard output can't be written", progress: progress)
      return .through
    case .descriptor(let number):
      try writeAll(bytes, to: number, what, progress: progress)
      return .through
    case .fifo:
      let fifo = try openFIFO()
      try writeAll(bytes, to: fifo.rawValue, what, progress: progress)
      return .through
    case .device:
      let device = try opened(O_NONBLOCK | O_NOCTTY)
      try writeAll(bytes, to: device.rawValue, what, progress: progress)
      // What a disk has no room for it may say only here.
      if fsync(device.rawValue) != 0, ![EINVAL, ENOTSUP, EROFS].contains(currentErrno()) { throw .system(what) }
      return .through
    case .new:
      for folder in missingFolders where mkdir(folder, 0o777) != 0 && currentErrno() != EEXIST {
        throw MobulaError.system("The folder \(folder) can't be made")
      }
      try replace(bytes, with: nil, progress)
      return .whole
    case .file(let mode, let owner, let group, let names):
      if names > 1 { return try writeInPlace(bytes, "it has \(names) names (hard links)", progress) }
      do {
        try replace(bytes, with: (mode, owner, group), progress)
        return .whole
      } catch let error where error.code == .denied { return try writeInPlace(bytes, error.message, progress) }
    }
  }

  private var what: String { "\(path) can't be written" }

  private func opened(_ flags: CInt) throws(MobulaError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try systemCall(what) { open(real, O_WRONLY | O_CLOEXEC | flags) })
  }

  /// Waits for who reads.
  private func openFIFO() throws(MobulaError) -> OwnedDescriptor {
    while true {
      let raw = open(real, O_WRONLY | O_CLOEXEC | O_NONBLOCK)
      if raw >= 0 { return OwnedDescriptor(owning: raw) }
      guard currentErrno() == ENXIO else { throw MobulaError.system(what) }
      usleep(50_000)
    }
  }

  private func writeInPlace(_ bytes: UnsafeRawBufferPointer, _ reason: String, _ progress: (Int) -> Void)
    throws(MobulaError) -> Outcome
  {
    let file = try opened(O_NONBLOCK)
    let raw = file.rawValue
    try writeAll(
      bytes, to: raw, "\(path), which was written in place since \(reason), has only part of the bytes",
      progress: progress)
    try systemCall(what) { ftruncate(raw, bytes.count) }
    return .inPlace(reason)
  }

  /// - Throws: `MobulaError`: `denied` when the old file can only be written in place, with the reason.
  private func replace(
    _ bytes: UnsafeRawBufferPointer, with old: (mode: mode_t, owner: uid_t, group: gid_t)?, _ progress: (Int) -> Void
  ) throws(MobulaError) {
    let partial = try PartialFile(beside: real, in: Self.folder(of: real), what, isReplacing: old != nil)
    let raw = partial.descriptor
    if let old {
      var own = stat()
      guard fstat(raw, &own) == 0,
        own.st_uid == old.owner && own.st_gid == old.group || fchown(raw, old.owner, old.group) == 0
      else { throw MobulaError(.denied, "another user owns it") }
      try systemCall(what) { fchmod(raw, old.mode) }
    }
    try writeAll(bytes, to: raw, what, progress: progress)
    try partial.commit(what, isReplacing: old != nil)
  }
}

/// A file that is being written, and has its name only when it is whole.
private struct PartialFile: ~Copyable {
  let descriptor: CInt
  private let path: String
  private let folder: String
  /// The name that it has meanwhile, where the file system has no files without.
  private var temporary: String?

  init(beside path: String, in folder: String, _ what: String, isReplacing: Bool) throws(MobulaError) {
    self.path = path
    self.folder = folder
    let raw = open(folder, O_WRONLY | O_CLOEXEC | temporaryFlag, 0o666)
    if raw >= 0 {
      descriptor = raw
      return
    }
    let name = Self.freeName(in: folder)
    let named = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard named >= 0 else {
      let number = currentErrno()
      if isReplacing, [EACCES, EROFS, EPERM].contains(number) {
        throw MobulaError(.denied, "no file can be made in its folder (\(errnoText(number)))")
      }
      throw MobulaError.system(what, number: number)
    }
    PartialFiles.add(name)
    temporary = name
    descriptor = named
  }

  deinit {
    close(descriptor)
    if let temporary { PartialFiles.remove(temporary) }
  }

  /// Short, however long the file's own name is.
  private static func freeName(in folder: String) -> String {
    "\(folder)/.mobula-\(String(UInt64.random(in: .min ... .max), radix: 36))"
  }

  /// Gives the file its name.
  ///
  /// - Throws: `MobulaError`: `denied` when what has the name can't be replaced.
  consuming func commit(_ what: String, isReplacing: Bool) throws(MobulaError) {
    var name = temporary
    if name == nil {
      let own = "/proc/self/fd/\(descriptor)"
      if !isReplacing, linkat(AT_FDCWD, own, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 { return }
      let free = Self.freeName(in: folder)
      PartialFiles.add(free)
      temporary = free
      name = free
      try systemCall(what) { linkat(AT_FDCWD, own, AT_FDCWD, free, AT_SYMLINK_FOLLOW) }
    }
    guard rename(name!, path) == 0 else {
      let number = currentErrno()
      if isReplacing, [EBUSY, EPERM, EACCES, EXDEV].contains(number) {
        throw MobulaError(.denied, number == EBUSY ? "it is mounted" : "it can't be replaced (\(errnoText(number)))")
      }
      throw MobulaError.system(what, number: number)
    }
    PartialFiles.forget(name!)
    temporary = nil
  }
}
