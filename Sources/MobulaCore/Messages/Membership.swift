/// A host joins, or joins again after it lost the head.
package struct HostRegistration: Codable, Sendable {
  package var host: HostID
  package var name: String
  /// What a head has told this process in `RegistrationReply`; 0 before. Without a nonce: grows with every start of the
  /// host, and an older one is refused.
  package var incarnation: UInt64
  /// Drawn at the start of the process; one with another is another process of the host.
  package var nonce: ProcessNonce?
  /// The highest epoch of a head that this process has registered at.
  package var epoch: UInt64?
  /// Whether the host has dropped all that it had when it was told that it is retired.
  package var beganAnew: Bool?
  /// Where other hosts get chunks from it.
  package var bulk: Endpoint
  package var capacity: ByteCount
  package var replicas: [ReplicaReport]
  package var holds: [ObjectID]
  /// Names of objects here, so that a head that was restarted knows them again.
  package var names: [Name: KnownName]
  /// What people tell hosts apart by, as in `zone=eu-1`.
  package var labels: [Name: Name]
  /// Whether processes that were here before this one have not said yet what they hold: what the host was known to hold
  /// stays held until it registers without this.
  package var awaitsProcesses: Bool?
  /// Which folder its identity is kept in: a copy of that is another one.
  package var folder: FolderID?
  /// Whether `HeadAPI.registerMore` follows with more replicas, holds and names. The host is registered with the last.
  package var more: Bool?

  package init(
    host: HostID, name: String, incarnation: UInt64, bulk: Endpoint, capacity: ByteCount,
    replicas: [ReplicaReport], holds: [ObjectID], names: [Name: KnownName], labels: [Name: Name] = [:]
  ) {
    self.labels = labels
    self.host = host
    self.name = name
    self.incarnation = incarnation
    self.bulk = bulk
    self.capacity = capacity
    self.replicas = replicas
    self.holds = holds
    self.names = names
  }
}

/// A pod joins, or joins again after it lost the head.
package struct PodRegistration: Codable, Sendable {
  package var pod: PodID
  package var name: String
  package var host: HostID
  /// As of hosts.
  package var incarnation: UInt64
  package var nonce: ProcessNonce?
  package var epoch: UInt64?
  /// The session in which its leases were granted, as the head told it; `nil` before.
  package var session: UInt64?
  package var resources: Resources
  /// The leases in its books.
  package var leases: [LeaseRecord]
  /// As of hosts.
  package var folder: FolderID?

  package init(
    pod: PodID, name: String, host: HostID, incarnation: UInt64, resources: Resources, leases: [LeaseRecord]
  ) {
    self.pod = pod
    self.name = name
    self.host = host
    self.incarnation = incarnation
    self.resources = resources
    self.leases = leases
  }
}

package struct RegistrationReply: Codable, Sendable {
  package var cluster: ClusterID
  /// Grows with every start of the head. Members refuse a head of a lower one than they have registered at.
  package var epoch: UInt64
  /// Which process of the member this is, for later registrations.
  package var incarnation: UInt64?
  /// True when the cluster has given the host up, with all that it had: it was not registered. It has to end its
  /// processes' use of its objects first, then to drop these, and then to register as another process.
  package var isRetired: Bool?
  /// Of a pod, the session that it is in now: grows when the pod is declared lost.
  package var session: UInt64?
  /// Of a pod, the leases in its books that are over. It ends them, then says `confirmPod`; until then it is given none.
  package var end: [LeaseID]?

  package init(cluster: ClusterID, epoch: UInt64) {
    self.cluster = cluster
    self.epoch = epoch
  }
}

/// A pod has ended the leases that it was told to end.
package struct PodConfirmation: Codable, Sendable {
  package var pod: PodID
  package var session: UInt64

  package init(pod: PodID, session: UInt64) {
    self.pod = pod
    self.session = session
  }
}

/// A host, by its name or identifier, is about to go.
package struct DrainRequest: Codable, Sendable {
  package var nameOrID: Name
  /// Set when it stays after all.
  package var cancels: Bool?

  package init(nameOrID: Name, cancels: Bool? = nil) {
    self.nameOrID = nameOrID
    self.cancels = cancels
  }
}

package struct DrainReply: Codable, Sendable {
  package var host: HostID
  package var name: Name

  package init(host: HostID, name: Name) {
    self.host = host
    self.name = name
  }
}

/// A host's process ends in order: its processes use nothing of the cluster any more.
package struct HostLeave: Codable, Sendable {
  package var host: HostID
  package var nonce: ProcessNonce

  package init(host: HostID, nonce: ProcessNonce) {
    self.host = host
    self.nonce = nonce
  }
}
