import MobulaCore
import MobulaWire
import Synchronization

/// What a host remembers of its objects for a head that was restarted: their names, and what they contain.
final class ObjectNotes: Sendable {
  private struct State {
    private(set) var names: [Name: KnownName] = [:]
    /// The names of each.
    private(set) var byObject: [ObjectID: Set<Name>] = [:]
    var contains: [ObjectID: [ObjectID]] = [:]
    /// What can be had again from S3, by its URL.
    var fetched: [ObjectID: Fetched] = [:]

    mutating func remove(_ name: Name) {
      guard let object = names.removeValue(forKey: name)?.object else { return }
      byObject[object]?.remove(name)
      if byObject[object]?.isEmpty == true { byObject[object] = nil }
    }

    mutating func set(_ name: Name, _ known: KnownName) {
      remove(name)
      names[name] = known
      byObject[known.object, default: []].insert(name)
    }
  }

  private let state = Mutex(State())

  func name(_ name: Name, _ known: KnownName) {
    state.withLock { state in
      // Of two fetches the one that began later may be done first.
      if case .url(let claim) = known.kind, case .url(let other)? = state.names[name]?.kind, other > claim { return }
      let before = state.names[name]?.object
      state.set(name, known)
      // A version that no URL names any more has no name of its own, at the head neither.
      guard let before, before != known.object, let left = state.byObject[before] else { return }
      let isNamed = left.contains { if case .url? = state.names[$0]?.kind { true } else { false } }
      if !isNamed { for name in left where state.names[name]?.kind == .version { state.remove(name) } }
    }
  }

  func unname(_ name: Name) { state.withLock { $0.remove(name) } }

  /// Where an object can be had again.
  struct Fetched: Sendable {
    let request: FetchRequest
    /// URL, ETag and server of what it is.
    let version: Name
  }

  func comesFrom(_ object: ObjectID, _ request: FetchRequest, version: Name) {
    state.withLock { $0.fetched[object] = Fetched(request: request, version: version) }
  }

  func fetched(_ object: ObjectID) -> Fetched? { state.withLock { $0.fetched[object] } }

  func contain(_ object: ObjectID, _ inner: [ObjectID]) {
    if !inner.isEmpty { state.withLock { $0.contains[object] = inner } }
  }

  /// Objects are gone that nobody but their maker ever knew of.
  func forget(_ objects: [ObjectID]) {
    if objects.isEmpty { return }
    state.withLock { state in
      if state.contains.isEmpty { return }
      for object in objects { state.contains[object] = nil }
    }
  }

  func dropped(_ objects: [ObjectID]) {
    let gone = Set(objects)
    state.withLock { state in
      for object in gone {
        state.contains[object] = nil
        state.fetched[object] = nil
        for name in state.byObject[object] ?? [] { state.remove(name) }
      }
    }
  }

  /// The names of those objects that are here.
  func names(of objects: [ObjectID]) -> [Name: KnownName] {
    state.withLock { state in
      var names: [Name: KnownName] = [:]
      for object in objects { for name in state.byObject[object] ?? [] { names[name] = state.names[name] } }
      return names
    }
  }

  func contents(of object: ObjectID) -> [ObjectID] { state.withLock { $0.contains[object] ?? [] } }
}
