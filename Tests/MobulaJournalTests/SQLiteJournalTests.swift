import Foundation
import GRDB
import Glibc
import MobulaCore
import Testing

@testable import MobulaJournal

@Suite struct SQLiteJournalTests {
  /// Runs `body` with the path of a journal in a folder of its own.
  private func withJournal(_ body: (String) async throws -> Void) async throws {
    let folder = try makeTemporaryDirectory("journal")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try await body(folder + "/journal.sqlite")
  }

  /// What is appended at the heels of a failure may fail with it.
  private func commitSoon(_ records: [JournalRecord], to journal: SQLiteJournal) async throws {
    for _ in 0..<50 {
      do { return try await journal.commit(records) } catch { try await Task.sleep(for: .milliseconds(10)) }
    }
    try await journal.commit(records)
  }

  private static func name(_ number: Int) -> JournalRecord {
    .name(NameRecord("name \(number)", KnownName(ObjectID(high: 1, low: UInt64(number)), .given)))
  }

  /// One of each kind, with the values at the ends of their ranges.
  private static let all: [JournalRecord] = [
    .cluster(ClusterID(high: .max, low: 1)), .recovering(true), .epoch(.max), .counter(.jobs, limit: 1024),
    .counter(.claims, limit: 1 << 63),
    .host(HostRecord(host: HostID(high: 1, low: 2), nonce: .random(), incarnation: 3, name: "a")),
    .host(
      HostRecord(
        host: HostID(high: 1, low: 3), nonce: .random(), incarnation: .max, session: .max, state: .retired,
        name: "b \u{0} \u{1F41F}", since: 9)),
    .draining(HostID(high: 1, low: 2), true), .draining(HostID(high: 1, low: 3), true),
    .draining(HostID(high: 1, low: 3), false),
    .pod(
      PodRecord(
        pod: PodID(high: 5, low: 6), host: HostID(high: 1, low: 2), nonce: .random(), incarnation: 2, session: 1,
        state: .absent, name: "")),
    .job(JobRecord(job: JobID(.max), secret: .random(), state: .ended, program: [0, 255])),
    .job(JobRecord(job: JobID(1), secret: .random())),
    .name(NameRecord("caf\u{e9}", KnownName(ObjectID(high: 1, low: 1), .given))),
    .name(NameRecord("cafe\u{301}", KnownName(ObjectID(high: 1, low: 2), .url(claim: .max)))),
    .name(NameRecord("s3://b/k#\"1\"", KnownName(ObjectID(high: 1, low: 3), .version))),
    .actor(actor), .actor(placed),
  ]

  private static let actor = ActorRecord(
    actor: RemoteActorID(high: 1, low: 2), job: JobID(1), incarnation: 0, restarts: 0,
    spec: ActorSpec(
      type: "A", configuration: ByteString([0, 255]), limit: 1, restarts: nil, name: nil, isDetached: false,
      demand: [:],
      strategy: .spread, program: WorkerProgram(executable: "/a", build: "b"), startLimit: nil))
  private static let placed = {
    var placed = ActorRecord(
      actor: RemoteActorID(high: 1, low: 3), job: JobID(.max), incarnation: .max, restarts: 7,
      spec: ActorSpec(
        type: "B", configuration: ByteString([]), limit: 1000, restarts: 3, name: "caf\u{e9}", isDetached: true,
        demand: ["CPU": 0.5], strategy: .host(HostID(high: 1, low: 2)),
        program: WorkerProgram(executable: "/a", build: "b", environment: ["A": "b"]), startLimit: 1.5))
    (placed.hasLived, placed.hasEnded, placed.pod) = (true, true, PodID(high: 5, low: 6))
    placed.endpoint = .tcp(host: "10.0.0.1", port: 7601)
    return placed
  }()

  @Test func whatIsCommittedIsFound() async throws {
    try await withJournal { path in
      var expected = JournalState()
      var journal = try SQLiteJournal(path: path)
      #expect(try await journal.load().isEmpty)
      for records in [
        Self.all,
        [
          .recovering(false), .jobForgotten(JobID(1)), .nameRemoved("caf\u{e9}"),
          .hostForgotten(HostID(high: 1, low: 2)), .actorForgotten(RemoteActorID(high: 1, low: 2)),
        ],
        [.podForgotten(PodID(high: 5, low: 6)), .job(JobRecord(job: JobID(.max), secret: .random()))], [],
      ] {
        expected.apply(records)
        try await journal.commit(records)
        #expect(try await journal.load() == expected)
        await journal.close()
        journal = try SQLiteJournal(path: path)
        #expect(try await journal.load() == expected)
      }
      #expect(expected.names.count == 2)
      #expect(expected.actors.values.map(\.self) == [Self.placed])
      await journal.close()
    }
  }

