import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaSupervisor

struct LogsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logs",
    abstract: "Show what workers of this machine's host have printed.",
    discussion: """
      Each worker of a job has a log of its own, which is kept for seven days. What workers print, their driver \
      shows as well, with the pod and the worker in front of each line.

      Examples:
        mobula logs
        mobula logs --job 7 --lines 100
        mobula logs --worker 1b674f39 --follow
      """)

  @Option(help: "Only workers of this job.") var job: UInt32?
  @Option(help: "Only the worker whose identifier begins so.") var worker: String?
  @Option(help: "How many of the last lines of each worker; 0 for all.") var lines = 20
  @Flag(name: .shortAndLong, help: "Go on with what is printed from now on, until Ctrl-C.") var follow = false
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    guard lines >= 0 else { throw ValidationError("--lines takes a number from 0.") }
  }

  func run() async throws {
    Interruption.begin()
    let folder = HostPaths.logs(in: directory.runDirectory.path)
    var logs = try WorkerLogFile.all(in: folder).filter(isWanted)
    guard !logs.isEmpty || follow else {
      throw MobulaError(
        .notFound,
        "No worker has printed anything here (\(folder)): look on the host where it runs, as `mobula status` shows, or take another --job or --worker."
      )
    }
    for log in logs {
      Log.write(1, "== worker \(log.worker) of job \(log.job), last written \(log.age)\n")
      Log.write(1, log.end(lines: lines))
    }
    guard follow else { return }
    var offsets = Dictionary(logs.map { ($0.name, $0.size) }, uniquingKeysWith: max)
    while true {
      try await Task.sleep(for: .milliseconds(200))
      logs = try WorkerLogFile.all(in: folder).filter(isWanted)
      for log in logs where log.size != offsets[log.name, default: 0] {
        var offset = offsets[log.name, default: 0]
        // One that began anew.
        if log.size < offset { offset = 0 }
        let (text, end) = log.lines(from: offset)
        offsets[log.name] = end
        for line in text { Log.write(1, "(\(log.job) \(log.worker)) \(line)\n") }
      }
    }
  }

  private func isWanted(_ log: WorkerLogFile) -> Bool {
    (job.map { "\($0)" == log.job } ?? true) && (worker.map { log.worker.hasPrefix($0) } ?? true)
  }
}

/// The log of a worker, as its pod names it.
struct WorkerLogFile {
  let path: String
  let name: String
  let job: String
  let worker: String
  let size: Int
  private let modified: Int

  /// Those of a folder, the oldest first; none where there is no folder.
  static func all(in folder: String) throws(MobulaError) -> [WorkerLogFile] {
    guard access(folder, R_OK | X_OK) == 0 || currentErrno() == ENOENT else {
      throw MobulaError.system("\(folder) can't be read")
    }
    return names(inFolder: folder).compactMap { WorkerLogFile(folder, $0) }
      .sorted { ($0.modified, $0.name) < ($1.modified, $1.name) }
  }

  private init?(_ folder: String, _ name: String) {
    guard let (job, worker) = HostPaths.workerLog(named: name) else { return nil }
    path = folder + "/" + name
    var status = stat()
    guard stat(path, &status) == 0, status.st_size > 0 else { return nil }
    (self.name, self.job, self.worker) = (name, job, worker)
    size = Int(status.st_size)
    modified = Int(status.st_mtim.tv_sec)
  }

  var age: String {
    let seconds = max(0, Int(time(nil)) - modified)
    return switch seconds {
    case ..<120: "\(seconds) s ago"
    case ..<7_200: "\(seconds / 60) min ago"
    default: "\(seconds / 3600) h ago"
    }
  }

  /// More lines than any terminal keeps.
  private static let mostLines = 1 << 20

  /// The last lines, with what a terminal would act on escaped.
  func end(lines count: Int) -> String {
    let text = endOfFile(path, bytes: count == 0 ? size : min(size, max(65_536, min(count, Self.mostLines) * 512)))
    let all = text.split(separator: "\n", omittingEmptySubsequences: false)
    let complete = all.last?.isEmpty == true ? all.dropLast() : all
    let shown = count == 0 ? complete[...] : complete.suffix(count)
    return shown.map { String($0).printable + "\n" }.joined()
  }

  /// Whole lines from an offset on, and the offset behind them.
  func lines(from offset: Int) -> ([String], Int) {
    let bytes = readFile(path, from: offset, most: size - offset)
    guard let last = bytes.lastIndex(of: UInt8(ascii: "\n")) else { return ([], offset) }
    let lines = bytes[..<last].split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    return (lines.map { String(decoding: $0, as: UTF8.self).printable }, offset + last + 1)
  }
}
