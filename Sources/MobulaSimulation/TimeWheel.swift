/// Events by virtual time in nanoseconds, for many of them: those of the same instant come in the order in which
/// they were added.
///
/// A ring of buckets (a calendar queue) holds what comes soon, in no order; the bucket whose time has come is sorted,
/// and what is added to it then is put in its place. What comes later than the ring reaches waits in a heap.
struct TimeWheel<Event> {
  private struct Entry {
    var time: Int
    var number: UInt64
    var event: Event

    func isBefore(_ other: Entry) -> Bool { time == other.time ? number < other.number : time < other.time }
  }

  private struct Node {
    var entry: Entry
    var next: Int32
  }

  /// Nanoseconds of a bucket, as a power of two: 4 µs.
  private static var shift: Int { 12 }
  private static var buckets: Int { 1 << 15 }

  private var nodes: [Node] = []
  private var free: Int32 = -1
  /// The first node of each bucket.
  private var heads: [Int32]
  /// Which buckets have any.
  private var occupied: [UInt64]
  /// The bucket whose time it is, latest first.
  private var current: [Entry] = []
  /// Its number since the start.
  private var position = 0
  private var waitingInRing = 0
  private var far = EventQueue<Event>()
  private var nextNumber: UInt64 = 0

  init() {
    heads = Array(repeating: -1, count: Self.buckets)
    occupied = Array(repeating: 0, count: Self.buckets / 64)
  }

  var count: Int { current.count + waitingInRing + far.count }

  mutating func add(_ event: Event, at time: Int) {
    let entry = Entry(time: time, number: nextNumber, event: event)
    nextNumber += 1
    let bucket = time >> Self.shift
    if bucket <= position {
      insert(entry)
    } else if bucket < position + Self.buckets {
      link(entry, bucket & (Self.buckets - 1))
    } else {
      far.add(event, at: SimulatedClock.Instant(sinceStart: .nanoseconds(time)))
    }
  }

  mutating func popFirst() -> (time: Int, event: Event)? {
    while current.isEmpty {
      guard advance() else { return nil }
    }
    let entry = current.removeLast()
    return (entry.time, entry.event)
  }

  private mutating func insert(_ entry: Entry) {
    // Mostly near the end, which comes first.
    var low = 0
    var high = current.count
    while low < high {
      let middle = (low + high) / 2
      if entry.isBefore(current[middle]) { low = middle + 1 } else { high = middle }
    }
    current.insert(entry, at: low)
  }

  private mutating func link(_ entry: Entry, _ slot: Int) {
    let node: Int32
    if free >= 0 {
      node = free
      free = nodes[Int(node)].next
      nodes[Int(node)] = Node(entry: entry, next: heads[slot])
    } else {
      node = Int32(nodes.count)
      nodes.append(Node(entry: entry, next: heads[slot]))
    }
    heads[slot] = node
    occupied[slot >> 6] |= 1 << UInt64(slot & 63)
    waitingInRing += 1
  }

  /// Makes the next bucket that has events the current one.
  private mutating func advance() -> Bool {
    let farBucket = far.nextInstant.map { Self.nanoseconds($0.sinceStart) >> Self.shift }
    var next = waitingInRing > 0 ? nextOccupied() : nil
    if let farBucket, farBucket <= next ?? .max { next = farBucket }
    guard let next else { return false }
    position = next
    let slot = next & (Self.buckets - 1)
    var node = heads[slot]
    while node >= 0 {
      current.append(nodes[Int(node)].entry)
      let following = nodes[Int(node)].next
      nodes[Int(node)].next = free
      free = node
      node = following
      waitingInRing -= 1
    }
    if heads[slot] >= 0 {
      heads[slot] = -1
      occupied[slot >> 6] &= ~(1 << UInt64(slot & 63))
    }
    // Nothing that was far is older than what is in the ring at the same instant, but it was added before it.
    var numberOfFar: UInt64 = 0
    while let instant = far.nextInstant, Self.nanoseconds(instant.sinceStart) >> Self.shift <= next,
      let (due, event) = far.popFirst()
    {
      current.append(Entry(time: Self.nanoseconds(due.sinceStart), number: numberOfFar, event: event))
      numberOfFar += 1
    }
    current.sort { $1.isBefore($0) }
    return true
  }

  /// The number since the start of the first bucket after the current one that has events.
  private func nextOccupied() -> Int? {
    let start = (position + 1) & (Self.buckets - 1)
    var distance = 0
    while distance < Self.buckets {
      let slot = (start + distance) & (Self.buckets - 1)
      let word = occupied[slot >> 6] >> UInt64(slot & 63)
      if word != 0 { return position + 1 + distance + word.trailingZeroBitCount }
      distance += 64 - slot & 63
    }
    return nil
  }

  private static func nanoseconds(_ duration: Duration) -> Int {
    let (seconds, attoseconds) = duration.components
    return Int(seconds) * 1_000_000_000 + Int(attoseconds / 1_000_000_000)
  }
}
