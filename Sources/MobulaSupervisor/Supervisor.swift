import Glibc
package import Logging
import MobulaCore
import MobulaStore
import Synchronization
import UnixSignals

/// Starts a host's processes (head, host, pods), each of its own, and starts again what dies.
///
/// Each child reads from a socket whose other end only the supervisor has: when
/// the supervisor is gone, however it went, they end.
package final class Supervisor: Sendable {
  private struct State {
    var machine = SupervisorStateMachine()
    var children: [Name: (process: ChildProcess, line: ServiceLine)] = [:]
    var reports: [Name: ProcessReport] = [:]
  }

  private let directory: RunDirectory
  private let configuration: StartConfiguration
  private let log: Logger
  private let state = Mutex(State())

  package init(directory: RunDirectory, configuration: StartConfiguration, log: Logger) {
    self.directory = directory
    self.configuration = configuration
    self.log = log
  }

  /// Runs until a signal asks it to stop.
  ///
  /// - Throws: `MobulaError` when another supervisor runs here, or a process can't run before all has worked once.
  package func run() async throws {
    guard let lock = try directory.lock() else {
      throw MobulaError(
        .alreadyExists,
        "A host runs in \(directory.path) already: `mobula stop --directory \(directory.path)` stops it.")
    }
    defer {
      directory.removeSockets()
      unlink(directory.lockFile)
      close(lock)
    }
    let stateLock = try configuration.state.map { try StateDirectory(path: $0).lock(for: directory.path) }
    defer { if let stateLock { close(stateLock) } }
    _ = raiseDescriptorLimit()
    let log = log
    let keeper = DescriptorKeeper { problem in log.error("\(problem)") }
    defer { keeper.close() }
    let executable = try Executable.path()

    var commands: [(name: Name, arguments: [String])] = []
    if configuration.isHead { commands.append(("head", ["head"])) }
    commands.append(("host", ["host"]))
    for pod in configuration.pods { commands.append((Name("pod \(pod.name.text)"), ["pod", pod.name.text])) }

    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for command in commands {
        let arguments = command.arguments + ["--directory", directory.path]
        let keeper = command.name == "host" ? keeper : nil
        group.addTask {
          try await self.keep(command.name, executable, arguments, keeper: keeper)
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
  }

  /// Keeps one process running.
  ///
  /// - Parameter keeper: what keeps the process's descriptors from one start to the next.
  private func keep(
    _ name: Name, _ executable: String, _ arguments: [String], keeper: DescriptorKeeper?
  ) async throws {
    while !Task.isCancelled {
      let started = ContinuousClock.now
      let action: SupervisorStateMachine.Action
      var lastWords: String?
      let end: String
      do {
        guard let child = try start(name, executable, arguments, keeper) else { return }
        report(name) { report in
          report.process = child.pid
          report.startsAgainAfter = nil
        }
        let exit = await child.waitForExit()
        end = "\(exit)"
        lastWords = exit == .status(SupervisorStateMachine.refusedStatus) ? directory.lastError() : nil
        action = state.withLock { state in
          state.children[name] = nil
          return state.machine.ended(name, lifetime: .now - started, exit: exit)
        }
      } catch {
        end = "\(error)"
        let error = error as? MobulaError ?? MobulaError(.inputOutput, "\(name) can't be started: \(error)")
        action = state.withLock { $0.machine.notStarted(name, error) }
      }
      switch action {
      case .nothing: return
      case .giveUp(let error): throw error
      case .restart(let pause):
        report(name) { report in
          report.process = nil
          report.ends += 1
          report.lastEnd = end
          report.lastWords = lastWords
          report.startsAgainAfter = pause / .seconds(1)
        }
        log.warning(
          "a process ended; starting it again",
          metadata: ["process": "\(name)", "exit": "\(end)", "pause": "\(pause)"])
        try await Task.sleep(for: pause)
      }
    }
  }

  /// Writes down how the processes are.
  private func report(_ name: Name, _ change: (inout ProcessReport) -> Void) {
    // Under the lock, so that no older text replaces a newer one.
    state.withLock { state in
      change(&state.reports[name, default: ProcessReport(name: name)])
      directory.write(state.reports.values.sorted { $0.name < $1.name })
    }
  }

  /// - Returns: `nil` once everything is to stop.
  private func start(
    _ name: Name, _ executable: String, _ arguments: [String], _ keeper: DescriptorKeeper?
  ) throws -> ChildProcess? {
    let line = try ServiceLine()
    let connection = try keeper.map { SharedDescriptor(try $0.newConnection()) }
    // Under the lock: whoever stops sees either no child and no more to come, or the child.
    return try state.withLock { state -> ChildProcess? in
      if state.machine.isStopping { return nil }
      // The credentials for S3 are the host's alone, and the token is in its file.
      var environment =
        keeper == nil ? SharedEnvironment.withoutSecrets(currentEnvironment()) : currentEnvironment()
      environment["MOBULA_TOKEN"] = nil
      environment[ServiceProcess.firstStartVariable] = state.machine.hasSucceeded ? nil : "1"
      if connection != nil { environment[KeeperConnection.environmentVariable] = "3" }
      let child = try line.start { input in
        try ChildProcess.spawn(
          executable, arguments, environment: environment, input: .descriptor(input),
          extra: connection.map { [$0.rawValue] } ?? [])
      }
      line.listen { self.state.withLock { $0.machine.ready(name) } }
      state.children[name] = (child, line)
      return child
    }
  }

  /// Asks every process to end, and ends it after five seconds.
  private func stop() async {
    let children = state.withLock { state in
      state.machine.stop()
      return Array(state.children.values)
    }
    for child in children {
      child.line.stop()
      child.process.signal(SIGTERM)
    }
    await withTaskGroup(of: Void.self) { group in
      for child in children {
        group.addTask { _ = await child.process.waitForExit() }
      }
      group.addTask {
        try? await Task.sleep(for: .seconds(5))
        for child in children { child.process.signal(SIGKILL) }
      }
      for _ in children { await group.next() }
      group.cancelAll()
    }
  }
}

extension ContinuousClock.Instant {
  fileprivate static func - (a: ContinuousClock.Instant, b: ContinuousClock.Instant) -> Duration { b.duration(to: a) }
}
