import MobulaCore
import Synchronization
import Testing

@testable import MobulaJournal

@Suite struct MemoryJournalTests {
  private func name(_ number: Int) -> JournalRecord {
    .name(NameRecord("name \(number)", KnownName(ObjectID(high: 0, low: UInt64(number)), .given)))
  }

  /// What was acknowledged before a crash is there after it, and what is there is a prefix of what was appended.
  @Test(arguments: 0..<50 as Range<UInt64>) func aCrashLosesNothingAcknowledged(seed: UInt64) async throws {
    let journal = MemoryJournal(commitsAtOnce: false, seed: seed)
    let acknowledged = Mutex<[Int]>([])
    var generator = SeededGenerator(seed: seed)
    for number in 0..<40 {
      journal.append([name(2 * number), name(2 * number + 1)]) { result in
        if case .success = result { acknowledged.withLock { $0.append(number) } }
      }
      if Bool.random(using: &generator) { journal.advance() }
    }
    let next = journal.crash()
    let found = try await next.load().names.count
    #expect(found.isMultiple(of: 2))
    #expect(acknowledged.withLock { $0 } == Array(0..<acknowledged.withLock { $0.count }))
    #expect(found / 2 >= acknowledged.withLock { $0.count })
    // The dead process's later commits reach nobody.
    journal.append([name(1000)]) { _ in }
    journal.advance()
    #expect(try await next.load().names.count == found)
  }

  @Test func aFailureFailsAllThatWaits() async throws {
    let journal = MemoryJournal(commitsAtOnce: false)
    let failures = Mutex(0)
    for number in 0..<3 {
      journal.append([name(number)]) { if case .failure = $0 { failures.withLock { $0 += 1 } } }
    }
    journal.setFailing(true)
    journal.advance()
    #expect(failures.withLock { $0 } == 3)
    journal.setFailing(false)
    #expect(journal.state.isEmpty)
    journal.append([name(5)]) { #expect(throws: Never.self, performing: $0.get) }
    journal.advance()
    #expect(journal.state.names.count == 1)
  }

  @Test func recordsAreFolded() {
    let object = ObjectID(high: 0, low: 1)
    var state = JournalState()
    state.apply([
      .epoch(5), .epoch(3), .counter(.jobs, limit: 1024), .counter(.jobs, limit: 1),
      // Two spellings of one text, which Swift's strings take for one.
      .name(NameRecord("caf\u{e9}", KnownName(object, .given))),
      .name(NameRecord("cafe\u{301}", KnownName(object, .url(claim: 7)))), .nameRemoved("caf\u{e9}"),
      .job(JobRecord(job: JobID(1), secret: .random())), .jobForgotten(JobID(1)),
    ])
    #expect(state.epoch == 5)
    #expect(state.limits == [.jobs: 1024])
    #expect(state.jobs.isEmpty)
    #expect(state.names.values.map(\.known.kind) == [.url(claim: 7)])
  }
}
