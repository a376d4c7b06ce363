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

  private struct Identity: Equatable {
    var device: UInt
    var inode: UInt

    init?(_ path: String) {
      guard let status = Self.status(path) else { return nil }
      device = UInt(status.st_dev)
      inode = UInt(status.st_ino)
    }

    /// Of the name itself: SQLite would look for a log beside what a link leads to.
    static func status(_ path: String) -> stat? {
      var status = stat()
      return lstat(path, &status) == 0 ? status : nil
    }
  }

  private let path: String
  private let journal: Identity?
  /// SQLite makes the log and its index with the first access, and keeps them as long as the file is open.
  private let others: [String: Identity]

  /// - Parameter path: of a journal that this process has open, and has read.
  init(of path: String) {
    self.path = path
    journal = Identity(path)
    others = Dictionary(
      ["-wal", "-shm"].compactMap { suffix in Identity(path + suffix).map { (path + suffix, $0) } },
      uniquingKeysWith: { first, _ in first })
  }

  /// - Parameter hasWritten: whether something was committed since they were opened.
  func state(hasWritten: Bool) -> State {
    let now = Identity(path)
    if let now, now != journal { return .replaced }
    // Pages are written before anybody looks here, and neither file shrinks while it is open.
    if now != nil, Identity.status(path)?.st_size == 0 { return .emptied }
    if hasWritten, Identity.status(path + "-wal")?.st_size == 0 { return .emptied }
    return now != nil && others.allSatisfy { Identity($0.key) == $0.value } ? .there : .removed
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
