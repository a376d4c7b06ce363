import CMobula
import Glibc
import MobulaCore
import Synchronization

/// Reads what the workers of a pod write into their logs, as they write it.
///
/// The logs are files, and not pipes: whatever ends a worker, or this process, they have all that was written, and nobody
/// who writes ever waits for who reads.
final class OutputTail: Sendable {
  /// What is told of the lines of a job.
  typealias Deliver = @Sendable (_ job: JobID, _ lines: [OutputReport.Line], _ dropped: Int) -> Void

  private struct Source {
    let worker: String
    let job: JobID
    /// Up to where it was read.
    var offset = 0
    /// A line that has no end yet.
    var rest: [UInt8] = []
  }

  private struct State {
    /// By the names of their files.
    var sources: [String: Source] = [:]
    /// How many lines may still be told in this second.
    var allowance = mostLines
    var second = ContinuousClock.now
  }

  /// What is longer is told in pieces.
  private static let longestLine = 8_192
  /// At a time.
  private static let mostBytes = 1 << 20
  /// In a second; the rest is counted, and is in the logs.
  private static let mostLines = 10_000
  /// A log that is larger begins anew, and what it had is kept once, beside it.
  static let largestLog = 64 << 20
  /// How long logs are kept.
  private static let age = 7 * 86_400

  private let folder: String
  private let deliver: Deliver
  private let state = Mutex(State())

  init(_ folder: String, _ deliver: @escaping Deliver) {
    self.folder = folder
    self.deliver = deliver
    detachThread(named: "output") { [weak self] in Self.run(folder) { self } }
  }

  /// A worker writes from now on.
  func add(_ worker: WorkerID, of job: JobID, to path: String) {
    state.withLock { $0.sources[Self.name(of: path)] = Source(worker: worker.short, job: job) }
  }

  /// A worker has ended: what it has written last is told.
  func remove(_ path: String) {
    let name = Self.name(of: path)
    read([name])
    let rest = state.withLock { state -> (JobID, OutputReport.Line)? in
      guard let source = state.sources.removeValue(forKey: name), !source.rest.isEmpty else { return nil }
      return (source.job, OutputReport.Line(worker: source.worker, text: String(decoding: source.rest, as: UTF8.self)))
    }
    if let (job, line) = rest { deliver(job, [line], 0) }
  }

  private static func name(of path: String) -> String {
    String(path[(path.lastIndex(of: "/") ?? path.startIndex)...].dropFirst())
  }

  private static func run(_ folder: String, _ tail: () -> OutputTail?) {
    let watch = mobula_watch_writes(folder)
    defer { if watch >= 0 { close(watch) } }
    var names = [CChar](repeating: 0, count: 16_384)
    var cleaned = ContinuousClock.now - .seconds(3600)
    while let tail = tail() {
      if cleaned + .seconds(3600) <= .now {
        cleaned = .now
        tail.clean()
      }
      // Without a watch, as where a user has too many, all are looked at now and then.
      let size = watch >= 0 ? mobula_written_files(watch, &names, names.count, 1000) : 0
      if watch < 0 { usleep(200_000) }
      guard size > 0 || watch < 0 else { continue }
      var written = Set(
        names.prefix(max(0, size)).split(separator: 0).map {
          String(decoding: $0.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        })
      if watch < 0 || written.contains("*") { written = Set(tail.state.withLock { $0.sources.keys }) }
      tail.read(written.sorted())
      // What is written in a moment goes together.
      usleep(20_000)
    }
  }

  private func read(_ names: [String]) {
    var lines: [JobID: [OutputReport.Line]] = [:]
    var dropped: [JobID: Int] = [:]
    for name in names {
      var more = true
      while more {
        more = state.withLock { state in
          guard var source = state.sources[name] else { return false }
          let (texts, isMore) = Self.take(folder + "/" + name, &source)
          state.sources[name] = source
          for text in texts {
            if state.second + .seconds(1) <= .now { (state.second, state.allowance) = (.now, Self.mostLines) }
            guard state.allowance > 0 else {
              dropped[source.job, default: 0] += 1
              continue
            }
            state.allowance -= 1
            lines[source.job, default: []].append(OutputReport.Line(worker: source.worker, text: text))
          }
          return isMore
        }
      }
    }
    for job in Set(lines.keys).union(dropped.keys).sorted() { deliver(job, lines[job] ?? [], dropped[job] ?? 0) }
  }

  /// What was written since the last time, up to a megabyte of it.
  private static func take(_ path: String, _ source: inout Source) -> (lines: [String], isMore: Bool) {
    let bytes = readFile(path, from: source.offset, most: mostBytes)
    guard !bytes.isEmpty else { return ([], false) }
    source.offset += bytes.count
    var lines: [String] = []
    for byte in bytes {
      if byte != UInt8(ascii: "\n") {
        source.rest.append(byte)
        if source.rest.count < longestLine { continue }
      }
      lines.append(String(decoding: source.rest, as: UTF8.self))
      source.rest.removeAll(keepingCapacity: true)
    }
    // Not before all that it has was told.
    if source.offset > largestLog, bytes.count < mostBytes { begin(path, anew: &source) }
    return (lines, bytes.count == mostBytes)
  }

  /// Keeps what a log has beside it, and has it begin anew: who writes appends to it.
  private static func begin(_ path: String, anew source: inout Source) {
    let from = open(path, O_RDWR | O_CLOEXEC)
    let to = open(path + ".1", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    defer { for descriptor in [from, to] where descriptor >= 0 { close(descriptor) } }
    guard from >= 0, to >= 0 else { return }
    var offset: Int64 = 0
    while true {
      let sent = mobula_sendfile(to, from, offset, 1 << 24)
      // On a disk that is full the log stays as it is.
      if sent < 0 { return }
      if sent == 0 { break }
      offset += Int64(sent)
    }
    if ftruncate(from, 0) == 0 { source.offset = 0 }
  }

  /// Removes logs of workers that are long gone.
  private func clean() {
    let live = state.withLock { Set($0.sources.keys) }
    for name in names(inFolder: folder) where name.hasPrefix("worker-") && !live.contains(name) {
      var status = stat()
      guard stat(folder + "/" + name, &status) == 0, status.st_mtim.tv_sec + Self.age < time(nil) else { continue }
      unlink(folder + "/" + name)
    }
  }
}
