package import MobulaCore

/// What the state believes, for those who compare it with what is so.
extension ClusterState {
  package struct ObjectView: Hashable, Sendable {
    package var complete: Set<HostID>
    package var partial: Set<HostID>
    package var absent: Set<HostID>
    package var holders: Set<HostID>
    package var names: Set<Name>
    package var primary: HostID?
  }

  /// Whom it takes for a member of this name.
  package struct ProcessView: Hashable, Sendable {
    package var nonce: ProcessNonce?
    package var incarnation: UInt64
    package var session: UInt64
    package var connection: ConnectionID?
    package var isRetired: Bool
  }

  package enum LeaseView: Hashable, Sendable { case asked, held, releasing, ending }

  /// In the order of their identifiers.
  package var objects: [ObjectID] { directory.records.keys.sorted() }

  package func view(of object: ObjectID) -> ObjectView? {
    directory.records[object].map { record in
      ObjectView(
        complete: Set(record.planner.complete), partial: record.planner.partial, absent: record.absent,
        holders: Set(record.holders), names: Set(record.names), primary: record.primary)
    }
  }

  package func view(of host: HostID) -> ProcessView? {
    membership.hosts[host].map {
      ProcessView(
        nonce: $0.process.nonce, incarnation: $0.process.incarnation, session: $0.session, connection: $0.connection,
        isRetired: $0.presence == .retired)
    }
  }

  package func view(of pod: PodID) -> ProcessView? {
    membership.pods[pod].map {
      ProcessView(
        nonce: $0.process.nonce, incarnation: $0.process.incarnation, session: $0.session, connection: $0.connection,
        isRetired: $0.presence == .retired)
    }
  }

  /// What a pod has leased, as far as is known.
  package func leases(of pod: PodID) -> [LeaseID: LeaseView] {
    (scheduler.pods[pod]?.leases ?? [:]).mapValues {
      switch $0.state {
      case .asked: .asked
      case .held: .held
      case .releasing: .releasing
      case .ending: .ending
      }
    }
  }

  /// Whether a pod is given leases.
  package func mayLease(_ pod: PodID) -> Bool { scheduler.pods[pod]?.isConfirmed == true }

  /// Pods that have leased more than they have, which none may.
  package var overbooked: [PodID] {
    scheduler.pods.filter { !$0.value.total.covers($0.value.leased) }.keys.sorted()
  }

  /// The leases that the drivers of a job are believed to have.
  package func leases(of job: JobID) -> [LeaseID] { scheduler.leases(of: job) }

  /// Whether an actor lives by the lease.
  package func isActors(_ lease: LeaseID) -> Bool { actors.leases[lease] != nil }

  package func isRunning(_ job: JobID) -> Bool { jobs[job] != nil }

  package func named(_ name: Name) -> ObjectID? { directory.names[name] }

  /// Whether a hold, a name or another object keeps an object alive.
  package func isLive(_ object: ObjectID) -> Bool {
    directory.records[object].map { directory.isLive(object, $0) } ?? false
  }

  package func hasBuried(_ object: ObjectID) -> Bool { directory.tombstones.contains(object) }

  /// Those that were given up after so many others, in order.
  package func buried(after count: Int) -> ArraySlice<ObjectID> { directory.tombstones.order.dropFirst(count) }

  package var isSettling: Bool { settlesAt != nil || directory.isSettling }

  /// Questions that wait, proposals and records that are not kept yet.
  package var unfinished: (questions: [RequestID], proposals: Int, unsaved: Int) {
    (questions.keys.sorted(), proposals.count, unsaved.count)
  }

  /// Whether what is counted along is what there is.
  package var countsAreRight: Bool {
    var counted = ReplicaUsage()
    for (_, record) in directory.records {
      for host in record.planner.complete {
        counted.count(host, ReplicaUsage.Share(), ReplicaUsage.Share(size: record.geometry?.objectSize ?? 0))
      }
      if !record.planner.isEmpty { counted.count(HostID(high: 0, low: 0), .init(), .init(isAvailable: true)) }
    }
    return counted == directory.usage
  }
}
