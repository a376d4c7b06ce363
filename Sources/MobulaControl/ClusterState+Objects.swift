package import MobulaCore

extension ClusterState {
  // MARK: What hosts say

  /// A host's replicas have changed.
  package mutating func changed(_ report: ReplicaChanges, on connection: ConnectionID) throws(MobulaError) {
    try changed(report.host, report.changes.map { HostChange($0) }, on: connection)
  }

  /// What a host's processes hold has changed.
  package mutating func changed(_ report: HoldChanges, on connection: ConnectionID) throws(MobulaError) {
    try changed(
      report.host, report.added.map { .held($0) } + report.removed.map { .released($0) }, on: connection)
  }

  private mutating func changed(
    _ host: HostID, _ changes: [HostChange], on connection: ConnectionID
  ) throws(MobulaError) {
    try check(host, on: connection)
    apply(directory.changed(host, changes))
  }

  /// All that wait for the object are told what is wrong with it, and so are those that ask for it later.
  package mutating func damaged(_ damage: DamagedObject, on connection: ConnectionID) throws(MobulaError) {
    try check(damage.host, on: connection)
    act(
      .log(.error, "object \(damage.object) came to host \(hostName(damage.host)) with wrong bytes: \(damage.message)"))
    apply(directory.damaged(damage.object, by: damage.host, message: damage.message))
  }

  /// A receiver takes an object from nobody any more.
  package mutating func transferEnded(_ request: TransferEnded) {
    apply(directory.transferEnded(receiver: request.receiver, object: request.object))
  }

  // MARK: Where to take objects from

  /// A host asks where to take an object from: answered when there is a source.
  package mutating func locate(_ id: RequestID, _ request: LocateRequest, on connection: ConnectionID) {
    decide(id) { state throws(MobulaError) in
      try state.check(request.host, on: connection)
      state.questions[id] = .locate(request)
      state.apply(state.directory.locate(LocateQuestion(id, request)))
    }
  }

  /// A host wants what is in S3.
  ///
  /// - Parameter fresh: the object's identifier if nobody has asked before.
  package mutating func claim(_ id: RequestID, _ request: ClaimRequest, fresh: ObjectID, on connection: ConnectionID) {
    decide(id) { state throws(MobulaError) in
      try state.check(request.host, on: connection)
      try request.name.checkForObject()
      let claimed = try state.directory.claim(
        request.name, geometry: request.geometry, by: request.host, fresh: fresh, checksum: request.checksum)
      let number = state.directory.numberClaim()
      let reply =
        switch claimed {
        case .fill(let object): ClaimReply(object: object, fills: true, number: number)
        case .exists(let object): ClaimReply(object: object, fills: false, number: number)
        }
      let changed = state.directory.takeChangedNames().sorted().map { state.record(of: $0) }
      state.propose(
        state.reserve(.claims, number) + changed,
        .claim(id, reply, request.takesPart == true ? request.host : nil))
    }
  }

  /// A host asks what to read of an object from outside: answered when there is something, or nothing any more.
  package mutating func takePart(_ id: RequestID, _ request: PartRequest, on connection: ConnectionID) {
    decide(id) { state throws(MobulaError) in
      try state.check(request.host, on: connection)
      state.questions[id] = .part
      let question = PartQuestion(id: id, host: request.host, object: request.object)
      state.apply(
        state.directory.takePart(
          question, finished: request.finished, wantsMore: request.wantsMore, geometry: request.geometry,
          now: state.now))
      state.lookForSlowParts()
    }
  }

  /// A host can't read an object from outside any more.
  package mutating func partsFailed(_ request: TransferEnded, on connection: ConnectionID) throws(MobulaError) {
    try check(request.receiver, on: connection)
    apply(directory.partsFailed(request.receiver, request.object))
  }

  /// As long as somebody waits, what takes others long is looked at once a second.
  mutating func lookForSlowParts() {
    if directory.hasReaders { act(.wakeAt(now + .seconds(1))) }
  }

