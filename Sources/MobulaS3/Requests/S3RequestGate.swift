internal import MobulaCore
internal import Synchronization

/// Lets as many requests of one transfer run as its `S3ConcurrencyStateMachine` says; the others wait here.
final class S3RequestGate: Sendable {
  private struct State {
    var machine: S3ConcurrencyStateMachine
    /// In the order in which they came.
    var waiting: [(number: Int, continuation: CheckedContinuation<Void, Never>)] = []
    var numbers = 0
    /// Bytes that nobody has asked for yet, where that is known.
    var remaining: Int?
  }

  /// A request that runs; ends with one of `finished`, `failed` and `throttled`.
  struct Turn: Sendable {
    /// How many bytes it should be for.
    let bytes: Int
    let start: Duration
  }

  private let state: Mutex<State>
  private let start = ContinuousClock.now

  init(_ settings: S3ConcurrencyStateMachine.Settings, remaining: Int? = nil) {
    state = Mutex(State(machine: S3ConcurrencyStateMachine(settings), remaining: remaining))
  }

  private var now: Duration { ContinuousClock.now - start }

  /// How many requests may run at once at this moment.
  var limit: Int { state.withLock { $0.machine.limit } }

  /// Waits for a turn.
  ///
  /// - Throws: `CancellationError`.
  func turn() async throws -> Turn {
    while true {
      try Task.checkCancellation()
      if let turn = state.withLock({ take(&$0) }) { return turn }
      let number = state.withLock { state in
        state.numbers += 1
        return state.numbers
      }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let resumes = state.withLock { state in
            // Somebody may have ended meanwhile, and this task may have been cancelled.
            if Task.isCancelled || state.machine.running < state.machine.limit { return true }
            state.waiting.append((number, continuation))
            return false
          }
          if resumes { continuation.resume() }
        }
      } onCancel: {
        let found = state.withLock { state in
          let index = state.waiting.firstIndex { $0.number == number }
          return index.map { state.waiting.remove(at: $0).continuation }
        }
        found?.resume()
      }
    }
  }

  private func take(_ state: inout sending State) -> Turn? {
    guard case .start(let bytes) = state.machine.wants(remaining: state.remaining) else { return nil }
    return Turn(bytes: bytes, start: now)
  }

  /// So many bytes are asked for, or, below 0, given back.
  func claimed(_ bytes: Int) {
    state.withLock { state in
      if let remaining = state.remaining { state.remaining = max(0, remaining - bytes) }
    }
  }

  func received(_ bytes: Int) {
    let now = now
    wake { $0.received(bytes, at: now) }
  }

  func finished(_ turn: Turn, bytes: Int) {
    let time = now - turn.start
    wake {
      $0.finished(bytes, in: time)
      return 1
    }
  }

  func failed() {
    wake {
      $0.failed()
      return 1
    }
  }

  func throttled(_ turn: Turn) {
    let now = now
    wake {
      $0.throttled(startedAt: turn.start, at: now)
      return 1
    }
  }

  /// Tells the machine something, and lets as many go on as it says: each looks for itself whether it may.
  private func wake(_ event: (inout S3ConcurrencyStateMachine) -> Int) {
    let woken = state.withLock { state in
      let count = min(event(&state.machine), state.waiting.count)
      let woken = state.waiting.prefix(count).map(\.continuation)
      state.waiting.removeFirst(count)
      return woken
    }
    for continuation in woken { continuation.resume() }
  }
}
