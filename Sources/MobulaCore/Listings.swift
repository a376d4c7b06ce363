/// An object as `mobula ls` shows it.
public struct ObjectListing: Codable, Sendable {
  /// Its identifier.
  public var object: ObjectID
  /// Its names, in the order of their bytes.
  public var names: [Name]
  /// Its bytes.
  public var size: ByteCount
  /// What names its content; `nil` while it is being made.
  public var digest: ObjectDigest?
  /// Hosts with a complete replica.
  public var hosts: [HostID]
  /// Hosts that are receiving it.
  public var receiving: [HostID]
  /// How many hosts have a process that holds it.
  public var holders: Int
  /// Hosts that had it whole and are away; `nil` when there are none.
  public var absent: [HostID]?
  /// How many names it has behind these, in the order of their bytes; `nil` when these are all.
  public var furtherNames: Int?

  /// An object with all its names.
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
  /// A host of the cluster.
  public struct Host: Codable, Sendable {
    /// Its identifier.
    public var host: HostID
    /// Its name.
    public var name: Name
    /// Where other hosts fetch chunks from it.
    public var bulk: Endpoint
    /// The most that its store may hold.
    public var capacity: ByteCount
    /// How many objects it has, whole or in part.
    public var objects: Int
    /// The bytes of these.
    public var bytes: ByteCount
    /// False while the head has lost it and waits for it to come back.
    public var connected: Bool
    /// As in `zone=eu-1`.
    public var labels: [Name: Name]
    /// Whether it gets nothing new, since it is about to go; `nil` when not.
    public var draining: Bool?

    /// A host as the head knows it.
    public init(
      host: HostID, name: String, bulk: Endpoint, capacity: ByteCount, objects: Int, bytes: ByteCount, connected: Bool,
      labels: [Name: Name] = [:], draining: Bool? = nil
    ) {
      self.draining = draining
      self.labels = labels
      self.host = host
      self.name = Name(name)
      self.bulk = bulk
      self.capacity = capacity
      self.objects = objects
      self.bytes = bytes
      self.connected = connected
    }
  }

  /// A pod of a host.
  public struct Pod: Codable, Sendable {
    /// Its identifier.
    public var pod: PodID
    /// Its name.
    public var name: Name
    /// The host that it is on.
    public var host: HostID
    /// What it has.
    public var resources: Resources
    /// What of it is leased.
    public var leased: Resources
    /// How many leases there are.
    public var leases: Int

    /// A pod as the head knows it.
    public init(pod: PodID, name: String, host: HostID, resources: Resources, leased: Resources, leases: Int) {
      self.pod = pod
      self.name = Name(name)
      self.host = host
      self.resources = resources
      self.leased = leased
      self.leases = leases
    }
  }

  /// What lease requests of one shape wait for.
  public struct Demand: Codable, Sendable {
    /// What each of them needs.
    public var resources: Resources
    /// How many there are; more may wait in the processes that ask.
    public var requests: Int
    /// For how long the first of them has waited.
    public var seconds: Int
    /// A sentence that says what is missing, and what would help.
    public var reason: String

    /// Requests that wait.
    public init(resources: Resources, requests: Int, seconds: Int, reason: String) {
      self.resources = resources
      self.requests = requests
      self.seconds = seconds
      self.reason = reason
    }
  }

  /// A host that the head waits for no more, and of which it still knows what it has and holds.
  public struct AbsentHost: Codable, Sendable {
    /// Its identifier.
    public var host: HostID
    /// Its name.
    public var name: Name
    /// For how long it has been absent.
    public var seconds: Int

    /// A host that has been away for so long.
    public init(host: HostID, name: String, seconds: Int) {
      self.host = host
      self.name = Name(name)
      self.seconds = seconds
    }
  }

  /// Which cluster it is.
  public var cluster: ClusterID
  /// Where its head is.
  public var head: Endpoint
  /// The hosts that are there, or are waited for.
  public var hosts: [Host]
  /// `nil` from a head that forgets hosts that are away.
  public var absent: [AbsentHost]?
  /// Their pods.
  public var pods: [Pod]
  /// The jobs that run.
  public var jobs: [JobID]
  /// Whether there are more hosts, pods or jobs; `nil` when there are not.
  public var more: Bool?
  /// Which start of the head says so; `nil` from one that does not tell.
  public var epoch: UInt64?
  /// Whether the head, which was just started, has not heard of all yet; `nil` when not.
  public var settling: Bool?
  /// How many objects there are.
  public var objects: Int
  /// Lease requests that wait for resources.
  public var waiting: Int
  /// What they wait for, the first hundred shapes; `nil` from a head that does not tell.
  public var demands: [Demand]?

  /// A state of a cluster.
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
