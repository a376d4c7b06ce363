internal import CMobula
internal import Glibc
internal import Synchronization

/// A process that this one started, watched by a thread that reaps it.
package final class ChildProcess: Sendable {
  /// How a process ended.
  package enum Exit: Hashable, Sendable, CustomStringConvertible {
    /// By itself, with this status.
    case status(CInt)
    /// By this signal.
    case signal(CInt)

    /// Whether it ended by itself, with status 0.
    package var isSuccess: Bool { self == .status(0) }

    package var description: String {
      switch self {
      case .status(let status): "exit status \(status)"
      case .signal(let signal): "signal \(signal)"
      }
    }
  }

  /// Where a standard stream of the child goes.
  package enum Stream: Sendable {
    /// Where this process's own stream goes.
    case inherit
    /// To `/dev/null`.
    case null
    /// A copy of this descriptor, which the caller goes on owning.
    case descriptor(CInt)
  }

  private enum State {
    case running([CheckedContinuation<Exit, Never>])
    case exited(Exit)
  }

  /// The process's number, which is another process's once it was reaped.
  package let pid: Int32
  private let state = Mutex(State.running([]))

  private init(pid: Int32) { self.pid = pid }

  /// Starts `executable` (searched for in `PATH` when it has no slash).
  ///
  /// - Parameters:
  ///   - executable: its path, or its name.
  ///   - arguments: without the executable's own name.
  ///   - environment: the child's whole environment; `nil` for this process's, to the byte.
  ///   - input: its standard input.
  ///   - output: its standard output.
  ///   - errors: its standard error.
  ///   - extra: descriptors that the child has as 3, 4 and so on; the caller goes on owning these. Beside them and the
  ///     standard streams it has none, also of those that this process was given by whoever started it.
  ///   - newSession: whether the child leads a session of its own, out of reach of the terminal's Ctrl-C.
  /// - Throws: `MobulaError` (`inputOutput`) when it can't be started.
  package static func spawn(
    _ executable: String, _ arguments: [String], environment: [String: String]? = nil,
    input: Stream = .null, output: Stream = .inherit, errors: Stream = .inherit,
    extra: [CInt] = [], newSession: Bool = false
  ) throws(MobulaError) -> ChildProcess {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (target, stream) in [input, output, errors].enumerated() {
      switch stream {
      case .inherit: break
      case .null: posix_spawn_file_actions_addopen(&actions, CInt(target), "/dev/null", O_RDWR, 0)
      case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, CInt(target))
      }
    }
    let copies = try duplicates(of: extra)
    for (index, copy) in copies.enumerated() {
      posix_spawn_file_actions_adddup2(&actions, copy.rawValue, CInt(3 + index))
    }
    // After these, so that what they copy is there still.
    let number = mobula_spawn_close_from(&actions, CInt(3 + copies.count))
    guard number == 0 else { throw MobulaError.system("\(executable) can't be started", number: number) }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The child starts with no signal blocked or ignored, whatever this process did with its own.
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    var flags = CInt(POSIX_SPAWN_SETSIGMASK) | CInt(POSIX_SPAWN_SETSIGDEF)
    if newSession { flags |= 0x80 }  // POSIX_SPAWN_SETSID, which the importer does not show.
    posix_spawnattr_setflags(&attributes, Int16(flags))

    var argv: [UnsafeMutablePointer<CChar>?] = ([executable] + arguments).map { strdup($0) }
    argv.append(nil)
    var envp: [UnsafeMutablePointer<CChar>?] = environment.map { $0.map { strdup("\($0.key)=\($0.value)") } } ?? []
    envp.append(nil)
    defer { for pointer in argv + envp { free(pointer) } }
    var pid = pid_t()
    let result = withExtendedLifetime(copies) {
      envp.withUnsafeMutableBufferPointer { envp in
        // As it is: a dictionary of texts would take two names for one that differ in their Unicode form.
        posix_spawnp(
          &pid, executable, &actions, &attributes, argv, environment == nil ? environ : envp.baseAddress!)
      }
    }
    guard result == 0 else { throw MobulaError.system("\(executable) can't be started", number: result) }
    let child = ChildProcess(pid: pid)
    detachThread(named: "wait \(pid)") { child.reap() }
    return child
  }

  /// Duplicates above every number that the child's own descriptors get. So none of these is overwritten
  /// before its turn, and none is its own target, which would leave it close-on-exec.
  private static func duplicates(of descriptors: [CInt]) throws(MobulaError) -> [SharedDescriptor] {
    var copies: [SharedDescriptor] = []
    for descriptor in descriptors {
      let copy = try systemCall("A descriptor for a child process can't be duplicated") {
        fcntl(descriptor, F_DUPFD_CLOEXEC, CInt(3 + descriptors.count))
      }
      copies.append(SharedDescriptor(OwnedDescriptor(owning: copy)))
    }
    return copies
  }

  private func reap() {
    var status: CInt = 0
    while waitpid(pid, &status, 0) == -1, errno == EINTR {}
    let exit = status & 0x7F == 0 ? Exit.status(status >> 8 & 0xFF) : .signal(status & 0x7F)
    let waiting = state.withLock { state in
      guard case .running(let waiting) = state else { preconditionFailure("a process exits once") }
      state = .exited(exit)
      return waiting
    }
    for continuation in waiting { continuation.resume(returning: exit) }
  }

  /// How the process ended; `nil` while it runs.
  package var exit: Exit? {
    state.withLock { if case .exited(let exit) = $0 { exit } else { nil } }
  }

  /// Waits until the process has ended and was reaped.
  package func waitForExit() async -> Exit {
    await withCheckedContinuation { continuation in
      let exit: Exit? = state.withLock { state in
        switch state {
        case .exited(let exit): return exit
        case .running(let waiting):
          state = .running(waiting + [continuation])
          return nil
        }
      }
      if let exit { continuation.resume(returning: exit) }
    }
  }

  /// Sends a signal to the process, or to its whole group when it leads one; nothing once it has ended.
  package func signal(_ signal: CInt, group: Bool = false) {
    state.withLock { state in
      // Under the lock: once reaped, the number may belong to another process.
      if case .running = state { _ = kill(group ? -pid : pid, signal) }
    }
  }
}

/// This process's environment.
package func currentEnvironment() -> [String: String] {
  var result: [String: String] = [:]
  var pointer = environ
  while let entry = pointer.pointee {
    let text = String(cString: entry)
    if let equals = text.firstIndex(of: "=") {
      result[String(text[..<equals])] = String(text[text.index(after: equals)...])
    }
    pointer += 1
  }
  return result
}
