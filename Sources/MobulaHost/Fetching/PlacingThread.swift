import Dispatch
import MobulaCore
import Synchronization

/// Where small objects get their places in the store, one after the other: making room may block for a moment, which the
/// threads that serve calls must not.
///
/// Who waits for room in vain has waited for all that come within a second of it.
final class PlacingThread: Sendable {
  private let queue = DispatchQueue(label: "mobula.placing")
  private let lastFull = Mutex<ContinuousClock.Instant?>(nil)

  /// - Throws: what `body` threw.
  func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      queue.async { continuation.resume(with: Result { try body() }) }
    }
  }

  /// Runs `body` on the calling thread.
  ///
  /// - Throws: what `body` threw; `MobulaError` (`full`) where there was no room a moment ago.
  func unlessFull<Value>(_ body: () throws -> Value) throws -> Value {
    if let last = lastFull.withLock({ $0 }), .now - last < .seconds(1) {
      throw MobulaError(.full, "The store had no room a moment ago.")
    }
    do {
      return try body()
    } catch let error as MobulaError where error.code == .full {
      lastFull.withLock { $0 = .now }
      throw error
    }
  }
}
