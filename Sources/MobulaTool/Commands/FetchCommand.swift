import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaS3
import MobulaSupervisor
import MobulaTerminal
import MobulaWire
import Synchronization

struct FetchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fetch", abstract: "Bring objects of S3 into the cluster, under their URLs as names.",
    discussion: """
      The host downloads, with the credentials of its own environment, files, container or instance, which \
      `mobula credentials` shows there. A URL that is no key stands for all keys that begin so. Hosts that want the same read it together, each a part, and give each other what \
      they have read. What the cluster has already is not downloaded again.

      Examples:
        mobula fetch s3://models/whisper/
        mobula fetch s3://models/whisper/model.bin --explain
        mobula fetch s3://models/whisper/model.bin --timeout 600
        mobula fetch s3://models/whisper/model.bin --s3-endpoint http://10.0.0.9:8333
        mobula fetch s3://open-data/set/ --no-sign-request
      """)

  @Argument(help: "s3://BUCKET/PREFIX") var url: String
  @OptionGroup var s3: S3Options
  @Option(
    parsing: .unconditional, help: "Seconds to wait at most; the host goes on. Default: as long as bytes come.")
  var timeout: Double?
  @Flag(help: "Say from where the bytes came, and why.") var explain = false
  @OptionGroup var json: JSONFlag
  @OptionGroup var quiet: QuietFlag
  @OptionGroup var directory: DirectoryOption

  private struct Fetched: Encodable, Sendable {
    struct Source: Encodable, Sendable {
      /// `s3`, or a host's name.
      var source: String
      var bytes: Int
    }
    var name: String
    /// `nil` for one that did not come.
    var object: String?
    var size: Int
    /// Why it did not come.
    var error: String?
    /// With `--explain`.
    var sources: [Source]?
    /// Why bytes were read from S3 that other hosts had.
    var reason: String?
    /// The algorithm of S3's checksum that the bytes were found to have.
    var checksum: String?
    /// Why they were not compared with one.
    var unverified: String?
    /// Whether none of it had to be brought here now.
    var wasHere = false

    enum CodingKeys: CodingKey { case name, object, size, error, sources, reason, checksum, unverified }

    var lines: [String] {
      guard let sources else { return [] }
      if sources.isEmpty { return ["  it was made on this host, or came long ago"] }
      let verification =
        checksum.map { ["  verified: the bytes have S3's checksum (\($0))"] } ?? unverified.map {
          ["  not verified by a checksum of S3's: \($0)"]
        } ?? []
      return (wasHere ? ["  it is on this host already; when it came:"] : []) + verification
        + sources.map { source in
          let share = size > 0 ? (source.bytes * 100 + size / 2) / size : 100
          let whence = source.source == "s3" ? "S3" : "host \(source.source.printable)"
          let why =
            source.source != "s3"
            ? "which had read that" : reason.map { "also as \($0)" } ?? "what this host was to read of it"
          return "  \(ByteCount(source.bytes)) (\(share)%) from \(whence): \(why)"
        }
    }
  }

  private func explain(_ fetched: inout Fetched, _ object: ObjectID, _ names: [HostID: Name], on cluster: Cluster)
    async throws
  {
    fetched.sources = []
    guard let sources = try await cluster.sources(of: object) else { return }
    var hosts = sources.fromHosts.map { Fetched.Source(source: names[$0]?.text ?? $0.short, bytes: $1) }
    // The object's header and trailer count above, and are none of S3's bytes.
    var surplus = max(0, sources.fromS3 + hosts.reduce(0) { $0 + $1.bytes } - fetched.size)
    if let last = hosts.indices.max(by: { hosts[$0].bytes < hosts[$1].bytes }) {
      let less = min(surplus, hosts[last].bytes)
      hosts[last].bytes -= less
      surplus -= less
    }
    let fromS3 = max(0, sources.fromS3 - surplus)
    let s3 = fromS3 > 0 ? [Fetched.Source(source: "s3", bytes: fromS3)] : []
    fetched.sources = s3 + hosts.sorted { ($1.bytes, $0.source) < ($0.bytes, $1.source) }
    fetched.reason = sources.reason
    fetched.checksum = sources.checksum
    fetched.unverified = sources.unverified
  }

  func validate() throws {
    guard S3Target.isS3(url) else {
      throw ValidationError("\"\(url)\" is no address in S3: write it as s3://BUCKET/PREFIX.")
    }
    try S3Target.check(url)
    try s3.check(for: [url])
    if let timeout, !(timeout > 0 && timeout <= 1e7) {
      throw ValidationError("--timeout takes seconds, more than 0 and up to 10 million.")
    }
    if quiet.quiet, json.json || explain { throw ValidationError("Give --quiet, or --json and --explain, not both.") }
  }

  func run() async throws {
    Interruption.begin()
    guard let timeout else { return try await fetch() }
    try await S3OfHost.within(timeout, url) { try await fetch() }
  }

  private func fetch() async throws {
    try await withCluster(directory.options) { cluster in
      let progress = quiet.progress(url)
      defer { progress?.finish(succeeded: false) }
      let entries = try await S3OfHost.explaining { try await cluster.entriesInS3(url, access: s3.access) }
      guard !entries.isEmpty else {
        throw MobulaError(.notFound, "There is nothing under \(url): check the bucket and the prefix.")
      }
      if let note = Self.note(on: url, entries) {
        if let progress { progress.note(note) } else { Log.write(STDERR_FILENO, note + "\n") }
      }
      let total = entries.reduce(ByteCount(0)) { $0 + $1.size }.bytes
      let names =
        explain
        ? Dictionary(try await cluster.status().hosts.map { ($0.host, $0.name) }, uniquingKeysWith: { a, _ in a }) : [:]
      let pending = S3OfHost.whenEnding(entries.count == 1 ? entries[0].url.text : nil)
      let begin = ContinuousClock.now
      defer { pending.isOver() }
      let board = FetchBoard(entries.count) { progress?.update($0, of: total) }
      let notes = Notes { progress?.note($0) }
      let access = s3.access
      let units = FetchUnits(entries, holdsEach: explain)
      let results = try await units.together { unit in
        var alone = unit
        var results: [(Int, Result)] = []
        if unit.count > 1 {
          var outcomes = Array(repeating: FetchSmallReply.Outcome(), count: unit.count)
          // Each by itself waits for as long as bytes come, or says why it does not come.
          do { outcomes = try await cluster.fetchSmall(unit.map { entries[$0] }, access: access) } catch let error
            as MobulaError where Self.isOfOneObject(error)
          {}
          alone = []
          for (index, outcome) in zip(unit, outcomes) {
            guard let object = outcome.object else {
              alone.append(index)
              continue
            }
            let entry = entries[index]
            board.came(entry.size.bytes, of: index)
            var fetched = Fetched(name: entry.url.text, object: "\(object)", size: entry.size.bytes)
            fetched.wasHere = outcome.bytesCopied == 0
            results.append((index, Result(fetched: fetched, bytes: outcome.bytesCopied)))
          }
        }
        return try await withThrowingTaskGroup(of: (Int, Result).self, returning: [(Int, Result)].self) { group in
          for index in alone {
            let entry = entries[index]
            group.addTask {
              let result = try await Self.fetch(
                entry.url.text, entry.size.bytes, from: access, at: index, board, notes, isAlone: entries.count == 1,
                on: cluster)
              return (index, result)
            }
          }
          return try await group.reduce(into: results) { $0.append($1) }
        }
      }
      var fetched = results.map(\.fetched)
      if explain {
        for (index, result) in results.enumerated() {
          if let reference = result.reference { try await explain(&fetched[index], reference.id, names, on: cluster) }
        }
      }
      let copied = results.reduce(0) { $0 + $1.bytes }
      let hasFailed = fetched.contains { $0.error != nil }
      progress?.update(total, of: total)
      // What another had begun to fetch was waited for.
      let isNothingNew = copied == 0 && !hasFailed && .now - begin < .seconds(2)
      progress?.finish(
        saying: isNothingNew ? "\(url): \(ByteCount(total)), on this host already" : nil,
        came: copied > 0 ? copied : nil)
      try show(fetched)
      if hasFailed { throw ExitCode(1) }
    }
  }

  /// What is to be said of a URL that is no key and does not look like a folder's either.
  private static func note(on url: String, _ entries: [ListS3Reply.Entry]) -> String? {
    guard !url.hasSuffix("/"), let key = try? S3URL(url), !key.key.isEmpty,
      !entries.contains(where: { $0.url == key.name })
    else { return nil }
    let folder = url + "/"
    let inside = entries.count { $0.url.text.utf8.starts(with: folder.utf8) }
    let count = entries.count == 1 ? "the one object whose key begins" : "the \(entries.count) objects whose keys begin"
    let hint = inside > 0 && inside < entries.count ? " Those in the folder alone are \(folder.printable)" : ""
    return "No key is \(url.printable): fetching \(count) so.\(hint)"
  }

  private struct Result: Sendable {
    var fetched: Fetched
    /// Holds the object until all is said of it.
    var reference: ObjectRef<Blob>?
    /// That came into this host's store for this.
    var bytes = 0
  }

  private static func fetch(
    _ url: String, _ size: Int, from access: S3Access, at index: Int, _ board: FetchBoard, _ notes: Notes,
    isAlone: Bool, on cluster: Cluster
  ) async throws -> Result {
    var result = Result(fetched: Fetched(name: url, size: size))
    do {
      let (reference, bytes) = try await S3OfHost.explaining {
        try await cluster.fetchCounted(url, access: access, waiting: { notes.say($0) }) { verified, _ in
          board.came(min(verified.bytes, size), of: index)
        }
      }
      result.fetched.object = "\(reference.id)"
      result.fetched.wasHere = bytes == 0
      (result.reference, result.bytes) = (reference, bytes)
    } catch let error as MobulaError where !isAlone && isOfOneObject(error) {
      result.fetched.error = error.message
    }
    board.came(size, of: index)
    return result
  }

  /// Whether another object of the prefix may come all the same.
  static func isOfOneObject(_ error: MobulaError) -> Bool {
    ![.unauthenticated, .connectionClosed, .cancelled].contains(error.code)
  }

  private func show(_ fetched: [Fetched]) throws {
    if json.json { return try printJSON(fetched) }
    for entry in fetched {
      guard let object = entry.object else {
        Log.error("\(entry.name.printable) did not come: \(entry.error ?? "")")
        continue
      }
      if quiet.quiet {
        print(object)
      } else {
        print((["\(object)  \(entry.name.printable)"] + entry.lines).joined(separator: "\n"))
      }
    }
  }
}

