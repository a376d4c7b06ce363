public import MobulaCore

/// A host joins, or joins again after it lost the head.
public struct HostRegistration: Codable, Sendable {
  public var host: HostID
  public var name: String
  /// Grows with every start of the host; an older one is refused.
  public var incarnation: UInt64
  /// Where other hosts get chunks from it.
  public var bulk: Endpoint
  public var capacity: ByteCount
  public var replicas: [ReplicaReport]
  public var holds: [ObjectID]
  /// Names of objects here, so that a head that was restarted knows them again.
  public var names: [Name: KnownName]
  /// What people tell hosts apart by, as in `zone=eu-1`.
  public var labels: [Name: Name]
  /// Whether `HeadAPI.registerMore` follows with more replicas, holds and names. The host is registered with the last.
  public var more: Bool?

  public init(
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
public struct PodRegistration: Codable, Sendable {
  public var pod: PodID
  public var name: String
  public var host: HostID
  public var incarnation: UInt64
  public var resources: Resources
  /// The leases in its books.
  public var leases: [LeaseRecord]

  public init(
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

public struct RegistrationReply: Codable, Sendable {
  public var cluster: ClusterID
  /// Grows with every start of the head.
  public var epoch: UInt64

  public init(cluster: ClusterID, epoch: UInt64) {
    self.cluster = cluster
    self.epoch = epoch
  }
}
