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
      """)

  @Option(help: "Run the rows whose names contain this.") var filter = ""
  @Option(help: "Seconds of each of the four rounds.") var seconds = 2.0
  @Option(help: "Write the figures to this file, as JSON.") var json: String?
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
    Interruption.begin()
    var rows: [MicrobenchmarkRow] = []
    if directory.directory != nil {
      rows = try await measure(directory.options)
    } else {
      let capacity =
        capacity.flatMap { ByteCount($0) } ?? ByteCount(min(8_000_000_000, Machine.memory().bytes.bytes / 10 * 3))
      let own = try await PrivateCluster(capacity: capacity)
      // At once, in the middle of whatever is measured.
      let pending = Interruption.whenEnding { own.end() }
      defer { pending.isOver() }
      do {
        rows = try await measure(ClusterOptions(directory: own.directory))
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

  private func measure(_ options: ClusterOptions) async throws -> [MicrobenchmarkRow] {
    let cluster = try await Cluster.connect(options)
    do {
      let rows = try await Microbenchmark(
        on: cluster, filter: filter, seconds: seconds,
        begins: { name in
          if isatty(STDERR_FILENO) == 1 { Log.write(STDERR_FILENO, "\r\u{1B}[K\(name)…") }
        }
      ) {
        if isatty(STDERR_FILENO) == 1 { Log.write(STDERR_FILENO, "\r\u{1B}[K") }
        Log.write(1, $0.text + "\n")
      }.run()
      await cluster.close()
      return rows
    } catch {
      await cluster.close()
      throw error
    }
  }
}
