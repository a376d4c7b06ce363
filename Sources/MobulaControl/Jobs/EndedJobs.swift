import MobulaCore

/// The jobs that have ended, as runs of their numbers.
///
/// Jobs are numbered in the order of their start, and every one ends: the runs are at most one
/// more than the jobs that live between them, however many have ended.
struct EndedJobs: Hashable, Sendable {
  /// In ascending order; between two of them is at least one job that has not ended.
  private(set) var runs: [ClosedRange<UInt32>] = []

  func contains(_ job: JobID) -> Bool {
    let index = firstRun(endingAtOrAfter: job.number)
    return index < runs.count && runs[index].contains(job.number)
  }

  /// Whether the job had not ended before.
  @discardableResult
  mutating func insert(_ job: JobID) -> Bool {
    let number = job.number
    var index = firstRun(endingAtOrAfter: number)
    var run = number...number
    if index < runs.count {
      if runs[index].contains(number) { return false }
      if runs[index].lowerBound - 1 == number { run = number...runs.remove(at: index).upperBound }
    }
    if index > 0, runs[index - 1].upperBound + 1 == number {
      index -= 1
      run = runs.remove(at: index).lowerBound...run.upperBound
    }
    runs.insert(run, at: index)
    return true
  }

  private func firstRun(endingAtOrAfter number: UInt32) -> Int {
    var range = runs.indices
    while !range.isEmpty {
      let middle = range.lowerBound + range.count / 2
      range = runs[middle].upperBound < number ? middle + 1..<range.upperBound : range.lowerBound..<middle
    }
    return range.lowerBound
  }
}
