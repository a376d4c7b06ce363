import ArgumentParser
import FoundationEssentials
import Glibc
import Mobula
import MobulaBench
import MobulaCore
import MobulaSupervisor

struct MicrobenchmarkCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "microbenchmark",
    abstract: "Measure small operations on the store, with the rows of `ray microbenchmark`.",
    discussion: """
      Runs on a cluster of its own, of one host, which it starts and stops; with --directory on the one that runs \
      there, whatever MOBULA_DIRECTORY says: its stores are filled and its processes are busy meanwhile. Each row takes \
      seconds more than its rounds, for what it measures with. A row is a mean and a standard deviation over four rounds. What the rows are: docs/bench-schema.md.

      Examples:
        mobula microbenchmark
        mobula microbenchmark --filter put --json micro.json
        ray microbenchmark >ray.txt; mobula microbenchmark --compare ray.txt
      """)

  @Option(help: "Run the rows whose names contain this.") var filter = ""
  @Option(help: "Seconds of each of the four rounds.") var seconds = 2.0
  @Option(help: "Write the figures to this file, as JSON.") var json: String?
  @Option(
    help:
      "Also print how many times as much each row is as in this file: of `--json`, or what `ray microbenchmark` prints."
  )
  var compare: String?
  @Option(help: "The store's capacity, as in 4GB. Default: 30% of this machine's memory, at most 8 GB.") var capacity:
    String?
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    guard 0.01...600 ~= seconds else { throw ValidationError("--seconds takes 0.01 to 600.") }
    guard filter.isEmpty || Microbenchmark.names.contains(where: { $0.contains(filter) }) else {
      throw ValidationError(
        "No row is called \"\(filter)\"; there are: \(Microbenchmark.names.joined(separator: ", ")).")
    }
    if let capacity, ByteCount(capacity) == nil {
      throw ValidationError("\"\(capacity)\" is no size for --capacity: write it as 4GB.")
    }
  }

  func run() async throws {
    try checkOutput(json)
    let other = try compare.map { try MicrobenchmarkRow.read($0) }
    Interruption.begin()
    var rows: [MicrobenchmarkRow] = []
    if directory.directory != nil {
      rows = try await measure(directory.options, beside: other)
    } else {
      let capacity =
        capacity.flatMap { ByteCount($0) } ?? ByteCount(min(8_000_000_000, Machine.memory().bytes.bytes / 10 * 3))
      let own = try await PrivateCluster(capacity: capacity)
      // At once, in the middle of whatever is measured.
      let pending = Interruption.whenEnding { own.end() }
      defer { pending.isOver() }
      do {
        rows = try await measure(ClusterOptions(directory: own.directory), beside: other)
      } catch {
        await own.stop()
        throw error
      }
      await own.stop()
    }
    if let json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      try writeOutput(try encoder.encode(rows), to: json)
    }
  }

  private func measure(
    _ options: ClusterOptions, beside other: [String: MicrobenchmarkRow]?
  ) async throws -> [MicrobenchmarkRow] {
    let cluster = try await Cluster.connect(options)
    do {
      let rows = try await Microbenchmark(
        on: cluster, filter: filter, seconds: seconds,
        begins: { name in
          if isatty(STDERR_FILENO) == 1 { Log.write(STDERR_FILENO, "\r\u{1B}[K\(name)…") }
        }
      ) { row in
        if isatty(STDERR_FILENO) == 1 { Log.write(STDERR_FILENO, "\r\u{1B}[K") }
        let ratio = other?[row.name].map { row.perSecond / $0.perSecond }
        Log.write(1, row.text + (ratio.map { " (\(($0 * 100).rounded() / 100) x)" } ?? "") + "\n")
      }.run()
      await cluster.close()
      return rows
    } catch {
      await cluster.close()
      throw error
    }
  }
}

extension MicrobenchmarkRow {
  /// The rows of a file, by their names.
  ///
  /// - Throws: `MobulaError`: `notFound` when it can't be read, `invalidArgument` when it has no rows.
  fileprivate static func read(_ path: String) throws -> [String: MicrobenchmarkRow] {
    guard let data = try? Data(contentsOf: URL(filePath: path)) else {
      throw MobulaError(.notFound, "\(path) can't be read: give a file that has rows of a microbenchmark.")
    }
    let rows =
      (try? JSONDecoder().decode([MicrobenchmarkRow].self, from: data))
      ?? String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).compactMap {
        MicrobenchmarkRow(line: $0)
      }
    let usable = rows.filter { $0.perSecond > 0 && $0.perSecond.isFinite }
    guard !usable.isEmpty else {
      throw MobulaError(
        .invalidArgument, "\(path) has no rows of a microbenchmark: make it with --json, or by `ray microbenchmark`.")
    }
    return Dictionary(usable.map { ($0.name, $0) }, uniquingKeysWith: { _, last in last })
  }
}
