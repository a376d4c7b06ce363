internal import Glibc
internal import Mobula
import MobulaCore

/// A process tree of the bench's own, of which nothing outlives it.
///
/// `enter` runs this executable again, as the init of new namespaces or, failing those, as the leader of a
/// session, and stays outside as its guardian. Ctrl-C or SIGTERM at the guardian kills everything inside; and
/// when the guardian itself is killed, the process inside notices the end of its input, and goes too.
public enum BenchIsolation {
  public enum State: Sendable, Equatable {
    case outside
    /// `scratch` is a directory for everything that the run writes. In namespaces it is a
    /// tmpfs that nobody else sees.
    case inside(EmulationKind, scratch: String)
  }

  /// Tells the process inside what it is: `netns:DIRECTORY` or `loopback:DIRECTORY`.
  static let variable = "MOBULA_BENCH_INSIDE"

  /// What this process is.
  public static var current: State {
    guard let value = currentEnvironment()[variable], let colon = value.firstIndex(of: ":"),
      let kind = EmulationKind(rawValue: String(value[..<colon]))
    else { return .outside }
    return .inside(kind, scratch: String(value[value.index(after: colon)...]))
  }

  /// Runs this executable again with `arguments` inside, and returns its exit status when everything is gone
  /// (128 + the number of a signal that ended it by way of this process). Returns `nil` when this process is the one inside: the caller goes on.
  ///
  /// - Parameters:
  ///   - arguments: without the executable's own name.
  ///   - kind: how hosts will be emulated; `nil` for namespaces where these work, else loopback.
  ///   - environment: in addition to this process's.
  ///   - say: is given a sentence when it has to be loopback although `kind` left the choice open.
  /// - Throws: `MobulaError` (`unavailable` when `kind` is `netns` and namespaces don't work, `workFailed`
  ///   when the process inside was killed, `inputOutput`).
  public static func enter(
    arguments: [String], kind: EmulationKind? = nil, environment: [String: String] = [:],
    say: (String) -> Void = { _ in }
  ) async throws -> Int32? {
    if case .inside(let kind, let scratch) = current {
      try startInside(kind, scratch: scratch)
      return nil
    }
    var command = [try Executable.path()]
    var chosen = EmulationKind.loopback
    if kind != .loopback {
      switch await Emulation.availability() {
      case .namespaces(let root):
        command = try NamespaceScripts.unshare(root: root) + command
        chosen = .netns
      case .unavailable(let reason):
        if kind == .netns { throw MobulaError(.unavailable, reason) }
        say("\(reason) Hosts are processes on loopback addresses instead, unshaped.")
      }
    }
    return try await guardOver(command + arguments, kind: chosen, environment: environment)
  }

  private static func guardOver(
    _ command: [String], kind: EmulationKind, environment extra: [String: String]
  ) async throws -> Int32 {
    let scratch = try makeTemporaryDirectory("bench")
    defer { removeTree(scratch) }
    var environment = currentEnvironment().merging(extra) { $1 }
    environment[variable] = "\(kind.rawValue):\(scratch)"
    // The child's input is the lifeline: it ends with this process, however that ends.
    let (lifeline, childsEnd) = try socketPair()
    // What the child leaves behind is this process's to wait for: what it says is left is left.
    Orphans.adopt()
    // A session of its own keeps the terminal's Ctrl-C out: the guardian alone decides.
    let child = try ChildProcess.spawn(
      command[0], Array(command.dropFirst()), environment: environment, input: .descriptor(childsEnd.rawValue),
      newSession: true)
    let signals = try SignalWatch([SIGINT, SIGTERM, SIGHUP, SIGQUIT]) { _ in end(child, kind, lifeline) }
    let exit = await child.waitForExit()
    // On loopback the session's other processes are not the child's to wait for.
    if kind == .loopback { _ = kill(-child.pid, SIGKILL) }
    Orphans.reapAll(within: .seconds(10))
    if let signal = signals.stop() { return 128 + signal }
    guard case .status(let status) = exit, saidFarewell(lifeline) else {
      throw MobulaError(
        .workFailed, "The bench's process was killed before it was done (\(exit)); nothing of it is left: run it again."
      )
    }
    return status
  }

  /// Ends everything inside: by the end of the lifeline, and where that isn't heeded, by force.
  private static func end(_ child: ChildProcess, _ kind: EmulationKind, _ lifeline: SharedDescriptor) {
    shutdown(lifeline.rawValue, CInt(SHUT_WR))
    for _ in 0..<200 where child.exit == nil { usleep(10_000) }
    if kind == .netns, let initProcess = onlyChild(of: child.pid) { _ = kill(initProcess, SIGKILL) }
    child.signal(SIGKILL, group: true)
  }

  /// Whether the process inside ended by its own will. `unshare` doesn't always tell.
  private static func saidFarewell(_ lifeline: SharedDescriptor) -> Bool {
    var byte: UInt8 = 0
    return recv(lifeline.rawValue, &byte, 1, CInt(MSG_DONTWAIT)) == 1
  }

  private static func startInside(_ kind: EmulationKind, scratch: String) throws(MobulaError) {
    if kind == .netns {
      try systemCall("\(scratch) can't become a tmpfs") { mount("mobula", scratch, "tmpfs", 0, "mode=0755") }
    }
    atexit {
      var farewell: UInt8 = 1
      _ = send(STDIN_FILENO, &farewell, 1, CInt(MSG_NOSIGNAL))
    }
    detachThread(named: "lifeline") {
      var byte: UInt8 = 0
      while true {
        let count = read(STDIN_FILENO, &byte, 1)
        if count == 0 || count == -1 && errno != EINTR { break }
      }
      switch kind {
      case .netns:
        umount2(scratch, 2)  // MNT_DETACH, which the importer does not show.
        rmdir(scratch)
        _exit(1)  // As init it takes every other process with it.
      case .loopback:
        removeTree(scratch)
        kill(0, SIGKILL)
      }
    }
  }
}
