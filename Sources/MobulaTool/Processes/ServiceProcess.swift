import Glibc
import Logging
import Mobula
import MobulaCore
import UnixSignals

/// Runs one of the services until a signal, or until the supervisor is gone.
enum ServiceProcess {
  /// - Parameter isSupervised: whether standard input ends with the supervisor.
  /// - Throws: what `body` throws; ends the process with `SupervisorStateMachine.refusedStatus` when another start would not help.
  static func run(isSupervised: Bool = true, _ body: @escaping @Sendable () async throws -> Void) async throws {
    if isSupervised {
      detachThread(named: "supervisor") {
        var byte: UInt8 = 0
        while true {
          let count = read(0, &byte, 1)
          // End of input, or an error that is not an interruption: nobody is there any more.
          if count == 0 || count < 0 && currentErrno() != EINTR { exit(0) }
        }
      }
    }
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    do {
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await body() }
        group.addTask {
          for await _ in signals { break }
        }
        defer { group.cancelAll() }
        try await group.next()
      }
    } catch let error as MobulaError
      where [.unauthenticated, .mismatch, .invalidArgument, .denied].contains(error.code)
    {
      Log.error("\(error)")
      exit(SupervisorStateMachine.refusedStatus)
    } catch is CancellationError {
      return
    }
  }
}

/// The tool's log: one line each, to standard error.
enum Log {
  /// Sets up logging once; `MOBULA_LOG` is a level: `debug`, `info`, `notice` (the default), `warning`, `error`.
  static func bootstrap() {
    let level = currentEnvironment()["MOBULA_LOG"].flatMap { Logger.Level(rawValue: $0) } ?? .notice
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = level
      return PrintableLog(handler)
    }
  }

  static func error(_ text: String) { write(2, "Error: \(text.printableLines)\n") }

  /// Writes all of `text` to a descriptor.
  static func write(_ descriptor: CInt, _ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && currentErrno() == EINTR { continue }
      if count <= 0 { return }
      rest = rest.dropFirst(count)
    }
  }
}
