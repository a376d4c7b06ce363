internal import MobulaControl
public import MobulaCore

/// What a head is told when it starts.
public struct HeadConfiguration: Sendable {
  /// Stays the same when the head is restarted.
  public var cluster: ClusterID
  /// Where the head listens. Port 0 takes a free one.
  public var endpoint: Endpoint
  /// Where others reach it; where it listens, when `nil`.
  public var advertised: Endpoint?
  /// Grows with every start of the head.
  public var epoch: UInt64
  /// What logs and errors of other processes call the head.
  public var name = "head"
  /// How long a host or a pod may be away before nobody waits for it: its leases are revoked. 10 s.
  public var hostTimeout: Duration = .seconds(10)
  /// How long the objects and holds of a host that is away count. 1 hour.
  public var retirement: Duration = .seconds(3600)
  /// How long a driver that can resume its job may be away before the job ends. 60 s.
  public var jobTimeout: Duration = .seconds(60)
  /// How long the process that was registered before may take to say that it is still there, when another one wants
  /// to take its place. 2 s.
  public var rivalTimeout: Duration = .seconds(2)
  /// How long a lease may be waited for while no pod could ever hold it. 20 s: less than a
  /// call's usual deadline, so that the reason reaches the caller.
  public var infeasibleTimeout: Duration = .seconds(20)
  /// How long a lease may be waited for at all. 1 hour, or the caller's own deadline if that is sooner.
  public var leaseTimeout: Duration = .seconds(3600)
  /// How long a pod may take to start a worker for a lease. 30 s.
  public var grantTimeout: Duration = .seconds(30)
  /// How long other calls to hosts, pods and drivers may take. 10 s.
  public var callTimeout: Duration = .seconds(10)

  public init(
    cluster: ClusterID = .random(), endpoint: Endpoint = .tcp(host: "127.0.0.1", port: 7600), epoch: UInt64 = 1
  ) {
    self.cluster = cluster
    self.endpoint = endpoint
    self.epoch = epoch
  }

  /// What the state decides by.
  var settings: ClusterSettings {
    var settings = ClusterSettings(cluster: cluster, epoch: epoch)
    settings.hostTimeout = hostTimeout
    settings.retirement = retirement
    settings.jobTimeout = jobTimeout
    settings.infeasibleTimeout = infeasibleTimeout
    settings.leaseTimeout = leaseTimeout
    return settings
  }
}
