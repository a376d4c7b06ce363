public import MobulaCore

/// Work that any worker of the job can run.
///
/// Nothing has to be registered: a worker is the same executable and finds the
/// type by its name.
public protocol RemoteTask: Codable, Sendable {
  associatedtype Output: Codable & Sendable
  func run(in context: TaskContext) async throws -> Output
}

/// Where a task or an actor runs.
public struct TaskContext: Sendable {
  public let cluster: Cluster
  public let host: HostID
  public let hostName: String
  public let pod: PodID
  public let podName: String
}
