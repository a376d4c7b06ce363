import MobulaCore

/// Which objects are being brought to this host, and who waits for each: an object is brought once, however many wait,
/// and given up when nobody does any more.
struct FetchBookStateMachine: Sendable {
  /// One bringing of an object; a later one of the same object has another number.
  typealias Number = UInt64

  /// What follows when somebody asks for an object.
  enum Joined: Sendable, Equatable {
    /// He is to begin the fetch. What it copies is his to report.
    case begins(Number)
    /// He waits for one that is under way. What it copies is his to report if `isAccountable`.
    case waits(Number, isAccountable: Bool)
  }

  private struct Fetch: Sendable {
    var number: Number
    var waiters: Int
    /// Whether somebody has been told of the bytes that it copies.
    var isAccounted: Bool
    /// The highest of those who wait.
    var priority: TransferPriority
    /// It comes from elsewhere than other hosts, too, and goes on when nobody waits: it has a name.
    var isFilled: Bool
  }

  private var fetches: [ObjectID: Fetch] = [:]
  private var last: Number = 0

  /// Somebody waits for an object.
  mutating func join(_ object: ObjectID, _ priority: TransferPriority) -> Joined {
    guard var fetch = fetches[object] else {
      return .begins(begin(object, priority, waiters: 1, isFilled: false))
    }
    let isAccountable = !fetch.isAccounted
    fetch.waiters += 1
    fetch.isAccounted = true
    fetch.priority = max(fetch.priority, priority)
    fetches[object] = fetch
    return .waits(fetch.number, isAccountable: isAccountable)
  }

  /// An object is filled from elsewhere than other hosts, for whoever asks for it. Takes the place of a fetch that is
  /// about to end, since the store has room for one only.
  mutating func fill(_ object: ObjectID) -> Number { begin(object, .get, waiters: 0, isFilled: true) }

  private mutating func begin(
    _ object: ObjectID, _ priority: TransferPriority, waiters: Int, isFilled: Bool
  ) -> Number {
    last += 1
    fetches[object] = Fetch(
      number: last, waiters: waiters, isAccounted: !isFilled, priority: priority, isFilled: isFilled)
    return last
  }

  /// What a fetch copied is set aside for whoever asks for the object first, if nobody has been told of it yet.
  ///
  /// - Returns: whether it is to be.
  mutating func setAside(_ object: ObjectID, _ number: Number) -> Bool {
    guard fetches[object]?.number == number, !fetches[object]!.isAccounted else { return false }
    fetches[object]!.isAccounted = true
    return true
  }

  /// Somebody does not wait any longer. True when the fetch is to be given up: he was the last.
  mutating func leave(_ object: ObjectID, _ number: Number) -> Bool {
    guard fetches[object]?.number == number else { return false }
    fetches[object]!.waiters -= 1
    return fetches[object]!.waiters == 0 && !fetches[object]!.isFilled
  }

  /// A fetch is over; another of the same object may have taken its place.
  mutating func ended(_ object: ObjectID, _ number: Number) {
    if fetches[object]?.number == number { fetches[object] = nil }
  }

  /// The fetch of an object that is under way.
  func current(_ object: ObjectID) -> Number? { fetches[object]?.number }

  /// The highest priority of those who wait for it.
  func priority(of object: ObjectID) -> TransferPriority { fetches[object]?.priority ?? .get }
}
