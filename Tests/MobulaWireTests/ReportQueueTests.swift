import MobulaCore
import Synchronization
import Testing

@testable import MobulaWire

extension ReportQueue {
  /// What `change` returns, where a macro would take its argument apart.
  fileprivate func release(_ objects: [ObjectID], unshared: [ObjectID], by holder: UInt64) -> [ObjectID] {
    change { $0.release(objects, unshared: unshared, by: holder) }
  }
  fileprivate func takeRegistration() -> [ObjectID] { change { $0.takeRegistration() } }
  fileprivate func isHeld(_ object: ObjectID) -> Bool { look { $0.isHeld(object) } }
  fileprivate func unwanted(among objects: [ObjectID]) -> [ObjectID] { look { $0.unwanted(among: objects) } }
  fileprivate var queuedChanges: Int { look { $0.queuedChanges } }
}

@Suite struct ReportQueueTests {
  private final class Sink: Sendable {
    private let batches = Mutex<[ReportQueue.Batch]>([])
    func add(_ batch: ReportQueue.Batch) -> ReportQueue.Confirmation? {
      batches.withLock { $0.append(batch) }
      return nil
    }
    var all: [ReportQueue.Batch] { batches.withLock { $0 } }
    var made: [(ObjectID, Bool)] {
      all.flatMap(\.changes).compactMap { if case .made(let object, _, let held) = $0 { (object, held) } else { nil } }
    }
    var added: [ObjectID] { all.flatMap(\.holds.added) }
    var removed: [ObjectID] { all.flatMap(\.holds.removed) }
  }

  private func object(_ number: UInt64) -> ObjectID { ObjectID(high: 0, low: number) }

