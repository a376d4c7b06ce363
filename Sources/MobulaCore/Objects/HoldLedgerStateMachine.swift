/// Who holds which objects here, and what the next one up was told of it.
///
/// A process keeps one for its references and tells its host; a host keeps one
/// for its processes and tells the head: only the first and the last hold of an
/// object are reported. What was told is kept apart from what is so: a report is
/// the difference of the two at the time it leaves, so that a hold that came and
/// went is never reported the wrong way round.
package struct HoldLedgerStateMachine: Sendable {
  /// A process of a host, or a reference of a process.
  package typealias Holder = UInt64

  /// What should be told next.
  package struct Report: Hashable, Sendable {
    /// What was not held before.
    package var added: [ObjectID]
    /// What is not held any more.
    package var removed: [ObjectID]

    /// A report of these changes.
    package init(added: [ObjectID], removed: [ObjectID]) {
      self.added = added
      self.removed = removed
    }

    /// Whether there is nothing to tell.
    package var isEmpty: Bool { added.isEmpty && removed.isEmpty }
  }

  private var holders: [ObjectID: FewOf<Holder>] = [:]
  private var objects: [Holder: FewOf<ObjectID>] = [:]
  private var reported: Set<ObjectID> = []
  private var changed: Set<ObjectID> = []

  /// A ledger in which nothing is held.
  package init() {}

  /// Every object that something here holds.
  package var held: [ObjectID] { holders.keys.sorted() }

  /// Whether anybody holds the object.
  package func isHeld(_ object: ObjectID) -> Bool { holders[object] != nil }

  /// A holder took its first reference to each of `added`.
  package mutating func hold(_ added: [ObjectID], by holder: Holder) {
    for object in added {
      holders[object, default: FewOf(holder)].insert(holder)
      objects[holder, default: FewOf(object)].insert(object)
      changed.insert(object)
    }
  }

  /// A holder let go of its last reference to each of `removed`. What it never held is passed over.
  package mutating func release(_ removed: [ObjectID], by holder: Holder) {
    for object in removed where objects[holder]?.remove(object) == true { letGo(object, holder) }
    if objects[holder]?.isEmpty == true { objects[holder] = nil }
  }

  /// A holder is gone, and with it all its holds.
  package mutating func holderGone(_ holder: Holder) {
    for object in objects.removeValue(forKey: holder)?.all ?? [] { letGo(object, holder) }
  }

  private mutating func letGo(_ object: ObjectID, _ holder: Holder) {
    _ = holders[object]?.remove(holder)
    if holders[object]?.isEmpty == true { holders[object] = nil }
    changed.insert(object)
  }

  /// What a holder holds.
  package func held(by holder: Holder) -> Set<ObjectID> { Set(objects[holder]?.all ?? []) }

  /// Nobody is to be told of an object that came and went.
  package mutating func forget(_ object: ObjectID) {
    changed.remove(object)
    reported.remove(object)
  }

  /// Whether there may be something to tell.
  package var hasChanges: Bool { !changed.isEmpty }

  /// How many objects there may be something to tell of.
  package var changeCount: Int { changed.count }

  /// Takes what was not told yet, of at most so many objects; from here on it counts as told.
  package mutating func takeReport(limit: Int = .max) -> Report {
    var report = Report(added: [], removed: [])
    let taken = changed.count <= limit ? changed : firstChanges(limit)
    if taken.count == changed.count { changed.removeAll() } else { changed.subtract(taken) }
    for object in taken.sorted() {
      switch (isHeld(object), reported.contains(object)) {
      case (true, false):
        report.added.append(object)
        reported.insert(object)
      case (false, true):
        report.removed.append(object)
        reported.remove(object)
      default: break
      }
    }
    return report
  }

  /// What is held comes before what ends, also in another report: the one may be what kept the other.
  private func firstChanges(_ limit: Int) -> Set<ObjectID> {
    let added = changed.filter { isHeld($0) && !reported.contains($0) }
    if added.count >= limit { return Set(added.prefix(limit)) }
    return added.union(changed.lazy.filter { !added.contains($0) }.prefix(limit - added.count))
  }

  /// The report of a sealed object carries whether it is held; it need not be told again.
  package mutating func takeHeld(with object: ObjectID) -> Bool {
    guard isHeld(object) else { return false }
    reported.insert(object)
    changed.remove(object)
    return true
  }

  /// All is told anew, as when the connection was lost: takes everything that is held.
  package mutating func takeRegistration() -> [ObjectID] {
    reported = Set(holders.keys)
    changed.removeAll()
    return held
  }

  /// What was told of, ended, and was not told to have ended.
  package var untoldEnds: Set<ObjectID> { changed.filter { reported.contains($0) && !isHeld($0) } }
}

/// A set that mostly has one element, and needs no memory of its own then.
struct FewOf<Element: Hashable & Sendable>: Sendable {
  private var one: Element?
  private var more: Set<Element> = []

  init(_ element: Element) { one = element }

  var isEmpty: Bool { one == nil && more.isEmpty }

  var all: [Element] { (one.map { [$0] } ?? []) + more }

  mutating func insert(_ element: Element) {
    if one == element || more.contains(element) { return }
    if one == nil { one = element } else { more.insert(element) }
  }

  /// False when it was not in.
  mutating func remove(_ element: Element) -> Bool {
    if one == element {
      one = more.popFirst()
      return true
    }
    return more.remove(element) != nil
  }
}