/// How much of each of several objects has come.
private final class FetchBoard: Sendable {
  private let bytes: Mutex<(each: [Int], sum: Int)>
  private let report: @Sendable (_ sum: Int) -> Void

  init(_ count: Int, report: @escaping @Sendable (_ sum: Int) -> Void) {
    bytes = Mutex((Array(repeating: 0, count: count), 0))
    self.report = report
  }

  func came(_ verified: Int, of index: Int) {
    let sum = bytes.withLock { bytes in
      bytes.sum += verified - bytes.each[index]
      bytes.each[index] = verified
      return bytes.sum
    }
    report(sum)
  }
}

/// Requests to S3 that the host makes, not this process.
enum S3OfHost {
  /// The object that is called so, or of which the id is or begins so. One of S3 that no host has all of is fetched,
  /// whatever a fetch has left that failed.
  ///
  /// - Parameter progress: shows what comes, and what is waited for.
  static func object(
    _ text: String, access: S3Access = S3Access(), on cluster: Cluster, _ progress: Progress?
  ) async throws -> ObjectRef<Blob> {
    do {
      let (reference, listing) = try await cluster.object(found: text)
      if !S3Target.isS3(text) || !listing.hosts.isEmpty { return reference }
    } catch let error as MobulaError where error.code == .notFound && S3Target.isS3(text) {}
    let pending = whenEnding(text)
    defer { pending.isOver() }
    let notes = Notes { progress?.note($0) }
    return try await explaining {
      try await cluster.fetchCounted(text, access: access, waiting: { notes.say($0) }) { verified, total in
        progress?.update(verified.bytes, of: total?.bytes)
      }.reference
    }
  }