  @Test func whatOnlyItsMakerKnewIsNeverTold() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    for number in 0..<100 as Range<UInt64> { queue.change { $0.made(object(number), contains: [], holder: 1) } }
    let forgotten = queue.change {
      $0.release((0..<50).map { object($0) }, unshared: (0..<50).map { object($0) }, by: 1)
    }
    #expect(forgotten == (0..<50).map { object($0) })
    try await queue.flush()
    #expect(sink.made.map(\.0) == (50..<100).map { object($0) })
    #expect(sink.made.allSatisfy { $0.1 }, "their reports say that they are held")
    #expect(sink.added.isEmpty && sink.removed.isEmpty)
  }

  @Test func whatWasToldOrSharedIsReleasedInTheOrdinaryWay() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    queue.change { $0.made(object(1), contains: [], holder: 1) }
    queue.change { $0.made(object(2), contains: [], holder: 1) }
    try await queue.flush()
    #expect(queue.release([object(1)], unshared: [object(1)], by: 1).isEmpty, "it was told")
    #expect(queue.release([object(2)], unshared: [], by: 1).isEmpty, "it was shared")
    try await queue.flush()
    #expect(sink.removed.sorted() == [object(1), object(2)])
  }

  @Test func anotherHolderKeepsWhatItsMakerReleases() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    queue.change { $0.made(object(1), contains: [], holder: 1) }
    queue.change { $0.hold([object(1)], by: 2) }
    #expect(queue.release([object(1)], unshared: [object(1)], by: 1).isEmpty)
    try await queue.flush()
    #expect(sink.made.map(\.0) == [object(1)] && sink.made[0].1 && sink.removed.isEmpty)
  }

  @Test func lingeringEndsByItself() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .milliseconds(5)) { batch, _ in sink.add(batch) }
    queue.change { $0.made(object(1), contains: [], holder: 1) }
    for _ in 0..<500 where sink.made.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
    #expect(sink.made.map(\.0) == [object(1)])
  }

  /// What is made just before a moment is over lingers for all of the next.
  @Test func everyObjectLingersForAMomentOfItsOwn() {
    var machine = ReportQueueStateMachine()
    machine.made(object(1), contains: [], holder: 1)
    #expect(machine.takeWake() == .init(sends: false, lingers: true))
    machine.momentPassed()
    #expect(machine.takeWake().lingers)
    let nothing = machine.next(after: nil)
    #expect(nothing?.isEmpty == true && machine.next(after: nothing?.upTo) == nil)
    machine.made(object(2), contains: [], holder: 1)
    machine.made(object(3), contains: [], holder: 1)
    #expect(machine.release([object(2)], unshared: [object(2)], by: 1) == [object(2)])
    machine.momentPassed()
    func told() -> [ObjectID] {
      var told: [ObjectID] = []
      var sent: UInt64?
      while let batch = machine.next(after: sent) {
        for case .made(let object, _, _) in batch.changes { told.append(object) }
        _ = machine.sent(batch, .taken)
        sent = batch.upTo
      }
      return told
    }
    #expect(machine.takeWake() == .init(sends: true, lingers: true))
    #expect(told() == [object(1)])
    // The third is older than a moment now, though others were told meanwhile.
    machine.made(object(4), contains: [], holder: 1)
    machine.momentPassed()
    #expect(told() == [object(3)])
    #expect(machine.queuedChanges == 1)
    machine.momentPassed()
    #expect(told() == [object(4)])
    #expect(machine.queuedChanges == 0 && machine.takeWake().lingers == true)
    machine.momentPassed()
    #expect(!machine.takeWake().lingers)
  }

  @Test func whatContainsOthersDoesNotLinger() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    queue.change { $0.hold([object(9)], by: 1) }
    try await queue.flush()
    queue.change { $0.made(object(1), contains: [object(9)], holder: 1) }
    _ = queue.release([object(9)], unshared: [], by: 1)
    for _ in 0..<500 where sink.removed.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
    #expect(sink.made.map(\.0) == [object(1)], "the head knows who contains it before nobody else holds it")
    #expect(sink.removed == [object(9)])
  }

  @Test func aHolderThatComesBackHoldsWhatItSays() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .milliseconds(2)) { batch, _ in sink.add(batch) }
    queue.change { $0.hold([object(1), object(2)], by: 7) }
    try await queue.flush()
    let known = queue.look { $0.held(by: 7) }
    #expect(known == [object(1), object(2)])
    // Put while it was coming back: it may not be in what it says.
    queue.change { $0.made(object(4), contains: [], holder: 7) }
    queue.change { $0.setHolds([object(2), object(3)], known: known, by: 7) }
    try await queue.flush()
    #expect(queue.isHeld(object(4)))
    #expect(Set(sink.added) == [object(1), object(2), object(3)] && sink.removed == [object(1)])
    #expect(queue.isHeld(object(3)) && !queue.isHeld(object(1)))
  }

  @Test func manyChangesGoInSeveralReports() async throws {
    let sink = Sink()
    let queue = ReportQueue(linger: .milliseconds(2)) { batch, _ in sink.add(batch) }
    for number in 0..<20_000 as Range<UInt64> { queue.change { $0.made(object(number), contains: [], holder: 1) } }
    try await queue.flush()
    #expect(sink.made.map(\.0) == (0..<20_000).map { object($0) })
    #expect(sink.all.allSatisfy { $0.changes.count <= 8192 } && sink.all.count >= 3)
  }

  /// Lets reports through once it is opened.
  private final class Door: Sendable {
    private let isOpen = Mutex(false)
    func open() { isOpen.withLock { $0 = true } }
    func wait(_ limit: Duration) async throws -> Bool {
      try await Task.sleep(for: .milliseconds(1))
      return isOpen.withLock { $0 }
    }
  }

  @Test func whatWasNotSentYetIsWithdrawn() async throws {
    let (sink, door) = (Sink(), Door())
    let queue = ReportQueue(linger: .milliseconds(1), ready: door.wait) { batch, _ in sink.add(batch) }
    for number in 0..<100 as Range<UInt64> { queue.change { $0.made(object(number), contains: [], holder: 1) } }
    queue.change { $0.hurry() }
    #expect(queue.queuedChanges == 100)
    let released = (0..<90).map { object($0) }
    #expect(queue.release(released, unshared: released, by: 1) == released)
    // Made, held and evicted before anybody heard of it.
    queue.change { $0.made(object(200), contains: [], holder: 1) }
    _ = queue.release([object(200)], unshared: [], by: 1)
    queue.change { $0.gone(object(200)) }
    door.open()
    try await queue.flush()
    #expect(sink.made.map(\.0) == (90..<100).map { object($0) })
    #expect(sink.added.isEmpty && sink.removed.isEmpty)
  }

  /// However long nobody takes from it, the queue has what there is to say, and no more.
  @Test func aQueueThatNobodyTakesFromHasOnlyWhatIsThere() async throws {
    let (sink, door) = (Sink(), Door())
    let queue = ReportQueue(linger: .seconds(3600), ready: door.wait) { batch, _ in sink.add(batch) }
    var kept: [ObjectID] = []
    for number in 0..<20_000 as Range<UInt64> {
      queue.change { $0.made(object(number), contains: [], holder: 1) }
      queue.change { $0.hurry() }
      if number % 100 == 0 {
        kept.append(object(number))
      } else {
        #expect(queue.release([object(number)], unshared: [object(number)], by: 1) == [object(number)])
      }
      if number % 1000 == 0 { #expect(queue.queuedChanges == kept.count) }
    }
    door.open()
    try await queue.flush()
    #expect(sink.made.map(\.0) == kept && sink.removed.isEmpty)
  }

  @Test func whoHasNothingToSayWaitsForNobody() async throws {
    let door = Door()
    let queue = ReportQueue(linger: .milliseconds(2), ready: door.wait) { _, _ in nil }
    try await queue.flush()
    queue.change { $0.hold([object(1)], by: 1) }
    queue.change { $0.release([object(1)], by: 1) }
    door.open()
    try await queue.flush()
  }

  @Test func whatARegistrationToldIsNotWithdrawn() async throws {
    let (sink, door) = (Sink(), Door())
    let queue = ReportQueue(linger: .seconds(3600), ready: door.wait) { batch, _ in sink.add(batch) }
    queue.change { $0.made(object(1), contains: [], holder: 1) }
    #expect(queue.takeRegistration() == [object(1)])
    #expect(queue.release([object(1)], unshared: [object(1)], by: 1).isEmpty)
    #expect(queue.unwanted(among: [object(1)]) == [object(1)], "its room is not to wait for the head")
    door.open()
    try await queue.flush()
    #expect(sink.removed == [object(1)], "the head hears that it is held no more")
  }

  @Test func whatOthersMayKnowIsWanted() {
    let queue = ReportQueue(linger: .seconds(3600)) { _, _ in nil }
    for number in 1...4 as ClosedRange<UInt64> { queue.change { $0.made(object(number), contains: [], holder: 1) } }
    queue.change { $0.made(object(5), contains: [], holder: nil) }
    queue.change { $0.wasShared([object(1)]) }
    queue.change { $0.hold([object(2)], by: 2) }
    queue.change { $0.holderGone(1) }
    #expect(queue.unwanted(among: (1...5).map { object($0) }) == [object(3), object(4)])
    queue.change { $0.holderGone(2) }
    #expect(queue.unwanted(among: [object(2)]) == [object(2)])
  }

  /// Who waits for a confirmation keeps no later report waiting.
  @Test func confirmationsAreWaitedForBesideReports() async throws {
    let sink = Sink()
    let door = Door()
    let confirm: ReportQueue.Confirmation = { while try await !door.wait(.zero) {} }
    let queue = ReportQueue(linger: .milliseconds(2)) { batch, _ -> ReportQueue.Confirmation? in
      _ = sink.add(batch)
      return batch.holds.added.isEmpty ? nil : confirm
    }
    queue.change { $0.hold([object(1)], by: 1) }
    let waiting = Task { try await queue.flush() }
    while sink.added.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
    queue.change { $0.release([object(1)], by: 1) }
    while sink.removed.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
    door.open()
    try await waiting.value
  }

  /// What left without anybody waiting for it is confirmed for who waits later, and once.
  @Test func whatWasNotConfirmedIsWhenSomebodyWaits() async throws {
    let sink = Sink()
    let confirmations = Journal()
    let confirm: ReportQueue.Confirmation = { confirmations.raise(to: confirmations.number + 1) }
    let queue = ReportQueue(linger: .milliseconds(2)) { batch, _ -> ReportQueue.Confirmation? in
      _ = sink.add(batch)
      return batch.holds.added.isEmpty && !batch.needsConfirmation ? nil : confirm
    }
    queue.change { $0.hold([object(1), object(2)], by: 1) }
    queue.change { $0.release([object(2)], by: 1) }
    while sink.added.isEmpty { try await Task.sleep(for: .milliseconds(1)) }
    try await queue.flush(confirms: false)
    #expect(confirmations.number == 0)
    try await queue.flush()
    #expect(confirmations.number == 1)
    try await queue.flush()
    #expect(confirmations.number == 1)
    // What a registration carried is told, and not confirmed.
    #expect(queue.takeRegistration() == [object(1)])
    try await queue.flush()
    #expect(confirmations.number == 2)
  }

  @Test func anAnnouncementWaitsForNobodyForLong() async throws {
    let door = Door()
    let queue = ReportQueue(linger: .milliseconds(2), ready: door.wait) { _, _ in nil }
    queue.change { $0.note(.gone(object: object(1))) }
    try await queue.flush(within: .milliseconds(10))
    #expect(queue.queuedChanges == 1, "it is said later")
    door.open()
  }
}
