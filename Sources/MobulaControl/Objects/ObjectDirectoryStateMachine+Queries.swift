import MobulaCore

/// Somebody waits until enough of some objects are complete somewhere.
struct ObjectWait: Hashable, Sendable {
  var objects: [ObjectID]
  var count: Int
}

extension ObjectDirectoryStateMachine {
  /// Every object that has or had a replica, or has a name.
  func listed() -> [DirectoryEntry] {
    listed(records.keys.sorted())
  }

  /// The object with this name or, failing that, this identifier.
  ///
  /// - Throws: `MobulaError` (`notFound`) when there is none.
  func resolve(_ nameOrID: Name) throws(MobulaError) -> DirectoryEntry {
    let object = names[nameOrID] ?? ObjectID(nameOrID.text)
    guard let object, let record = records[object], record.hasExisted || !record.names.isEmpty else {
      throw MobulaError(
        .notFound,
        "Nothing is named \"\(nameOrID)\", and no object has that identifier; `mobula ls` lists what there is.")
    }
    return entry(object, record)
  }

  func entry(_ object: ObjectID, _ record: ObjectRecord) -> DirectoryEntry {
    DirectoryEntry(
      object: object, geometry: record.geometry, digest: record.digest, names: record.names.sorted(),
      complete: record.planner.complete, partial: record.planner.partial.sorted(),
      absent: record.absent.sorted(), holders: record.holders.sorted())
  }

  /// Says `ready` once `count` of `objects` have a complete replica; until then the shell
  /// waits, and takes `endWait` for an answer when the time is over.
  mutating func wait(_ id: RequestID, for objects: [ObjectID], count: Int) -> [DirectoryAction] {
    waits[id] = ObjectWait(objects: objects, count: min(count, objects.count))
    for object in objects { records[object, default: ObjectRecord()].watchers.insert(id) }
    return check(id).map { [$0] } ?? []
  }

  /// Ends a wait, and returns the objects that are complete now.
  mutating func endWait(_ id: RequestID) -> [ObjectID] {
    guard let wait = waits.removeValue(forKey: id) else { return [] }
    for object in wait.objects {
      records[object]?.watchers.remove(id)
      if records[object]?.isBlank == true { records[object] = nil }
    }
    return wait.objects.filter(isComplete)
  }

  /// The answer to a wait, if it is over; it is forgotten then.
  mutating func check(_ id: RequestID) -> DirectoryAction? {
    guard let wait = waits[id], wait.objects.count(where: isComplete) >= wait.count else { return nil }
    return .ready(id, endWait(id))
  }

  private func isComplete(_ object: ObjectID) -> Bool { records[object]?.planner.hasComplete == true }
}
