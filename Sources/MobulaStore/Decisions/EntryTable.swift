internal import MobulaCore

/// The objects of a store: an entry each, by its number in the index and, where it can be found, by the object.
///
/// Entries of a tier are in a list, from the least to the most recently used.
struct EntryTable: Sendable {
  typealias Number = StoreStateMachine.EntryNumber
  typealias Entry = StoreStateMachine.Entry
  typealias Tier = StoreStateMachine.Tier

  private var slots: [Entry?] = []
  private var free: [Number] = []
  private var found: [ObjectID: Number] = [:]
  private var heads = Array(repeating: -1, count: Tier.allCases.count)
  private var tails = Array(repeating: -1, count: Tier.allCases.count)

  /// The entry of a number that the store itself has given out and not taken back.
  ///
  /// - Precondition: it is there: the store's own books say so. What comes from outside asks `find`.
  subscript(number: Number) -> Entry {
    get {
      guard let entry = slots[number] else { preconditionFailure("entry \(number) is used after it was dropped") }
      return entry
    }
    _modify {
      guard slots[number] != nil else { preconditionFailure("entry \(number) is changed after it was dropped") }
      yield &slots[number]!
    }
  }

  /// The entry of a number, which may mean nothing.
  func find(_ number: Number) -> Entry? { slots.indices.contains(number) ? slots[number] : nil }

  /// The number of an object that can be found.
  func number(of object: ObjectID) -> Number? { found[object] }

  /// An object that can be found, with its number.
  func find(_ object: ObjectID) -> (number: Number, entry: Entry)? { found[object].map { ($0, self[$0]) } }

  /// How many can be found.
  var count: Int { found.count }

  /// Whether there are none, not even such that can't be found.
  var isEmpty: Bool { slots.allSatisfy { if case nil = $0 { true } else { false } } }

  /// All that can be found.
  var objects: Dictionary<ObjectID, Number>.Keys { found.keys }

  /// All of them, also those that can't be found any more.
  var all: some Sequence<(number: Number, entry: Entry)> {
    slots.indices.lazy.compactMap { number in slots[number].map { (number, $0) } }
  }

  /// The number that the next entry gets.
  var next: Number { free.last ?? slots.count }

  /// A new entry, which can be found.
  mutating func add(_ entry: Entry) -> Number {
    let number: Number
    var entry = entry
    entry.isFound = true
    if let last = free.popLast() {
      number = last
      slots[number] = entry
    } else {
      number = slots.count
      slots.append(entry)
    }
    found[entry.object] = number
    return number
  }

  /// An entry with the number that it had before, when a store is started again; `complete` ends that.
  mutating func restore(_ number: Number, _ entry: Entry, isFound: Bool) {
    while slots.count <= number { slots.append(nil) }
    if isFound, let other = found.updateValue(number, forKey: entry.object) { self[other].isFound = false }
    var entry = entry
    entry.isFound = isFound
    slots[number] = entry
  }

  /// After all entries were restored: the others are free.
  mutating func complete() { free = slots.indices.filter { slots[$0] == nil }.reversed() }

  /// The entry can't be found any more; another may be under its object.
  mutating func hide(_ number: Number) {
    guard self[number].isFound else { return }
    self[number].isFound = false
    found.removeValue(forKey: self[number].object)
  }

  /// The entry is gone, and its number is free.
  mutating func drop(_ number: Number) {
    hide(number)
    unlist(number)
    slots[number] = nil
    free.append(number)
  }

  // MARK: Lists of use

  /// The entry is the most recently used of its tier.
  mutating func list(_ number: Number) {
    let tier = self[number].tier.rawValue
    self[number].previous = tails[tier]
    self[number].next = -1
    self[number].isListed = true
    if tails[tier] >= 0 { self[tails[tier]].next = number } else { heads[tier] = number }
    tails[tier] = number
  }

  mutating func unlist(_ number: Number) {
    guard let entry = find(number), entry.isListed else { return }
    let tier = entry.tier.rawValue
    if entry.previous >= 0 { self[entry.previous].next = entry.next } else { heads[tier] = entry.next }
    if entry.next >= 0 { self[entry.next].previous = entry.previous } else { tails[tier] = entry.previous }
    self[number].isListed = false
  }

  /// An entry was used lately; numbers from outside may mean nothing.
  mutating func touch(_ number: Number) {
    guard find(number)?.isListed == true else { return }
    unlist(number)
    list(number)
  }

  /// Changes an entry, which may change its tier.
  mutating func change(_ number: Number, _ body: (inout Entry) -> Void) {
    let wasListed = self[number].isListed
    unlist(number)
    body(&self[number])
    if wasListed { list(number) }
  }

  /// The least recently used of a tier, at most `limit` of them.
  func oldest(_ tier: Tier, limit: Int) -> [Number] {
    var result: [Number] = []
    var number = heads[tier.rawValue]
    while number >= 0, result.count < limit {
      result.append(number)
      number = self[number].next
    }
    return result
  }

  func leastRecentlyUsed(_ tier: Tier) -> Number? { heads[tier.rawValue] >= 0 ? heads[tier.rawValue] : nil }

  /// The one that was used next after this one, of its tier.
  func successor(of number: Number) -> Number? {
    let next = self[number].next
    return next >= 0 ? next : nil
  }
}
