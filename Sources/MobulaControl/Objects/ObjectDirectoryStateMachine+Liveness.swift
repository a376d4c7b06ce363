import MobulaCore

extension ObjectDirectoryStateMachine {
  /// Whether the object is live by itself, not through an object that contains it.
  func isRoot(_ object: ObjectID, _ record: ObjectRecord) -> Bool {
    !record.names.isEmpty || (!record.holders.isEmpty && !endedJobs.contains(object.job))
  }

  func isLive(_ object: ObjectID, _ record: ObjectRecord) -> Bool {
    isRoot(object, record) || !record.containers.isEmpty
  }

  /// Whether it is live, or a host that has not told what it holds may hold it.
  private func mayBeLive(_ object: ObjectID, _ record: ObjectRecord) -> Bool {
    isSettling || isLive(object, record)
      || record.isInherited && !unheard.isEmpty && !endedJobs.contains(object.job)
  }

  /// The host whose replica is not evicted from now on; `nil` where there is one already, or nothing to lose: what came
  /// from outside can come again.
  private func movedPrimary(_ object: ObjectID, _ record: ObjectRecord) -> HostID? {
    guard !isSettling, record.claimedName == nil, let first = record.planner.firstComplete else { return nil }
    let isThere = record.primary.map { record.planner.isComplete($0) } == true
    if !draining.isEmpty, record.primary.map({ draining.contains($0) }) != false,
      let other = record.planner.complete.first(where: { !draining.contains($0) })
    {
      return other
    }
    return isThere ? nil : first
  }

  /// Drops what is no longer live among `objects` and inside it, and serves who waits for the rest.
  mutating func advance(_ objects: [ObjectID]) -> [DirectoryAction] {
    var actions: [DirectoryAction] = []
    var queue = objects
    var position = 0
    var seen: Set<ObjectID> = []
    while position < queue.count {
      let object = queue[position]
      position += 1
      guard let record = records[object] else { continue }
      if mayBeLive(object, record) || !(record.hasExisted || endedJobs.contains(object.job)) {
        if record.isBlank {
          records[object] = nil
        } else if seen.insert(object).inserted {
          if let host = movedPrimary(object, record) {
            records[object]?.primary = host
            actions.append(.keep(object, host: host))
          }
          // What is read of the record afterwards is read again: a second copy would make each change copy it all.
          actions += serve(object) + serveReaders(object)
          if let watchers = records[object]?.watchers, !watchers.isEmpty,
            records[object]?.planner.hasComplete == true
          {
            actions += watchers.sorted().compactMap { check($0) }
          }
          records[object]?.compact()
        }
      } else {
        actions += bury(object, record)
        queue += record.contents
      }
    }
    return actions
  }

  /// Takes an object that is not live out of the books.
  ///
  /// - Parameter damage: what is wrong with its bytes.
  mutating func bury(_ object: ObjectID, _ record: ObjectRecord, damage: String? = nil) -> [DirectoryAction] {
    var actions: [DirectoryAction] = []
    records[object] = nil
    usage.forget(record)
    tombstones.insert(object, damage: damage)
    let refusal = refusal(ofBuried: object)
    let hosts = record.planner.replicas
    if !hosts.isEmpty { actions.append(.drop(object, hosts: hosts)) }
    for request in record.waiting {
      requests[request] = nil
      actions.append(.refuse(request, object, refusal))
    }
    for reader in record.readers where parts.removeValue(forKey: reader) != nil { actions.append(.part(reader, nil)) }
    for watcher in record.watchers { waits[watcher]?.objects.removeAll { $0 == object } }
    for name in record.names { tell(hosts, name, isTaken: true) }
    for content in record.contents { records[content]?.containers.remove(object) }
    return actions
  }

  /// What to say of an object that is gone for good.
  func refusal(ofBuried object: ObjectID) -> LocateRefusal {
    tombstones.damage(of: object).map { .damaged($0) } ?? (endedJobs.contains(object.job) ? .jobEnded : .deleted)
  }
}
