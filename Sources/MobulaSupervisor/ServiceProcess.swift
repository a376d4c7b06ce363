import Glibc
import Logging
package import MobulaCore
import Synchronization
import UnixSignals

/// One of the processes that the supervisor starts: runs until it is told to end, or until the supervisor is gone.
package final class ServiceProcess: Sendable {
  /// Set by the supervisor until everything has worked once: only then is a refusal final.
  package static let firstStartVariable = "MOBULA_FIRST_START"
  /// For how long a process that a signal ends waits to hear from the supervisor that all do.
  private static let attention = Duration.milliseconds(300)

  private let stopping = Atomic(false)

  /// Whether the supervisor ends everything. Without its word a process that ends is started again, and must leave
  /// for that one what it can't make anew.
  package var isStopping: Bool { stopping.load(ordering: .acquiring) }

  /// Whether nothing has worked yet since `mobula start`, which waits to say why.
  package static let isFirstStart: Bool = {
    // What this process starts is not concerned.
    defer { unsetenv(firstStartVariable) }
    return currentEnvironment()[firstStartVariable] != nil
  }()

  /// Tells the supervisor that the process does its work.
  package func isReady() { ServiceLine.say(.ready, to: 0) }

  /// - Throws: what `body` throws; ends the process with `SupervisorStateMachine.refusedStatus` when another start
  ///   would not help.
  package static func run(_ body: @escaping @Sendable (ServiceProcess) async throws -> Void) async throws {
    let process = ServiceProcess()
    let (orders, continuation) = AsyncStream<Void>.makeStream()
    detachThread(named: "supervisor") {
      while let word = ServiceLine.next(0) {
        if word == ServiceLine.Word.stop.rawValue {
          process.stopping.store(true, ordering: .releasing)
          continuation.yield()
        }
      }
      // Nobody is there any more.
      exit(0)
    }
    // Ctrl-C reaches all processes of a terminal: which end, and how, is for the supervisor to say.
    signal(SIGINT, SIG_IGN)
    let signals = await UnixSignalsSequence(trapping: .sigterm)
    do {
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await body(process) }
        group.addTask { for await _ in orders { break } }
        group.addTask {
          for await _ in signals { break }
          // The signal may have been sent to all processes, the supervisor among them.
          let end = ContinuousClock.now + attention
          while !process.isStopping, ContinuousClock.now < end { try await Task.sleep(for: .milliseconds(5)) }
        }
        defer { group.cancelAll() }
        try await group.next()
      }
    } catch let error as MobulaError
      where [.unauthenticated, .mismatch, .invalidArgument, .denied, .corrupted].contains(error.code)
    {
      Log.error("\(error)")
      exit(SupervisorStateMachine.refusedStatus)
    } catch is CancellationError { return }
  }
}

/// The tool's log: one line each, to standard error.
package enum Log {
  /// Nothing that happens while a process is being ended by its user is worth an entry.
  package static func end() { isOver.store(true, ordering: .relaxed) }
  static let isOver = Atomic(false)

  /// Sets up logging once; `MOBULA_LOG` is a level: `debug`, `info`, `notice` (the default), `warning`, `error`.
  package static func bootstrap() {
    let level = (try? level()) ?? .notice
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = level
      return PrintableLog(handler)
    }
  }

  /// - Throws: `MobulaError` (`invalidArgument`) where `MOBULA_LOG` is no level.
  package static func checkLevel() throws(MobulaError) { _ = try level() }

  private static func level() throws(MobulaError) -> Logger.Level {
    guard let text = currentEnvironment()["MOBULA_LOG"], !text.isEmpty else { return .notice }
    guard let level = Logger.Level(rawValue: text) else {
      throw MobulaError(
        .invalidArgument, "$MOBULA_LOG is \"\(text)\", which is no level: set debug, info, notice, warning or error.")
    }
    return level
  }

  package static func error(_ text: String) { write(2, "Error: \(text.printableLines)\n") }

  /// Writes all of `text` to a descriptor.
  package static func write(_ descriptor: CInt, _ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && currentErrno() == EINTR { continue }
      if count <= 0 { return }
      rest = rest.dropFirst(count)
    }
  }
}
