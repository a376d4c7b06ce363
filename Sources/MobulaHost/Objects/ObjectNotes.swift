import MobulaCore
import MobulaWire
import Synchronization

/// What a host remembers of its objects for a head that was restarted: their names, and what they contain.
final class ObjectNotes: Sendable {
  private struct State {
    var names: [Name: KnownName] = [:]
    var contains: [ObjectID: [ObjectID]] = [:]
    /// What can be had again from S3, by its URL.
    var fetched: [ObjectID: Fetched] = [:]
  }

  private let state = Mutex(State())

  func name(_ name: Name, _ known: KnownName) {
    state.withLock { state in
      // Of two fetches the one that began later may be done first.
      if case .url(let claim) = known.kind, case .url(let other)? = state.names[name]?.kind, other > claim { return }
      let before = state.names.updateValue(known, forKey: name)?.object
      // A version that no URL names any more has no name of its own, at the head neither.
      guard let before, before != known.object else { return }
      let isNamed = state.names.values.contains { if case .url = $0.kind { $0.object == before } else { false } }
      if !isNamed { state.names = state.names.filter { $0.value != KnownName(before, .version) } }
    }
  }

  func unname(_ name: Name) { state.withLock { $0.names[name] = nil } }

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
      }
      state.names = state.names.filter { !gone.contains($0.value.object) }
    }
  }

  /// The names of those objects that are here.
  func names(of objects: [ObjectID]) -> [Name: KnownName] {
    let here = Set(objects)
    return state.withLock { $0.names.filter { here.contains($0.value.object) } }
  }

  func contents(of object: ObjectID) -> [ObjectID] { state.withLock { $0.contains[object] ?? [] } }
}