  /// What makes a commit outlive the machine's power.
  @Test func everyCommitIsSynced() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      #expect(try journal.setting("journal_mode") == "wal")
      #expect(try journal.setting("synchronous") == "2")
      await journal.close()
    }
  }

  @Test func onlyOneHeadHasTheFile() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      let error = #expect(throws: MobulaError.self) { try SQLiteJournal(path: path) }
      #expect(error?.code == .alreadyExists)
      await journal.close()
      await #expect(throws: MobulaError.self) { try await journal.commit([.epoch(1)]) }
      let next = try SQLiteJournal(path: path)
      try await next.commit([.epoch(1)])
      #expect(try await next.load().epoch == 1)
      await next.close()
    }
  }

  @Test func othersFilesAreRefused() async throws {
    try await withJournal { path in
      try Data("This is a text, and it is longer than SQLite's header of one hundred bytes.".utf8 + Data(count: 8192))
        .write(to: URL(filePath: path))
      var error = #expect(throws: MobulaError.self) { try SQLiteJournal(path: path) }
      #expect(error?.code == .corrupted && error?.message.contains("mobula head recover") == true)
      try FileManager.default.removeItem(atPath: path)
      let other = try DatabaseQueue(path: path)
      try await other.write { try $0.execute(sql: "CREATE TABLE other(a)") }
      try other.close()
      error = #expect(throws: MobulaError.self) { try SQLiteJournal(path: path) }
      #expect(error?.code == .corrupted && error?.message.contains("another program's") == true)
    }
  }

  @Test func aNewerBuildsFileIsRefused() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([.epoch(1)])
      await journal.close()
      let other = try DatabaseQueue(path: path)
      try await other.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES('2: of the future')") }
      try other.close()
      let error = #expect(throws: MobulaError.self) { try SQLiteJournal(path: path) }
      #expect(error?.code == .mismatch && error?.message.contains("newer build") == true)
    }
  }

  /// Bytes changed anywhere are found, or change nothing that is read.
  @Test(arguments: 0..<60 as Range<UInt64>) func damageIsFound(seed: UInt64) async throws {
    try await withJournal { path in
      var generator = SeededGenerator(seed: seed)
      let records = Self.all + (0..<400).map(Self.name)
      let journal = try SQLiteJournal(path: path)
      try await journal.commit(records)
      await journal.close()
      var bytes = try Data(contentsOf: URL(filePath: path))
      if seed.isMultiple(of: 6) {
        bytes = bytes.prefix(Int.random(in: 1..<bytes.count, using: &generator))
      } else {
        let length = seed.isMultiple(of: 2) ? 1 : 512
        let start = Int.random(in: 0..<bytes.count - length, using: &generator)
        for index in start..<start + length { bytes[index] ^= UInt8.random(in: 1...255, using: &generator) }
      }
      try bytes.write(to: URL(filePath: path))
      var expected = JournalState()
      expected.apply(records)
      do {
        let opened = try SQLiteJournal(path: path)
        #expect(try await opened.load() == expected, "seed \(seed)")
      } catch let error as MobulaError {
        #expect([.corrupted, .mismatch].contains(error.code), "seed \(seed): \(error)")
        #expect(error.message.contains("mobula head recover") || error.code == .mismatch, "seed \(seed): \(error)")
      }
    }
  }

  /// The rows that say which build has written it are GRDB's, and have no checksum.
  @Test func damageOfTheVersionsIsFound() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit(Self.all)
      await journal.close()
      let bytes = try Data(contentsOf: URL(filePath: path))
      let name = Data("1: hosts, pods, jobs, names".utf8)
      var count = 0
      var rest = bytes.startIndex..<bytes.endIndex
      while let found = bytes.range(of: name, in: rest) {
        rest = found.upperBound..<bytes.endIndex
        // With what stands before it, so that the row is there and its value is not.
        var damaged = bytes
        damaged.replaceSubrange(found.lowerBound - 3..<found.upperBound, with: Data(count: found.count + 3))
        try damaged.write(to: URL(filePath: path))
        do {
          // Of the copies that SQLite keeps not all are read.
          _ = try SQLiteJournal(path: path)
        } catch let error as MobulaError {
          count += 1
          #expect(error.code == .corrupted && error.message.contains("mobula head recover"), "\(error)")
        }
      }
      #expect(count > 0)
    }
  }

  /// Power is lost while the log is written: its end is cut, or is something else. Commits are there up to some
  /// point, each of them whole.
  @Test(arguments: 0..<20 as Range<UInt64>) func aTornLogLosesItsEndOnly(seed: UInt64) async throws {
    try await withJournal { path in
      var generator = SeededGenerator(seed: seed)
      let journal = try SQLiteJournal(path: path)
      let begun = try Data(contentsOf: URL(filePath: path + "-wal")).count
      var log = begun
      var ends: [Int] = []
      for number in 0..<20 {
        try await journal.commit([Self.name(2 * number), Self.name(2 * number + 1)])
        log = try Data(contentsOf: URL(filePath: path + "-wal")).count
        ends.append(log)
      }
      let copy = path + ".torn"
      try FileManager.default.copyItem(atPath: path, toPath: copy)
      var bytes = try Data(contentsOf: URL(filePath: path + "-wal"))
      let cut = Int.random(in: begun...bytes.count, using: &generator)
      if seed.isMultiple(of: 2) {
        bytes = bytes.prefix(cut)
      } else {
        for index in cut..<bytes.count { bytes[index] = UInt8.random(in: 0...255, using: &generator) }
      }
      try bytes.write(to: URL(filePath: copy + "-wal"))
      let found = try await SQLiteJournal(path: copy).load().names
      let whole = ends.count { $0 <= cut }
      #expect(found.count == 2 * whole, "seed \(seed)")
      #expect((0..<2 * whole).allSatisfy { found[Array("name \($0)".utf8)] != nil })
      await journal.close()
    }
  }

  /// One bit that is another anywhere in the log but in its last commits, which may have been torn.
  @Test(arguments: 0..<60 as Range<UInt64>) func damageInTheLogIsFound(seed: UInt64) async throws {
    try await withJournal { path in
      var generator = SeededGenerator(seed: seed)
      let journal = try SQLiteJournal(path: path)
      // Frames of a former log lie behind those of this one.
      if seed.isMultiple(of: 3) {
        for number in 0..<30 { try await journal.commit([Self.name(number)]) }
        try journal.checkpoint()
      }
      for number in 0..<17 { try await journal.commit([Self.name(100 + number)]) }
      let safe = seed.isMultiple(of: 3) ? 32 + 10 * 4120 : try Data(contentsOf: URL(filePath: path + "-wal")).count
      for number in 0..<3 { try await journal.commit([Self.name(200 + number)]) }
      let copy = path + ".damaged"
      try FileManager.default.copyItem(atPath: path, toPath: copy)
      var bytes = try Data(contentsOf: URL(filePath: path + "-wal"))
      // As it is, it is whole.
      #expect(WriteAheadLog(bytes)?.isDamaged == false)
      bytes[Int.random(in: 0..<safe, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      try bytes.write(to: URL(filePath: copy + "-wal"))
      let error = #expect(throws: MobulaError.self, "seed \(seed)") { try SQLiteJournal(path: copy) }
      #expect(error?.code == .corrupted && error?.message.contains("mobula head recover") == true, "seed \(seed)")
      await journal.close()
    }
  }

  @Test func aFullDiskFailsUntilThereIsRoom() async throws {
    try await withJournal { path in
      var journal = try SQLiteJournal(path: path, maximumPages: 20)
      var kept = 0
      let long = String(repeating: "x", count: 3000)
      let error = await #expect(throws: MobulaError.self) {
        while kept < 100 {
          try await journal.commit([.name(NameRecord("\(kept)\(long)", KnownName(ObjectID(high: 1, low: 1), .given)))])
          kept += 1
        }
      }
      #expect(error?.code == .full && error?.message.contains(path) == true)
      #expect(kept > 3)
      #expect(try await journal.load().names.count == kept)
      // Others that were decided meanwhile fail as well, and are not kept.
      let failures = await withTaskGroup(of: Bool.self) { [journal] group in
        for number in 0..<10 {
          group.addTask {
            do {
              try await journal.commit([.name(NameRecord("\(number) \(long)", KnownName(.random(), .given)))])
              return false
            } catch { return true }
          }
        }
        return await group.reduce(into: 0) { count, failed in count += failed ? 1 : 0 }
      }
      #expect(failures == 10)
      // Room is made.
      try journal.setMaximumPages(1000)
      try await journal.commit([.name(NameRecord("again \(long)", KnownName(.random(), .given)))])
      await journal.close()
      journal = try SQLiteJournal(path: path)
      #expect(try await journal.load().names.count == kept + 1)
      await journal.close()
    }
  }

  /// Somebody cleans up, and takes what is open: what was committed, and what comes, is there all the same.
  @Test(arguments: [["", "-wal", "-shm"], [""], ["-wal"], ["-shm"]])
  func removedFilesAreMadeAnew(suffixes: [String]) async throws {
    try await withJournal { path in
      var journal = try SQLiteJournal(path: path)
      var expected = JournalState()
      expected.apply(Self.all)
      try await journal.commit(Self.all)
      for round in 0..<3 {
        for suffix in suffixes { try FileManager.default.removeItem(atPath: path + suffix) }
        try await withThrowingTaskGroup(of: Void.self) { [journal] group in
          for number in 0..<20 {
            group.addTask { try await journal.commit([Self.name(round * 20 + number)]) }
          }
          try await group.waitForAll()
        }
        expected.apply((0..<20).map { Self.name(round * 20 + $0) })
        #expect(try await journal.load() == expected)
      }
      // As after the machine's power was lost: nothing of what is open counts, but what is in the folder.
      let copy = path + ".copy"
      for suffix in ["", "-wal"] { try FileManager.default.copyItem(atPath: path + suffix, toPath: copy + suffix) }
      #expect(try await SQLiteJournal(path: copy).load() == expected)
      #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
      await journal.close()
      journal = try SQLiteJournal(path: path)
      #expect(try await journal.load() == expected)
      await journal.close()
    }
  }

  /// What is open is whole: an empty file in the place of the log's takes nothing away.
  @Test func anEmptyLogInItsPlaceIsMadeAnew() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      try FileManager.default.removeItem(atPath: path + "-wal")
      #expect(FileManager.default.createFile(atPath: path + "-wal", contents: nil))
      try await journal.commit([Self.name(2)])
      await journal.close()
      #expect(try await SQLiteJournal(path: path).load().names.count == 2)
    }
  }

  /// A journal on another disk, to which a link leads: what becomes of it there is seen, too.
  @Test func whatALinkLeadsToIsWatched() async throws {
    try await withJournal { path in
      let real = path + ".real"
      try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: real)
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      for suffix in ["", "-wal", "-shm"] { try FileManager.default.removeItem(atPath: real + suffix) }
      try await journal.commit([Self.name(2)])
      await journal.close()
      #expect(try await SQLiteJournal(path: path).load().names.count == 2)
    }
  }

  /// The folder itself is gone for a while: commits fail with a sentence, and nothing is lost.
  @Test func aRemovedFolderFailsUntilItIsBack() async throws {
    try await withJournal { path in
      let folder = String(path.dropLast("/journal.sqlite".count))
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      try FileManager.default.removeItem(atPath: folder)
      let error = await #expect(throws: MobulaError.self) { try await journal.commit([Self.name(2)]) }
      #expect(error?.code == .inputOutput && error?.message.contains("removed") == true, "\(error as Any)")
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      try await commitSoon([Self.name(3)], to: journal)
      #expect(try await journal.load().names.count == 2)
      await journal.close()
      #expect(try await SQLiteJournal(path: path).load().names.count == 2)
    }
  }

  @Test func anotherFileInItsPlaceIsLeftAlone() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      try await SQLiteJournal.back(up: path, to: path + ".backup")
      try FileManager.default.moveItem(atPath: path, toPath: path + ".old")
      try FileManager.default.moveItem(atPath: path + ".backup", toPath: path)
      let before = try Data(contentsOf: URL(filePath: path))
      let error = await #expect(throws: MobulaError.self) { try await journal.commit([Self.name(2)]) }
      #expect(error?.code == .inputOutput && error?.message.contains("replaced") == true, "\(error as Any)")
      #expect(try Data(contentsOf: URL(filePath: path)) == before)
      // It is moved away, and the head writes its own again.
      try FileManager.default.moveItem(atPath: path, toPath: path + ".backup")
      try await commitSoon([Self.name(3)], to: journal)
      #expect(try await journal.load().names.count == 2)
      await journal.close()
    }
  }

  /// What was in a file is gone, and nobody has it: no commit is confirmed that nobody would find again.
  @Test(arguments: ["", "-wal"]) func anEmptiedFileStopsAnswers(suffix: String) async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      try journal.checkpoint()
      try await journal.commit([Self.name(2)])
      truncate(path + suffix, 0)
      let error = await #expect(throws: MobulaError.self) { try await journal.commit([Self.name(3)]) }
      #expect(error?.code == .inputOutput && error?.message.contains("emptied") == true, "\(error as Any)")
      if suffix.isEmpty { #expect(SQLiteJournal.isLost(path, hadHead: false)) }
      await journal.close()
    }
  }

  /// The same file by another way: SQLite would look for its log elsewhere.
  @Test func aLinkInItsPlaceIsAnotherFile() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      try FileManager.default.moveItem(atPath: path, toPath: path + ".moved")
      try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: path + ".moved")
      let error = await #expect(throws: MobulaError.self) { try await journal.commit([Self.name(2)]) }
      #expect(error?.code == .inputOutput && error?.message.contains("replaced") == true, "\(error as Any)")
      await journal.close()
    }
  }

  /// Nothing is written, and the files are there again all the same.
  @Test(.timeLimit(.minutes(1))) func anIdleHeadMissesItsFiles() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      for suffix in ["", "-wal", "-shm"] { try FileManager.default.removeItem(atPath: path + suffix) }
      while !FileManager.default.fileExists(atPath: path + "-wal") { try await Task.sleep(for: .milliseconds(50)) }
      // It is there before it is open.
      while (try? await journal.load()) == nil { try await Task.sleep(for: .milliseconds(10)) }
      #expect(try await journal.load().names.count == 1)
      await journal.close()
    }
  }

  @Test func aLostJournalIsToldFromAFirstStart() async throws {
    try await withJournal { path in
      #expect(!SQLiteJournal.isLost(path, hadHead: false))
      await (try SQLiteJournal(path: path)).close()
      #expect(!SQLiteJournal.isLost(path, hadHead: false))
      try FileManager.default.removeItem(atPath: path)
      #expect(SQLiteJournal.isLost(path, hadHead: false))
      try FileManager.default.removeItem(atPath: path + ".lock")
      #expect(!SQLiteJournal.isLost(path, hadHead: false))
      #expect(SQLiteJournal.isLost(path, hadHead: true))
    }
  }

  private func copy(_ path: String, to copy: String, _ suffixes: [String]) throws {
    for suffix in ["", "-wal", "-shm", ".lock"] { try? FileManager.default.removeItem(atPath: copy + suffix) }
    for suffix in suffixes { try FileManager.default.copyItem(atPath: path + suffix, toPath: copy + suffix) }
  }

  /// A head that was killed, and its log taken away before the next one starts: what is left looks whole to SQLite.
  @Test(arguments: [0, 1, 2]) func aLogThatIsGoneIsDamage(kind: Int) async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      try await journal.commit([Self.name(1)])
      // Also what was there when the log was last taken over is not all.
      if kind == 1 { try journal.checkpoint() }
      try await journal.commit([Self.name(2)])
      let copy = path + ".copy"
      try self.copy(path, to: copy, ["", ".lock"])
      if kind == 2 { try Data().write(to: URL(filePath: copy + "-wal")) }
      let error = #expect(throws: MobulaError.self) { try SQLiteJournal(path: copy) }
      #expect(error?.code == .corrupted && error?.message.contains("mobula head recover") == true)
      // With its log it is whole, and so it is once another program has looked at it, and has taken the log over.
      try self.copy(path, to: copy, ["", "-wal", ".lock"])
      #expect(try await SQLiteJournal(path: copy).load().names.count == 2)
      try self.copy(path, to: copy, ["", "-wal", ".lock"])
      let other = try DatabaseQueue(path: copy)
      #expect(try await other.read { db in try Int.fetchOne(db, sql: "SELECT count(*) FROM object_name") } == 2)
      try other.close()
      #expect(!FileManager.default.fileExists(atPath: copy + "-wal"))
      #expect(try await SQLiteJournal(path: copy).load().names.count == 2)
      // Whoever wants an older copy says so.
      try self.copy(path, to: copy, [""])
      #expect(try await SQLiteJournal(path: copy).load().names.count == (kind == 1 ? 1 : 0))
      await journal.close()
    }
  }

  /// Another program takes the log over while the head runs: nothing is lost by that.
  @Test(arguments: ["PASSIVE", "FULL", "RESTART", "TRUNCATE"]) func othersMayTakeTheLogOver(how: String) async throws {
    try await withJournal { path in
      var journal = try SQLiteJournal(path: path)
      for number in 0..<10 {
        try await journal.commit([Self.name(number)])
        let other = try DatabaseQueue(path: path)
        try await other.writeWithoutTransaction { db in try db.execute(sql: "PRAGMA wal_checkpoint(\(how))") }
        try other.close()
      }
      #expect(try await journal.load().names.count == 10)
      let copy = path + ".copy"
      try self.copy(path, to: copy, ["", "-wal", ".lock"])
      #expect(try await SQLiteJournal(path: copy).load().names.count == 10)
      await journal.close()
      journal = try SQLiteJournal(path: path)
      #expect(try await journal.load().names.count == 10)
      await journal.close()
    }
  }

  /// What could not be begun is not taken for what was lost.
  @Test func aFirstStartOnAFullDiskLeavesNothing() async throws {
    try await withJournal { path in
      #expect(throws: MobulaError.self) { try SQLiteJournal(path: path, maximumPages: 1) }
      #expect(!SQLiteJournal.isLost(path, hadHead: false))
      await (try SQLiteJournal(path: path)).close()
    }
  }

  @Test func aBackupIsAJournal() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      var expected = JournalState()
      expected.apply(Self.all)
      try await journal.commit(Self.all)
      try await SQLiteJournal.back(up: path, to: path + ".backup")
      try await journal.commit([.nameRemoved("caf\u{e9}")])
      // Also in the place of one that has more.
      try self.copy(path, to: path + ".place", ["", "-wal", ".lock"])
      for suffix in ["", "-wal"] { try FileManager.default.removeItem(atPath: path + ".place" + suffix) }
      try FileManager.default.copyItem(atPath: path + ".backup", toPath: path + ".place")
      // It is known not to have all that there was, until it has been here itself.
      for place in [path + ".place", path + ".backup"] {
        for isFirst in [true, false] {
          let copy = try SQLiteJournal(path: place)
          #expect(copy.isRestored == isFirst, "\(place)")
          if isFirst { #expect(try await copy.load() == expected) }
          try await copy.commit([Self.name(7)])
          await copy.close()
        }
      }
      #expect(!journal.isRestored)
      #expect(try FileManager.default.attributesOfItem(atPath: path + ".backup")[.posixPermissions] as? Int == 0o600)
      let there = await #expect(throws: MobulaError.self) {
        try await SQLiteJournal.back(up: path, to: path + ".backup")
      }
      #expect(there?.code == .alreadyExists)
      let missing = await #expect(throws: MobulaError.self) {
        try await SQLiteJournal.back(up: path + ".none", to: path + ".other")
      }
      #expect(missing?.code == .notFound)
      await journal.close()
    }
  }

  /// Many wait for one sync: 64 callers, each with one commit after the other.
  @Test func callersShareSyncs() async throws {
    try await withJournal { path in
      let journal = try SQLiteJournal(path: path)
      let start = ContinuousClock.now
      try await withThrowingTaskGroup(of: Void.self) { group in
        for client in 0..<64 {
          group.addTask { for number in 0..<40 { try await journal.commit([Self.name(client * 1000 + number)]) } }
        }
        try await group.waitForAll()
      }
      let took = ContinuousClock.now - start
      print("journal: \(Int(2560 / (took / .seconds(1)))) commits/s of 64 callers")
      #expect(try await journal.load().names.count == 2560)
      await journal.close()
    }
  }
}