  /// What `body` returns, if it does within so many seconds (`--timeout`).
  static func within<Answer: Sendable>(
    _ timeout: Double, _ url: String, _ body: @escaping @Sendable () async throws -> Answer
  ) async throws -> Answer {
    let sentence =
      "\(url.printable) was not here after \(timeout) s (--timeout): the host goes on, and a later fetch finds what it has."
    return try await firstAnswer(within: .seconds(timeout), else: sentence, body)
  }

  /// Says what becomes of what was begun, if a signal ends this process: the host goes on, for whoever else wants it.
  ///
  /// - Parameter url: of the only object; `nil` where there are several.
  static func whenEnding(_ url: String?) -> Interruption.Pending {
    Interruption.whenEnding {
      let what = url.map { "fetching \($0.printable)" } ?? "with what was begun"
      Log.write(
        STDERR_FILENO, "The host goes on \(what): `mobula rm \(url.map { $0.printable } ?? "URL")` gives it up.\n")
    }
  }

  /// - Throws: what `body` throws; for missing credentials, where they are missing.
  static func explaining<Result>(_ body: () async throws -> Result) async throws -> Result {
    do { return try await body() } catch var error as MobulaError
      where error.code == .unauthenticated || error.code == .denied && error.message.contains("credentials")
    {
      error.message +=
        " That is said by the host, whose credentials are those of where `mobula start` ran, not of this shell."
      throw error
    }
  }
}

/// What is waited for is said at most every ten seconds, however many wait.
final class Notes: Sendable {
  private let last = Mutex<ContinuousClock.Instant?>(nil)
  private let put: @Sendable (String) -> Void

  init(_ put: @escaping @Sendable (String) -> Void) { self.put = put }

  func say(_ problem: String) {
    let isDue = last.withLock { last in
      if let last, .now - last < .seconds(10) { return false }
      last = .now
      return true
    }
    if isDue { put("Waiting: \(problem)") }
  }
}
