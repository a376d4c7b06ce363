internal import MobulaCore
internal import Synchronization

/// Lets threads wait for what a `SpillPlace` does in tasks, so long and no longer.
final class PlaceCalls: Sendable {
  private struct State {
    /// What somebody waits for.
    var running: [UInt64: Task<Void, Never>] = [:]
    var last: UInt64 = 0
    var isEnded = false
  }

  private let state = Mutex(State())

  /// Blocks until `body` has ended; `nil` at the deadline, or after `end`, with `body` cancelled.
  ///
  /// - Parameter isLast: whether it may run after `end`.
  func wait<Value: Sendable>(
    until deadline: ContinuousClock.Instant, isLast: Bool = false, _ body: @escaping @Sendable () async throws -> Value
  ) -> Result<Value, MobulaError>? {
    let outcome = Monitor<Result<Value, MobulaError>?>(nil)
    let ended = Result<Value, MobulaError>.failure(MobulaError(.unavailable, "the store has ended"))
    let number = state.withLock { state -> UInt64? in
      if state.isEnded, !isLast { return nil }
      state.last += 1
      state.running[state.last] = Task {
        let result: Result<Value, MobulaError>
        do {
          result = .success(try await body())
        } catch let error as MobulaError {
          result = .failure(error)
        } catch is CancellationError {
          result = ended
        } catch {
          result = .failure(MobulaError(.unavailable, "\(error)"))
        }
        outcome.update { $0 = result }
      }
      return state.last
    }
    guard let number else { return ended }
    let result = (try? outcome.wait(until: deadline) { $0 }) ?? nil
    let task = state.withLock { $0.running.removeValue(forKey: number) }
    if result == nil { task?.cancel() }
    return result
  }

  /// Nothing is waited for any more: whoever waits gets an error.
  func end() {
    let tasks = state.withLock { state in
      state.isEnded = true
      return Array(state.running.values)
    }
    for task in tasks { task.cancel() }
  }
}
