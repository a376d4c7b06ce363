/// The store's books of one arena: which of its bytes are used, and which of the others hold memory.
///
/// A byte is used, free, or pending, which is free but about to be reserved. Free bytes that are reserved
/// are warm. These are books only: the caller reserves and punches the pages. All ranges begin and end at
/// multiples of `granularity`.
struct VirtualSpace: Sendable, Hashable {
  struct Allocation: Sendable, Hashable {
    let range: Range<Int>
    /// The parts of `range` that hold no memory yet, in order.
    let toReserve: [Range<Int>]
  }

  /// Bytes of the arena.
  let size: Int
  let granularity: Int
  /// What nobody uses and what is not pending.
  private(set) var free: RangeSet
  /// The part of `free` that is reserved.
  private(set) var warm = RangeSet()
  /// What `warmUp` picked and neither `didWarm` nor `warmFailed` answered; not free.
  private(set) var pending = RangeSet()

  /// A free arena without memory. `granularity` is a power of two and divides `size`.
  init(size: Int, granularity: Int) {
    precondition(granularity > 0 && granularity & (granularity - 1) == 0, "a granularity of \(granularity) bytes")
    precondition(
      size > 0 && size.isMultiple(of: granularity), "an arena of \(size) bytes in granules of \(granularity)")
    self.size = size
    self.granularity = granularity
    free = RangeSet(0..<size)
  }

  var warmBytes: Int { warm.totalCount }
  var pendingBytes: Int { pending.totalCount }
  var usedBytes: Int { size - free.totalCount - pending.totalCount }
  /// What is used or warm. Pending bytes come on top as the caller reserves them.
  var reservedBytes: Int { usedBytes + warmBytes }
  /// Bytes of the largest free range; goes through all of them.
  var largestFree: Int { free.ranges.reduce(0) { max($0, $1.count) } }

  // MARK: Allocations

  /// Marks `size` bytes, rounded up to granules, as used: in the smallest warm range that fits, else where
  /// the most memory is warm, else in the first free range. `nil` when no free range is large enough.
  ///
  /// - Parameter alignment: a multiple of the granularity, at which the range begins; one granule unless told.
  mutating func allocate(_ size: Int, alignment: Int? = nil) -> Allocation? {
    let alignment = alignment ?? granularity
    precondition(size > 0, "an allocation has at least one byte")
    precondition(alignment > 0 && alignment.isMultiple(of: granularity), "an alignment of \(alignment) bytes")
    guard size <= self.size else { return nil }
    let size = Self.roundUp(size, to: granularity)
    guard let start = warmStart(size, alignment) ?? freeStart(size, alignment) else { return nil }
    let range = start..<start + size
    let toReserve = warm.gaps(in: range)
    free.remove(range)
    warm.remove(range)
    return Allocation(range: range, toReserve: toReserve)
  }

  /// Takes back what was used: it is free and still holds its memory.
  mutating func free(_ range: Range<Int>) {
    checkUsed(range)
    free.insert(range)
    warm.insert(range)
  }

  /// Takes back an allocation whose reservation failed: only the parts in `reserved` hold memory.
  mutating func freeUnreserved(_ range: Range<Int>, reserved: [Range<Int>]) {
    checkUsed(range)
    free.insert(range)
    for part in reserved {
      precondition(range.clamped(to: part) == part && isWhole(part), "\(part) is no part of \(range)")
      warm.insert(part)
    }
  }

  /// Marks exactly `range` as used, for books that are rebuilt; false when it is not free or not in whole granules.
  mutating func take(_ range: Range<Int>) -> Bool {
    guard !range.isEmpty, isWhole(range), free.contains(range) else { return false }
    free.remove(range)
    warm.remove(range)
    return true
  }

  // MARK: Memory that nobody uses

  /// Takes warm ranges out of the books of memory, from the end of the arena on: `bytes` rounded up to
  /// granules, or what there is. They stay free, so the caller has to punch them before its next call.
  mutating func trim(_ bytes: Int) -> [Range<Int>] {
    var left = Self.roundUp(max(0, min(bytes, warmBytes)), to: granularity)
    var trimmed: [Range<Int>] = []
    while left > 0, let last = warm.ranges.last {
      let piece = max(last.lowerBound, last.upperBound - left)..<last.upperBound
      warm.remove(piece)
      trimmed.append(piece)
      left -= piece.count
    }
    return trimmed
  }

