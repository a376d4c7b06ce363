import Dispatch
import Synchronization

/// Work that may block for a moment, one piece after the other, off the threads that serve calls.
struct SerialThread: Sendable {
  private let queue: DispatchQueue

  init(_ name: String) { queue = DispatchQueue(label: name) }

  func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      queue.async { continuation.resume(with: Result { try body() }) }
    }
  }
}

/// When there was no room.
final class LastFull: Sendable {
  private let state = Mutex<ContinuousClock.Instant?>(nil)

  var instant: ContinuousClock.Instant? {
    get { state.withLock { $0 } }
    set { state.withLock { $0 = newValue } }
  }
}
