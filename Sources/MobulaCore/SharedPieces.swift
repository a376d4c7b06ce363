internal import Dispatch
internal import Glibc
internal import Synchronization

/// The CPUs that are on line.
let processorCount = max(1, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN))))

/// Numbered pieces of work that several threads take one after the other.
///
/// Nobody waits for a thread that starts late: it finds no piece left and touches nothing.
final class SharedPieces: Sendable {
  private let count: Int
  private let body: @Sendable (Int) -> Void
  private let taken = Atomic(0)
  private let finished = Atomic(0)
  private let allFinished = DispatchSemaphore(value: 0)

  private init(count: Int, body: @escaping @Sendable (Int) -> Void) {
    self.count = count
    self.body = body
  }

  /// Calls `body` once for each of 0..<count, on the calling thread and `threads - 1` others,
  /// and returns when all calls have. `body` is released later, but never called later.
  static func run(_ count: Int, threads: Int, _ body: @escaping @Sendable (Int) -> Void) {
    guard threads > 1, count > 1 else {
      for index in 0..<count { body(index) }
      return
    }
    let pieces = SharedPieces(count: count, body: body)
    for _ in 1..<min(threads, count) { detachThread(named: "copy") { pieces.work() } }
    pieces.work()
    pieces.allFinished.wait()
  }

  private func work() {
    while true {
      let index = taken.add(1, ordering: .relaxed).oldValue
      if index >= count { return }
      body(index)
      // Who finishes last has seen what the others wrote, and passes it on with the signal.
      if finished.add(1, ordering: .acquiringAndReleasing).newValue == count { allFinished.signal() }
    }
  }
}
