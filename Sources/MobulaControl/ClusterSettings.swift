package import MobulaCore

/// What the control plane decides by.
package struct ClusterSettings: Sendable {
  /// Stays the same when the head is restarted.
  package var cluster: ClusterID
  /// Of the head that decides; grows with every start of one.
  package var epoch: UInt64
  /// How long a host or a pod may be away before nobody waits for it. 10 s.
  package var hostTimeout: Duration = .seconds(10)
  /// How long the objects and holds of a host that is away count. 1 hour.
  package var retirement: Duration = .seconds(3600)
  /// How long a driver that can resume its job may be away before the job ends. 60 s.
  package var jobTimeout: Duration = .seconds(60)
  /// How long a lease may be waited for while no pod could ever hold it. 20 s.
  package var infeasibleTimeout: Duration = .seconds(20)
  /// How long a lease may be waited for at all. 1 hour.
  package var leaseTimeout: Duration = .seconds(3600)

  /// How long an actor that may be started again may live on where nobody hears of it. 60 s.
  package var actorFence: Duration = .seconds(60)

  package init(cluster: ClusterID, epoch: UInt64) {
    self.cluster = cluster
    self.epoch = epoch
  }
}
