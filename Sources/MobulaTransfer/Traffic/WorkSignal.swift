internal import Dispatch
internal import Synchronization

/// Wakes one thread when there is something to do; several signals before it looks are one.
final class WorkSignal: Sendable {
  enum Wake { case work, timeout, closed }

  private struct State {
    var isPending = false
    var isClosed = false
  }

  private let state = Mutex(State())
  private let semaphore = DispatchSemaphore(value: 0)

  func signal() {
    let isFirst = state.withLock { state in
      defer { state.isPending = true }
      return !state.isPending
    }
    if isFirst { semaphore.signal() }
  }

  /// From now on `wait` says so.
  func close() {
    state.withLock { $0.isClosed = true }
    semaphore.signal()
  }

  func wait(_ timeout: Duration) -> Wake {
    let hadWork = semaphore.wait(timeout: .now() + .milliseconds(Int(clamping: timeout.milliseconds))) == .success
    return state.withLock { state in
      if state.isClosed { return .closed }
      if hadWork { state.isPending = false }
      return hadWork ? .work : .timeout
    }
  }
}
