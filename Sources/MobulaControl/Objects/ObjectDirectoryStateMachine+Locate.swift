import MobulaCore

extension ObjectDirectoryStateMachine {
  /// A host wants an object: answered at once, or as soon as there is a source for it.
  ///
  /// An object never heard of is waited for, since it may be the result of a task that
  /// still runs; the caller has the deadline, and then says `cancelLocate`.
  package mutating func locate(_ request: LocateQuestion) -> [DirectoryAction] {
    let object = request.object
    if tombstones.contains(object) { return [.refuse(request.id, object, refusal(ofBuried: object))] }
    if endedJobs.contains(object.job), records[object] == nil { return [.refuse(request.id, object, .jobEnded)] }
    records[object, default: ObjectRecord()].waiting.append(request.id)
    requests[request.id] = request
    return advance([object])
  }

  /// The caller has gone, or its deadline has come.
  mutating func cancelLocate(_ id: RequestID) -> [DirectoryAction] {
    guard let request = requests[id] else { return [] }
    forget(request)
    return advance([request.object])
  }

  mutating func forget(_ request: LocateQuestion) {
    requests[request.id] = nil
    records[request.object]?.waiting.removeAll { $0 == request.id }
  }

  /// Answers whoever waits for `object` and can be answered now: first those without a source, in the order of asking.
  mutating func serve(_ object: ObjectID) -> [DirectoryAction] {
    // Taken out as long as it is changed, so that nothing of it is copied.
    guard records[object]?.waiting.isEmpty == false, var record = records.removeValue(forKey: object) else { return [] }
    defer { records[object] = record }
    var actions: [DirectoryAction] = []
    var answered: Set<RequestID> = []
    let waiting = record.waiting
    let newcomers = waiting.count { requests[$0]?.known.isEmpty == true }
    var left = newcomers
    for id in waiting where left > 0 {
      guard let request = requests[id], request.known.isEmpty else { continue }
      if record.hasRoot, request.plan == .relay, record.planner.room <= 0, left < newcomers { break }
      let share = max(1, min(SourcePlanner.sourcesAtOnce, record.planner.room / left))
      left -= 1
      guard let action = answer(request, &record, count: share) else { continue }
      answered.insert(request.id)
      actions.append(action)
    }
    // The others have some already: a few at a time are looked at, each in its turn.
    var unlucky: [RequestID] = []
    for id in waiting {
      if record.planner.room <= 0 && record.hasRoot || unlucky.count == Self.looksAtOnce { break }
      guard let request = requests[id], !request.known.isEmpty else { continue }
      if let action = answer(request, &record, count: 1) {
        answered.insert(request.id)
        actions.append(action)
      } else {
        unlucky.append(request.id)
      }
    }
    for id in answered { requests[id] = nil }
    if !answered.isEmpty || unlucky.count == Self.looksAtOnce {
      let moved = Set(unlucky)
      record.waiting = record.waiting.filter { !answered.contains($0) && !moved.contains($0) } + unlucky
    }
    return actions
  }

  private func answer(_ request: LocateQuestion, _ record: inout ObjectRecord, count: Int) -> DirectoryAction? {
    if record.planner.isComplete(request.host), let geometry = record.geometry {
      return .answer(request.id, .local(geometry, record.digest))
    }
    if !record.hasRoot, isSettling { return nil }
    if !record.hasRoot, let refusal = refusal(request, record) { return refusal }
    let avoided = request.excluded.union(request.known)
    let zone = zones[request.host]
    let sources = record.planner.choose(
      for: request.host, excluding: avoided, plan: request.plan, count: count
    ) { host in zone != nil && zones[host] == zone }
    if !sources.isEmpty, let geometry = record.geometry {
      return .answer(request.id, .sources(sources, geometry, record.digest))
    }
    // Whoever has sources waits for another, and so does who asks for what isn't there yet; whom all have failed does not.
    guard record.hasRoot else { return nil }
    if !request.known.isEmpty || record.planner.hasSource(for: request.host, excluding: request.excluded) { return nil }
    return .refuse(request.id, request.object, .sourcesFailed(request.excluded.sorted()))
  }

  /// What to say when no host has every chunk, or gets them from outside.
  ///
  /// Those that have some may have all of them together. Whoever exchanges chunks with them must know that what is
  /// missing may be missing for good.
  private func refusal(_ request: LocateQuestion, _ record: ObjectRecord) -> DirectoryAction? {
    if let name = record.claimedName { return .refuse(request.id, request.object, .unclaimed(name: name)) }
    let isAlone = !record.planner.hasSource(for: request.host, excluding: request.excluded)
    guard isAlone || !request.known.isEmpty else { return nil }
    if let away = record.absent.min() {
      return request.waits ? nil : .refuse(request.id, request.object, .away(away))
    }
    if let last = record.lastHost { return .refuse(request.id, request.object, .lost(last)) }
    // A name that was written down by a head before this one, of an object that nobody has brought. What is held and
    // has no name may not have been made yet.
    guard record.isInherited, !record.names.isEmpty, !request.waits else { return nil }
    return .refuse(request.id, request.object, .nowhere(unheard: unheard.sorted()))
  }

  /// Requests for further sources that are looked at when something changes.
  private static let looksAtOnce = 64
}
