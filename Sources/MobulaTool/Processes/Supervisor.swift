import Glibc
import Logging
import Mobula
import MobulaCore
import MobulaStore
import Synchronization
import UnixSignals

/// Starts a host's processes (head, host, pods), each of its own, and starts again what dies.
///
/// The children read from a socket whose other end only the supervisor has: when
/// the supervisor is gone, however it went, they end.
final class Supervisor: Sendable {
  private let directory: RunDirectory
  private let configuration: StartConfiguration
  private let log: Logger
  private let state = Mutex((machine: SupervisorStateMachine(), children: [String: ChildProcess]()))

  init(directory: RunDirectory, configuration: StartConfiguration, log: Logger) {
    self.directory = directory
    self.configuration = configuration
    self.log = log
  }

  /// Runs until a signal asks it to stop.
  ///
  /// - Throws: `MobulaError` when another supervisor runs here, or a process can't run.
  func run() async throws {
    guard let lock = try directory.lock() else {
      throw MobulaError(.alreadyExists, "A host runs in \(directory.path) already: `mobula stop` stops it.")
    }
    defer {
      unlink(directory.lockFile)
      close(lock)
    }
    let lifeline = try Lifeline()
    _ = raiseDescriptorLimit()
    let log = log
    let keeper = DescriptorKeeper { problem in log.error("\(problem)") }
    defer { keeper.close() }
    let executable = try Executable.path()

    var commands: [(name: String, arguments: [String])] = []
    if configuration.isHead { commands.append(("head", ["head"])) }
    commands.append(("host", ["host"]))
    for pod in configuration.pods { commands.append(("pod \(pod.name)", ["pod", pod.name])) }

    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for command in commands {
        let arguments = command.arguments + ["--directory", directory.path]
        let keeper = command.name == "host" ? keeper : nil
        group.addTask {
          try await self.keep(command.name, executable, arguments, input: lifeline.childsEnd, keeper: keeper)
        }
      }
      group.addTask {
        for await signal in signals {
          self.log.notice("stopping", metadata: ["signal": "\(signal)"])
          break
        }
        throw CancellationError()
      }
      defer { group.cancelAll() }
      do {
        try await group.next()
      } catch is CancellationError {
        return await self.stop()
      } catch {
        await self.stop()
        throw error
      }
    }
    withExtendedLifetime(lifeline) {}
  }

  /// Keeps one process running.
  ///
  /// - Parameter keeper: what keeps the process's descriptors from one start to the next.
  private func keep(
    _ name: String, _ executable: String, _ arguments: [String], input: CInt, keeper: DescriptorKeeper?
  ) async throws {
    while !Task.isCancelled {
      let started = ContinuousClock.now
      // Under the lock: whoever stops sees either no child and no more to come, or the child.
      let child = try state.withLock { state -> ChildProcess? in
        if state.machine.isStopping { return nil }
        let child: ChildProcess
        if let keeper {
          let connection = try keeper.newConnection()
          // Its credentials for S3 are the host's alone.
          var environment = currentEnvironment()
          environment["MOBULA_TOKEN"] = nil
          environment[KeeperConnection.environmentVariable] = "3"
          child = try ChildProcess.spawn(
            executable, arguments, environment: environment, input: .descriptor(input), extra: [connection.rawValue])
        } else {
          child = try ChildProcess.spawn(
            executable, arguments, environment: SharedEnvironment.withoutSecrets(currentEnvironment()),
            input: .descriptor(input))
        }
        state.children[name] = child
        return child
      }
      guard let child else { return }
      let exit = await child.waitForExit()
      let action = state.withLock { state in
        state.children[name] = nil
        return state.machine.ended(name, lifetime: .now - started, exit: exit)
      }
      switch action {
      case .nothing: return
      case .giveUp(let error): throw error
      case .restart(let pause):
        log.warning("a process ended; starting it again", metadata: ["process": "\(name)", "exit": "\(exit)"])
        try await Task.sleep(for: pause)
      }
    }
  }

  /// Asks every process to end, and ends it after five seconds.
  private func stop() async {
    let children = state.withLock { state in
      state.machine.stop()
      return Array(state.children.values)
    }
    for child in children { child.signal(SIGTERM) }
    await withTaskGroup(of: Void.self) { group in
      for child in children {
        group.addTask { _ = await child.waitForExit() }
      }
      group.addTask {
        try? await Task.sleep(for: .seconds(5))
        for child in children { child.signal(SIGKILL) }
      }
      for _ in children { await group.next() }
      group.cancelAll()
    }
  }
}

extension ContinuousClock.Instant {
  fileprivate static func - (a: ContinuousClock.Instant, b: ContinuousClock.Instant) -> Duration { b.duration(to: a) }
}
