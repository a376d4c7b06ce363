import Glibc
import Mobula
import MobulaCore
import MobulaSupervisor
import Synchronization

/// What is seen to when a signal asks a command to end: no half of a file is left, and the exit status is 128 and the
/// signal's number.
///
/// Commands that take signals themselves, as the services do, do not `begin` it.
enum Interruption {
  private static let ends = Mutex<[Int: @Sendable () -> Void]>([:])
  private static let number = Atomic(0)

  /// Once, at the very beginning, of every process.
  static func prepare() {
    // A write beyond `ulimit -f` is an error that can be told; the default is to end without a word. Likewise a write
    // to a pipe that nobody reads.
    signal(SIGXFSZ, SIG_IGN)
    signal(SIGPIPE, SIG_IGN)
  }

  /// From now on signals end this process as said above; for commands that don't take them themselves.
  static func begin() {
    var ends: [CInt] = [0, 0]
    guard interruptionPipe < 0, pipe(&ends) == 0 else { return }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    interruptionPipe = ends[1]
    let reader = ends[0]
    var taken: [CInt] = []
    for number in [SIGINT, SIGTERM, SIGHUP] {
      var old = sigaction()
      // What was started with `nohup`, or in the background of a shell without jobs, goes on ignoring it.
      if sigaction(number, nil, &old) == 0, isIgnored(old) { continue }
      taken.append(number)
      signal(number) { number in
        var byte = UInt8(truncatingIfNeeded: number)
        _ = write(interruptionPipe, &byte, 1)
      }
    }
    let signals = taken
    detachThread(named: "signals") {
      // Dispatch's threads, and those that they start, have all signals blocked: somebody has to take these.
      var set = sigset_t()
      sigemptyset(&set)
      for number in signals { sigaddset(&set, number) }
      pthread_sigmask(SIG_UNBLOCK, &set, nil)
      var byte: UInt8 = 0
      while read(reader, &byte, 1) != 1 {}
      end(by: CInt(byte))
    }
  }

  private static func isIgnored(_ action: sigaction) -> Bool {
    unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1
  }

  /// Has `body` called if a signal ends this process before `isOver`.
  static func whenEnding(_ body: @escaping @Sendable () -> Void) -> Pending {
    let key = number.add(1, ordering: .relaxed).newValue
    ends.withLock { $0[key] = body }
    return Pending(key: key)
  }

  struct Pending: Sendable {
    fileprivate let key: Int
    func isOver() { _ = ends.withLock { $0.removeValue(forKey: key) } }
  }

  private static func end(by signal: CInt) -> Never {
    Log.end()
    PartialFiles.removeAll()
    for body in ends.withLock({ Array($0.values) }) { body() }
    if isatty(STDERR_FILENO) == 1 { Log.write(STDERR_FILENO, "\r\u{1B}[K") }
    _exit(128 + signal)
  }

  /// Standard input, output and errors that are closed become `/dev/null`, so that no file gets their numbers.
  /// Reading and writing them goes on being an error.
  static func openStandardStreams() {
    for number in STDIN_FILENO...STDERR_FILENO where fcntl(number, F_GETFD) == -1 {
      // The lowest free number is this one.
      _ = open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY)
    }
  }
}

/// Read by the signal handler, so no more than a number. Written once, before the handler is set.
nonisolated(unsafe) private var interruptionPipe: CInt = -1
