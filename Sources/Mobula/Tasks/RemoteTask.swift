public import MobulaCore

/// Work that any worker of the job can run.
///
/// Nothing has to be registered: a worker is the same executable and finds the
/// type by its name.
public protocol RemoteTask: Codable, Sendable {
  /// What it returns, which becomes an object.
  associatedtype Output: Codable & Sendable
  /// The work, done in a worker; what it throws, `ObjectRef.value` throws.
  func run(in context: TaskContext) async throws -> Output
}

/// Where a task or an actor runs.
public struct TaskContext: Sendable {
  /// The worker's own view of the cluster.
  public let cluster: Cluster
  /// The host that it runs on.
  public let host: HostID
  /// That host's name.
  public let hostName: String
  /// The pod that it runs in.
  public let pod: PodID
  /// That pod's name.
  public let podName: String
}
