import Glibc
package import MobulaCore
import Synchronization

/// The line between the supervisor and one of its processes, which is that process's standard input.
///
/// The supervisor says on it that the process is to end for good; a signal doesn't say so. The process says that it is
/// ready. When either is gone, however it went, the other reads the end.
package final class ServiceLine: Sendable {
  /// What is said, a byte each.
  package enum Word: UInt8 {
    /// By the process: it does its work.
    case ready = 0x72
    /// By the supervisor: everything ends, and what was kept for a restart goes.
    case stop = 0x73
  }

  private let ours: SharedDescriptor
  private let theirs: Mutex<SharedDescriptor?>

  /// - Throws: `MobulaError` (`inputOutput`) when this process has no descriptors left.
  package init() throws(MobulaError) {
    var ends: [CInt] = [-1, -1]
    // Close-on-exec: no other process has an end.
    try systemCall("A socket pair can't be made") {
      socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends)
    }
    ours = SharedDescriptor(OwnedDescriptor(owning: ends[0]))
    theirs = Mutex(SharedDescriptor(OwnedDescriptor(owning: ends[1])))
  }

  /// Starts a process with the other end, which this process has no more then.
  package func start(_ spawn: (_ input: CInt) throws -> ChildProcess) throws -> ChildProcess {
    let end = theirs.withLock { $0.take() }
    guard let end else { preconditionFailure("a line leads to one process") }
    return try withExtendedLifetime(end) { try spawn(end.rawValue) }
  }

  /// Calls `ready` when the process says so; on a thread that ends with the process.
  package func listen(_ ready: @escaping @Sendable () -> Void) {
    let ours = ours
    detachThread(named: "line") {
      while let word = Self.next(ours.rawValue) {
        if word == Word.ready.rawValue { ready() }
      }
    }
  }

  /// Tells the process to end for good.
  package func stop() { Self.say(.stop, to: ours.rawValue) }

  package static func say(_ word: Word, to descriptor: CInt) {
    var byte = word.rawValue
    // Never blocks, and fails only when nobody is there.
    _ = send(descriptor, &byte, 1, CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT))
  }

  /// The next byte that was said; `nil` at the end, or after an error that is not an interruption.
  package static func next(_ descriptor: CInt) -> UInt8? {
    var byte: UInt8 = 0
    while true {
      let count = read(descriptor, &byte, 1)
      if count > 0 { return byte }
      if count == 0 || currentErrno() != EINTR { return nil }
    }
  }
}
