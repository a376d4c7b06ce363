package import MobulaCore

/// What a pod answers to its workers, over its Unix socket. A worker ends with its connection.
package enum PodAPI {
  package static let workerReady = RPCMethod<WorkerReady, Empty>("pod.workerReady")
  /// Answered with whether it is so: too many don't lend at a time.
  package static let leaseLent = RPCMethod<LeaseLent, Bool>("pod.leaseLent")
  /// The pod's, to a worker that has no lease: whether it may end, since nothing that it has submitted goes on.
  package static let mayEnd = RPCMethod<Empty, Bool>("member.mayEnd")
  /// The pod's, as the head's `pod.runActor`.
  package static let runActor = RPCMethod<ActorRun, Endpoint>("member.runActor")
  /// The pod's, as the head's `pod.endActor`.
  package static let endActor = RPCMethod<ActorEnding, Empty>("member.endActor")
  /// The pod's, to workers of actors that may be started again.
  package static let headHeard = RPCNotice<HeadHeard>("member.headHeard")
}

/// A worker listens and can be given work.
package struct WorkerReady: Codable, Sendable {
  package var worker: WorkerID
  package var endpoint: Endpoint

  package init(worker: WorkerID, endpoint: Endpoint) {
    self.worker = worker
    self.endpoint = endpoint
  }
}

/// What a pod tells a worker in its environment, as JSON in `MOBULA_WORKER`.
package struct WorkerEnvironment: Codable, Sendable {
  package static let variable = "MOBULA_WORKER"
  /// How a worker exits that can't work now, and perhaps a moment later: its host or the head can't be reached.
  package static let notNowStatus: Int32 = 75

  package var worker: WorkerID
  package var pod: PodID
  package var podName: String
  /// The pod's socket.
  package var podSocket: String
  /// Where the host's sockets are.
  package var directory: String
  /// The address that others are told.
  package var address: String
  /// The address to listen at; `address`, when `nil`.
  package var listen: String?
  package var job: JobID
  package var program: WorkerProgram
  /// The token of the job; `nil` from a pod that knows none.
  package var token: String?
  /// Which of the pod's GPUs are the worker's; `nil` from a pod that has none to give.
  package var gpus: [Int]?

  package init(
    worker: WorkerID, pod: PodID, podName: String, podSocket: String, directory: String, address: String, job: JobID,
    program: WorkerProgram
  ) {
    self.worker = worker
    self.pod = pod
    self.podName = podName
    self.podSocket = podSocket
    self.directory = directory
    self.address = address
    self.job = job
    self.program = program
  }
}
