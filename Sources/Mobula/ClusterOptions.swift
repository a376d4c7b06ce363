import Glibc
public import MobulaCore
package import MobulaWire

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

  public init(directory: String? = nil) {
    self.directory = directory ?? Self.defaultDirectory()
  }

  /// `MOBULA_DIRECTORY`; else `/run/mobula` for root, `$XDG_RUNTIME_DIR/mobula` or `~/.mobula` for others.
  public static func defaultDirectory(environment: [String: String] = currentEnvironment()) -> String {
    if let directory = environment["MOBULA_DIRECTORY"], !directory.isEmpty { return directory }
    if getuid() == 0 { return "/run/mobula" }
    if let directory = environment["XDG_RUNTIME_DIR"], !directory.isEmpty { return directory + "/mobula" }
    return (environment["HOME"] ?? "/tmp") + "/.mobula"
  }

  /// The file with the cluster's token.
  public static func tokenFile(in directory: String) -> String { directory + "/token" }

  /// The folder with this host's certificates, which is there when the host uses TLS.
  package static func certificates(in directory: String) -> CertificateFolder {
    CertificateFolder(directory + "/tls")
  }

  /// How processes of this host talk to others: with TLS where the host was started with it.
  ///
  /// - Throws: `MobulaError` when the certificates can't be read or have expired.
  package static func tls(in directory: String) throws(MobulaError) -> ClusterTLS? {
    let folder = certificates(in: directory)
    return access(folder.path, F_OK) == 0 ? try ClusterTLS(folder) : nil
  }
}

/// What a task or an actor needs, and where it may go.
public struct ResourceRequest: Sendable {
  public var demand: Resources
  public var strategy: PlacementStrategy

  /// Resources by name, e.g. `["worker_pod_b": 1]`.
  ///
  /// - Parameters:
  ///   - cpu: CPUs; 1 unless told otherwise.
  ///   - memory: memory of the pod, for its books; none unless told otherwise.
  public static func resources(
    _ custom: Resources = [:], cpu: ResourceAmount = 1, memory: ByteCount? = nil,
    strategy: PlacementStrategy = .pack
  ) -> ResourceRequest {
    var demand = custom
    demand[Resources.cpu] = cpu
    if let memory { demand[Resources.memory] = ResourceAmount(memory.bytes) }
    return ResourceRequest(demand: demand, strategy: strategy)
  }
}
