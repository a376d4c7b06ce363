import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct EndedJobsTests {
  private func ended(_ numbers: UInt32...) -> EndedJobs {
    var jobs = EndedJobs()
    for number in numbers { jobs.insert(JobID(number)) }
    return jobs
  }

  @Test func whatEndedIsKeptInRuns() {
    #expect(ended(3, 1, 7, 6).runs == [1...1, 3...3, 6...7])
    #expect(ended(3, 1, 7, 6, 2, 2).runs == [1...3, 6...7])
    #expect(ended(0, .max - 1, .max).runs == [0...0, UInt32.max - 1...UInt32.max])
    #expect(ended(.max, 1, 0, .max - 1).runs == [0...1, UInt32.max - 1...UInt32.max])
  }

  @Test(arguments: seeds) func theyAreASet(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var jobs = EndedJobs()
    var model: Set<UInt32> = []
    for _ in 0..<200 {
      let number = UInt32.random(in: 0..<80, using: &random)
      let (isNew, expected) = (jobs.insert(JobID(number)), model.insert(number).inserted)
      try #require(isNew == expected, "seed \(seed)")
      try #require((UInt32(0)..<80).allSatisfy { jobs.contains(JobID($0)) == model.contains($0) }, "seed \(seed)")
      let starts = model.count(where: { !model.contains($0 &- 1) })
      try #require(jobs.runs.count == starts, "seed \(seed)")
    }
  }
}
