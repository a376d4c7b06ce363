/// Deadlines of calls in the order in which they pass: a binary heap.
///
/// A call that ended in time stays in the heap until it surfaces or the heap
/// is compacted, since most calls end long before their deadline and finding them would cost more.
struct DeadlineQueue: Sendable {
  struct Entry: Sendable, Hashable {
    var instant: ContinuousClock.Instant
    var id: UInt64
    /// Whether this side is the caller.
    var isOutgoing: Bool
  }

  private var heap: [Entry] = []

  var count: Int { heap.count }
  var earliest: ContinuousClock.Instant? { heap.first?.instant }

  mutating func insert(_ entry: Entry) {
    heap.append(entry)
    var index = heap.count - 1
    while index > 0, heap[index].instant < heap[(index - 1) / 2].instant {
      heap.swapAt(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
  }

  /// Removes and returns the earliest entry if it is not after `now`.
  mutating func popFirst(until now: ContinuousClock.Instant) -> Entry? {
    guard let first = heap.first, first.instant <= now else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      siftDown(from: 0)
    }
    return first
  }

  /// Drops entries whose calls have ended.
  mutating func compact(keeping isAlive: (Entry) -> Bool) {
    heap.removeAll { !isAlive($0) }
    for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { siftDown(from: index) }
  }

  private mutating func siftDown(from start: Int) {
    var index = start
    while true {
      var child = index * 2 + 1
      guard child < heap.count else { return }
      if child + 1 < heap.count, heap[child + 1].instant < heap[child].instant { child += 1 }
      guard heap[child].instant < heap[index].instant else { return }
      heap.swapAt(index, child)
      index = child
    }
  }
}
