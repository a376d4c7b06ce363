package import MobulaCore

/// What one side has to tell the next one up (a process its host, a host the head): what is held here and what
/// changed, one report after the other, so that a hold and its end never overtake each other.
///
/// Its events decide; what the shell is to do is in `takeWake` after each of them.
package struct ReportQueueStateMachine: Sendable {
  /// A process of a host, or a reference of a process.
  package typealias Holder = HoldLedgerStateMachine.Holder
  /// Somebody who waits until what was said before was delivered.
  package typealias Ticket = UInt64

  /// Something to report.
  package enum Change: Sendable {
    case replica(ReplicaChange)
    /// An object was made here, and `held` says whether something here holds it. What else there is to say is looked
    /// up by who sends the report, if the object is still there by then.
    case made(ObjectID, contains: [ObjectID], held: Bool)
  }

  /// What is reported at a time.
  package struct Batch: Sendable {
    package var changes: [Change]
    package var holds: HoldLedgerStateMachine.Report
    /// Those of the ended holds whose objects nobody but this process can know of.
    package var neverShared: [ObjectID]
    /// Objects that others know of from now on.
    package var shared: [ObjectID]
    /// Something that was told before was not confirmed since: the next confirmation is of that, too.
    package var needsConfirmation: Bool
    fileprivate var tellings: UInt64
    /// All that was asked for up to here is delivered with it.
    package fileprivate(set) var upTo: UInt64
    /// Registrations that had been taken when it was.
    fileprivate var registration: UInt64

    package var isEmpty: Bool { changes.isEmpty && holds.isEmpty && shared.isEmpty && !needsConfirmation }
  }

  /// What the shell is to do.
  package struct Wake: Sendable, Equatable {
    /// Begin to send: `next`, until there is none.
    package var sends = false
    /// Call `momentPassed` in a moment.
    package var lingers = false
  }

  /// What came of sending a report.
  package enum Outcome: Sendable {
    case taken
    /// It was taken; those further up know of it once that was confirmed.
    case takenUnconfirmed
    case failed
  }

  /// Who need not wait any longer.
  package struct Delivery: Sendable, Equatable {
    package var over: [Ticket]
    /// Those that wait for a confirmation of all that was told up to `telling`.
    package var unconfirmed: [Ticket]
    package var telling: UInt64
  }

  private struct Waiter: Sendable {
    /// Of the flush that was asked for.
    var number: UInt64
    var since: Duration
    /// Whether those further up have to know, too.
    var confirms: Bool
  }

  /// The most changes that are reported at a time, so that a report fits into a frame.
  package static let largestBatch = 8192

  private var ledger = HoldLedgerStateMachine()
  /// How many flushes were asked for.
  private var asked: UInt64 = 0
  /// Counts what was told in a way that has to be confirmed.
  private var tellings: UInt64 = 0
  /// The last telling, if neither it nor a later one was confirmed.
  private var unconfirmed: UInt64?
  /// How many registrations have carried all holds.
  private var registrations: UInt64 = 0
  /// In order; `nil` for those that were withdrawn.
  private var changes: [Change?] = []
  /// How many of them were.
  private var withdrawn = 0
  /// How many changes were taken out of the queue before its first.
  private var takenChanges = 0
  /// Where in the queue of all changes, those that were taken counted, the news of objects made here is.
  private var queued: [ObjectID: Int] = [:]
  /// Objects that were made here, of which nobody but their holders here can know: the next one up at most.
  private var unshared: Set<ObjectID> = []
  /// Objects that only their makers know of, in order, for when they have lingered; `nil` for those that are over.
  private var lingering: [(object: ObjectID, contains: [ObjectID])?] = []
  /// How many of them were there when the moment began, and have lingered for all of it when it is over.
  private var ripe = 0
  /// How many were taken from its front.
  private var lingered = 0
  /// Where in `lingering` they are, those that were taken counted.
  private var untold: [ObjectID: Int] = [:]
  /// Objects that more than this process know of from now on.
  private var shared: [ObjectID] = []
  /// Ended holds of objects whose references never left this process.
  private var neverShared: Set<ObjectID> = []
  /// Holds that ended before a registration, which may have come to be known in another way after it.
  private var ended: Set<ObjectID> = []
  private var isSending = false
  /// Whether something is waiting for a moment, so that more can come along.
  private var isLingering = false
  private var waiting: [Ticket: Waiter] = [:]
  private var lastTicket: Ticket = 0
  private var wake = Wake()

  package init() {}

  package mutating func takeWake() -> Wake {
    defer { wake = Wake() }
    return wake
  }

  // MARK: Asking it

  /// How many changes wait to be sent.
  package var queuedChanges: Int { changes.count - withdrawn + untold.count }

  package func isHeld(_ object: ObjectID) -> Bool { ledger.isHeld(object) }

  /// Those of the objects that nobody holds.
  package func unheld(among objects: some Sequence<ObjectID>) -> [ObjectID] { objects.filter { !ledger.isHeld($0) } }

  /// What a holder holds now.
  package func held(by holder: Holder) -> Set<ObjectID> { ledger.held(by: holder) }

  /// Whether so much is waiting to be reported that who adds to it should flush first.
  package var isBehind: Bool { ledger.changeCount > Self.largestBatch * 4 }

  /// Those of the objects that nothing holds here and that nobody elsewhere can know of.
  package func unwanted(among objects: some Sequence<ObjectID>) -> [ObjectID] {
    objects.filter { unshared.contains($0) && !ledger.isHeld($0) }
  }

  // MARK: Holds

  /// Counts holds; they are reported with the next flush.
  package mutating func hold(_ objects: [ObjectID], by holder: Holder) { ledger.hold(objects, by: holder) }

  /// Counts the hold of an object whose making tells of it.
  package mutating func holdSilently(_ object: ObjectID, by holder: Holder) {
    ledger.hold([object], by: holder)
    _ = ledger.takeHeld(with: object)
  }

  /// Ends holds; they are reported soon.
  package mutating func release(_ objects: [ObjectID], by holder: Holder) {
    ledger.release(objects, by: holder)
    ask()
  }

  /// Ends the hold of an object whose references never left this process; it is reported in a moment.
  package mutating func releaseUnshared(_ object: ObjectID, by holder: Holder) {
    ledger.release([object], by: holder)
    if !ledger.isHeld(object) { neverShared.insert(object) }
    askInAMoment()
  }

  /// Ends holds, and forgets of the objects of which nobody but the holder ever knew (`unshared`) those
  /// that nobody was told of: they are returned. The others are reported soon.
  /// What waits to be sent, and was not, counts as not told.
  package mutating func release(_ objects: [ObjectID], unshared: [ObjectID], by holder: Holder) -> [ObjectID] {
    ledger.release(objects, by: holder)
    let forgotten = unshared.filter { !ledger.isHeld($0) && withdraw($0) }
    if ledger.hasChanges { ask() }
    return forgotten
  }

  /// Ends all holds of a holder; they are reported soon.
  package mutating func holderGone(_ holder: Holder) {
    ledger.holderGone(holder)
    ask()
  }

  /// A holder that has come back holds these, and of those that it was known to hold no others.
  package mutating func setHolds(_ objects: [ObjectID], known: Set<ObjectID>, by holder: Holder) {
    ledger.hold(objects, by: holder)
    ledger.release(known.subtracting(objects).sorted(), by: holder)
    ask()
  }

  /// A reference to an object leaves this process: whoever gets it will ask for the object.
  package mutating func share(_ object: ObjectID) {
    shared.append(object)
    ask()
  }

  // MARK: Objects

  /// Counts an object that was made here, and its maker's hold of it. Reported soon; in a moment where
  /// its maker is the only one that can know of it.
  package mutating func made(_ object: ObjectID, contains: [ObjectID], holder: Holder?) {
    // What is inside of it may be let go of next: who is further up has to know who holds it then.
    guard let holder, contains.isEmpty else {
      if let holder {
        holdSilently(object, by: holder)
        unshared.insert(object)
      }
      append(.made(object, contains: contains, held: false))
      return ask()
    }
    // The report of the object will say that it is held.
    holdSilently(object, by: holder)
    unshared.insert(object)
    untold[object] = lingered + lingering.count
    lingering.append((object, contains))
    askInAMoment()
  }

  /// An object is here no longer. Reported soon, unless nobody was told that it was.
  package mutating func gone(_ object: ObjectID) {
    if !ledger.isHeld(object), withdraw(object) { return }
    unshared.remove(object)
    note(.gone(object: object))
  }

  /// Adds a change, to be reported soon.
  package mutating func note(_ change: ReplicaChange) {
    append(.replica(change))
    ask()
  }

  /// Others may know of these objects from now on.
  package mutating func wasShared(_ objects: [ObjectID]) { unshared.subtract(objects) }

  /// Reports soon what was to wait for a moment.
  package mutating func hurry() {
    endLingering(lingering.count)
    ask()
  }

  /// The moment is over for which something waited. What came in the course of it waits for all of the next: most of
  /// what is over soon is over within a moment of its own, and not by the end of this one.
  package mutating func momentPassed() {
    isLingering = false
    endLingering(ripe)
    ripe = lingering.count
    if ripe > 0 { askInAMoment() }
    ask()
  }

  // MARK: Registering

  /// Takes all holds, for a registration that carries them; to be called after the list of what is here was made.
  package mutating func takeRegistration() -> [ObjectID] {
    endLingering(lingering.count)
    // The registration tells of what was made until now: it can't be withdrawn any more.
    queued.removeAll()
    ended.formUnion(ledger.untoldEnds)
    registrations += 1
    _ = told()
    ask()
    return ledger.takeRegistration()
  }

  /// Whether no registration has carried all holds since the report was taken.
  package func isCurrent(_ batch: Batch) -> Bool { registrations == batch.registration }

  // MARK: Sending

  /// Somebody waits until all that was said before was delivered.
  ///
  /// - Parameter confirms: whether those further up have to know, too.
  package mutating func flush(confirms: Bool, now: Duration) -> Ticket {
    endLingering(lingering.count)
    ask()
    lastTicket += 1
    waiting[lastTicket] = Waiter(number: asked, since: now, confirms: confirms)
    return lastTicket
  }

  /// Somebody does not wait any longer. False when he need not wait any more anyway.
  package mutating func giveUp(_ ticket: Ticket) -> Bool { waiting.removeValue(forKey: ticket) != nil }

  /// Takes those who have waited since before an instant.
  package mutating func takeWaiting(since instant: Duration) -> [Ticket] {
    let late = waiting.filter { $0.value.since < instant }.keys.sorted()
    for ticket in late { waiting[ticket] = nil }
    return late
  }

  /// Whether there may be something to report that was asked for after `sent`.
  package func hasNews(after sent: UInt64?) -> Bool {
    asked != sent && (changes.count > withdrawn || ledger.hasChanges || !shared.isEmpty || !ended.isEmpty)
  }

  /// What is to be sent next; `nil`, and the sending is over, when nothing was asked for since `sent`.
  package mutating func next(after sent: UInt64?) -> Batch? {
    if sent == asked {
      isSending = false
      return nil
    }
    let isAll = changes.count <= Self.largestBatch
    let taken = takeChanges(limit: Self.largestBatch).map { change -> Change in
      switch change {
      case .made(let object, let contains, _):
        return .made(object, contains: contains, held: ledger.takeHeld(with: object))
      case .replica(.sealed(let report, _)):
        return .replica(.sealed(report, held: ledger.takeHeld(with: report.object)))
      case .replica: return change
      }
    }
    // The holds come after all changes: they may be of objects that these tell of.
    var holds = isAll ? ledger.takeReport(limit: Self.largestBatch * 4) : .init(added: [], removed: [])
    if isAll, !ended.isEmpty {
      holds.removed += ended.subtracting(holds.removed).filter { !ledger.isHeld($0) }.sorted()
      ended.removeAll()
    }
    let neverShared = holds.removed.filter { self.neverShared.remove($0) != nil }
    // What is asked for is done with the last part.
    let isDone = isAll && !ledger.hasChanges
    defer { shared.removeAll() }
    return Batch(
      changes: taken, holds: holds, neverShared: neverShared, shared: shared, needsConfirmation: unconfirmed != nil,
      tellings: tellings, upTo: isDone ? asked : (sent ?? 0), registration: registrations)
  }

  /// What came of a report that was sent.
  package mutating func sent(_ batch: Batch, _ outcome: Outcome) -> Delivery {
    let delivered = waiting.filter { $0.value.number <= batch.upTo }
    for ticket in delivered.keys { waiting[ticket] = nil }
    let all = delivered.keys.sorted()
    switch outcome {
    case .taken:
      confirmed(batch.tellings)
      return Delivery(over: all, unconfirmed: [], telling: tellings)
    case .takenUnconfirmed:
      return Delivery(
        over: all.filter { delivered[$0]?.confirms == false },
        unconfirmed: all.filter { delivered[$0]?.confirms == true }, telling: told())
    case .failed: return Delivery(over: all, unconfirmed: [], telling: tellings)
    }
  }

  /// Those further up know of all that was told up to there.
  package mutating func confirmed(_ telling: UInt64) {
    if let last = unconfirmed, last <= telling { unconfirmed = nil }
  }

  private mutating func told() -> UInt64 {
    tellings += 1
    unconfirmed = tellings
    return tellings
  }

  private mutating func ask() {
    asked += 1
    if !isSending { wake.sends = true }
    isSending = true
  }

  private mutating func askInAMoment() {
    if !isLingering { wake.lingers = true }
    isLingering = true
  }

  /// So many of the first that linger have done so for long enough.
  private mutating func endLingering(_ count: Int) {
    for case let made? in lingering[..<count] {
      append(.made(made.object, contains: made.contains, held: false))
      untold[made.object] = nil
    }
    lingering.removeFirst(count)
    lingered += count
    ripe = max(0, ripe - count)
  }

  // MARK: The queue

  private mutating func append(_ change: Change) {
    if case .made(let object, _, _) = change { queued[object] = takenChanges + changes.count }
    changes.append(change)
  }

  /// Takes back the news of an object that was not sent yet; false when there is none.
  private mutating func withdraw(_ object: ObjectID) -> Bool {
    if let index = untold.removeValue(forKey: object) {
      lingering[index - lingered] = nil
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

  private mutating func takeChanges(limit: Int) -> [Change] {
    let count = min(limit, changes.count)
    let taken = changes[..<count].compactMap { $0 }
    for case .made(let object, _, _) in taken { queued[object] = nil }
    withdrawn -= count - taken.count
    changes.removeFirst(count)
    takenChanges += count
    return taken
  }
}
