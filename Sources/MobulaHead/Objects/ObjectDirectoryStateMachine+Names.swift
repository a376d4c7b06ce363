package import MobulaCore

extension ObjectDirectoryStateMachine {
  /// Gives an object a name; it lives until the name is taken away.
  ///
  /// - Parameter replacing: takes the name from an older version, whose own name goes, too: it stays as long as
  ///   something else holds it.
  /// - Throws: `MobulaError`: `alreadyExists` when the name is another object's, `notFound` when the object was deleted.
  package mutating func named(
    _ name: String, _ object: ObjectID, replacing: Bool = false
  ) throws(MobulaError) -> [DirectoryAction] {
    let other = names[name].flatMap { $0 == object ? nil : $0 }
    if let other, !replacing {
      throw MobulaError(
        .alreadyExists, "The name \"\(name)\" is object \(other)'s; remove it first with `mobula rm \(name)`.")
    }
    guard !tombstones.contains(object) else {
      throw MobulaError(.notFound, "Object \(object) was deleted before it was named \"\(name)\"; put it again.")
    }
    if let other {
      for old in [name, records[other]?.claimedName].compactMap(\.self) {
        names[old] = nil
        records[other]?.names.remove(old)
      }
      records[other]?.claimedName = nil
    }
    names[name] = object
    records[object, default: ObjectRecord()].names.insert(name)
    return settle([object] + (other.map { [$0] } ?? []))
  }

  /// Takes a name away; the object goes if nothing else holds it.
  ///
  /// - Throws: `MobulaError` (`notFound`) when nothing has the name.
  mutating func unnamed(_ name: String) throws(MobulaError) -> [DirectoryAction] {
    guard let object = names.removeValue(forKey: name) else {
      throw MobulaError(.notFound, "Nothing is named \"\(name)\"; `mobula ls` lists the names.")
    }
    records[object]?.names.remove(name)
    if records[object]?.claimedName == name { records[object]?.claimedName = nil }
    return settle([object])
  }

  /// Takes an object's names away and drops it, whoever holds it.
  mutating func removed(_ object: ObjectID) -> [DirectoryAction] {
    guard let record = records[object] else { return [] }
    for name in record.names { names[name] = nil }
    return bury(object, record) + settle(record.contents)
  }

  /// A host wants to fetch what `name` stands for (one version of one S3 object): it reads it together with all others
  /// that want it, as long as no host has all of it.
  ///
  /// - Parameter fresh: the identifier that the object gets if nobody has asked before.
  /// - Throws: `MobulaError` (`mismatch`) when there are replicas of another size under that name.
  mutating func claim(
    _ name: String, geometry: ChunkGeometry, by host: HostID, fresh: ObjectID
  ) throws(MobulaError) -> ClaimAnswer {
    let object = names[name] ?? fresh
    var record = records[object] ?? ObjectRecord()
    if record.contradicts(geometry) {
      throw MobulaError(
        .mismatch,
        "\(name) has \(geometry.objectSize) bytes, but the object fetched under that name \(record.geometry?.objectSize ?? 0); remove it with `mobula rm \(object)`."
      )
    }
    guard record.planner.complete.isEmpty else { return .exists(object) }
    // Nobody has asked before, or others read it, or left it undone, or every host has evicted it.
    var fill = record.fill ?? FillPlanner(geometry)
    guard fill.join(host) else { return .exists(object) }
    names[name] = object
    record.names.insert(name)
    record.claimedName = name
    record.geometry = geometry
    record.fill = fill
    record.planner.setFills(host, true)
    records[object] = record
    return .fill(object)
  }

  /// A claim that nobody fulfils and nobody waits for leaves no name behind. One that was fulfilled stays,
  /// though every host have evicted the object: it can come again.
  mutating func forgetClaim(of object: ObjectID) {
    guard let record = records[object], let name = record.claimedName, record.digest == nil, record.planner.isEmpty,
      record.planner.fillers.isEmpty, record.holders.isEmpty, record.waiting.isEmpty
    else { return }
    names[name] = nil
    records[object]?.names.remove(name)
    records[object]?.claimedName = nil
    records[object]?.fill = nil
  }
}
