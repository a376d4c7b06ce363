import MobulaCore
package import Synchronization

/// Sends what a `ReportQueueStateMachine` has to report, one report after the other, and lets others wait for that.
package final class ReportQueue: Sendable {
  package typealias Machine = ReportQueueStateMachine
  package typealias Batch = Machine.Batch

  /// What delivers a report; called again only after it returned. Its result, if any, returns once those further up
  /// know of it as well; only who waits for that waits for it, and other reports don't.
  ///
  /// `isCurrent` is false once a registration has carried all holds since the report was taken: its holds are not to
  /// be sent then.
  package typealias Send = @Sendable (Batch, _ isCurrent: () -> Bool) async throws -> Confirmation?
  package typealias Confirmation = @Sendable () async throws -> Void

  @usableFromInline struct State {
    @usableFromInline var machine = Machine()
    var waiting: [Machine.Ticket: CheckedContinuation<Void, any Error>] = [:]
  }

  /// How long somebody waits while nobody is there to report to.
  package static let patience = Duration.seconds(30)
  /// How long what may soon be over waits before it is reported.
  private let linger: Duration
  private let ready: @Sendable (_ within: Duration) async throws -> Bool
  private let send: Send
  @usableFromInline let state = Mutex(State())
  private let start = ContinuousClock.now

  /// - Parameters:
  ///   - linger: how long what may soon be over waits before it is reported.
  ///   - ready: waits, but not for longer than it is told, until a report can be sent, and says whether one can: what
  ///     is not sent yet can be withdrawn.
  ///   - send: delivers a report.
  package init(
    linger: Duration, ready: @escaping @Sendable (_ within: Duration) async throws -> Bool = { _ in true },
    send: @escaping Send
  ) {
    self.linger = linger
    self.ready = ready
    self.send = send
  }

  private var now: Duration { start.duration(to: .now) }

  // A put tells of what it holds, and the end of a reference of its end: both below are to be compiled for the event
  // where it is told, in other modules, too.

  /// Asks without changing anything.
  @inlinable package func look<Value: Sendable>(_ body: (borrowing Machine) -> Value) -> Value {
    state.withLock { body($0.machine) }
  }

  /// Tells the machine of an event, and sees to what follows.
  @discardableResult
  @inlinable package func change<Value: Sendable>(_ body: (inout Machine) -> Value) -> Value {
    let (value, wake) = state.withLock { state in (body(&state.machine), state.machine.takeWake()) }
    act(wake)
    return value
  }

  @usableFromInline func act(_ wake: Machine.Wake) {
    if wake.sends { Task { await sendAll() } }
    if wake.lingers {
      Task {
        try? await Task.sleep(for: linger)
        change { $0.momentPassed() }
      }
    }
  }

  /// Returns when all that was said before was delivered.
  ///
  /// - Parameters:
  ///   - confirms: whether those further up have to know, too.
  ///   - limit: after which it returns all the same; without, it waits for as long as somebody is there to report to.
  /// - Throws: what delivering it threw; `MobulaError` (`unavailable`) when for 30 s nobody was there to deliver it to.
  package func flush(confirms: Bool = true, within limit: Duration? = nil) async throws {
    var timer: Task<Void, any Error>?
    defer { timer?.cancel() }
    try await withCheckedThrowingContinuation { continuation in
      let (ticket, wake) = state.withLock { state in
        let ticket = state.machine.flush(confirms: confirms, now: now)
        state.waiting[ticket] = continuation
        return (ticket, state.machine.takeWake())
      }
      if let limit {
        timer = Task {
          try await Task.sleep(for: limit)
          let continuation = state.withLock { state in
            state.machine.giveUp(ticket) ? state.waiting.removeValue(forKey: ticket) : nil
          }
          continuation?.resume()
        }
      }
      act(wake)
    }
  }

  private func sendAll() async {
    var sent: UInt64?
    while true {
      await waitUntilReady(sent)
      guard let batch = state.withLock({ $0.machine.next(after: sent) }) else { return }
      var confirm: Confirmation?
      var outcome = Machine.Outcome.taken
      var failure: (any Error)?
      if !batch.isEmpty {
        do {
          confirm = try await send(batch) { state.withLock { $0.machine.isCurrent(batch) } }
          if confirm != nil { outcome = .takenUnconfirmed }
        } catch {
          failure = error
          outcome = .failed
        }
      }
      sent = batch.upTo
      let (delivery, over, unconfirmed) = state.withLock { state in
        let delivery = state.machine.sent(batch, outcome)
        return (
          delivery, delivery.over.compactMap { state.waiting.removeValue(forKey: $0) },
          delivery.unconfirmed.compactMap { state.waiting.removeValue(forKey: $0) }
        )
      }
      for continuation in over {
        if let failure { continuation.resume(throwing: failure) } else { continuation.resume() }
      }
      if let confirm, !unconfirmed.isEmpty {
        Task { await self.confirm(delivery.telling, confirm, for: unconfirmed) }
      }
    }
  }

  private func confirm(
    _ telling: UInt64, _ confirm: Confirmation, for waiting: [CheckedContinuation<Void, any Error>]
  ) async {
    do {
      try await confirm()
      state.withLock { $0.machine.confirmed(telling) }
      for continuation in waiting { continuation.resume() }
    } catch {
      for continuation in waiting { continuation.resume(throwing: error) }
    }
  }

  /// Until something can be sent, what waits to be can still be withdrawn; who waits for it hears after a while.
  private func waitUntilReady(_ sent: UInt64?) async {
    while state.withLock({ $0.machine.hasNews(after: sent) }) {
      do {
        if try await ready(.seconds(2)) { return }
      } catch {
        // Nobody ever will be: sending says so.
        return
      }
      let late = state.withLock { state in
        state.machine.takeWaiting(since: now - Self.patience).compactMap { state.waiting.removeValue(forKey: $0) }
      }
      let error = MobulaError(
        .unavailable, "Nobody took the news of this host's objects within \(Self.patience): check `mobula status`.")
      for continuation in late { continuation.resume(throwing: error) }
    }
  }
}
