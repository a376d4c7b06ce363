/// What a pod needs to know to start workers for a job.
public struct WorkerProgram: Codable, Sendable, Hashable {
  /// The driver's executable: the same path on every host.
  public var executable: String
  /// SHA-256 of that file, 64 hexadecimal digits; a pod refuses another build.
  public var build: String
  /// Variables that the driver wants its workers to have, beside those that they get from their pod.
  public var environment: [String: String]?

  public init(executable: String, build: String, environment: [String: String]? = nil) {
    self.executable = executable
    self.build = build
    self.environment = environment
  }
}

/// A driver asks for the right to run work of one resource shape on one worker.
public struct LeaseRequest: Codable, Sendable {
  public var lease: LeaseID
  public var job: JobID
  public var demand: Resources
  public var strategy: PlacementStrategy
  public var program: WorkerProgram

  public init(lease: LeaseID, job: JobID, demand: Resources, strategy: PlacementStrategy, program: WorkerProgram) {
    self.lease = lease
    self.job = job
    self.demand = demand
    self.strategy = strategy
    self.program = program
  }
}

/// A granted lease: where the worker listens.
public struct LeaseGrant: Codable, Sendable {
  public var lease: LeaseID
  public var host: HostID
  public var pod: PodID
  public var podName: String
  public var worker: WorkerID
  public var endpoint: Endpoint

  public init(lease: LeaseID, host: HostID, pod: PodID, podName: String, worker: WorkerID, endpoint: Endpoint) {
    self.lease = lease
    self.host = host
    self.pod = pod
    self.podName = podName
    self.worker = worker
    self.endpoint = endpoint
  }
}

/// A lease in a pod's books.
public struct LeaseRecord: Codable, Sendable, Hashable {
  public var lease: LeaseID
  public var job: JobID
  public var demand: Resources

  public init(lease: LeaseID, job: JobID, demand: Resources) {
    self.lease = lease
    self.job = job
    self.demand = demand
  }
}

public struct LeaseReturn: Codable, Sendable {
  public var lease: LeaseID
  /// Whether the worker may serve another lease: false once it has held an actor.
  public var workerIsReusable: Bool

  public init(lease: LeaseID, workerIsReusable: Bool) {
    self.lease = lease
    self.workerIsReusable = workerIsReusable
  }
}

/// A pod tells the head that the worker of a lease has ended.
public struct LeaseLost: Codable, Sendable {
  public var lease: LeaseID
  public var reason: String

  public init(lease: LeaseID, reason: String) {
    self.lease = lease
    self.reason = reason
  }
}
