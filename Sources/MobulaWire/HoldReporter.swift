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
    /// Counts what was told in a way that has to be confirmed.
    var tellings: UInt64 = 0
    /// The last telling, if neither it nor a later one was confirmed.
    var unconfirmed: UInt64?
    /// How many registrations have carried all holds.
    var registrations: UInt64 = 0
    /// In order; `nil` for those that were withdrawn.
    var changes: [Change?] = []
    /// How many of them were.
    var withdrawn = 0
    /// How many changes were taken out of the queue before its first.
    var takenChanges = 0
    /// Where in the queue of all changes, those that were taken counted, the news of objects made here is.
    var queued: [ObjectID: Int] = [:]
    /// Objects that were made here, of which nobody but their holders here can know: the head at most.
    var unshared: Set<ObjectID> = []
    /// Objects that only their makers know of, in order, for when they have lingered; `nil` for those that are over.
    var lingering: [(object: ObjectID, contains: [ObjectID])?] = []
    /// Where in `lingering` they are.
    var untold: [ObjectID: Int] = [:]
    /// Objects that more than this process know of from now on.
    var shared: [ObjectID] = []
    /// Ended holds of objects whose references never left this process.
    var neverShared: Set<ObjectID> = []
    /// Holds that ended before a registration, which may have come to be known in another way after it.
    var ended: Set<ObjectID> = []
    var isSending = false
    /// Whether something is waiting for a moment, so that more can come along.
    var isLingering = false
    var waiting: [UInt64: Waiter] = [:]
    var lastTicket: UInt64 = 0

    mutating func told() -> UInt64 {
      tellings += 1
      unconfirmed = tellings
      return tellings
    }

    mutating func confirmed(_ telling: UInt64) {
      if let last = unconfirmed, last <= telling { unconfirmed = nil }
    }

    mutating func append(_ change: Change) {
      if case .made(let object, _, _) = change { queued[object] = takenChanges + changes.count }
      changes.append(change)
    }

    /// Takes back the news of an object that was not sent yet; false when there is none.
    mutating func withdraw(_ object: ObjectID) -> Bool {
      if let index = untold.removeValue(forKey: object) {
        lingering[index] = nil
      } else if let index = queued.removeValue(forKey: object) {
        changes[index - takenChanges] = nil
        withdrawn += 1
        if withdrawn > 1024, withdrawn * 2 > changes.count { compact() }
      } else {
        return false
      }
      ledger.forget(object)
      unshared.remove(object)
      return true
    }

    /// Gives up the places of what was withdrawn, so that a queue that nobody takes from does not grow with it.
    private mutating func compact() {
      changes.removeAll { if case nil = $0 { true } else { false } }
      withdrawn = 0
      for (index, change) in changes.enumerated() {
        guard case .made(let object, _, _)? = change, queued[object] != nil else { continue }
        queued[object] = takenChanges + index
      }
    }

    /// Whether there may be something to report.
    var hasNews: Bool {
      changes.contains { if case nil = $0 { false } else { true } } || ledger.hasChanges || !shared.isEmpty
        || !ended.isEmpty
    }

    mutating func takeChanges(limit: Int) -> [Change] {
      let count = min(limit, changes.count)
      let taken = changes[..<count].compactMap { $0 }
      for case .made(let object, _, _) in taken { queued[object] = nil }
      withdrawn -= count - taken.count
      changes.removeFirst(count)
      takenChanges += count
      return taken
    }
  }

  /// Somebody who waits until what was said before was delivered.
  private struct Waiter {
    /// Of the flush that was asked for.
    var number: UInt64
    var since: ContinuousClock.Instant
    /// Whether those further up have to know, too.
    var confirms: Bool
    var continuation: CheckedContinuation<Void, any Error>
  }

  /// Something to report.
  public enum Change: Sendable {
    case replica(ReplicaChange)
    /// An object was made here, and `held` says whether a process of this host holds it. What else there
    /// is to say is looked up by who sends the report, if the object is still there by then.
    case made(ObjectID, contains: [ObjectID], held: Bool)
  }

  /// What is reported at a time.
  public struct Batch: Sendable {
    public var changes: [Change]
    public var holds: HoldLedgerStateMachine.Report
    /// Those of the ended holds whose objects nobody but this process can know of.
    public var neverShared: [ObjectID]
    /// Objects that others know of from now on.
    public var shared: [ObjectID]
    /// Something that was told before was not confirmed since: the next confirmation is of that, too.
    public var needsConfirmation: Bool
    fileprivate var tellings: UInt64
    fileprivate var upTo: UInt64
    fileprivate var registration: UInt64

    var isEmpty: Bool { changes.isEmpty && holds.isEmpty && shared.isEmpty && !needsConfirmation }
  }

  /// What delivers a report. Its result, if any, returns once those further up know of it as well; only who waits
  /// for that waits for it, and other reports don't.
  public typealias Send = @Sendable (Batch, _ isCurrent: () -> Bool) async throws -> Confirmation?
  public typealias Confirmation = @Sendable () async throws -> Void

  /// The most changes that are reported at a time, so that a report fits into a frame.
  private static let largestBatch = 8192
  /// How long somebody waits while nobody is there to report to.
  public static let patience = Duration.seconds(30)
  private let send: Send
  private let ready: @Sendable (_ within: Duration) async throws -> Bool
  private let state = Mutex(State())

  /// - Parameters:
  ///   - linger: how long what may soon be over waits before it is reported.
  ///   - ready: waits, but not for longer than it is told, until a report can be sent, and says whether one can: what
  ///     is not sent yet can be withdrawn.
  ///   - send: delivers a report; called again only after it returned. `isCurrent` is false once
  ///     a registration has carried all holds since the report was taken: its holds are not to be sent then.
  public init(
    linger: Duration = .milliseconds(2),
    ready: @escaping @Sendable (_ within: Duration) async throws -> Bool = { _ in true }, send: @escaping Send
  ) {
    self.linger = linger
    self.ready = ready
    self.send = send
  }

  /// How many changes wait to be sent.
  public var queuedChanges: Int { state.withLock { $0.changes.count - $0.withdrawn + $0.untold.count } }

  public func isHeld(_ object: ObjectID) -> Bool { state.withLock { $0.ledger.isHeld(object) } }

  /// Whether so much is waiting to be reported that who adds to it should `flush` first.
  public var isBehind: Bool { state.withLock { $0.ledger.changeCount > Self.largestBatch * 4 } }

  /// Takes all holds, for a registration that carries them; to be called after the list of what is here was made.
  public func takeRegistration() -> [ObjectID] {
    defer { sendSoon() }
    return state.withLock { state in
      Self.endLingering(&state)
      // The registration tells of what was made until now: it can't be withdrawn any more.
      state.queued.removeAll()
      state.ended.formUnion(state.ledger.untoldEnds)
      state.registrations += 1
      _ = state.told()
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

  /// Ends the hold of an object whose references never left this process; it is reported soon.
  public func releaseUnshared(_ object: ObjectID, by holder: UInt64) {
    state.withLock { state in
      state.ledger.release([object], by: holder)
      if !state.ledger.isHeld(object) { state.neverShared.insert(object) }
    }
    sendSoon(lingers: true)
  }

  /// Others may know of these objects from now on.
  public func wasShared(_ objects: [ObjectID]) {
    if objects.isEmpty { return }
    state.withLock { $0.unshared.subtract(objects) }
  }

  /// Those of the objects that nobody holds here and that nobody elsewhere can know of.
  public func unwanted(among objects: some Sequence<ObjectID>) -> [ObjectID] {
    state.withLock { state in objects.filter { state.unshared.contains($0) && !state.ledger.isHeld($0) } }
  }

  /// An object is here no longer. Reported soon, unless nobody was told that it was.
  public func gone(_ object: ObjectID) {
    let isNews = state.withLock { state in
      if !state.ledger.isHeld(object), state.withdraw(object) { return false }
      state.unshared.remove(object)
      state.append(.replica(.gone(object: object)))
      return true
    }
    if isNews { sendSoon() }
  }

  /// A reference to an object leaves this process: whoever gets it will ask for the object.
  public func share(_ object: ObjectID) {
    state.withLock { $0.shared.append(object) }
    sendSoon()
  }

  /// Reports now what was to wait for a moment.
  public func hurry() {
    state.withLock { Self.endLingering(&$0) }
    sendSoon()
  }

  private static func endLingering(_ state: inout State) {
    for case let made? in state.lingering {
      state.append(.made(made.object, contains: made.contains, held: false))
    }
    state.lingering.removeAll(keepingCapacity: true)
    state.untold.removeAll(keepingCapacity: true)
  }

  /// What a holder holds now.
  public func held(by holder: UInt64) -> Set<ObjectID> { state.withLock { $0.ledger.held(by: holder) } }

  /// A holder that has come back holds these, and of those that it was known to hold no others.
  public func setHolds(_ objects: [ObjectID], known: Set<ObjectID>, by holder: UInt64) {
    state.withLock { state in
      state.ledger.hold(objects, by: holder)
      state.ledger.release(known.subtracting(objects).sorted(), by: holder)
    }
    sendSoon()
  }

  /// Counts an object that was made here, and its maker's hold of it. Reported soon; in a moment where
  /// its maker is the only one that can know of it.
  public func made(_ object: ObjectID, contains: [ObjectID], holder: UInt64?) {
    state.withLock { state in
      if let holder {
        state.ledger.hold([object], by: holder)
        // The report of the object will say so.
        _ = state.ledger.takeHeld(with: object)
      }
      // What is inside of it may be let go of next: the head has to know who holds it then.
      if holder != nil { state.unshared.insert(object) }
      guard holder != nil, contains.isEmpty else {
        return state.append(.made(object, contains: contains, held: false))
      }
      state.untold[object] = state.lingering.count
      state.lingering.append((object, contains))
    }
    sendSoon(lingers: holder != nil && contains.isEmpty)
  }

  /// Adds a change, to be reported soon.
  public func note(_ change: ReplicaChange) {
    state.withLock { $0.append(.replica(change)) }
    sendSoon()
  }

  /// Ends holds, and forgets of the objects of which nobody but the holder ever knew (`unshared`) those
  /// that nobody was told of: they are returned. The others are reported soon.
  /// What waits to be sent, and was not, counts as not told.
  public func release(_ objects: [ObjectID], unshared: [ObjectID], by holder: UInt64) -> [ObjectID] {
    let (forgotten, hasMore) = state.withLock { state in
      state.ledger.release(objects, by: holder)
      var forgotten: [ObjectID] = []
      for object in unshared where !state.ledger.isHeld(object) && state.withdraw(object) { forgotten.append(object) }
      return (forgotten, state.ledger.hasChanges)
    }
    if hasMore { sendSoon() }
    return forgotten
  }

  /// Ends all holds of a holder; they are reported soon.
  public func holderGone(_ holder: UInt64) {
    state.withLock { $0.ledger.holderGone(holder) }
    sendSoon()
  }

  /// Reports a replica, after all that was said before; returns when it was delivered.
  public func report(_ change: ReplicaChange) async throws {
    state.withLock { $0.append(.replica(change)) }
    try await flush()
  }

  /// Reports a replica, and returns when it was delivered or `limit` has passed: whatever is done with the
  /// replica here needs nobody's answer.
  public func announce(_ change: ReplicaChange, within limit: Duration = .seconds(2)) async {
    state.withLock { $0.append(.replica(change)) }
    let ticket = newTicket()
    let timer = Task {
      try await Task.sleep(for: limit)
      take(ticket)?.resume()
    }
    _ = try? await flush(ticket)
    timer.cancel()
  }

  /// Returns when all that was said before was delivered.
  ///
  /// - Throws: what delivering it threw; `MobulaError` (`unavailable`) when for 30 s nobody was there to deliver it to.
  public func flush() async throws { try await flush(newTicket()) }

  /// As `flush`, but those further up need not know yet.
  public func deliver() async throws { try await flush(newTicket(), confirms: false) }

  private func newTicket() -> UInt64 {
    state.withLock { state in
      state.lastTicket += 1
      return state.lastTicket
    }
  }

  private func take(_ ticket: UInt64) -> CheckedContinuation<Void, any Error>? {
    state.withLock { $0.waiting.removeValue(forKey: ticket)?.continuation }
  }

  private func flush(_ ticket: UInt64, confirms: Bool = true) async throws {
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
      let starts = state.withLock { state in
        Self.endLingering(&state)
        state.asked += 1
        state.waiting[ticket] = Waiter(
          number: state.asked, since: .now, confirms: confirms, continuation: continuation)
        defer { state.isSending = true }
        return !state.isSending
      }
      if starts { Task { await sendAll() } }
    }
  }

  /// How long what may soon be over waits before it is reported.
  private let linger: Duration

  /// - Parameter lingers: whether to wait for a moment first, since more will come or this will be over.
  private func sendSoon(lingers: Bool = false) {
    enum Step { case nothing, start, linger }
    let step = state.withLock { state -> Step in
      if lingers, state.isLingering { return .nothing }
      if lingers {
        state.isLingering = true
        return .linger
      }
      state.asked += 1
      if state.isSending { return .nothing }
      state.isSending = true
      return .start
    }
    switch step {
    case .nothing: break
    case .start: Task { await sendAll() }
    case .linger:
      Task {
        try? await Task.sleep(for: linger)
        state.withLock { state in
          state.isLingering = false
          Self.endLingering(&state)
        }
        sendSoon()
      }
    }
  }

  private func sendAll() async {
    var sent: UInt64?
    while true {
      await waitUntilReady(sent)
      guard let batch = takeBatch(after: sent) else { return }
      let result: Result<Confirmation?, any Error>
      do {
        let confirmation =
          batch.isEmpty
          ? nil
          : try await send(batch) { self.state.withLock { $0.registrations == batch.registration } }
        result = .success(confirmation)
      } catch {
        result = .failure(error)
      }
      sent = batch.upTo
      let (telling, delivered) = state.withLock { state -> (UInt64, [Waiter]) in
        let delivered = state.waiting.filter { $0.value.number <= batch.upTo }
        for ticket in delivered.keys { state.waiting[ticket] = nil }
        switch result {
        case .success(nil): state.confirmed(batch.tellings)
        case .success(_?): return (state.told(), Array(delivered.values))
        case .failure: break
        }
        return (state.tellings, Array(delivered.values))
      }
      switch result {
      case .success(nil): for waiter in delivered { waiter.continuation.resume() }
      case .failure(let error): for waiter in delivered { waiter.continuation.resume(throwing: error) }
      case .success(let confirm?):
        for waiter in delivered where !waiter.confirms { waiter.continuation.resume() }
        let waiting = delivered.filter(\.confirms).map(\.continuation)
        if !waiting.isEmpty { Task { await self.confirm(telling, confirm, for: waiting) } }
      }
    }
  }

  private func confirm(
    _ telling: UInt64, _ confirm: Confirmation, for waiting: [CheckedContinuation<Void, any Error>]
  ) async {
    do {
      try await confirm()
      state.withLock { $0.confirmed(telling) }
      for continuation in waiting { continuation.resume() }
    } catch {
      for continuation in waiting { continuation.resume(throwing: error) }
    }
  }

  /// Until something can be sent, what waits to be can still be withdrawn; who waits for it hears after a while.
  private func waitUntilReady(_ sent: UInt64?) async {
    while state.withLock({ $0.asked != sent && $0.hasNews }) {
      do {
        if try await ready(.seconds(2)) { return }
      } catch {
        // Nobody ever will be: sending says so.
        return
      }
      let late = state.withLock { state in
        let end = ContinuousClock.now - Self.patience
        let late = state.waiting.filter { $0.value.since < end }
        for ticket in late.keys { state.waiting[ticket] = nil }
        return late.values.map(\.continuation)
      }
      let error = MobulaError(
        .unavailable, "Nobody took the news of this host's objects within \(Self.patience): check `mobula status`.")
      for continuation in late { continuation.resume(throwing: error) }
    }
  }

  /// What is to be sent next; `nil`, and the sender stops, when nothing was asked for since `sent`.
  private func takeBatch(after sent: UInt64?) -> Batch? {
    state.withLock { state in
      if sent == state.asked {
        state.isSending = false
        return nil
      }
      let isAll = state.changes.count <= Self.largestBatch
      let taken = state.takeChanges(limit: Self.largestBatch)
      let changes = taken.map { change -> Change in
        switch change {
        case .made(let object, let contains, _):
          return .made(object, contains: contains, held: state.ledger.takeHeld(with: object))
        case .replica(.sealed(let report, _)):
          return .replica(.sealed(report, held: state.ledger.takeHeld(with: report.object)))
        case .replica: return change
        }
      }
      // The holds come after all changes: they may be of objects that these tell of.
      var holds = isAll ? state.ledger.takeReport(limit: Self.largestBatch * 4) : .init(added: [], removed: [])
      if isAll, !state.ended.isEmpty {
        holds.removed += state.ended.subtracting(holds.removed).filter { !state.ledger.isHeld($0) }.sorted()
        state.ended.removeAll()
      }
      let neverShared = holds.removed.filter { state.neverShared.remove($0) != nil }
      let isDone = isAll && !state.ledger.hasChanges
      // What is asked for is done with the last part.
      let shared = state.shared
      state.shared.removeAll()
      return Batch(
        changes: changes, holds: holds, neverShared: neverShared, shared: shared,
        needsConfirmation: state.unconfirmed != nil, tellings: state.tellings,
        upTo: isDone ? state.asked : (sent ?? 0),
        registration: state.registrations)
    }
  }
}