  /// Picks free ranges without memory, `bytes` in all rounded up to granules, or what there is: first what
  /// touches warm memory, so that it grows in one piece, then from the front of the arena.
  ///
  /// They are pending, and not given out, until the caller answers each with `didWarm` or `warmFailed`,
  /// in whole or in parts.
  mutating func warmUp(_ bytes: Int) -> [Range<Int>] {
    let cold = free.ranges.flatMap { warm.gaps(in: $0) }
    var left = Self.roundUp(max(0, min(bytes, free.totalCount - warmBytes)), to: granularity)
    var picked = RangeSet()
    // What is pending will be warm soon, so it counts as a neighbour.
    for gap in cold where left > 0 && (warm.touchesBelow(gap) || pending.touchesBelow(gap)) {
      let piece = gap.lowerBound..<min(gap.upperBound, gap.lowerBound + left)
      picked.insert(piece)
      left -= piece.count
    }
    for gap in cold where left > 0 && !picked.overlaps(gap) {
      guard warm.touchesAbove(gap) || pending.touchesAbove(gap) else { continue }
      let piece = max(gap.lowerBound, gap.upperBound - left)..<gap.upperBound
      picked.insert(piece)
      left -= piece.count
    }
    for gap in cold where left > 0 && !picked.overlaps(gap) {
      let piece = gap.lowerBound..<min(gap.upperBound, gap.lowerBound + left)
      picked.insert(piece)
      left -= piece.count
    }
    for piece in picked.ranges {
      free.remove(piece)
      pending.insert(piece)
    }
    return picked.ranges
  }

  /// `range`, which was pending, is reserved now.
  mutating func didWarm(_ range: Range<Int>) {
    warmFailed(range)
    warm.insert(range)
  }

  /// `range`, which was pending, is not reserved and free again.
  mutating func warmFailed(_ range: Range<Int>) {
    precondition(isWhole(range) && pending.contains(range), "\(range) is not pending")
    pending.remove(range)
    free.insert(range)
  }

  // MARK: Placement

  /// Where the smallest warm range that fits has room.
  private func warmStart(_ size: Int, _ alignment: Int) -> Int? {
    var best: (start: Int, count: Int)?
    for range in warm.ranges where range.count >= size && range.count < best?.count ?? .max {
      let start = Self.roundUp(range.lowerBound, to: alignment)
      if start + size <= range.upperBound { best = (start, range.count) }
    }
    return best?.start
  }

  /// Where a free range has room and the most bytes are warm; the first such when none is.
  private func freeStart(_ size: Int, _ alignment: Int) -> Int? {
    let sums = WarmSums(warm)
    var best: (start: Int, covered: Int)?
    for range in free.ranges where range.count >= size {
      let first = Self.roundUp(range.lowerBound, to: alignment)
      let last = (range.upperBound - size) / alignment * alignment
      guard first <= last else { continue }
      func consider(_ start: Int) {
        let covered = sums.below(start + size) - sums.below(start)
        if covered > best?.covered ?? -1 { best = (start, covered) }
      }
      // As the start moves up, cover can only turn from growing to shrinking where the start enters a warm
      // range or the end leaves one. So the best starts are next to such places, or at either end.
      consider(first)
      for met in warm.intersection(range) {
        for turn in [met.lowerBound, met.upperBound - size] {
          let turn = min(max(turn, first), last)
          consider(turn / alignment * alignment)
          consider(Self.roundUp(turn, to: alignment))
        }
      }
      consider(last)
    }
    return best?.start
  }

  private func isWhole(_ range: Range<Int>) -> Bool {
    range.lowerBound.isMultiple(of: granularity) && range.upperBound.isMultiple(of: granularity)
  }

  private func checkUsed(_ range: Range<Int>) {
    precondition(
      range.lowerBound >= 0 && range.upperBound <= size && isWhole(range) && !free.overlaps(range)
        && !pending.overlaps(range), "\(range) is not used")
  }

  private static func roundUp(_ count: Int, to unit: Int) -> Int { (count + unit - 1) / unit * unit }
}

/// How many bytes are warm below an address: running sums and one bisection.
private struct WarmSums {
  private let ranges: [Range<Int>]
  /// Bytes in the ranges before each, and at the end in all.
  private var before = [0]

  init(_ warm: RangeSet) {
    ranges = warm.ranges
    before.reserveCapacity(ranges.count + 1)
    for range in ranges { before.append(before[before.count - 1] + range.count) }
  }

  func below(_ address: Int) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound <= address { low = middle + 1 } else { high = middle }
    }
    guard low < ranges.count else { return before[low] }
    return before[low] + max(0, address - ranges[low].lowerBound)
  }
}
