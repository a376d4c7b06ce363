import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaS3
import MobulaSupervisor
import MobulaTerminal
import Synchronization
import UnixSignals

struct BroadcastCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "broadcast", abstract: "Push an object, or a file, to every host, or to those with a label.",
    discussion: """
      A file is put first, as `mobula put` does, unless its name has this content already; anything else is an object's \
      name or id, or an address in S3, which is fetched. What processes wait for goes before it on every network. A named object stays until `mobula rm`; a \
      host without room drops its replica, unless a process there holds it. Ctrl-C ends it: hosts that have the object \
      whole keep it. The exit status is 1 when a host did not get it.

      Examples:
        mobula broadcast model.safetensors
        mobula broadcast weights.bin --name whisper/weights --to zone=eu-1
        mobula broadcast s3://models/whisper/model.bin --json \\
          --to gpu=a100 --to zone=eu-1
      """)

  @Argument(help: "The object's name or id, or a file.") var object: String
  @Option(help: ArgumentHelp("Only to hosts with this label; of several, with all.", valueName: "label=value")) var to:
    [String] = []
  @Option(help: "The name of a file's object. Default: the file's.") var name: String?
  @Flag(help: "Take a file's name from another object that has it.") var replace = false
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    _ = try labels(to, "--to")
    try S3Target.check(object)
    if object.isEmpty { throw ValidationError("Give an object's name or id, or a file.") }
    if S3Target.isS3(object), object.hasSuffix("/") || (try? S3URL(object))?.key.isEmpty == true {
      throw ValidationError(
        "\(object.printable) stands for all keys that begin so: `mobula fetch` it, and broadcast its objects, each by its name."
      )
    }
  }

  func run() async throws {
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let states = try await withCluster(directory.options) { cluster in
      try await withThrowingTaskGroup(of: [BroadcastState].self) { group in
        group.addTask { try await push(on: cluster) }
        group.addTask {
          for await _ in signals { break }
          throw ExitCode(130)
        }
        defer { group.cancelAll() }
        return try await group.next()!
      }
    }
    let failed = states.filter { $0.failure != nil }
    guard !failed.isEmpty else { return }
    for state in failed { Log.error("Host \(state.name) did not get it: \(state.failure!.message)") }
    throw ExitCode(1)
  }

  private func push(on cluster: Cluster) async throws -> [BroadcastState] {
    // Before a file is put for nobody.
    let hosts = try await cluster.hosts(HostSelector(labels: labels(to, "--to")))
    let reference = try await chosenObject(on: cluster)
    let size = try await cluster.listing(of: "\(reference.id)").size.bytes
    let display = BroadcastDisplay(BroadcastPicture(title: object, size: size))
    defer { display.finish() }
    let states = try await cluster.push(reference.id, to: hosts) { display.show($0) }
    withExtendedLifetime(reference) {}
    display.finish()
    try report(reference.id, size, states, display)
    return states
  }

  private func chosenObject(on cluster: Cluster) async throws -> ObjectRef<Blob> {
    var status = stat()
    guard stat(object, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      if name != nil { throw ValidationError("--name is for files; \(object) is none.") }
      let progress = S3Target.isS3(object) ? Progress(object, total: nil) : nil
      defer { progress?.finish(succeeded: false) }
      do { return try await S3OfHost.object(object, on: cluster, progress) } catch let error as MobulaError
        where error.code == .notFound && status.st_mode & S_IFMT == S_IFDIR
      {
        throw MobulaError(
          .notFound,
          "Nothing is named \"\(object)\", which is a folder here: `mobula put` takes it, and then broadcast its objects one by one."
        )
      }
    }
    let progress = Progress(object, total: nil)
    defer { progress.finish(succeeded: false) }
    let name = name ?? String(object.split(separator: "/").last ?? "")
    let (reference, wasThere) = try await cluster.put(file: object, name: name, replaces: replace) {
      progress.update($0.bytes, of: $1?.bytes)
    }
    progress.finish(saying: wasThere ? "\(name): is there already, with this content" : nil)
    return reference
  }

  private struct Report: Encodable {
    struct Host: Encodable {
      var host: HostID
      var name: Name
      var bytes: Int
      var isComplete: Bool
      var error: String?
    }
    var object: String
    var size: Int
    var hosts: [Host]
  }

  private func report(_ id: ObjectID, _ size: Int, _ states: [BroadcastState], _ display: BroadcastDisplay) throws {
    guard json.json else { return print("\(id)  \(display.summary)") }
    try printJSON(
      Report(
        object: "\(id)", size: size,
        hosts: states.map {
          .init(
            host: $0.host, name: $0.name, bytes: $0.isComplete ? size : $0.verified.bytes, isComplete: $0.isComplete,
            error: $0.failure?.message)
        }))
  }
}

/// Shows a broadcast on standard error: redrawn on a terminal, a line every five seconds elsewhere.
private final class BroadcastDisplay: Sendable {
  private struct State {
    var picture: BroadcastPicture
    /// Lines on the terminal.
    var drawn = 0
    /// When a line was written last; what is over in a moment needs none.
    var last = ContinuousClock.now
    var isFinished = false
  }

  private let state: Mutex<State>
  private let isTerminal = isatty(STDERR_FILENO) == 1

  init(_ picture: BroadcastPicture) { state = Mutex(State(picture: picture)) }

  var summary: String { state.withLock { $0.picture.summary } }

  func show(_ states: [BroadcastState]) {
    state.withLock { state in
      guard !state.isFinished else { return }
      state.picture.states = states
      let now = ContinuousClock.now
      if isTerminal { return draw(&state) }
      if state.last.duration(to: now) < .seconds(5) { return }
      state.last = now
      Log.write(STDERR_FILENO, state.picture.summary + "\n")
    }
  }

  /// Leaves the last picture where it is.
  func finish() {
    state.withLock { state in
      if isTerminal, !state.isFinished, !state.picture.states.isEmpty { draw(&state) }
      state.isFinished = true
    }
  }

  private func draw(_ state: inout State) {
    var size = winsize()
    let isKnown = ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 && size.ws_row > 2
    let lines = state.picture.lines(
      width: isKnown ? Int(size.ws_col) - 1 : 79, rows: isKnown ? Int(size.ws_row) - 1 : 23)
    // Up to where it began, and whatever is there erased.
    let up = state.drawn > 0 ? "\u{1B}[\(state.drawn)A" : ""
    Log.write(STDERR_FILENO, "\(up)\r\u{1B}[J" + lines.map { $0 + "\n" }.joined())
    state.drawn = lines.count
  }
}