  // MARK: Names

  package mutating func setName(_ id: RequestID, _ request: NameRequest) {
    decide(id) { state throws(MobulaError) in
      let (name, object) = (request.name, request.object)
      try name.checkForObject()
      try state.directory.checkName(name, object, claim: request.claim)
      if request.claim == nil, let other = state.pendingNames[name], other != object {
        throw MobulaError(.alreadyExists, "The name \"\(name)\" is being given to object \(other): choose another.")
      }
      let known = state.directory.wouldBe(name, object, claim: request.claim)
      let before = state.directory.known(name)
      // Who fetches the same version again, of which nobody knows a newer one, has no news.
      let isSame = known == before || known?.isURL == true && before?.isURL == true && known?.object == before?.object
      let news = isSame ? nil : known
      if news != nil { state.pendingNames[name] = object }
      state.propose(news.map { [.name(NameRecord(name.text, $0))] } ?? [], .name(id, request, news))
    }
  }

  package mutating func removeName(_ id: RequestID, _ name: Name) {
    decide(id) { state throws(MobulaError) in
      guard state.directory.names[name] != nil else {
        try state.checkKnowsNames(like: name)
        _ = try state.directory.unnamed(name)
        return state.answer(id, .done)
      }
      state.propose([.nameRemoved(name.text)], .nameRemoval(id, name))
    }
  }

  /// Takes an object's names away and drops it, whoever holds it.
  package mutating func remove(_ id: RequestID, _ nameOrID: Name) {
    decide(id) { state throws(MobulaError) in
      let entry = try state.entry(nameOrID)
      state.propose(
        entry.names.map { .nameRemoved($0.text) }, .removal(id, entry.object, ObjectListing(entry), Set(entry.names)))
    }
  }

  /// - Throws: `MobulaError`: `notFound` when neither a name nor an object is called so, `unavailable` while hosts may
  ///   still bring what is.
  package func resolve(_ nameOrID: Name) throws(MobulaError) -> ObjectListing { ObjectListing(try entry(nameOrID)) }

  private func entry(_ nameOrID: Name) throws(MobulaError) -> DirectoryEntry {
    do { return try directory.resolve(nameOrID) } catch {
      try checkKnowsNames(like: nameOrID)
      throw error
    }
  }

  /// A head without the journal of the one before it learns names from hosts: until all have had their time, nobody may
  /// conclude from its not knowing one that there is none.
  private func checkKnowsNames(like name: Name) throws(MobulaError) {
    guard mayLearn, settlesAt != nil else { return }
    throw MobulaError(
      .unavailable,
      "The head was started without its journal, and does not know \"\(name)\" yet: hosts have \(settings.hostTimeout) to say what they have. Try again."
    )
  }

  // MARK: Waiting

  /// Somebody waits until enough objects are there; at the deadline the answer is which are.
  package mutating func wait(_ id: RequestID, _ request: WaitRequest, until deadline: Duration) {
    questions[id] = .objects
    waitDeadlines[id] = deadline
    act(.wakeAt(deadline))
    apply(directory.wait(id, for: request.objects, count: request.count))
  }

  mutating func finishWait(_ id: RequestID, _ ready: [ObjectID]) {
    waitDeadlines[id] = nil
    if questions[id] != nil { answer(id, .objects(ready)) }
  }

  // MARK: Acting

