internal import Synchronization

/// A clock whose time passes only when a test says so.
///
/// Its instants are also the virtual time of `SimulatedNetwork`.
public final class SimulatedClock: Clock {
  public struct Instant: InstantProtocol, CustomStringConvertible {
    /// Virtual time since the simulation's start.
    public var sinceStart: Duration

    public init(sinceStart: Duration) { self.sinceStart = sinceStart }

    public static let start = Instant(sinceStart: .zero)

    public func advanced(by duration: Duration) -> Instant { Instant(sinceStart: sinceStart + duration) }
    public func duration(to other: Instant) -> Duration { other.sinceStart - sinceStart }
    public static func < (a: Self, b: Self) -> Bool { a.sinceStart < b.sinceStart }
    public var description: String { "\(sinceStart)" }
  }

  private struct State {
    var now = Instant.start
    var nextSleeper: UInt64 = 0
    var queue = EventQueue<UInt64>()
    var sleepers: [UInt64: CheckedContinuation<Void, any Error>] = [:]
    /// Cancelled before they had begun to sleep.
    var cancelled: Set<UInt64> = []
    var watchers: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []
  }

  private let state = Mutex(State())

  public init() {}

  public var now: Instant { state.withLock { $0.now } }
  public var minimumResolution: Duration { .nanoseconds(1) }

  /// Sleeps until time was advanced to `deadline`; throws `CancellationError` when the task is cancelled.
  public func sleep(until deadline: Instant, tolerance: Duration? = nil) async throws {
    let number = state.withLock { state in
      defer { state.nextSleeper += 1 }
      return state.nextSleeper
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        begin(number, until: deadline, continuation)
      }
    } onCancel: {
      cancel(number)
    }
  }

  private func begin(_ number: UInt64, until deadline: Instant, _ continuation: CheckedContinuation<Void, any Error>) {
    enum Outcome {
      case cancelled, past
      case sleeping([CheckedContinuation<Void, Never>])
    }
    let outcome: Outcome = state.withLock { state in
      if state.cancelled.remove(number) != nil { return .cancelled }
      if deadline <= state.now { return .past }
      state.queue.add(number, at: deadline)
      state.sleepers[number] = continuation
      let met = state.watchers.filter { $0.count <= state.sleepers.count }
      state.watchers.removeAll { $0.count <= state.sleepers.count }
      return .sleeping(met.map(\.continuation))
    }
    switch outcome {
    case .cancelled: continuation.resume(throwing: CancellationError())
    case .past: continuation.resume()
    case .sleeping(let watchers): for watcher in watchers { watcher.resume() }
    }
  }

  private func cancel(_ number: UInt64) {
    let continuation = state.withLock { state in
      let sleeper = state.sleepers.removeValue(forKey: number)
      // A sleeper that is neither here nor woken yet has still to begin.
      if sleeper == nil { state.cancelled.insert(number) }
      return sleeper
    }
    continuation?.resume(throwing: CancellationError())
  }

  /// Moves time on and wakes the sleepers that become due, by deadline and then by age.
  ///
  /// One that is woken and sleeps again is not waited for: hand over with `waitForSleepers`.
  public func advance(by duration: Duration) {
    let target = now.advanced(by: duration)
    while true {
      let due: CheckedContinuation<Void, any Error>?? = state.withLock { state in
        guard let next = state.queue.nextInstant, next <= target, let (instant, number) = state.queue.popFirst() else {
          state.now = target
          return nil
        }
        state.now = max(state.now, instant)
        return .some(state.sleepers.removeValue(forKey: number))
      }
      guard let due else { return }
      due?.resume()
    }
  }

  /// Returns once at least `count` sleepers sleep.
  public func waitForSleepers(_ count: Int) async {
    await withCheckedContinuation { continuation in
      let isMet = state.withLock { state in
        if state.sleepers.count >= count { return true }
        state.watchers.append((count, continuation))
        return false
      }
      if isMet { continuation.resume() }
    }
  }
}
