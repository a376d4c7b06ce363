/// What a pod needs to know to start workers for a job.
package struct WorkerProgram: Codable, Sendable, Hashable {
  /// The driver's executable: the same path on every host.
  package var executable: String
  /// SHA-256 of that file, 64 hexadecimal digits; a pod refuses another build.
  package var build: String
  /// Variables that the driver wants its workers to have, beside those that they get from their pod.
  package var environment: [String: String]?

  package init(executable: String, build: String, environment: [String: String]? = nil) {
    self.executable = executable
    self.build = build
    self.environment = environment
  }

  /// The same with further variables, which win.
  package func with(_ variables: [String: String]) -> WorkerProgram {
    guard !variables.isEmpty else { return self }
    var program = self
    program.environment = (environment ?? [:]).merging(variables) { _, new in new }
    return program
  }
}

/// A driver asks for the right to run work of one resource shape on one worker.
package struct LeaseRequest: Codable, Sendable {
  package var lease: LeaseID
  package var job: JobID
  package var demand: Resources
  package var strategy: PlacementStrategy
  package var program: WorkerProgram
  /// Whether it goes on waiting where no pod could ever hold it; `nil` for no.
  package var waits: Bool?
  /// Whether an actor is to live there: then it gets a worker that nothing else was done in, since that ends with it;
  /// `nil` for no.
  package var isForActor: Bool?

  package init(lease: LeaseID, job: JobID, demand: Resources, strategy: PlacementStrategy, program: WorkerProgram) {
    self.lease = lease
    self.job = job
    self.demand = demand
    self.strategy = strategy
    self.program = program
  }
}

/// Why is a lease not granted yet?
package struct LeaseQuestion: Codable, Sendable {
  package var lease: LeaseID

  package init(lease: LeaseID) { self.lease = lease }
}

package struct LeaseExplanation: Codable, Sendable {
  /// A sentence that says what is missing; `nil` for a lease that does not wait.
  package var reason: String?
  /// Whether no pod could hold it, were it idle.
  package var isInfeasible: Bool

  package init(reason: String?, isInfeasible: Bool) {
    self.reason = reason
    self.isInfeasible = isInfeasible
  }
}

/// A granted lease: where the worker listens.
package struct LeaseGrant: Codable, Sendable {
  package var lease: LeaseID
  package var host: HostID
  package var pod: PodID
  package var podName: String
  package var worker: WorkerID
  package var endpoint: Endpoint

  package init(lease: LeaseID, host: HostID, pod: PodID, podName: String, worker: WorkerID, endpoint: Endpoint) {
    self.lease = lease
    self.host = host
    self.pod = pod
    self.podName = podName
    self.worker = worker
    self.endpoint = endpoint
  }
}

/// A lease in a pod's books.
package struct LeaseRecord: Codable, Sendable, Hashable {
  package var lease: LeaseID
  package var job: JobID
  package var demand: Resources
  /// Whether its CPU is lent to others, since what runs on it waits; `nil` for no.
  package var isLent: Bool?

  package init(lease: LeaseID, job: JobID, demand: Resources) {
    self.lease = lease
    self.job = job
    self.demand = demand
  }

  /// What of the pod's it takes now.
  package var taken: Resources { isLent == true ? demand.withoutCPU : demand }
}

/// What runs on a lease waits, and its CPU is lent to others; or it goes on.
package struct LeaseLent: Codable, Sendable, Hashable {
  package var lease: LeaseID
  package var isLent: Bool

  package init(lease: LeaseID, isLent: Bool) {
    self.lease = lease
    self.isLent = isLent
  }
}

package struct LeaseReturn: Codable, Sendable {
  package var lease: LeaseID
  /// Whether the worker may serve another lease: false once it has held an actor.
  package var workerIsReusable: Bool

  package init(lease: LeaseID, workerIsReusable: Bool) {
    self.lease = lease
    self.workerIsReusable = workerIsReusable
  }
}

/// A pod tells the head that the worker of a lease has ended.
package struct LeaseLost: Codable, Sendable {
  package var lease: LeaseID
  package var reason: String

  package init(lease: LeaseID, reason: String) {
    self.lease = lease
    self.reason = reason
  }
}
