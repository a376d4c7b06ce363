internal import Foundation
internal import GRDB
internal import MobulaCore

/// The tables of a journal's file, and how older ones become newer ones.
///
/// Identifiers, nonces and names are BLOBs: SQLite compares bytes, and so do we; a TEXT would end at its first zero. Numbers of 64 bits without sign are
/// kept as SQLite's signed ones with the same bits. Each row ends with the CRC32C of what is before it, since SQLite
/// finds damage in its own structure only.
enum SQLiteSchema {
  /// "Mobu": what tells our files from other programs'.
  static let applicationID: Int32 = 0x4D6F_6275

  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    // What was released is never changed: new tables and columns come with a migration of their own.
    migrator.registerMigration("1: hosts, pods, jobs, names") { db in
      try db.execute(
        sql: """
          CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL)
            STRICT, WITHOUT ROWID;
          CREATE TABLE host(id BLOB PRIMARY KEY, nonce BLOB NOT NULL, incarnation INTEGER NOT NULL,
            session INTEGER NOT NULL, state INTEGER NOT NULL, name BLOB NOT NULL, since INTEGER NOT NULL,
            checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          CREATE TABLE pod(id BLOB PRIMARY KEY, host BLOB NOT NULL, nonce BLOB NOT NULL,
            incarnation INTEGER NOT NULL, session INTEGER NOT NULL, state INTEGER NOT NULL, name BLOB NOT NULL,
            checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          CREATE TABLE job(id INTEGER PRIMARY KEY, secret BLOB NOT NULL, state INTEGER NOT NULL, program BLOB,
            checksum INTEGER NOT NULL) STRICT;
          CREATE TABLE object_name(name BLOB PRIMARY KEY, object BLOB NOT NULL, kind INTEGER NOT NULL, claim INTEGER,
            checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          PRAGMA application_id = \(applicationID);
          """)
    }
    migrator.registerMigration("2: actors") { db in
      try db.execute(
        sql: """
          CREATE TABLE actor(id BLOB PRIMARY KEY, job INTEGER NOT NULL, incarnation INTEGER NOT NULL,
            restarts INTEGER NOT NULL, flags INTEGER NOT NULL, pod BLOB, endpoint BLOB, spec BLOB NOT NULL,
            checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          """)
    }
    return migrator
  }

  /// The columns of each table, without the checksum, the key first.
  static let columns: [(table: String, columns: [String])] = [
    ("meta", ["key", "value"]),
    ("host", ["id", "nonce", "incarnation", "session", "state", "name", "since"]),
    ("pod", ["id", "host", "nonce", "incarnation", "session", "state", "name"]),
    ("job", ["id", "secret", "state", "program"]),
    ("object_name", ["name", "object", "kind", "claim"]),
    ("actor", ["id", "job", "incarnation", "restarts", "flags", "pod", "endpoint", "spec"]),
  ]

  private static let insertions: [String: String] = Dictionary(
    uniqueKeysWithValues: columns.map { table, columns in
      let names = (columns + ["checksum"]).joined(separator: ", ")
      let places = Array(repeating: "?", count: columns.count + 1).joined(separator: ", ")
      return (table, "INSERT OR REPLACE INTO \(table)(\(names)) VALUES(\(places))")
    })

  /// What the keys of hosts that are being drained begin with.
  private static let drainingKey = "draining "

  // MARK: Writing

  static func write(_ record: JournalRecord, _ db: Database) throws {
    switch record {
    case .cluster(let cluster): try insert("meta", ["cluster".databaseValue, blob(cluster)], db)
    case .recovering(let isRecovering):
      try insert("meta", ["recovering".databaseValue, blob(UInt64(isRecovering ? 1 : 0))], db)
    case .epoch(let epoch): try insert("meta", ["epoch".databaseValue, blob(epoch)], db)
    case .counter(let counter, let limit):
      try insert("meta", ["counter \(counter.rawValue)".databaseValue, blob(limit)], db)
    case .host(let host):
      try insert(
        "host",
        [
          blob(host.host), blob(host.nonce), integer(host.incarnation), integer(host.session),
          integer(UInt64(host.state.rawValue)), blob(Array(host.name.utf8)), integer(host.since),
        ], db)
    case .hostForgotten(let host): try delete("host", "id", blob(host), db)
    // In a row of its own kind, which older builds pass over.
    case .draining(let host, true):
      try insert("meta", ["\(drainingKey)\(host)".databaseValue, blob(host)], db)
    case .draining(let host, false): try delete("meta", "key", "\(drainingKey)\(host)".databaseValue, db)
    case .pod(let pod):
      try insert(
        "pod",
        [
          blob(pod.pod), blob(pod.host), blob(pod.nonce), integer(pod.incarnation), integer(pod.session),
          integer(UInt64(pod.state.rawValue)), blob(Array(pod.name.utf8)),
        ], db)
    case .podForgotten(let pod): try delete("pod", "id", blob(pod), db)
    case .job(let job):
      try insert(
        "job",
        [
          integer(UInt64(job.job.number)), blob(job.secret), integer(UInt64(job.state.rawValue)),
          job.program.map { blob($0) } ?? .null,
        ], db)
    case .jobForgotten(let job): try delete("job", "id", integer(UInt64(job.number)), db)
    case .name(let name):
      let (kind, claim): (UInt64, DatabaseValue) =
        switch name.known.kind {
        case .given: (1, .null)
        case .url(let claim): (2, integer(claim))
        case .version: (3, .null)
        }
      try insert(
        "object_name", [blob(Array(name.name.utf8)), blob(name.known.object), integer(kind), claim], db)
    case .nameRemoved(let name): try delete("object_name", "name", blob(Array(name.utf8)), db)
    case .actor(let actor):
      try insert(
        "actor",
        [
          blob(actor.actor), integer(UInt64(actor.job.number)), integer(actor.incarnation),
          integer(UInt64(max(0, actor.restarts))), integer((actor.hasLived ? 1 : 0) | (actor.hasEnded ? 2 : 0)),
          actor.pod.map { blob($0) } ?? .null,
          actor.endpoint.map { blob(Array($0.description.utf8)) } ?? .null, blob(try CBOREncoder().encode(actor.spec)),
        ], db)
    case .actorForgotten(let actor): try delete("actor", "id", blob(actor), db)
    }
  }

  private static func insert(_ table: String, _ values: [DatabaseValue], _ db: Database) throws {
    let statement = try db.cachedStatement(sql: insertions[table]!)
    try statement.execute(
      arguments: StatementArguments(values + [Int64(SQLiteRow.checksum(table, values)).databaseValue]))
  }

  private static func delete(_ table: String, _ column: String, _ key: DatabaseValue, _ db: Database) throws {
    try db.cachedStatement(sql: "DELETE FROM \(table) WHERE \(column) = ?").execute(arguments: [key])
  }

  // MARK: The mark

  // In rows of their own kind, which older builds pass over.
  private static let (instanceKey, numberKey) = ("instance", "commits")

  static func write(_ mark: JournalMark, _ db: Database) throws {
    try insert("meta", [instanceKey.databaseValue, blob(mark.instance)], db)
    try insert("meta", [numberKey.databaseValue, blob(mark.number)], db)
  }

  /// `nil` in a file that no build with marks has written.
  static func mark(_ db: Database) throws -> JournalMark? {
    func row(_ key: String) throws -> SQLiteRow? {
      let columns = try Row.fetchOne(db, sql: "SELECT key, value, checksum FROM meta WHERE key = ?", arguments: [key])
      guard let columns else { return nil }
      var row = try SQLiteRow("meta", columns, count: 2)
      _ = try row.text()
      return row
    }
    guard var instance = try row(instanceKey), var number = try row(numberKey) else { return nil }
    return JournalMark(instance: try instance.identifier(), number: try number.number64())
  }

  // MARK: Reading

  /// - Throws: `DatabaseError`, or `MobulaError` (`corrupted`) for a row that no head wrote so.
  static func read(_ db: Database) throws -> JournalState {
    var state = JournalState()
    for (table, columns) in columns {
      let rows = try Row.fetchCursor(
        db, sql: "SELECT \((columns + ["checksum"]).joined(separator: ", ")) FROM \(table)")
      while let row = try rows.next() {
        var row = try SQLiteRow(table, row, count: columns.count)
        if let record = try record(table, &row) { state.apply(record) }
      }
    }
    return state
  }

  private static func record(_ table: String, _ row: inout SQLiteRow) throws -> JournalRecord? {
    switch table {
    case "meta":
      switch try row.text() {
      case "cluster": return .cluster(try row.identifier())
      case "epoch": return .epoch(try row.number64())
      case "recovering": return .recovering(try row.number64() != 0)
      case let key where key.hasPrefix(drainingKey): return .draining(try row.identifier(), true)
      case let key:
        guard key.hasPrefix("counter "), let counter = UInt8(key.dropFirst(8)).flatMap(JournalCounter.init) else {
          return nil
        }
        return .counter(counter, limit: try row.number64())
      }
    case "host":
      return .host(
        HostRecord(
          host: try row.identifier(), nonce: try row.identifier(), incarnation: try row.integer(),
          session: try row.integer(), state: try row.state(), name: try row.textBytes(), since: try row.integer()))
    case "pod":
      return .pod(
        PodRecord(
          pod: try row.identifier(), host: try row.identifier(), nonce: try row.identifier(),
          incarnation: try row.integer(), session: try row.integer(), state: try row.state(), name: try row.textBytes())
      )
    case "job":
      guard let number = UInt32(exactly: try row.integer()) else { throw row.damage }
      return .job(
        JobRecord(
          job: JobID(number), secret: try row.identifier(), state: try row.state(), program: try row.bytesOrNull()))
    case "actor":
      let id: RemoteActorID = try row.identifier()
      guard let job = UInt32(exactly: try row.integer()) else { throw row.damage }
      let (incarnation, restarts, flags) = (try row.integer(), try row.integer(), try row.integer())
      let (pod, endpoint): (PodID?, String?) = (try row.identifierOrNull(), try row.textBytesOrNull())
      guard let spec = try? CBORDecoder().decode(ActorSpec.self, from: try row.bytes()) else { throw row.damage }
      var record = ActorRecord(
        actor: id, job: JobID(job), incarnation: incarnation, restarts: Int(clamping: restarts), spec: spec)
      (record.hasLived, record.hasEnded, record.pod) = (flags & 1 != 0, flags & 2 != 0, pod)
      record.endpoint = try endpoint.map { text in
        guard let endpoint = Endpoint(text) else { throw row.damage }
        return endpoint
      }
      return .actor(record)
    default:
      let name = try row.textBytes()
      let object: ObjectID = try row.identifier()
      switch try row.integer() {
      case 1: return .name(NameRecord(name, KnownName(object, .given)))
      case 2: return .name(NameRecord(name, KnownName(object, .url(claim: try row.integer()))))
      case 3: return .name(NameRecord(name, KnownName(object, .version)))
      default: throw row.damage
      }
    }
  }

  // MARK: Values

  private static func integer(_ number: UInt64) -> DatabaseValue { Int64(bitPattern: number).databaseValue }
  private static func blob(_ bytes: [UInt8]) -> DatabaseValue { Data(bytes).databaseValue }
  private static func blob(_ number: UInt64) -> DatabaseValue { blob(bytes(number)) }
  private static func blob<Tag>(_ id: Identifier<Tag>) -> DatabaseValue { blob(bytes(id.high) + bytes(id.low)) }
  private static func bytes(_ number: UInt64) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
}
