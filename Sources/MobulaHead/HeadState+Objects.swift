internal import Logging
internal import MobulaCore
internal import MobulaWire

extension HeadState {
  mutating func changed(_ host: HostID, _ changes: [HostChange], on connection: RPCConnection) throws(MobulaError) {
    try check(host, on: connection)
    apply(directory.changed(host, changes))
  }

  mutating func claim(
    _ request: ClaimRequest, on connection: RPCConnection, _ answer: @escaping Answer<ClaimReply>
  ) throws(MobulaError) {
    try check(request.host, on: connection)
    try request.name.checkForObject()
    let claimed = try directory.claim(
      request.name, geometry: request.geometry, by: request.host, fresh: .random(job: .commandLine),
      checksum: request.checksum)
    let number = directory.numberClaim()
    let reply =
      switch claimed {
      case .fill(let object): ClaimReply(object: object, fills: true, number: number)
      case .exists(let object): ClaimReply(object: object, fills: false, number: number)
      }
    let records = reserve(.claims, number) + directory.takeChangedNames().sorted().map { record(of: $0) }
    propose(records) { state, failure in
      if let failure {
        state.unreserve(.claims)
        return answer(&state, .failure(failure))
      }
      answer(&state, .success(reply))
    }
  }

  mutating func setName(
    _ request: NameRequest, _ answer: @escaping Answer<NameReply>
  ) throws(MobulaError) {
    let (name, object) = (request.name, request.object)
    try directory.checkName(name, object, claim: request.claim)
    if request.claim == nil, let other = pendingNames[name], other != object {
      throw MobulaError(.alreadyExists, "The name \"\(name)\" is being given to object \(other): choose another.")
    }
    let known = directory.wouldBe(name, object, claim: request.claim)
    let isNews = known != nil && known != directory.known(name)
    if isNews { pendingNames[name] = object }
    propose(isNews ? known.map { [.name(NameRecord(name.text, $0))] } ?? [] : []) { state, failure in
      if isNews { state.pendingNames[name] = nil }
      if let failure { return answer(&state, .failure(failure)) }
      do throws(MobulaError) {
        let actions = try state.directory.named(name, object, claim: request.claim)
        state.saveNames(besides: known.map { .name(NameRecord(name.text, $0)) })
        state.apply(actions)
        answer(&state, .success(NameReply(isNamed: state.directory.names[name] == object)))
      } catch {
        // What was written down is not so after all.
        state.save(later: [state.record(of: name)])
        answer(&state, .failure(error))
      }
    }
  }

  mutating func removeName(_ name: Name, _ answer: @escaping Answer<Empty>) throws(MobulaError) {
    guard directory.names[name] != nil else {
      _ = try directory.unnamed(name)
      return answer(&self, .success(Empty()))
    }
    propose([.nameRemoved(name.text)]) { state, failure in
      if let failure { return answer(&state, .failure(failure)) }
      // It may have gone meanwhile.
      if let actions = try? state.directory.unnamed(name) {
        state.saveNames(besides: .nameRemoved(name.text))
        state.apply(actions)
      }
      answer(&state, .success(Empty()))
    }
  }

  mutating func remove(_ nameOrID: Name, _ answer: @escaping Answer<ObjectListing>) throws(MobulaError) {
    let entry = try directory.resolve(nameOrID)
    propose(entry.names.map { .nameRemoved($0.text) }) { state, failure in
      if let failure { return answer(&state, .failure(failure)) }
      state.apply(state.directory.removed(entry.object))
      answer(&state, .success(ObjectListing(entry)))
    }
  }

  mutating func takePart(
    _ id: RequestID, _ request: PartRequest, on connection: RPCConnection, at now: Duration
  ) throws(MobulaError) {
    try check(request.host, on: connection)
    let question = PartQuestion(id: id, host: request.host, object: request.object)
    apply(
      directory.takePart(
        question, finished: request.finished, wantsMore: request.wantsMore,
        geometry: request.geometry, now: now))
    lookForSlowParts(now)
  }

