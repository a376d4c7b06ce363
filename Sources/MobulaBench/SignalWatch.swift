internal import Glibc
import MobulaCore
internal import Synchronization

/// The descriptor that the signal handler writes to: a handler can't be given any context.
private let handlerDescriptor = Atomic<CInt>(-1)

/// Has signals handled on a thread instead of by their default, which ends the process.
///
/// One at a time in a process, since signals belong to the process.
final class SignalWatch: Sendable {
  private let signals: [CInt]
  private let writer: SharedDescriptor
  private let last = Mutex<CInt?>(nil)

  /// Calls `handle` on a thread of the watch's own for each of `signals` that arrives.
  init(_ signals: [CInt], handle: @escaping @Sendable (CInt) -> Void) throws(MobulaError) {
    let (reader, writer) = try socketPair()
    self.signals = signals
    self.writer = writer
    let claimed = handlerDescriptor.compareExchange(
      expected: -1, desired: writer.rawValue, ordering: .sequentiallyConsistent)
    precondition(claimed.exchanged, "one SignalWatch at a time")
    for number in signals {
      signal(number) { number in
        let saved = errno
        var byte = UInt8(truncatingIfNeeded: number)
        _ = write(handlerDescriptor.load(ordering: .sequentiallyConsistent), &byte, 1)
        errno = saved
      }
    }
    detachThread(named: "signals") { [self] in
      var byte: UInt8 = 0
      while true {
        let count = read(reader.rawValue, &byte, 1)
        if count == -1, errno == EINTR { continue }
        guard count == 1, byte != 0 else { return }
        last.withLock { $0 = CInt(byte) }
        handle(CInt(byte))
      }
    }
  }

  /// Gives the signals their defaults back; returns the last that arrived.
  func stop() -> CInt? {
    for number in signals { signal(number, SIG_DFL) }
    handlerDescriptor.store(-1, ordering: .sequentiallyConsistent)
    var end: UInt8 = 0
    _ = write(writer.rawValue, &end, 1)
    return last.withLock { $0 }
  }
}
