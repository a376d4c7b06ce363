package import MobulaCore

/// Which objects there are, who has and who holds them, and which source a receiver shall use.
///
/// An object is **live** if a host holds it (and its job has not ended), a name points to
/// it, or a live object contains it. A replica of an object that is not live is dropped:
/// when the last of these goes, or when the replica is reported later. That leaves no race,
/// because a seal's report carries the maker's hold, the changes of one report are judged
/// together, and a sender keeps its hold until the receiver's is registered.
package struct ObjectDirectoryStateMachine: Sendable {
  var records = ObjectTable()
  var names: [Name: ObjectID] = [:]
  /// Of names that are URLs, the number of the claim that found the object there.
  var claims: [Name: UInt64] = [:]
  /// The highest number of a claim that was given or heard of.
  var lastClaim: UInt64 = 0
  var requests: [RequestID: LocateQuestion] = [:]
  var waits: [RequestID: ObjectWait] = [:]
  /// Hosts that wait for a part of an object to read from outside.
  var parts: [RequestID: PartQuestion] = [:]
  var endedJobs = EndedJobs()
  var tombstones: Tombstones
  /// What hosts have, for `mobula status`.
  var usage = ReplicaUsage()
  /// Hosts that are about to go: where another has a copy, that one is kept.
  private(set) var draining: Set<HostID> = []
  /// Where hosts are, for those that say so.
  var zones: [HostID: Name] = [:]
  /// The last instant that anybody told.
  var clock = Duration.zero
  /// While hosts still register at a restarted head, nothing counts as lost or unheld.
  private(set) var isSettling = false
  /// Members that have not registered since the head was restarted: what they hold nobody knows.
  private(set) var unheard: Set<HostID> = []
  /// What hosts held whose processes have not all said what they hold: another's hold that ends there ends no such hold.
  private var heldBefore: [HostID: Set<ObjectID>] = [:]
  /// What hosts are to be told of the names of what they have.
  private var news: [HostID: ObjectNames] = [:]
  /// Names that were taken away while the head settles: hosts that come later may still know them.
  var takenNames: Set<Name> = []
  /// Names that were given while hosts may still come that were there before this head.
  var givenNames: Set<Name> = []
  /// Names that came to be or ceased to be since it was last asked.
  private var changedNames: Set<Name> = []

  package init(tombstones: Int = 65_536) { self.tombstones = Tombstones(capacity: tombstones) }

  // MARK: What hosts report

  /// A host's changes, in their order; what they leave unheld is dropped after the last.
  package mutating func changed(_ host: HostID, _ changes: [HostChange]) -> [DirectoryAction] {
    var actions: [DirectoryAction] = []
    var touched: [ObjectID] = []
    for change in changes { actions += apply(change, of: host, touching: &touched) }
    return actions + advance(touched)
  }

  /// A host has registered, again or for the first time: what it has replaces what was known of it.
  ///
  /// - Parameters:
  ///   - learns: whether names are learned from it, while the head settles.
  ///   - isComplete: false while processes of it may hold more than it says: it holds what it held until it says all.
  mutating func registered(
    _ host: HostID, _ inventory: HostInventory, learns: Bool = true, isComplete: Bool = true
  ) -> [DirectoryAction] {
    let replicas = Set(inventory.sealed.map(\.object)).union(inventory.partial.keys)
    let holds = inventory.holds.union(inventory.sealed.filter(\.isHeld).map(\.object))
    var changes: [HostChange] = holds.sorted().map { .held($0) }
    changes += inventory.sealed.map { .sealed($0) }
    changes += inventory.partial.sorted { $0.key < $1.key }.map { .partial($0.key, $0.value) }
    var missing: [(object: ObjectID, isGone: Bool, isReleased: Bool)] = []
    for (object, record) in records {
      // Also where it only has a source: that answer was lost with the connection. What it
      // fetches from outside goes on meanwhile.
      let isKnown =
        record.planner.isReady(host) || record.planner.given[host] != nil || record.absent.contains(host)
      let isGone = isKnown && !replicas.contains(object) && !record.planner.fillers.contains(host)
      let isReleased = isComplete && record.holders.contains(host) && !holds.contains(object)
      if isGone || isReleased { missing.append((object, isGone, isReleased)) }
    }
    if isComplete {
      heldBefore[host] = nil
    } else {
      heldBefore[host, default: []].formUnion(records.objects { $1.holders.contains(host) })
    }
    for (object, isGone, isReleased) in missing.sorted(by: { $0.object < $1.object }) {
      if isGone { changes.append(.gone(object)) }
      if isReleased { changes.append(.released(object)) }
    }
    // An answer may have been lost with the connection: what it reads is given again, and it says so if it has it.
    for object in records.objects(where: { $1.fill?.hosts.contains(host) == true }) {
      records[object]?.fill?.readAnew(host)
    }
    // Only a restarted head has names to learn; to another they may be ones that were taken away.
    let superseded = isSettling && learns ? learn(inventory.names) : []
    for name in inventory.names.keys where takenNames.contains(name) { tell([host], name, isTaken: true) }
    let wasUnheard = isComplete && unheard.remove(host) != nil
    var actions = changed(host, changes) + advance(superseded)
    if isSettling || wasUnheard {
      for object in replicas.union(holds) { records[object]?.isInherited = true }
    }
    if wasUnheard, unheard.isEmpty { actions += advance(forgetNamesOfNothing() + records.keys.sorted()) }
    return actions
  }

  /// Hosts are away: what they have can't be had now, what they hold is held, and what they were fetching they don't
  /// fetch any more.
  package mutating func hostsAbsent(_ hosts: Set<HostID>) -> [DirectoryAction] {
    let actions = forgetQuestions(of: hosts)
    let objects = records.keys.sorted()
    for object in objects {
      for host in hosts { update(object, at: host) { $0.setAbsent(host) } }
      forgetClaim(of: object)
    }
    return actions + advance(objects)
  }

  private mutating func forgetQuestions(of hosts: Set<HostID>) -> [DirectoryAction] {
    var actions: [DirectoryAction] = []
    for request in requests.values.filter({ hosts.contains($0.host) }).sorted(by: { $0.id < $1.id }) {
      forget(request)
      actions.append(.refuse(request.id, request.object, .receiverLost))
    }
    return actions + forgetParts { hosts.contains($0.host) }
  }

  /// Hosts are gone for good, with their replicas, their holds and what they were fetching.
  package mutating func hostsLost(_ hosts: Set<HostID>) -> [DirectoryAction] {
    let actions = forgetQuestions(of: hosts)
    unheard.subtract(hosts)
    for host in hosts { heldBefore[host] = nil }
    let objects = records.keys.sorted()
    for object in objects {
      for host in hosts { update(object, at: host) { $0.lose(host) } }
      forgetClaim(of: object)
    }
    return actions + advance(objects)
  }

  /// A host's process was started again, and is about to register: nobody waits for what it asked before.
  mutating func hostRestarted(_ host: HostID) -> [DirectoryAction] {
    let refused: [DirectoryAction] = requests.values.filter { $0.host == host }.sorted { $0.id < $1.id }.map {
      request in
      forget(request)
      return .refuse(request.id, request.object, .receiverLost)
    }
    // What it reads and has read is gone, unless it says otherwise when it registers.
    let objects = records.objects {
      $1.planner.fillers.contains(host) || $1.fill?.hosts.contains(host) == true
    }
    for object in objects {
      records[object]?.planner.setFills(host, false)
      records[object]?.fill?.lost(host)
    }
    return refused + forgetParts { $0.host == host } + advance(objects)
  }

  /// A receiver takes an object from nobody any more, whether it is complete or not.
  package mutating func transferEnded(receiver: HostID, object: ObjectID) -> [DirectoryAction] {
    records[object]?.planner.forget(receiver)
    return advance([object])
  }

  /// The role of its primaries goes to other hosts that have all of them, now and from now on.
  mutating func setDraining(_ host: HostID, _ isDraining: Bool) -> [DirectoryAction] {
    guard isDraining else {
      draining.remove(host)
      return []
    }
    draining.insert(host)
    return advance(records.keys.sorted())
  }

  // MARK: Restart

  /// The head has restarted: until `settled`, hosts bring back what they have and hold.
  mutating func beginSettling() { isSettling = true }

  /// These are members of the cluster, and may hold what was there before this head, until they register or are lost.
  mutating func expect(_ members: Set<HostID>) { unheard.formUnion(members) }

  /// What hosts are to be told of names, since it was last asked.
  mutating func takeNews() -> [HostID: ObjectNames] {
    defer { news = [:] }
    return news
  }

  mutating func nameChanged(_ name: Name) { changedNames.insert(name) }

  mutating func takeChangedNames() -> Set<Name> {
    defer { changedNames = [] }
    return changedNames
  }

  /// What a name is; `nil` when nothing is called so.
  func known(_ name: Name) -> KnownName? { names[name].map { KnownName($0, kind(of: name, of: $0)) } }

  /// What a head before this one has written down.
  mutating func load(_ known: some Sequence<NameRecord>) {
    _ = learn(Dictionary(known.map { (Name($0.name), $0.known) }) { first, _ in first })
    for object in names.values { records[object]?.isInherited = true }
    changedNames = []
  }

  /// Hosts that have the object know its names, for when the head knows nothing.
  mutating func tell(_ hosts: [HostID], _ name: Name, isTaken: Bool = false) {
    // Names that are given are told once all have had their time; those that are taken away at once, lest another head
    // without a journal learn them.
    guard isTaken || !isSettling else { return }
    for host in hosts {
      if isTaken {
        news[host, default: ObjectNames()].given[name] = nil
        news[host, default: ObjectNames()].taken.insert(name)
      } else if let object = names[name] {
        news[host, default: ObjectNames()].taken.remove(name)
        news[host, default: ObjectNames()].given[name] = KnownName(object, kind(of: name, of: object))
      }
    }
  }

  private func kind(of name: Name, of object: ObjectID) -> KnownName.Kind {
    if let claim = claims[name] { return .url(claim: claim) }
    return records[object]?.claimedName == name ? .version : .given
  }

  /// Whoever has not registered by now is not coming: from here on, what is not there is lost.
  ///
  /// - Parameter jobs: those whose drivers have not come.
  mutating func settled(ending jobs: [JobID] = []) -> [DirectoryAction] {
    isSettling = false
    takenNames = []
    for (name, object) in names { tell(records[object]?.planner.complete ?? [], name) }
    return jobs.flatMap { jobEnded($0) } + advance(forgetNamesOfNothing() + records.keys.sorted())
  }

  // MARK: Jobs

  /// A job has ended: its objects go, held or not, but for those that are named or inside a live one.
  mutating func jobEnded(_ job: JobID) -> [DirectoryAction] {
    guard job != .commandLine, endedJobs.insert(job) else { return [] }
    // Objects that contain each other would keep each other alive: only what a root reaches stays.
    var reached: Set<ObjectID> = []
    var pending = records.objects { isRoot($0, $1) }
    while let object = pending.popLast() {
      if reached.insert(object).inserted { pending += records[object]?.contents ?? [] }
    }
    let ended = records.keys.filter { $0.job == job && !reached.contains($0) }.sorted()
    for object in ended { records[object]?.containers = [] }
    return advance(ended)
  }

  // MARK: Applying a change

  /// Changes what is known of a host's replica, and counts along.
  private mutating func update(_ object: ObjectID, at host: HostID, _ body: (inout ObjectRecord) -> Void) {
    guard let before = records[object].map({ ReplicaUsage.Share($0, at: host) }) else { return }
    body(&records[object]!)
    usage.count(host, before, ReplicaUsage.Share(records[object]!, at: host))
  }

  private mutating func apply(
    _ change: HostChange, of host: HostID, touching touched: inout [ObjectID]
  ) -> [DirectoryAction] {
    switch change {
    case .sealed(let report):
      touched.append(report.object)
      return seal(report, at: host)
    case .partial(let object, let geometry):
      touched.append(object)
      if tombstones.contains(object) { return [.drop(object, hosts: [host])] }
      if records[object]?.contradicts(geometry) == true { return [.reportCorrupt(host, object)] }
      records[object, default: ObjectRecord()].geometry = geometry
      update(object, at: host) { $0.planner.started(host) }
    case .gone(let object):
      touched.append(object)
      update(object, at: host) { $0.removeReplica(of: host) }
      forgetClaim(of: object)
    case .held(let object):
      touched.append(object)
      if !tombstones.contains(object) { records[object, default: ObjectRecord()].holders.insert(host) }
    case .released(let object):
      if heldBefore[host]?.contains(object) == true { return [] }
      touched.append(object)
      records[object]?.holders.remove(host)
      forgetClaim(of: object)
    }
    return []
  }

  private mutating func seal(_ report: SealedReplica, at host: HostID) -> [DirectoryAction] {
    let object = report.object
    if tombstones.contains(object) { return [.drop(object, hosts: [host])] }
    // Taken out as long as it is changed, so that nothing of it is copied.
    var record = records.removeValue(forKey: object) ?? ObjectRecord()
    let before = ReplicaUsage.Share(record, at: host)
    defer { usage.count(host, before, records[object].map { .init($0, at: host) } ?? .init()) }
    if record.contradicts(report.geometry, digest: report.digest) {
      record.removeReplica(of: host)
      records[object] = record
      return [.reportCorrupt(host, object)]
    }
    record.geometry = report.geometry
    record.digest = report.digest
    let isFirst = !record.planner.hasComplete
    record.planner.completed(host)
    record.isThere(at: host)
    switch report.isPrimary {
    case true?: record.primary = host
    case false?: if record.primary == host { record.primary = nil }
    case nil: if isFirst, record.primary == nil { record.primary = host }
    }
    if report.isHeld { record.holders.insert(host) }
    let said = report.contains.filter { $0 != object }
    if record.contents.isEmpty, !said.isEmpty { record.contents = said }
    let contents = record.contents
    let names = record.names
    records[object] = record
    for name in names { tell([host], name) }
    for content in contents where !tombstones.contains(content) {
      records[content, default: ObjectRecord()].containers.insert(object)
    }
    return []
  }
}