  mutating func apply(_ actions: [DirectoryAction]) {
    var drops: [HostID: [ObjectID]] = [:]
    var keeps: [HostID: [ObjectID]] = [:]
    for action in actions {
      switch action {
      case .answer(let id, let said):
        guard case .locate(let request)? = questions[id] else { continue }
        answer(id, .locate(reply(said, to: request)))
      case .refuse(let id, let object, let refusal):
        if questions[id] != nil { refuse(id, refusal.error(for: object, name: hostName, absence: absence(of:))) }
      case .drop(let object, let hosts):
        for host in hosts { drops[host, default: []].append(object) }
      case .keep(let object, let host): keeps[host, default: []].append(object)
      case .reportCorrupt(let host, let object):
        act(
          .log(.error, "the replica of object \(object) on host \(hostName(host)) has other bytes than the first one"))
        drops[host, default: []].append(object)
      case .ready(let id, let objects): finishWait(id, objects)
      case .part(let id, let chunks):
        if questions[id] != nil { answer(id, .part(PartReply(chunks: chunks))) }
      }
    }
    for (host, objects) in drops.sorted(by: { $0.key < $1.key }) { drop(objects, at: host) }
    for (host, objects) in keeps.sorted(by: { $0.key < $1.key }) { keep(objects, at: host) }
    saveNames()
    for (host, names) in directory.takeNews().sorted(by: { $0.key < $1.key }) { tell(host, names) }
  }

  /// A host that is away says which role its replicas have when it registers again.
  private mutating func keep(_ objects: [ObjectID], at host: HostID) {
    guard let connection = try? control(of: host) else { return }
    for start in stride(from: 0, to: objects.count, by: 65_536) {
      let some = Array(objects[start..<min(objects.count, start + 65_536)])
      act(.keep(KeepRequest(objects: some), at: connection))
    }
  }

  /// A host that is away learns it with the next change, or not at all: it is a spare for what the head knows.
  private mutating func tell(_ host: HostID, _ names: ObjectNames) {
    guard let connection = try? control(of: host) else { return }
    let given = names.given.sorted { $0.key < $1.key }
    let taken = names.taken.sorted()
    for start in stride(from: 0, to: max(given.count, taken.count), by: 1024) {
      let some = given.dropFirst(start).prefix(1024).map { ($0.key, $0.value) }
      act(
        .names(
          NameNews(
            given: Dictionary(some) { first, _ in first }, taken: Array(taken.dropFirst(start).prefix(1024))),
          at: connection))
    }
  }

  /// Since when a host has been away, for people.
  private func absence(of host: HostID) -> String? {
    // It is absent once it has been away for so long.
    membership.absentSince(host).map {
      "\(Int((max(.zero, now - $0) + settings.hostTimeout) / .seconds(1))) s ago"
    }
  }

  private func reply(_ answer: LocateAnswer, to request: LocateRequest) -> LocateReply {
    switch answer {
    case .local(let geometry, let digest):
      return LocateReply(isLocal: true, sources: [], geometry: geometry, digest: digest)
    case .sources(let hosts, let geometry, let digest):
      let sources = hosts.map { host in
        guard let peer = peer(host) else {
          preconditionFailure("a source has registered, and its replicas go when it is lost")
        }
        return peer
      }
      return LocateReply(
        isLocal: false, sources: sources, geometry: geometry, digest: digest,
        checksum: directory.checksum(of: request.object))
    }
  }

  private func peer(_ host: HostID) -> TransferPeer? {
    membership.hosts[host].map { TransferPeer(host: host, bulk: $0.description.bulk) }
  }

  /// What a host is told that wants to read all of a claimed object at once.
  mutating func firstPart(_ reply: ClaimReply, for host: HostID) -> ClaimReply {
    var reply = reply
    if reply.fills { reply.part = directory.firstPart(of: reply.object, for: host, now: now) }
    if reply.part == nil { reply.source = directory.wholeSource(of: reply.object, besides: host).flatMap(peer) }
    return reply
  }

  /// A host that is away drops them when it registers again, since they are still not live then.
  private mutating func drop(_ objects: [ObjectID], at host: HostID) {
    guard let connection = try? control(of: host) else { return }
    // As many at a time as fit into a frame, with what is to be said of them.
    let some = pages(of: objects) { 17 + (directory.tombstones.damage(of: $0)?.utf8.count ?? -17) + 17 }
    for some in some {
      let damages = some.compactMap { object in directory.tombstones.damage(of: object).map { (object, $0) } }
      act(.drop(DropRequest(objects: some, damages: Dictionary(damages) { first, _ in first }), at: connection))
    }
  }
}
