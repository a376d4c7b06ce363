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
    for number in 0..<100 { reporter.made(object(number), contains: [], holder: 1) }
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
    reporter.made(object(1), contains: [object(9)], holder: 1)
    for _ in 0..<500 where sink.made.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
    #expect(sink.made.map(\.0) == [object(1)])
  }

  @Test func aHolderThatComesBackHoldsWhatItSays() async throws {
    let sink = Sink()
    let reporter = HoldReporter { batch, _ in sink.add(batch) }
    reporter.hold([object(1), object(2)], by: 7)
    try await reporter.flush()
    reporter.setHolds([object(2), object(3)], by: 7)
    try await reporter.flush()
    #expect(Set(sink.added) == [object(1), object(2), object(3)] && sink.removed == [object(1)])
    #expect(reporter.isHeld(object(3)) && !reporter.isHeld(object(1)))
  }

  @Test func manyChangesGoInSeveralReports() async throws {
    let sink = Sink()
    let reporter = HoldReporter { batch, _ in sink.add(batch) }
    for number in 0..<20_000 { reporter.made(object(number), contains: [], holder: 1) }
    try await reporter.flush()
    #expect(sink.made.map(\.0) == (0..<20_000).map { object($0) })
    #expect(sink.all.allSatisfy { $0.changes.count <= 8192 } && sink.all.count >= 3)
  }
}
