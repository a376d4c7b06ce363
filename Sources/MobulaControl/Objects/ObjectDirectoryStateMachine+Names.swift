package import MobulaCore

extension ObjectDirectoryStateMachine {
  /// Gives an object a name; it lives until the name is taken away.
  ///
  /// - Parameter claim: the number of the claim that found the object at the URL that is the name. The version that was
  ///   claimed last has the name; the other's own name goes: it stays as long as something else holds it.
  /// - Throws: `MobulaError`: `alreadyExists` when the name is another object's, `notFound` when the object was deleted.
  package mutating func named(
    _ name: Name, _ object: ObjectID, claim: UInt64? = nil
  ) throws(MobulaError) -> [DirectoryAction] {
    let claim = claim.map { min($0, Self.highestBelievedClaim) }
    try checkName(name, object, claim: claim)
    let other = names[name].flatMap { $0 == object ? nil : $0 }
    if let claim, let known = claims[name], known > claim, other != nil {
      forgetVersion(object)
      return advance([object])
    }
    if let other {
      names[name] = nil
      nameChanged(name)
      records[other]?.names.remove(name)
      tell(records[other]?.planner.complete ?? [], name, isTaken: true)
      forgetVersion(other)
    }
    if let claim {
      heard(ofClaim: claim)
      claims[name] = max(claim, claims[name] ?? 0)
    }
    let isNews = names[name] != object || claim == nil
    give(name, to: object)
    if isSettling || !unheard.isEmpty { givenNames.insert(name) }
    if isNews { tell(records[object]?.planner.complete ?? [], name) }
    return advance([object] + (other.map { [$0] } ?? []))
  }

  /// Every host is back that was there before this head: names of what none of them has, as after all were stopped, are
  /// free again. Returns their objects.
  mutating func forgetNamesOfNothing() -> [ObjectID] {
    guard unheard.isEmpty else { return [] }
    // What was named since may lie on a host that comes late, to a head that does not know of it.
    let nothing = records.objects {
      $1.isInherited && !$1.names.isEmpty && $1.isNowhere && !$1.names.contains(where: givenNames.contains)
    }
    if !isSettling { givenNames = [] }
    for object in nothing {
      for name in records[object]?.names ?? [] {
        names[name] = nil
        claims[name] = nil
        nameChanged(name)
      }
      records[object]?.names = []
      records[object]?.claimedName = nil
    }
    return nothing
  }

  /// A version that no URL names any more has no name of its own.
  private mutating func forgetVersion(_ object: ObjectID) {
    guard let record = records[object], let version = record.claimedName,
      !record.names.contains(where: { claims[$0] != nil })
    else { return }
    names[version] = nil
    nameChanged(version)
    records[object]?.names.remove(version)
    records[object]?.claimedName = nil
  }

  /// - Throws: as `named`.
  func checkName(_ name: Name, _ object: ObjectID, claim: UInt64?) throws(MobulaError) {
    if let other = names[name], other != object, claim == nil {
      throw MobulaError(
        .alreadyExists, "The name \"\(name)\" is object \(other)'s; remove it first with `mobula rm \(name)`.")
    }
    guard !tombstones.contains(object) else {
      if let damage = tombstones.damage(of: object) { throw MobulaError(.corrupted, damage) }
      if endedJobs.contains(object.job) {
        throw MobulaError(
          .notFound, "Job \(object.job) has ended, and object \(object) with it: run the program again.")
      }
      throw MobulaError(.notFound, "Object \(object) was deleted before it was named \"\(name)\"; put it again.")
    }
  }

  /// What the name would be, to be written down; `nil` where a version that was claimed later keeps it.
  func wouldBe(_ name: Name, _ object: ObjectID, claim: UInt64?) -> KnownName? {
    guard let claim = claim.map({ min($0, Self.highestBelievedClaim) }) else { return KnownName(object, .given) }
    if let known = claims[name], known > claim, names[name] != object { return nil }
    return KnownName(object, .url(claim: max(claim, claims[name] ?? 0)))
  }

  /// Takes in the names that a host knows, and returns the objects that have lost one.
  ///
  /// Hosts come in any order, and may know different versions of one URL: the one claimed last has the name.
  mutating func learn(_ known: [Name: KnownName]) -> [ObjectID] {
    var touched: [ObjectID] = []
    // The names of versions first, so that those of older ones can go.
    let all = known.filter { !tombstones.contains($0.value.object) && !takenNames.contains($0.key) }
    for (name, known) in all where known.kind == .version && names[name] == nil {
      give(name, to: known.object)
      records[known.object]?.claimedName = name
    }
    for (name, known) in all.sorted(by: { $0.key < $1.key }) {
      switch known.kind {
      case .version: continue
      case .given:
        // A journal that was put back may name what is nowhere any more.
        if let other = names[name], other != known.object, records[other]?.isNowhere == true {
          records[other]?.names.remove(name)
          names[name] = nil
          touched.append(other)
        }
        if names[name] == nil { give(name, to: known.object) }
      case .url(let said):
        let claim = min(said, Self.highestBelievedClaim)
        if let other = names[name], other != known.object {
          let isNewer = claims[name] ?? 0 < claim
          let older = isNewer ? other : known.object
          if isNewer { records[other]?.names.remove(name) }
          forgetVersion(older)
          touched.append(older)
          guard isNewer else { continue }
        }
        claims[name] = max(claims[name] ?? 0, claim)
        heard(ofClaim: claim)
        give(name, to: known.object)
      }
    }
    return touched
  }

