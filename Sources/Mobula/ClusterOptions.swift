import Glibc
public import MobulaCore

/// How a process uses its cluster.
public struct ClusterOptions: Sendable {
  /// The directory of this machine's host. Default: `MOBULA_DIRECTORY`, else where `mobula start` puts it.
  public var directory: String
  /// How long `ObjectRef.value` waits. Default: 10 minutes.
  public var valueDeadline: Duration = .seconds(600)
  /// How long a task, or a call of an actor, may take. Default: one day.
  public var workDeadline: Duration = .seconds(86_400)
  /// How long `spawn` waits for a pod with room. Default: one minute. Tasks queue for as long as `workDeadline`.
  public var leaseDeadline: Duration = .seconds(60)
  /// How often a task is started again when its worker is lost. Default: 3.
  public var taskRetries = 3
  /// Variables that the workers of this job get, beside the few that they have from their pod: `PATH`, `HOME`, locale and
  /// the like, and no secret of the host's. None by default; at most 32 KiB in all.
  public var workerEnvironment: [String: String] = [:]

  /// - Parameter directory: a relative one is below the current folder.
  public init(directory: String? = nil) {
    self.directory = directory.map { HostPaths.absolute($0) } ?? Self.defaultDirectory()
  }

  /// `MOBULA_DIRECTORY`; else `/run/mobula` for root, `~/.mobula` for others: one for a user, however the shell was
  /// started, that outlives a logout.
  ///
  /// Where a user has no home it is a folder in `/var/tmp`.
  public static func defaultDirectory() -> String {
    HostPaths.defaultDirectory(environment: currentEnvironment())
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for what can't be in an environment.
  func checkWorkerEnvironment() throws(MobulaError) {
    var size = 0
    for (name, value) in workerEnvironment {
      size += name.utf8.count + value.utf8.count + 2
      guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")), !name.utf8.contains(0), !value.utf8.contains(0)
      else {
        throw MobulaError(
          .invalidArgument,
          "workerEnvironment has \"\(name)\", which is no variable: names are not empty, and have no = and no zero.")
      }
    }
    guard size <= 32_768 else {
      throw MobulaError(
        .invalidArgument, "workerEnvironment has \(size) bytes, and may have 32768: put what is big into an object.")
    }
  }

  /// The file with the cluster's token.
  public static func tokenFile(in directory: String) -> String { HostPaths.token(in: directory) }
}

/// What a task or an actor needs, and where it may go.
public struct ResourceRequest: Sendable {
  /// What the pod must have left.
  public var demand: Resources
  /// Which of the pods that have it is taken.
  public var strategy: PlacementStrategy

  /// Resources by name, e.g. `["worker_pod_b": 1]`.
  ///
  /// - Parameters:
  ///   - custom: resources of one's own.
  ///   - cpu: CPUs; 1 unless told otherwise.
  ///   - memory: memory of the pod, for its books; none unless told otherwise.
  ///   - strategy: which of the pods that have it is taken.
  public static func resources(
    _ custom: Resources = [:], cpu: ResourceAmount = 1, memory: ByteCount? = nil, strategy: PlacementStrategy = .pack
  ) -> ResourceRequest {
    var demand = custom
    demand[Resources.cpu] = cpu
    if let memory { demand[Resources.memory] = ResourceAmount(memory.bytes) }
    return ResourceRequest(demand: demand, strategy: strategy)
  }
}
