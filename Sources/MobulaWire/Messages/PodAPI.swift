public import MobulaCore

/// What a pod answers to its workers, over its Unix socket. A worker ends with its connection.
public enum PodAPI {
  public static let workerReady = RPCMethod<WorkerReady, Empty>("pod.workerReady")
}

/// A worker listens and can be given work.
public struct WorkerReady: Codable, Sendable {
  public var worker: WorkerID
  public var endpoint: Endpoint

  public init(worker: WorkerID, endpoint: Endpoint) {
    self.worker = worker
    self.endpoint = endpoint
  }
}

/// What a pod tells a worker in its environment, as JSON in `MOBULA_WORKER`.
public struct WorkerEnvironment: Codable, Sendable {
  public static let variable = "MOBULA_WORKER"
  /// How a worker exits that can't work now, and perhaps a moment later: its host or the head can't be reached.
  public static let notNowStatus: Int32 = 75

  public var worker: WorkerID
  public var pod: PodID
  public var podName: String
  /// The pod's socket.
  public var podSocket: String
  /// Where the host's sockets are.
  public var directory: String
  /// The address that others are told.
  public var address: String
  /// The address to listen at; `address`, when `nil`.
  public var listen: String?
  public var job: JobID
  public var program: WorkerProgram
  /// The token of the job; `nil` from a pod that knows none.
  public var token: String?

  public init(
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