  /// The number of a new claim: higher than all that were given, and all that were heard of.
  mutating func numberClaim() -> UInt64 {
    lastClaim += 1
    return lastClaim
  }

  /// What hosts say of claims is believed as far as it leaves room for more.
  private static var highestBelievedClaim: UInt64 { 1 << 62 }

  private mutating func heard(ofClaim number: UInt64) { lastClaim = max(lastClaim, number) }

  private mutating func give(_ name: Name, to object: ObjectID) {
    names[name] = object
    takenNames.remove(name)
    nameChanged(name)
    records[object, default: ObjectRecord()].names.insert(name)
  }

  /// Takes a name away; the object goes if nothing else holds it.
  ///
  /// - Throws: `MobulaError` (`notFound`) when nothing has the name.
  mutating func unnamed(_ name: Name) throws(MobulaError) -> [DirectoryAction] {
    guard let object = names.removeValue(forKey: name) else {
      throw MobulaError(.notFound, "Nothing is named \"\(name)\"; `mobula ls` lists the names.")
    }
    nameChanged(name)
    claims[name] = nil
    if isSettling { takenNames.insert(name) }
    records[object]?.names.remove(name)
    tell(records[object]?.planner.complete ?? [], name, isTaken: true)
    if records[object]?.claimedName == name { records[object]?.claimedName = nil }
    return advance([object])
  }

  /// Takes an object's names away and drops it, whoever holds it.
  ///
  /// - Parameter damage: what is wrong with its bytes, for whoever asks for it from now on.
  mutating func removed(_ object: ObjectID, damage: String? = nil) -> [DirectoryAction] {
    guard let record = records[object] else { return [] }
    for name in record.names {
      names[name] = nil
      nameChanged(name)
      claims[name] = nil
    }
    return bury(object, record, damage: damage) + advance(record.contents)
  }

  /// A host found other bytes than the object's source says: they may have been damaged on the way to that host, where
  /// another has compared all of them.
  mutating func damaged(_ object: ObjectID, by host: HostID, message: String) -> [DirectoryAction] {
    guard let record = records[object], record.checksum != nil,
      record.planner.complete.contains(where: { $0 != host })
    else { return removed(object, damage: message) }
    return [.drop(object, hosts: [host])] + changed(host, [.gone(object)])
  }

  /// What the bytes of an object are compared with; `nil` where there is nothing, or a host has done it.
  func checksum(of object: ObjectID) -> ExpectedChecksum? {
    guard let record = records[object], !record.planner.hasComplete else { return nil }
    return record.checksum
  }

  /// A host wants to fetch what `name` stands for (one version of one S3 object): it reads it together with all others
  /// that want it, as long as no host has all of it.
  ///
  /// - Parameters:
  ///   - fresh: the identifier that the object gets if nobody has asked before.
  ///   - checksum: what its bytes are compared with.
  /// - Throws: `MobulaError` (`mismatch`) when there are replicas of another size under that name.
  mutating func claim(
    _ name: Name, geometry: ChunkGeometry, by host: HostID, fresh: ObjectID, checksum: ExpectedChecksum? = nil
  ) throws(MobulaError) -> ClaimAnswer {
    let object = names[name] ?? fresh
    var record = records[object] ?? ObjectRecord()
    if record.contradicts(geometry) {
      throw MobulaError(
        .mismatch,
        "\(name) has \(geometry.objectSize) bytes, but the object fetched under that name \(record.geometry?.objectSize ?? 0); remove it with `mobula rm \(object)`."
      )
    }
    guard !record.planner.hasComplete else { return .exists(object) }
    // Nobody has asked before, or others read it, or left it undone, or every host has evicted it.
    var fill = record.fill ?? FillPlanner(geometry)
    guard fill.join(host) else { return .exists(object) }
    names[name] = object
    nameChanged(name)
    record.names.insert(name)
    record.claimedName = name
    record.geometry = geometry
    record.checksum = checksum ?? record.checksum
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
    // Its URL too: whoever asks for that would wait for what nobody reads.
    for name in [name] + record.names.filter({ claims[$0] != nil }) {
      names[name] = nil
      nameChanged(name)
      claims[name] = nil
      records[object]?.names.remove(name)
    }
    records[object]?.claimedName = nil
    records[object]?.fill = nil
    // Who was told of it just now must not wait for it.
    tombstones.insert(object)
  }
}
