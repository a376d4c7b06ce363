import MobulaCore
import Synchronization
import Testing

@testable import MobulaWire

@Suite struct HoldReporterTests {
  private final class Sink: Sendable {
    private let batches = Mutex<[HoldReporter.Batch]>([])
    func add(_ batch: HoldReporter.Batch) { batches.withLock { $0.append(batch) } }
    var all: [HoldReporter.Batch] { batches.withLock { $0 } }
    var made: [(ObjectID, Bool)] {
      all.flatMap(\.changes).compactMap { if case .made(let object, _, let held) = $0 { (object, held) } else { nil } }
    }
    var added: [ObjectID] { all.flatMap(\.holds.added) }
    var removed: [ObjectID] { all.flatMap(\.holds.removed) }
  }

  private func object(_ number: UInt64) -> ObjectID { ObjectID(high: 0, low: number) }

  @Test func whatOnlyItsMakerKnewIsNeverTold() async throws {
    let sink = Sink()
    let reporter = HoldReporter(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    for number in 0..<100 as Range<UInt64> { reporter.made(object(number), contains: [], holder: 1) }
    let forgotten = reporter.release((0..<50).map { object($0) }, unshared: (0..<50).map { object($0) }, by: 1)
    #expect(forgotten == (0..<50).map { object($0) })
    try await reporter.flush()
    #expect(sink.made.map(\.0) == (50..<100).map { object($0) })
    #expect(sink.made.allSatisfy { $0.1 }, "their reports say that they are held")
    #expect(sink.added.isEmpty && sink.removed.isEmpty)
  }

  @Test func whatWasToldOrSharedIsReleasedInTheOrdinaryWay() async throws {
    let sink = Sink()
    let reporter = HoldReporter(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    reporter.made(object(1), contains: [], holder: 1)
    reporter.made(object(2), contains: [], holder: 1)
    try await reporter.flush()
    #expect(reporter.release([object(1)], unshared: [object(1)], by: 1).isEmpty, "it was told")
    #expect(reporter.release([object(2)], unshared: [], by: 1).isEmpty, "it was shared")
    try await reporter.flush()
    #expect(sink.removed.sorted() == [object(1), object(2)])
  }

  @Test func anotherHolderKeepsWhatItsMakerReleases() async throws {
    let sink = Sink()
    let reporter = HoldReporter(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    reporter.made(object(1), contains: [], holder: 1)
    reporter.hold([object(1)], by: 2)
    #expect(reporter.release([object(1)], unshared: [object(1)], by: 1).isEmpty)
    try await reporter.flush()
    #expect(sink.made.map(\.0) == [object(1)] && sink.made[0].1 && sink.removed.isEmpty)
  }

  @Test func lingeringEndsByItself() async throws {
    let sink = Sink()
    let reporter = HoldReporter(linger: .milliseconds(5)) { batch, _ in sink.add(batch) }
    reporter.made(object(1), contains: [], holder: 1)
    for _ in 0..<500 where sink.made.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
    #expect(sink.made.map(\.0) == [object(1)])
  }

  @Test func whatContainsOthersDoesNotLinger() async throws {
    let sink = Sink()
    let reporter = HoldReporter(linger: .seconds(3600)) { batch, _ in sink.add(batch) }
    reporter.hold([object(9)], by: 1)
    try await reporter.flush()
    reporter.made(object(1), contains: [object(9)], holder: 1)
    _ = reporter.release([object(9)], unshared: [], by: 1)
    for _ in 0..<500 where sink.removed.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
    #expect(sink.made.map(\.0) == [object(1)], "the head knows who contains it before nobody else holds it")
    #expect(sink.removed == [object(9)])
  }

  @Test func aHolderThatComesBackHoldsWhatItSays() async throws {
    let sink = Sink()
    let reporter = HoldReporter { batch, _ in sink.add(batch) }
    reporter.hold([object(1), object(2)], by: 7)
    try await reporter.flush()
    let known = reporter.held(by: 7)
    #expect(known == [object(1), object(2)])
    // Put while it was coming back: it may not be in what it says.
    reporter.made(object(4), contains: [], holder: 7)
    reporter.setHolds([object(2), object(3)], known: known, by: 7)
    try await reporter.flush()
    #expect(reporter.isHeld(object(4)))
    #expect(Set(sink.added) == [object(1), object(2), object(3)] && sink.removed == [object(1)])
    #expect(reporter.isHeld(object(3)) && !reporter.isHeld(object(1)))
  }

  @Test func manyChangesGoInSeveralReports() async throws {
    let sink = Sink()
    let reporter = HoldReporter { batch, _ in sink.add(batch) }
    for number in 0..<20_000 as Range<UInt64> { reporter.made(object(number), contains: [], holder: 1) }
    try await reporter.flush()
    #expect(sink.made.map(\.0) == (0..<20_000).map { object($0) })
    #expect(sink.all.allSatisfy { $0.changes.count <= 8192 } && sink.all.count >= 3)
  }
}
