import MobulaCore

extension ObjectDirectoryStateMachine {
  /// A host wants an object: answered at once, or as soon as there is a source for it.
  ///
  /// An object never heard of is waited for, since it may be the result of a task that
  /// still runs; the caller has the deadline, and then says `cancelLocate`.
  mutating func locate(_ request: LocateQuestion) -> [DirectoryAction] {
    let object = request.object
    if tombstones.contains(object) { return [.refuse(request.id, object, .deleted)] }
    if endedJobs.contains(object.job), records[object] == nil { return [.refuse(request.id, object, .jobEnded)] }
    var record = records[object] ?? ObjectRecord()
    // Who asks has no source now; whom it feeds goes on with the chunks that it has.
    record.graph.detach(request.host)
    record.waiting.append(request.id)
    records[object] = record
    requests[request.id] = request
    return settle([object])
  }

  /// The caller has gone, or its deadline has come.
  mutating func cancelLocate(_ id: RequestID) -> [DirectoryAction] {
    guard let request = requests[id] else { return [] }
    forget(request)
    return settle([request.object])
  }

  mutating func forget(_ request: LocateQuestion) {
    requests[request.id] = nil
    records[request.object]?.waiting.removeAll { $0 == request.id }
  }

  /// Answers whoever waits for `object` and can be answered now, in the order of asking.
  mutating func serve(_ object: ObjectID) -> [DirectoryAction] {
    guard var record = records[object], !record.waiting.isEmpty else { return [] }
    var actions: [DirectoryAction] = []
    var stillWaiting: [RequestID] = []
    for id in record.waiting {
      guard let request = requests[id] else { continue }
      if let action = answer(request, &record) {
        requests[id] = nil
        actions.append(action)
        if let deadline = record.graph.deadlines[request.host] {
          expiries.append(SourceExpiry(deadline: deadline, object: object, receiver: request.host))
        }
      } else {
        stillWaiting.append(id)
      }
    }
    record.waiting = stillWaiting
    records[object] = record
    return actions
  }

  private func answer(_ request: LocateQuestion, _ record: inout ObjectRecord) -> DirectoryAction? {
    if record.graph.complete.contains(request.host), let geometry = record.geometry {
      return .answer(request.id, .local(geometry, record.digest))
    }
    guard record.graph.hasRoot else {
      if isSettling { return nil }
      if let name = record.claimedName { return .refuse(request.id, request.object, .unclaimed(name: name)) }
      return record.lastHost.map { .refuse(request.id, request.object, .lost($0)) }
    }
    switch record.graph.choose(for: request.host, excluding: request.excluded, plan: request.plan) {
    case .source(let host):
      guard let geometry = record.geometry else { return nil }
      record.graph.attach(request.host, to: host, until: now + partialTimeout)
      return .answer(request.id, .source(host, geometry, record.digest))
    case .wait: return nil
    case .none: return .refuse(request.id, request.object, .sourcesFailed(request.excluded.sorted()))
    }
  }
}
