public import MobulaCore

/// Work that any worker of the job can run.
///
/// Nothing has to be registered: a worker is the same executable and finds the
/// type by its name.
public protocol RemoteTask: Codable, Sendable {
  /// What it returns, which becomes an object.
  associatedtype Output: Codable & Sendable
  /// What tasks of this type need, where nothing else is said. Default: one CPU, and another try if its worker is lost.
  static var options: TaskOptions { get }
  /// The work, done in a worker; what it throws, `ObjectRef.value` throws as a `WorkError`.
  ///
  /// When the task is cancelled, the Swift task that runs this is: `Task.isCancelled` and `Task.checkCancellation()` say so.
  func run(in context: TaskContext) async throws -> Output
}

extension RemoteTask {
  /// The defaults.
  public static var options: TaskOptions { TaskOptions() }
}

/// The result of work that has none.
public struct Done: Codable, Sendable, Hashable {
  /// The only one.
  public init() {}
}

/// Work of which nothing comes but its end.
public protocol RemoteAction: RemoteTask where Output == Done {
  /// The work, done in a worker; what it throws, `ObjectRef.value` throws as a `WorkError`.
  func perform(in context: TaskContext) async throws
}

extension RemoteAction {
  /// Performs it.
  public func run(in context: TaskContext) async throws -> Done {
    try await perform(in: context)
    return Done()
  }
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
