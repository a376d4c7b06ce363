/// Whole numbers as ranges in order, which neither overlap nor touch.
///
/// A look-up is a bisection. A change moves the ranges behind it, so this is for thousands of ranges, not millions.
struct RangeSet: Sendable, Hashable {
  /// In order, never empty, never touching each other: for iteration too.
  private(set) var ranges: [Range<Int>] = []
  /// How many numbers there are in all ranges.
  private(set) var totalCount = 0

  init() {}

  init(_ range: Range<Int>) { insert(range) }

  var isEmpty: Bool { ranges.isEmpty }

  /// Adds all of `range`, of which parts may be here already, and joins it with what it touches.
  mutating func insert(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    let touching = index { $0.upperBound < range.lowerBound }..<index { $0.lowerBound <= range.upperBound }
    var joined = range
    var known = 0
    if !touching.isEmpty {
      let lower = min(range.lowerBound, ranges[touching.lowerBound].lowerBound)
      joined = lower..<max(range.upperBound, ranges[touching.upperBound - 1].upperBound)
      known = ranges[touching].reduce(0) { $0 + $1.count }
    }
    totalCount += joined.count - known
    ranges.replaceSubrange(touching, with: CollectionOfOne(joined))
  }

  /// Takes all of `range` out, of which parts may be missing, and splits what reaches beyond it.
  mutating func remove(_ range: Range<Int>) {
    let met = indices(meeting: range)
    guard !met.isEmpty else { return }
    let first = ranges[met.lowerBound]
    let last = ranges[met.upperBound - 1]
    var kept: [Range<Int>] = []
    if first.lowerBound < range.lowerBound { kept.append(first.lowerBound..<range.lowerBound) }
    if range.upperBound < last.upperBound { kept.append(range.upperBound..<last.upperBound) }
    totalCount -= ranges[met].reduce(0) { $0 + $1.clamped(to: range).count }
    ranges.replaceSubrange(met, with: kept)
  }

  /// Whether every number of `range` is here; true for an empty one.
  func contains(_ range: Range<Int>) -> Bool {
    guard !range.isEmpty else { return true }
    let met = indices(meeting: range)
    // What is contained lies in one range, as neighbours are always joined.
    return met.count == 1 && ranges[met.lowerBound].clamped(to: range) == range
  }

  /// Whether any number of `range` is here.
  func overlaps(_ range: Range<Int>) -> Bool { !indices(meeting: range).isEmpty }

  /// The parts of `range` that are here, in order.
  func intersection(_ range: Range<Int>) -> [Range<Int>] {
    ranges[indices(meeting: range)].map { $0.clamped(to: range) }
  }

  /// The parts of `range` that are not here, in order.
  func gaps(in range: Range<Int>) -> [Range<Int>] {
    var gaps: [Range<Int>] = []
    var begin = range.lowerBound
    for met in ranges[indices(meeting: range)] {
      if begin < met.lowerBound { gaps.append(begin..<met.lowerBound) }
      begin = met.upperBound
    }
    if begin < range.upperBound { gaps.append(begin..<range.upperBound) }
    return gaps
  }

  /// The first range of at least `count` numbers.
  func first(atLeast count: Int) -> Range<Int>? { ranges.first { $0.count >= count } }

  /// Whether some range ends where `range` begins, or begins before and reaches there.
  func touchesBelow(_ range: Range<Int>) -> Bool {
    let index = index { $0.upperBound < range.lowerBound }
    return index < ranges.count && ranges[index].lowerBound < range.lowerBound
  }

  /// Whether some range begins where `range` ends, or ends after and reaches there.
  func touchesAbove(_ range: Range<Int>) -> Bool {
    let index = index { $0.upperBound <= range.upperBound }
    return index < ranges.count && ranges[index].lowerBound <= range.upperBound
  }

  /// The indices in `ranges` of those that share a number with `range`.
  private func indices(meeting range: Range<Int>) -> Range<Int> {
    let first = index { $0.upperBound <= range.lowerBound }
    guard !range.isEmpty else { return first..<first }
    return first..<index { $0.lowerBound < range.upperBound }
  }

  /// The index of the first range for which `isBefore` is false, by bisection.
  private func index(_ isBefore: (Range<Int>) -> Bool) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if isBefore(ranges[middle]) { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
