import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import Testing

/// A way in which a bench is disturbed while it runs.
struct BenchFault: Hashable, Sendable, CustomTestStringConvertible {
  /// The processes of a bench, by what they are.
  enum Victim: String, Sendable, CaseIterable {
    case head, host, pod, supervisor, worker, driver, weed, inside, outer
    /// The `nsenter` through which the bench started a host's supervisor.
    case entrance
  }

  var victim: Victim
  var signal: CInt = SIGKILL
  var emulation = EmulationKind.netns
  /// The beginning of the output's line after which it strikes.
  var moment = "replication-4, "

  /// Loaders on the maker's host and on another, where a byte needs 0.3 s; enough runs to outlast the fault.
  /// The S3 server is started for cases with S3 alone.
  var cases: String { moment.hasPrefix("replication") ? "replication-4" : "s3-2" }

  var testDescription: String {
    let kind = [SIGKILL: "SIGKILL", SIGTERM: "SIGTERM", SIGINT: "SIGINT"][signal]!
    return "\(kind) to \(victim) in \(emulation) after \"\(moment)\""
  }

  /// The process to hit: of those that come once a host, that of a host that receives.
  func choose(in tree: [RunningProcess]) -> RunningProcess? {
    let outer = tree[0].pid
    let ours = tree.filter { $0.program == "mobula" }
    func with(_ words: String...) -> [RunningProcess] { ours.filter { $0.arguments.dropFirst().starts(with: words) } }
    func isSupervisor(_ process: RunningProcess) -> Bool {
      process.arguments.contains("start") && process.arguments.contains("h1")
    }
    let supervisor = ours.first(where: isSupervisor)
    return switch victim {
    case .outer: tree[0]
    case .inside: with("bench").first { $0.pid != outer }
    case .supervisor: supervisor
    case .entrance: tree.first { $0.program == "nsenter" && isSupervisor($0) }
    case .head: with("head").first
    case .host: with("host").first { $0.parent == supervisor?.pid }
    case .pod: with("pod", "h1-a").first
    case .worker: ours.first { $0.parent == with("pod", "h1-a").first?.pid }
    case .driver: ours.first { $0.variable("MOBULA_BENCH_DRIVER") != nil }
    case .weed: tree.first { $0.arguments.contains("server") && $0.arguments.contains("-filer") }
    }
  }
}

/// What became of a bench that was disturbed.
struct DisturbedBench: Sendable {
  var exit: ChildProcess.Exit
  /// All that it wrote after the fault.
  var output: String
  /// From the fault until it had ended.
  var time: Duration
  /// Processes, mounts, interfaces and files that are still there, described.
  var left: [String]

  /// The sentences of its errors.
  var errors: [String] { output.split(separator: "\n").filter { $0.hasPrefix("Error: ") }.map(String.init) }
}

extension BenchFault {
  /// How long a bench may go on after the fault.
  static let limit = Duration.seconds(90)

  /// Starts a bench, disturbs it, and looks for what is left when it has ended.
  func strike() async throws -> DisturbedBench {
    // All of the bench's temporary files are in a folder of its own, so that other benches may run.
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let output = try ProcessOutput()
    let before = try Self.surroundings()
    let bench = try ChildProcess.spawn(
      Products.mobula,
      [
        "bench", "--size", "8MB", "--nic", "200mbit", "--runs", "8", "--emulation", emulation.rawValue,
        "--cases", cases,
      ], environment: currentEnvironment().merging(["TMPDIR": folder.path]) { $1 }, output: output.stream,
      errors: output.stream, newSession: true)
    output.started()
    // Its end takes the others along.
    defer { bench.signal(SIGTERM) }

    var said = ""
    while true {
      guard let line = try await output.line(within: .seconds(60)) else {
        throw MobulaError(.workFailed, "The bench ended before \"\(moment)\":\n\(said)")
      }
      said += line + "\n"
      if line.hasPrefix(moment) { break }
    }
    // By then the loaders of the next run have started.
    try await Task.sleep(for: .milliseconds(250))
    let tree = RunningProcess.tree(of: bench.pid, in: RunningProcess.all())
    guard let target = choose(in: tree) else {
      throw MobulaError(.notFound, "There is no \(victim) among \(tree.map(\.arguments)).")
    }
    let clock = ContinuousClock()
    let start = clock.now
    kill(target.pid, signal)
    let rest: String
    do {
      rest = try await output.text(within: Self.limit)
    } catch {
      throw MobulaError(.deadlineExceeded, "The bench hangs: it didn't end within \(Self.limit).")
    }
    let exit = await bench.waitForExit()
    let time = clock.now - start

    var left: [String] = []
    // What was killed together with its parent needs a moment.
    for _ in 0..<200 {
      left = try leftovers(of: tree, in: folder.path, before)
      if left.isEmpty { break }
      try await Task.sleep(for: .milliseconds(50))
    }
    print("\(testDescription): \(exit) after \(time)")
    return DisturbedBench(exit: exit, output: rest, time: time, left: left)
  }

  private func leftovers(
    of tree: [RunningProcess], in folder: String, _ before: Set<String>
  ) throws -> [String] {
    let identities = Set(tree.map { [Int($0.pid), $0.startTime] })
    let processes = RunningProcess.all().filter {
      identities.contains([Int($0.pid), $0.startTime]) || $0.variable("TMPDIR") == folder
    }
    let mounts = String(decoding: try Data(contentsOf: URL(filePath: "/proc/self/mountinfo")), as: UTF8.self)
    let ports = tree.flatMap(\.arguments).filter { $0.contains("port=") }.compactMap {
      $0.split(separator: "=").last.flatMap { Int($0) }
    }
    let sockets = ports.filter { $0 > 0 }.flatMap { ["-\($0).sock", "-\($0 + 10_000).sock"] }
    let surroundings = try Self.surroundings().subtracting(before).filter { name in
      !name.hasSuffix(".sock") || sockets.contains { name.hasSuffix($0) }
    }
    return processes.map { "process \($0.pid) \($0.arguments)" }
      + mounts.split(separator: "\n").filter { $0.contains(folder) }.map { "mount \($0)" }
      + (try FileManager.default.contentsOfDirectory(atPath: folder)).map { "file \($0)" }
      + surroundings
  }

  /// What benches might leave outside of their folders: network interfaces, and SeaweedFS's sockets, all benches'.
  private static func surroundings() throws -> Set<String> {
    let interfaces = try FileManager.default.contentsOfDirectory(atPath: "/sys/class/net").map { "interface \($0)" }
    let sockets = try FileManager.default.contentsOfDirectory(atPath: "/tmp").filter { $0.hasPrefix("seaweedfs-") }
    return Set(interfaces + sockets)
  }
}
