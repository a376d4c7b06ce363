import MobulaCore

// The state machines know only MobulaCore; these turn messages into their words and back.

extension SealedReplica {
  init(_ report: ReplicaReport, held: Bool) {
    self.init(
      object: report.object, geometry: report.geometry, digest: report.digest, contains: report.contains, isHeld: held,
      isPrimary: report.isPrimary)
  }
}

extension HostChange {
  init(_ change: ReplicaChange) {
    switch change {
    case .sealed(let report, let held): self = .sealed(SealedReplica(report, held: held))
    case .partial(let object, let geometry): self = .partial(object, geometry)
    case .gone(let object): self = .gone(object)
    }
  }
}

extension HostInventory {
  /// What is still arriving is reported as `partial` after the registration.
  init(_ registration: HostRegistration) {
    self.init(
      sealed: registration.replicas.map { SealedReplica($0, held: false) }, holds: Set(registration.holds),
      names: registration.names)
  }
}

extension PlacementRule {
  init(_ strategy: PlacementStrategy) {
    switch strategy {
    case .pack: self = .pack
    case .spread: self = .spread
    case .host(let host): self = .host(host)
    }
  }
}

extension ObjectListing {
  /// - Parameter name: only names behind this one are listed.
  init(_ entry: DirectoryEntry, after name: Name? = nil) {
    let names = entry.names.filter { name == nil || $0 > name! }
    var budget = PageBudget()
    let fitting = names.prefix { budget.take($0.utf8.count + 9) }
    self.init(
      object: entry.object, names: Array(fitting), size: ByteCount(entry.geometry?.objectSize ?? 0),
      digest: entry.digest, hosts: entry.complete, receiving: entry.partial, holders: entry.holders.count)
    if !entry.absent.isEmpty { absent = entry.absent }
    if fitting.count < names.count { furtherNames = names.count - fitting.count }
  }
}

extension LocateQuestion {
  init(_ id: RequestID, _ request: LocateRequest) {
    self.init(
      id: id, host: request.host, object: request.object, excluded: Set(request.excluding),
      known: Set(request.known),
      plan: request.policy == .origin ? .origin : .relay, waits: request.waits ?? false)
  }
}
