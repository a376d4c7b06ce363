/// An object as `mobula ls` shows it.
public struct ObjectListing: Codable, Sendable {
  public var object: ObjectID
  public var names: [Name]
  public var size: ByteCount
  public var digest: ObjectDigest?
  /// Hosts with a complete replica.
  public var hosts: [HostID]
  /// Hosts that are receiving it.
  public var receiving: [HostID]
  /// How many hosts have a process that holds it.
  public var holders: Int
  /// How many names it has behind these, in the order of their bytes; `nil` when these are all.
  public var furtherNames: Int?

  public init(
    object: ObjectID, names: [Name], size: ByteCount, digest: ObjectDigest?, hosts: [HostID], receiving: [HostID],
    holders: Int
  ) {
    self.object = object
    self.names = names
    self.size = size
    self.digest = digest
    self.hosts = hosts
    self.receiving = receiving
    self.holders = holders
  }
}

extension ObjectListing {
  /// About as many bytes as it takes on the wire.
  package var wireSize: Int {
    192 + names.reduce(0) { $0 + $1.utf8.count + 9 } + 17 * (hosts.count + receiving.count)
  }
}

/// What `mobula status` shows.
public struct ClusterStatus: Codable, Sendable {
  public struct Host: Codable, Sendable {
    public var host: HostID
    public var name: String
    public var bulk: Endpoint
    public var capacity: ByteCount
    public var objects: Int
    public var bytes: ByteCount
    /// False while the head has lost it and waits for it to come back.
    public var connected: Bool
    /// As in `zone=eu-1`.
    public var labels: [Name: Name]

    public init(
      host: HostID, name: String, bulk: Endpoint, capacity: ByteCount, objects: Int, bytes: ByteCount, connected: Bool,
      labels: [Name: Name] = [:]
    ) {
      self.labels = labels
      self.host = host
      self.name = name
      self.bulk = bulk
      self.capacity = capacity
      self.objects = objects
      self.bytes = bytes
      self.connected = connected
    }
  }

  public struct Pod: Codable, Sendable {
    public var pod: PodID
    public var name: String
    public var host: HostID
    public var resources: Resources
    public var leased: Resources
    public var leases: Int

    public init(pod: PodID, name: String, host: HostID, resources: Resources, leased: Resources, leases: Int) {
      self.pod = pod
      self.name = name
      self.host = host
      self.resources = resources
      self.leased = leased
      self.leases = leases
    }
  }

  /// A host that the head waits for no more, and of which it still knows what it has and holds.
  public struct AbsentHost: Codable, Sendable {
    public var host: HostID
    public var name: String
    /// For how long it has been absent.
    public var seconds: Int

    public init(host: HostID, name: String, seconds: Int) {
      self.host = host
      self.name = name
      self.seconds = seconds
    }
  }

  public var cluster: ClusterID
  public var head: Endpoint
  public var hosts: [Host]
  /// `nil` from a head that forgets hosts that are away.
  public var absent: [AbsentHost]?
  public var pods: [Pod]
  public var jobs: [JobID]
  /// Whether there are more hosts, pods or jobs; `nil` when there are not.
  public var more: Bool?
  public var objects: Int
  /// Lease requests that wait for resources.
  public var waiting: Int

  public init(
    cluster: ClusterID, head: Endpoint, hosts: [Host], pods: [Pod], jobs: [JobID], objects: Int, waiting: Int,
    absent: [AbsentHost]? = nil
  ) {
    self.absent = absent
    self.cluster = cluster
    self.head = head
    self.hosts = hosts
    self.pods = pods
    self.jobs = jobs
    self.objects = objects
    self.waiting = waiting
  }
}
