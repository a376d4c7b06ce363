import FoundationEssentials
import Glibc
import MobulaCore
import MobulaWire

/// Starts the driver's executable in worker mode.
enum WorkerLauncher {
  /// Where the workers' logs are; made if it is not there.
  static func logFolder(_ configuration: PodConfiguration) throws(MobulaError) -> String {
    let folder = HostPaths.logs(in: configuration.directory)
    if mkdir(folder, 0o700) != 0, currentErrno() != EEXIST {
      throw MobulaError.system("The workers' logs can't be kept in \(folder)")
    }
    return folder
  }

  private static let visible = "CUDA_VISIBLE_DEVICES"

  /// What CUDA is told of GPUs by their index, as the pod is told of its own: those of a list, if it has one.
  static func visible(_ gpus: [Int], of own: String?) -> String {
    let names = (own ?? "").split { $0 == "," || $0 == " " }
    return gpus.map { names.indices.contains($0) ? String(names[$0]) : "\($0)" }.joined(separator: ",")
  }

  static func launch(
    _ worker: WorkerID, for request: LeaseRequest, gpus: [Int]?, in configuration: PodConfiguration, lifeline: Lifeline
  ) throws
    -> ChildProcess
  {
    var environment = WorkerEnvironment(
      worker: worker, pod: configuration.pod, podName: configuration.name, podSocket: configuration.socket,
      directory: configuration.directory, address: configuration.address, job: request.job, program: request.program)
    environment.listen = configuration.listen
    // Workers run the code of users: they get the token of their job, and no secret of this host's.
    environment.gpus = gpus
    environment.token = try configuration.token.ofJob(request.job).text
    var variables = SharedEnvironment.forWorkers(currentEnvironment())
    variables.merge(request.program.environment ?? [:]) { _, drivers in drivers }
    if let gpus { variables[Self.visible] = visible(gpus, of: variables[Self.visible]) }
    // For the drivers that a task starts.
    variables["MOBULA_DIRECTORY"] = configuration.directory
    variables[WorkerEnvironment.variable] = String(decoding: try JSONEncoder().encode(environment), as: UTF8.self)
    _ = try logFolder(configuration)
    let path = HostPaths.workerLog(worker, of: request.job, in: configuration.directory)
    let file = OwnedDescriptor(
      owning: try systemCall("The worker's log \(path) can't be made") {
        open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
      })
    return try ChildProcess.spawn(
      request.program.executable, [], environment: variables, input: .descriptor(lifeline.childsEnd),
      output: .descriptor(file.rawValue), errors: .descriptor(file.rawValue))
  }
}
