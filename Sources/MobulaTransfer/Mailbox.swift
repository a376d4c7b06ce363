internal import Dispatch
internal import Synchronization

/// Hands values from one thread to another that waits for them.
final class Mailbox<Value: Sendable>: Sendable {
  private struct Contents {
    var values: [Value] = []
    var isClosed = false
  }

  private let contents = Mutex(Contents())
  private let signal = DispatchSemaphore(value: 0)

  func put(_ value: Value) {
    contents.withLock { $0.values.append(value) }
    signal.signal()
  }

  /// From now on `take` returns `nil`.
  func close() {
    contents.withLock { $0.isClosed = true }
    signal.signal()
  }

  /// Blocks until there is a value; `nil` once the mailbox is closed.
  func take() -> Value? {
    signal.wait()
    return contents.withLock { contents in
      if contents.isClosed || contents.values.isEmpty { return nil }
      return contents.values.removeFirst()
    }
  }
}
