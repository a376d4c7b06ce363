internal import Dispatch
internal import Foundation
internal import GRDB
internal import Glibc
internal import Logging
package import MobulaCore
internal import Synchronization

/// The journal in a file of SQLite's, with write-ahead logging, synced at every commit.
///
/// What waits while one transaction is written goes into the next one together (*group commit*), so that a slow disk
/// costs each caller one or two of its syncs, and never the sum of all.
///
/// Files that are removed while they are open are made anew from what is known (`JournalFiles`), with the next commit or
/// within `checkInterval`.
package final class SQLiteJournal: Journal {
  private typealias Commit = (records: [JournalRecord], done: @Sendable (Result<Void, MobulaError>) -> Void)

  private struct Queue {
    var waiting: [Commit] = []
    var isWriting = false
    var isClosed = false
  }

  /// An open file of SQLite's, and how it can be told from another.
  private struct Opened {
    let database: DatabaseQueue
    let files: JournalFiles
  }

  /// How long removed files are missed at most while nothing is written.
  static let checkInterval = Duration.seconds(5)

  private let path: String
  private let maximumPages: Int?
  /// `nil` from when the files were found missing until they are open again.
  private let opened: Mutex<Opened?>
  private let queue = Mutex(Queue())
  private let checking = Mutex<Task<Void, Never>?>(nil)
  /// What the last commit is called, in the file, and in the lock's file for the next start: a journal that has come less
  /// far than that has lost something, which SQLite would not miss. No power that goes makes the lock's file be ahead.
  private let mark: Mutex<JournalMark>
  /// Whether it is another than the one that was here last, as a backup, and nothing was committed to it here: what was
  /// written since then it does not know.
  package let isRestored: Bool
  /// Whether something was committed since the files were opened.
  private let hasWritten = Atomic(false)
  private let log = Logger(label: "journal")
  /// Held while the file is open, and for `close` to let go of.
  private let lock: Mutex<CInt?>

  /// Opens the file, or makes it, for this process alone.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` while another process has it open, `corrupted` when it is damaged or no
  ///   journal, `mismatch` when a newer build has written it, `inputOutput` when it can't be opened.
  package convenience init(path: String) throws(MobulaError) { try self.init(path: path, maximumPages: nil) }

  /// - Parameter maximumPages: what a test takes for the size of the disk.
  init(path: String, maximumPages: Int?) throws(MobulaError) {
    self.path = path
    self.maximumPages = maximumPages
    let hadLock = access(path + ".lock", F_OK) == 0
    let lock = try Self.lock(path)
    // Another may have begun it, and gone, before this one had the lock.
    let isNew = !hadLock && access(path, F_OK) != 0
    // A new one, in the place of one that is gone, has nothing to lack.
    let said = access(path, F_OK) == 0 ? JournalMark(in: lock) : nil
    do {
      let opened = try Self.open(path, maximumPages: maximumPages)
      let (mark, hadMark) = try Self.begin(opened.database, said)
      self.mark = Mutex(mark)
      isRestored = hadMark && said?.instance != mark.instance
      self.opened = Mutex(opened)
    } catch {
      // What could not be begun, as on a full disk, is none that was lost.
      if isNew { for suffix in ["-wal", "-shm", "", ".lock"] { unlink(path + suffix) } }
      Glibc.close(lock)
      throw Self.opening(path, error)
    }
    // With its first commit a restored one has come here.
    if !isRestored { mark.withLock { $0.write(to: lock) } }
    self.lock = Mutex(lock)
    let task = Task { [weak self] in
      while (try? await Task.sleep(for: Self.checkInterval)) != nil { self?.append([]) { _ in } }
    }
    checking.withLock { $0 = task }
  }

  deinit {
    checking.withLock { $0?.cancel() }
    // The database closes itself, perhaps on its own queue, on which nobody may ask it to.
    lock.withLock { lock in if let lock { Glibc.close(lock) } }
  }

  // MARK: Opening

  /// The lock is on a file of its own: closing a descriptor of the journal's would end SQLite's locks.
  private static func lock(_ path: String) throws(MobulaError) -> CInt {
    var descriptor: CInt = -1
    while true {
      descriptor = try systemCall("\(path).lock can't be opened") {
        Glibc.open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
      }
      guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { break }
      // Another head may have removed it, which could not begin a journal: nobody else would see that lock.
      var (opened, named) = (stat(), stat())
      if fstat(descriptor, &opened) == 0, stat(path + ".lock", &named) == 0, opened.st_ino == named.st_ino,
        opened.st_dev == named.st_dev
      {
        return descriptor
      }
      Glibc.close(descriptor)
    }
    Glibc.close(descriptor)
    throw MobulaError(
      .alreadyExists, "Another head has the journal \(path) open: stop it first, or choose another folder with --state."
    )
  }

  /// Whether there was a journal here and is none any more: a head that began with nothing would deny what it knew.
  ///
  /// - Parameter hadHead: whether something else than the lock beside the journal tells of a head that was here.
  package static func isLost(_ path: String, hadHead: Bool) -> Bool {
    guard hadHead || access(path + ".lock", F_OK) == 0 else { return false }
    var status = stat()
    return stat(path, &status) == 0 ? status.st_size == 0 : currentErrno() == ENOENT
  }

  /// - Throws: `MobulaError` (`corrupted`) for a journal that is lost, with the way out.
  package static func checkNotLost(_ path: String, hadHead: Bool) throws(MobulaError) {
    guard isLost(path, hadHead: hadHead) else { return }
    throw MobulaError(
      .corrupted,
      """
      The journal \(path) is gone, which this head had: put a backup of it there, or `mobula head recover` makes a new \
      one from what the hosts know.
      """)
  }

  private static func open(_ path: String, maximumPages: Int?) throws -> Opened {
    var configuration = Configuration()
    configuration.busyMode = .timeout(5)
    configuration.journalMode = .wal
    configuration.prepareDatabase { db in
      // A backup reads while we write; we never read what it has.
      try db.execute(sql: "PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF")
      if let maximumPages { try db.execute(sql: "PRAGMA max_page_count = \(maximumPages)") }
    }
    try makePrivate(path)
    if let log = try? Data(contentsOf: URL(filePath: path + "-wal")), WriteAheadLog(log)?.isDamaged == true {
      throw MobulaError(.corrupted, "its log is damaged before its end")
    }
    let database = try DatabaseQueue(path: path, configuration: configuration)
    // Only now: GRDB sets NORMAL with WAL, which loses commits with the machine's power.
    try database.writeWithoutTransaction { db in try db.execute(sql: "PRAGMA synchronous = FULL") }
    let migrator = SQLiteSchema.migrator
    try database.read { db in try check(db, migrator) }
    try migrator.migrate(database)
    return Opened(database: database, files: JournalFiles(of: path))
  }

  /// - Parameter said: what the last commit was called, as far as is known.
  /// - Returns: what it is called in the file, and whether it was before.
  /// - Throws: `MobulaError` (`corrupted`) when the file has come less far.
  private static func begin(
    _ database: DatabaseQueue, _ said: JournalMark?
  ) throws -> (mark: JournalMark, wasThere: Bool) {
    let known = try database.read { db in try SQLiteSchema.mark(db) }
    if let said, known.map({ $0.instance == said.instance && $0.number < said.number }) ?? true {
      throw MobulaError(
        .corrupted,
        "it lacks what was written last: its log, which ends in -wal, is gone, or an older copy was put here, which counts once the file that ends in .lock is removed"
      )
    }
    if let known { return (known, true) }
    // Of an older build, or new.
    let new = JournalMark(instance: .random())
    try database.write { db in try SQLiteSchema.write(new, db) }
    return (new, false)
  }

  /// Whether another program has only taken the log over into the file, as SQLite lets everybody do.
  private var hasAll: Bool {
    var configuration = Configuration()
    configuration.readonly = true
    configuration.busyMode = .timeout(5)
    // Only the log can have been taken over.
    var status = stat()
    guard stat(path, &status) == 0, status.st_size > 0 else { return false }
    guard let fresh = try? DatabaseQueue(path: path, configuration: configuration) else { return false }
    defer { try? fresh.close() }
    return (try? fresh.read { db in try SQLiteSchema.mark(db) }) == mark.withLock { $0 }
  }

  /// Job secrets are for nobody else. SQLite gives its other files the mode of this one.
  private static func makePrivate(_ path: String) throws {
    let descriptor = try systemCall("\(path) can't be opened") {
      Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    }
    fchmod(descriptor, 0o600)
    Glibc.close(descriptor)
  }

  private static func check(_ db: Database, _ migrator: DatabaseMigrator) throws {
    let application = try Int32.fetchOne(db, sql: "PRAGMA application_id") ?? 0
    // Power may have gone while the first head made the tables.
    let isEmpty =
      try Int.fetchOne(db, sql: "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> 'grdb_migrations'") == 0
    guard application == SQLiteSchema.applicationID || isEmpty && application == 0 else {
      throw MobulaError(.corrupted, "it is another program's")
    }
    if try migrator.hasBeenSuperseded(db) {
      throw MobulaError(.mismatch, "a newer build of Mobula has written it")
    }
    let findings = try String.fetchAll(db, sql: "PRAGMA quick_check(1)")
    guard findings == ["ok"] else { throw MobulaError(.corrupted, findings.first ?? "no finding") }
  }

  /// The sentence, with the way out, for what made opening fail.
  private static func opening(_ path: String, _ error: any Error) -> MobulaError {
    let wayOut = "`mobula head recover` makes a new one from what the hosts know"
    switch error {
    case let error as MobulaError where error.code == .mismatch:
      return MobulaError(.mismatch, "The journal \(path) can't be used, since \(error.message): start that build.")
    case let error as MobulaError where error.code == .corrupted:
      return MobulaError(.corrupted, "The journal \(path) can't be used (\(error.message)): \(wayOut).")
    case let error as MobulaError: return error
    case let error as DatabaseError
    where [.SQLITE_CORRUPT, .SQLITE_NOTADB].contains(error.resultCode) || error.resultCode == .SQLITE_ERROR:
      return MobulaError(
        .corrupted, "The journal \(path) can't be used (\(error.message ?? error.resultCode.description)): \(wayOut).")
    case let error as DatabaseError:
      return MobulaError(
        .inputOutput,
        "The journal \(path) can't be opened (\(error.message ?? error.resultCode.description)): check the folder, its disk and its owner."
      )
    // What is none of SQLite's errors came of a value that nobody wrote.
    default:
      return MobulaError(
        .corrupted, "The journal \(path) can't be used (a table has other content than was written): \(wayOut).")
    }
  }

  // MARK: Reading

  private var database: DatabaseQueue {
    get throws {
      guard let opened = opened.withLock({ $0 }) else {
        throw MobulaError(.inputOutput, "The head's journal \(path) is being made anew: try again.")
      }
      return opened.database
    }
  }

  /// The value of a setting of this connection's.
  func setting(_ name: String) throws -> String? {
    try database.read { db in try String.fetchOne(db, sql: "PRAGMA \(name)") }
  }

  /// What a test takes for the size of the disk.
  func setMaximumPages(_ count: Int) throws {
    try database.writeWithoutTransaction { db in try db.execute(sql: "PRAGMA max_page_count = \(count)") }
  }

  /// Takes the log over into the file; what is written next begins the log anew.
  func checkpoint() throws { try database.writeWithoutTransaction { db in _ = try db.checkpoint(.restart) } }

  package func load() async throws(MobulaError) -> JournalState {
    do {
      return try await database.read { db in try SQLiteSchema.read(db) }
    } catch {
      throw Self.opening(path, error)
    }
  }

  /// Writes all that is committed into a new file, while a head may go on writing: a journal like this one.
  ///
  /// - Throws: `MobulaError`: `notFound` when there is no journal, `alreadyExists` when the file is there.
  package static func back(up path: String, to file: String) async throws(MobulaError) {
    guard access(path, F_OK) == 0 else {
      throw MobulaError(.notFound, "There is no journal \(path): a head keeps one, on its own machine.")
    }
    let descriptor = Glibc.open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    if descriptor < 0 {
      let number = currentErrno()
      if number == EEXIST {
        throw MobulaError(.alreadyExists, "\(file) is there already: choose another file for the backup.")
      }
      throw MobulaError.system("\(file) can't be made", number: number)
    }
    Glibc.close(descriptor)
    var isComplete = false
    defer { if !isComplete { unlink(file) } }
    do {
      var configuration = Configuration()
      configuration.busyMode = .timeout(5)
      let database = try DatabaseQueue(path: path, configuration: configuration)
      try await database.read { db in try check(db, SQLiteSchema.migrator) }
      try await database.vacuum(into: file)
      try database.close()
      // It may be put into the place of the journal when that has more.
      let copy = try DatabaseQueue(path: file, configuration: configuration)
      try await copy.write { db in try SQLiteSchema.write(JournalMark(instance: .random()), db) }
      try copy.close()
      isComplete = true
    } catch let error as DatabaseError
      where [.SQLITE_FULL, .SQLITE_IOERR, .SQLITE_CANTOPEN].contains(error.resultCode)
    {
      throw MobulaError(.inputOutput, "\(file) can't be written (\(error.message ?? error.resultCode.description)).")
    } catch {
      throw opening(path, error)
    }
  }

  // MARK: Writing

  package func append(_ records: [JournalRecord], done: @escaping @Sendable (Result<Void, MobulaError>) -> Void) {
    let starts = queue.withLock { queue -> Bool? in
      if queue.isClosed { return nil }
      queue.waiting.append((records, done))
      defer { queue.isWriting = true }
      return !queue.isWriting
    }
    guard let starts else {
      return done(.failure(MobulaError(.unavailable, "The head is stopping: try again when it is back.")))
    }
    guard starts else { return }
    guard let opened = opened.withLock({ $0 }) else { return DispatchQueue.global().async { self.reopen() } }
    write(to: opened)
  }

  private func write(to opened: Opened) {
    opened.database.asyncWriteWithoutTransaction { db in self.write(db, opened.files) }
  }

  /// Writes until nothing waits, on the database's own queue.
  private func write(_ db: Database, _ files: JournalFiles) {
    while true {
      let group = queue.withLock { queue -> [Commit] in
        defer { queue.waiting = [] }
        if queue.waiting.isEmpty { queue.isWriting = false }
        return queue.waiting
      }
      if group.isEmpty { return }
      // For this group: whoever waits for another may see to the files first.
      var state = files.state(hasWritten: hasWritten.load(ordering: .relaxed))
      if state == .emptied, hasAll {
        hasWritten.store(false, ordering: .relaxed)
        state = .there
      }
      if state == .removed, saveBeforeReopening(db) {
        queue.withLock { $0.waiting = group + $0.waiting }
        return DispatchQueue.global().async { self.reopen() }
      }
      do {
        if state != .there { throw moved(state) }
        guard group.contains(where: { !$0.records.isEmpty }) else {
          for commit in group { commit.done(.success(())) }
          continue
        }
        let next = mark.withLock { $0.next }
        try db.inTransaction(.immediate) {
          for commit in group { for record in commit.records { try SQLiteSchema.write(record, db) } }
          try SQLiteSchema.write(next, db)
          return .commit
        }
        mark.withLock { $0 = next }
        lock.withLock { lock in if let lock { next.write(to: lock) } }
        hasWritten.store(true, ordering: .relaxed)
        for commit in group { commit.done(.success(())) }
      } catch {
        fail(group, failure(error))
      }
    }
  }

  /// What was decided before the failure was known counts on what failed.
  private func fail(_ group: [Commit], _ error: MobulaError) {
    var group = group
    while !group.isEmpty {
      for commit in group { commit.done(.failure(error)) }
      group = queue.withLock { queue in
        defer { queue.waiting = [] }
        return queue.waiting
      }
    }
  }

  private func failure(_ error: any Error) -> MobulaError {
    if let error = error as? MobulaError { return error }
    let error = error as? DatabaseError
    let reason = error.map { $0.message ?? $0.resultCode.description } ?? "unknown"
    if error?.resultCode == .SQLITE_FULL {
      return MobulaError(.full, "The disk of the head's journal \(path) is full: make room there, and try again.")
    }
    return MobulaError(
      .inputOutput, "The head's journal \(path) can't be written (\(reason)): mend its disk, and try again.")
  }

  // MARK: Files that were removed

  private func moved(_ state: JournalFiles.State) -> MobulaError {
    let what =
      switch state {
      case .replaced:
        "was replaced by another file while the head ran: move that away, and put it there again while no head runs"
      case .emptied:
        "was emptied while the head ran: start the head again when `mobula head recover` has made it a new one"
      case .removed, .there:
        "was removed while the head ran, and can't be made anew: see whether its folder and its disk are there"
      }
    return MobulaError(.inputOutput, "The head's journal \(path) \(what).")
  }

  /// Where all that is known goes before it takes the journal's name.
  private var rescue: String { path + ".new" }

  /// Writes all that is known into a file beside the journal.
  ///
  /// - Returns: whether it could.
  private func saveBeforeReopening(_ db: Database) -> Bool {
    unlink(rescue)
    do {
      try Self.makePrivate(rescue)
      try db.execute(sql: "VACUUM INTO ?", arguments: [rescue])
    } catch {
      log.error("the journal's files were removed, and can't be saved", metadata: ["error": "\(error)"])
      unlink(rescue)
      return false
    }
    return true
  }

  /// Puts what was saved into the journal's place, and goes on with that.
  private func reopen() {
    do {
      // Before the new one is there: as it closes, SQLite removes the log that bears its name.
      try opened.withLock { opened in
        defer { opened = nil }
        try opened?.database.close()
      }
      if access(rescue, F_OK) == 0 { try JournalFiles.replace(path, by: rescue) }
      // Or it would begin with nothing.
      guard access(path, F_OK) == 0 else { throw moved(.removed) }
      let new = try Self.open(path, maximumPages: maximumPages)
      let known = mark.withLock { $0 }
      guard try Self.begin(new.database, known).mark == known else { throw moved(.replaced) }
      hasWritten.store(false, ordering: .relaxed)
      opened.withLock { $0 = new }
      log.warning("the journal's files were removed, and are made anew", metadata: ["journal": "\(path)"])
      write(to: new)
    } catch {
      log.error("the journal can't be made anew", metadata: ["journal": "\(path)", "error": "\(error)"])
      let group = queue.withLock { queue in
        defer { (queue.waiting, queue.isWriting) = ([], false) }
        return queue.waiting
      }
      for commit in group { commit.done(.failure(moved(.removed))) }
    }
  }

  package func close() async {
    queue.withLock { $0.isClosed = true }
    checking.withLock { $0?.cancel() }
    // After what is being written, on the same queue.
    if let database = opened.withLock({ $0?.database }) {
      try? await database.writeWithoutTransaction { db in
        _ = try db.checkpoint(.truncate)
      }
      try? database.close()
    }
    lock.withLock { lock in
      if let lock { Glibc.close(lock) }
      lock = nil
    }
  }
}
