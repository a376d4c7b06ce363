internal import Glibc
internal import MobulaCore

/// The files of a journal that is open, by which it is known whether they are still those that bear its name.
///
/// SQLite goes on writing into files that somebody has removed, and nothing of it would be found again.
struct JournalFiles {
  enum State {
    case there
    /// One of them has no name any more, or another has it.
    case removed
    /// The journal itself is another file now: somebody has put one into its place.
    case replaced
    /// A file has lost what was in it.
    case emptied
  }

  /// Of a name, and of what it leads to where it is a link.
  private struct Identity: Equatable {
    var devices: [UInt]
    var inodes: [UInt]

    init?(_ path: String) {
      var (named, meant) = (stat(), stat())
      guard lstat(path, &named) == 0, stat(path, &meant) == 0 else { return nil }
      devices = [UInt(named.st_dev), UInt(meant.st_dev)]
      inodes = [UInt(named.st_ino), UInt(meant.st_ino)]
    }
  }

  private let path: String
  /// SQLite has them beside what a link leads to.
  private let log: String
  private let journal: Identity?
  /// SQLite makes the log and its index with the first access, and keeps them as long as the file is open.
  private let others: [String: Identity]

  /// - Parameter path: of a journal that this process has open, and has read.
  init(of path: String) {
    self.path = path
    journal = Identity(path)
    let resolved = realpath(path, nil)
    let file = resolved.map { String(cString: $0) } ?? path
    free(resolved)
    log = file + "-wal"
    others = Dictionary(
      ["-wal", "-shm"].compactMap { suffix in Identity(file + suffix).map { (file + suffix, $0) } },
      uniquingKeysWith: { first, _ in first })
  }

  /// - Parameter hasWritten: whether something was committed since they were opened.
  func state(hasWritten: Bool) -> State {
    let now = Identity(path)
    if let now, now != journal { return .replaced }
    // Pages are written before anybody looks here, and neither file shrinks while it is open.
    if now != nil, Self.isEmpty(path) { return .emptied }
    guard now != nil, others.allSatisfy({ Identity($0.key) == $0.value }) else { return .removed }
    return hasWritten && Self.isEmpty(log) ? .emptied : .there
  }

  private static func isEmpty(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_size == 0
  }

  /// Puts `file` into the place of the journal, durably, without what belonged to the one before.
  static func replace(_ path: String, by file: String) throws(MobulaError) {
    let what = "\(path) can't be replaced"
    let descriptor = OwnedDescriptor(owning: try systemCall(what) { open(file, O_RDONLY | O_CLOEXEC) })
    try systemCall(what) { fsync(descriptor.rawValue) }
    // The log of another file would be taken for this one's.
    for suffix in ["-wal", "-shm"] { unlink(path + suffix) }
    try systemCall(what) { rename(file, path) }
    let folder = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { path[...$0] } ?? "."
    let parent = OwnedDescriptor(
      owning: try systemCall(what) { open(String(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
    try systemCall(what) { fsync(parent.rawValue) }
  }
}
