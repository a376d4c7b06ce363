/// Events by virtual time; those of the same instant come in the order in which they were added.
public struct EventQueue<Event> {
  private struct Entry {
    var instant: SimulatedClock.Instant
    var number: UInt64
    var event: Event

    func isBefore(_ other: Entry) -> Bool { (instant, number) < (other.instant, other.number) }
  }

  /// A binary heap: the first entry is before all others.
  private var entries: [Entry] = []
  private var nextNumber: UInt64 = 0

  public init() {}

  public var isEmpty: Bool { entries.isEmpty }
  public var count: Int { entries.count }
  /// When the next event is due.
  public var nextInstant: SimulatedClock.Instant? { entries.first?.instant }

  public mutating func add(_ event: Event, at instant: SimulatedClock.Instant) {
    entries.append(Entry(instant: instant, number: nextNumber, event: event))
    nextNumber += 1
    var child = entries.count - 1
    while child > 0, entries[child].isBefore(entries[(child - 1) / 2]) {
      entries.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  /// Takes the next event out.
  public mutating func popFirst() -> (instant: SimulatedClock.Instant, event: Event)? {
    guard let first = entries.first else { return nil }
    let last = entries.removeLast()
    guard !entries.isEmpty else { return (first.instant, first.event) }
    entries[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2]
      where child < entries.count && entries[child].isBefore(entries[least]) { least = child }
      if least == parent { return (first.instant, first.event) }
      entries.swapAt(parent, least)
      parent = least
    }
  }
}
