import Glibc
public import MobulaCore
import Synchronization

/// How a process uses its cluster.
public struct ClusterOptions: Sendable {
  /// The directory of this machine's host. Default: `MOBULA_DIRECTORY`, else where `mobula start` puts it.
  public var directory: String
  /// How long `ObjectRef.value` waits. Default: for as long as it takes.
  public var valueDeadline: Duration?
  /// How long a task, from `submit` on, or a call of an actor may take, where nothing else is said. Default: for as long as
  /// it takes.
  public var workDeadline: Duration?
  /// How long `spawn` waits for a pod with room. Default: one minute.
  public var leaseDeadline: Duration = .seconds(60)
  /// The most memory that tasks may take in this process which have not ended: `submit` throws `full` beyond it. Default:
  /// 1 GiB, which is some two million small ones.
  public var queueLimit: ByteCount = ByteCount(1 << 30)
  /// What is done with what the workers of this job print. Default: it is written to standard error, each line with the
  /// pod and the worker that wrote it.
  public var workerOutput = WorkerOutput.prefixed
  /// Variables that the workers of this job get, beside the few that they have from their pod: `PATH`, `HOME`, locale and
  /// the like, and no secret of the host's. None by default; at most 32 KiB in all.
  public var workerEnvironment: [String: String] = [:]

  /// - Parameter directory: a relative one is below the current folder.
  public init(directory: String? = nil) {
    self.directory = directory.map { HostPaths.absolute($0) } ?? Self.defaultDirectory()
  }

  /// `MOBULA_DIRECTORY`; else `/run/mobula` for root, `~/.mobula` for others: one for a user, however the shell was
  /// started, that outlives a logout.
  ///
  /// Where a user has no home it is a folder in `/var/tmp`.
  public static func defaultDirectory() -> String {
    HostPaths.defaultDirectory(environment: currentEnvironment())
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for what can't be in an environment.
  func checkWorkerEnvironment() throws(MobulaError) { try Self.check(workerEnvironment) }

  static func check(_ variables: [String: String]) throws(MobulaError) {
    var size = 0
    for (name, value) in variables {
      size += name.utf8.count + value.utf8.count + 2
      guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")), !name.utf8.contains(0), !value.utf8.contains(0)
      else {
        throw MobulaError(
          .invalidArgument,
          "The environment of workers has \"\(name)\", which is no variable: names are not empty, and have no = and no zero."
        )
      }
    }
    guard size <= 32_768 else {
      throw MobulaError(
        .invalidArgument,
        "The environment of workers has \(size) bytes, and may have 32768: put what is big into an object.")
    }
  }

  /// The file with the cluster's token.
  public static func tokenFile(in directory: String) -> String { HostPaths.token(in: directory) }
}

/// What a driver does with what its workers print, on standard output and standard error; `mobula logs` has all of it.
public struct WorkerOutput: Sendable {
  /// A line that a worker has printed.
  public struct Line: Sendable, Hashable {
    /// The name of the worker's pod.
    public let pod: String
    /// The first digits of the worker's identifier.
    public let worker: String
    /// What it has printed, as it was.
    public let text: String
  }

  let handle: (@Sendable ([Line], _ more: Int) -> Void)?

  /// It is written to standard error, each line with the pod and the worker that wrote it, and with what a terminal would
  /// act on escaped.
  public static let prefixed = handler { lines, more in
    var text = ""
    for line in lines { text += "(\(line.pod) \(line.worker)) \(line.text.printable)\n" }
    if more > 0 { text += "(\(more) lines more, which `mobula logs` has on their host)\n" }
    OutputPrinter.shared.write(text, lines: lines.count)
  }

  /// Nothing.
  public static let none = WorkerOutput(handle: nil)

  /// Some lines at a time are passed on.
  ///
  /// - Parameter handler: is told how many lines more there were than it is given, where workers print more than 10,000 a
  ///   second. It is not to wait for anything.
  public static func handler(_ handler: @escaping @Sendable (_ lines: [Line], _ more: Int) -> Void) -> WorkerOutput {
    WorkerOutput(handle: handler)
  }

  func take(_ report: OutputReport) {
    handle?(report.lines.map { Line(pod: report.pod, worker: $0.worker, text: $0.text) }, report.dropped)
  }
}

/// Writes what workers print to standard error, on a thread of its own: whoever reads that may take as long as he likes.
private final class OutputPrinter: Sendable {
  static let shared = OutputPrinter()

  private struct State {
    var texts: [String] = []
    var lines = 0
    var dropped = 0
    var isWriting = false
  }

  private static let mostLines = 20_000
  private let state = Mutex(State())

  func write(_ text: String, lines: Int) {
    let begins = state.withLock { state in
      guard state.lines + lines <= Self.mostLines else {
        state.dropped += lines
        return false
      }
      state.texts.append(text)
      state.lines += lines
      defer { state.isWriting = true }
      return !state.isWriting
    }
    if begins { detachThread(named: "worker output") { self.writeAll() } }
  }

  private func writeAll() {
    while true {
      let (text, dropped) = state.withLock { state in
        defer { (state.texts, state.lines, state.dropped) = ([], 0, 0) }
        if state.texts.isEmpty { state.isWriting = false }
        return (state.texts.joined(), state.dropped)
      }
      if text.isEmpty { return }
      FileHandleOutput.write(text)
      if dropped > 0 { FileHandleOutput.write("(\(dropped) lines more, which `mobula logs` has on their host)\n") }
    }
  }
}