  /// As long as somebody waits, what takes others long is looked at once a second.
  mutating func lookForSlowParts(_ now: Duration) {
    if directory.hasReaders { act(.wakeAt(now + .seconds(1))) }
  }

  /// All that wait for the object are told what is wrong with it, and so are those that ask for it later.
  mutating func damaged(_ damage: DamagedObject, on connection: RPCConnection) throws(MobulaError) {
    try check(damage.host, on: connection)
    act(
      .log(.error, "object \(damage.object) came to host \(hostName(damage.host)) with wrong bytes: \(damage.message)"))
    apply(directory.damaged(damage.object, by: damage.host, message: damage.message))
  }

  mutating func wait(_ id: RequestID, _ request: WaitRequest, until deadline: Duration) {
    waitDeadlines[id] = deadline
    act(.wakeAt(deadline))
    apply(directory.wait(id, for: request.objects, count: request.count))
  }

  mutating func finishWait(_ id: RequestID, _ ready: [ObjectID]) {
    waitDeadlines[id] = nil
    guard case .objects(let continuation)? = waiters.removeValue(forKey: id) else { return }
    act(.resume { continuation.resume(returning: ready) })
  }

  mutating func apply(_ actions: [DirectoryAction]) {
    var drops: [HostID: [ObjectID]] = [:]
    var keeps: [HostID: [ObjectID]] = [:]
    for action in actions {
      switch action {
      case .answer(let id, let answer):
        guard case .locate(let request, let continuation)? = waiters.removeValue(forKey: id) else { continue }
        let reply = reply(answer, to: request)
        act(.resume { continuation.resume(returning: reply) })
      case .refuse(let id, let object, let refusal):
        guard let waiter = waiters.removeValue(forKey: id) else { continue }
        let error = refusal.error(for: object, name: hostName, absence: absence(of:))
        act(.resume { waiter.fail(error) })
      case .drop(let object, let hosts):
        for host in hosts { drops[host, default: []].append(object) }
      case .keep(let object, let host): keeps[host, default: []].append(object)
      case .reportCorrupt(let host, let object):
        act(
          .log(.error, "the replica of object \(object) on host \(hostName(host)) has other bytes than the first one"))
        drops[host, default: []].append(object)
      case .ready(let id, let objects): finishWait(id, objects)
      case .part(let id, let chunks):
        guard case .part(let continuation)? = waiters.removeValue(forKey: id) else { continue }
        act(.resume { continuation.resume(returning: PartReply(chunks: chunks)) })
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
    membership.absentSince(host).map { "\(Int(max(.zero, now - $0) / .seconds(1))) s ago" }
  }

  private func reply(_ answer: LocateAnswer, to request: LocateRequest) -> LocateReply {
    switch answer {
    case .local(let geometry, let digest):
      return LocateReply(isLocal: true, sources: [], geometry: geometry, digest: digest)
    case .sources(let hosts, let geometry, let digest):
      let sources = hosts.map { host in
        guard let bulk = membership.hosts[host]?.description.bulk else {
          preconditionFailure("a source has registered, and its replicas go when it is lost")
        }
        return TransferPeer(host: host, bulk: bulk)
      }
      return LocateReply(
        isLocal: false, sources: sources, geometry: geometry, digest: digest,
        checksum: directory.checksum(of: request.object))
    }
  }

  /// A host that is away drops them when it registers again, since they are still not live then.
  private mutating func drop(_ objects: [ObjectID], at host: HostID) {
    guard let connection = membership.hosts[host]?.connection.flatMap({ connections[$0] }) else { return }
    // As many at a time as fit into a frame, with what is to be said of them.
    let some = pages(of: objects) { 17 + (directory.tombstones.damage(of: $0)?.utf8.count ?? -17) + 17 }
    for some in some {
      let damages = some.compactMap { object in directory.tombstones.damage(of: object).map { (object, $0) } }
      act(.drop(DropRequest(objects: some, damages: Dictionary(damages) { first, _ in first }), at: connection))
    }
  }
}
