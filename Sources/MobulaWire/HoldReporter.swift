public import MobulaCore
import Synchronization

/// Reports what changes here to the next one up (a process to its host, a host
/// to the head), one report after the other, in order, so that a hold and its
/// end never overtake each other.
public final class HoldReporter: Sendable {
  private struct State {
    var ledger = HoldLedgerStateMachine()
    /// How many flushes were asked for.
    var asked: UInt64 = 0
    /// How many registrations have carried all holds.
    var registrations: UInt64 = 0
    var changes: [ReplicaChange] = []
    var isSending = false
    var waiting: [(number: UInt64, continuation: CheckedContinuation<Void, any Error>)] = []
  }

  /// What is reported at a time.
  public struct Batch: Sendable {
    public var changes: [ReplicaChange]
    public var holds: HoldLedgerStateMachine.Report
    fileprivate var upTo: UInt64
    fileprivate var registration: UInt64
  }

  private let send: @Sendable (Batch, _ isCurrent: () -> Bool) async throws -> Void
  private let state = Mutex(State())

  /// - Parameter send: delivers a report; called again only after it returned. `isCurrent` is false once
  ///   a registration has carried all holds since the report was taken: its holds are not to be sent then.
  public init(send: @escaping @Sendable (Batch, _ isCurrent: () -> Bool) async throws -> Void) {
    self.send = send
  }

  public func isHeld(_ object: ObjectID) -> Bool { state.withLock { $0.ledger.isHeld(object) } }

  /// Takes all holds, for a registration that carries them.
  public func takeRegistration() -> [ObjectID] {
    state.withLock { state in
      state.registrations += 1
      return state.ledger.takeRegistration()
    }
  }

  /// Counts holds; they are reported with the next flush.
  public func hold(_ objects: [ObjectID], by holder: UInt64) {
    state.withLock { $0.ledger.hold(objects, by: holder) }
  }

  /// Counts the hold of an object whose making tells of it.
  public func holdSilently(_ object: ObjectID, by holder: UInt64) {
    state.withLock { state in
      state.ledger.hold([object], by: holder)
      _ = state.ledger.takeHeld(with: object)
    }
  }

  /// Ends holds; they are reported soon.
  public func release(_ objects: [ObjectID], by holder: UInt64) {
    state.withLock { $0.ledger.release(objects, by: holder) }
    sendSoon()
  }

  /// Ends all holds of a holder; they are reported soon.
  public func holderGone(_ holder: UInt64) {
    state.withLock { $0.ledger.holderGone(holder) }
    sendSoon()
  }

  /// Reports a replica, after all that was said before; returns when it was delivered.
  public func report(_ change: ReplicaChange) async throws {
    state.withLock { $0.changes.append(change) }
    try await flush()
  }

  /// Returns when all that was said before was delivered.
  public func flush() async throws {
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
      let starts = state.withLock { state in
        state.asked += 1
        state.waiting.append((state.asked, continuation))
        defer { state.isSending = true }
        return !state.isSending
      }
      if starts { Task { await sendAll() } }
    }
  }

  private func sendSoon() {
    let starts = state.withLock { state in
      state.asked += 1
      defer { state.isSending = true }
      return !state.isSending
    }
    if starts { Task { await sendAll() } }
  }

  private func sendAll() async {
    var sent: UInt64?
    while let batch = takeBatch(after: sent) {
      var failure: (any Error)?
      do {
        if !batch.changes.isEmpty || !batch.holds.isEmpty {
          try await send(batch) { self.state.withLock { $0.registrations == batch.registration } }
        }
      } catch {
        failure = error
      }
      sent = batch.upTo
      let ready = state.withLock { state in
        let ready = state.waiting.filter { $0.number <= batch.upTo }
        state.waiting.removeAll { $0.number <= batch.upTo }
        return ready
      }
      for (_, continuation) in ready {
        if let failure { continuation.resume(throwing: failure) } else { continuation.resume() }
      }
    }
  }

  /// What is to be sent next; `nil`, and the sender stops, when nothing was asked for since `sent`.
  private func takeBatch(after sent: UInt64?) -> Batch? {
    state.withLock { state in
      if sent == state.asked {
        state.isSending = false
        return nil
      }
      let changes = state.changes.map { change in
        if case .sealed(let report, _) = change {
          ReplicaChange.sealed(report, held: state.ledger.takeHeld(with: report.object))
        } else {
          change
        }
      }
      state.changes.removeAll()
      return Batch(
        changes: changes, holds: state.ledger.takeReport(), upTo: state.asked,
        registration: state.registrations)
    }
  }
}
