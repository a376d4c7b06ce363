import Glibc
public import MobulaCore

/// How a process uses its cluster.
public struct ClusterOptions: Sendable {
  /// The directory of this machine's host. Default: `MOBULA_DIRECTORY`, else where `mobula start` puts it.
  public var directory: String
  /// How long `ObjectRef.value` waits. Default: for as long as it takes.
  public var valueDeadline: Duration?
  /// How long a task, from `submit` on, or a call of an actor may take, where nothing else is said. Default: for as long as
  /// it takes.
  public var workDeadline: Duration?
  /// How long `spawn` waits for a pod with room. Default: one minute.
  public var leaseDeadline: Duration = .seconds(60)
  /// The most memory that tasks may take in this process which have not ended: `submit` throws `full` beyond it. Default:
  /// 1 GiB, which is some two million small ones.
  public var queueLimit: ByteCount = ByteCount(1 << 30)
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
  func checkWorkerEnvironment() throws(MobulaError) { try Self.check(workerEnvironment) }

  static func check(_ variables: [String: String]) throws(MobulaError) {
    var size = 0
    for (name, value) in variables {
      size += name.utf8.count + value.utf8.count + 2
      guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")), !name.utf8.contains(0), !value.utf8.contains(0)
      else {
        throw MobulaError(
          .invalidArgument,
          "The environment of workers has \"\(name)\", which is no variable: names are not empty, and have no = and no zero."
        )
      }
    }
    guard size <= 32_768 else {
      throw MobulaError(
        .invalidArgument,
        "The environment of workers has \(size) bytes, and may have 32768: put what is big into an object.")
    }
  }

  /// The file with the cluster's token.
  public static func tokenFile(in directory: String) -> String { HostPaths.token(in: directory) }
}
