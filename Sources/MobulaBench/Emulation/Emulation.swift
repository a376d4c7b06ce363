public import MobulaCore

/// How hosts are emulated.
public enum EmulationKind: String, Codable, Sendable {
  /// Network, mount, PID and IPC namespaces on one bridge, with shaped NICs.
  case netns
  /// Processes on addresses of the loopback interface: no shaping, no counters, one `/tmp`.
  case loopback
}

/// Hosts emulated on this machine, and the network between them.
public protocol HostEmulation: Sendable {
  var kind: EmulationKind { get }
  var hosts: [EmulatedHost] { get }
  /// Where services of the bench itself listen, such as the S3 server: every host reaches it, nothing shapes it.
  var serverAddress: String { get }
  /// Takes the host off the network, as if its cable were pulled.
  ///
  /// - Throws: `MobulaError` (`unavailable`) where this can't be emulated.
  func cut(_ host: EmulatedHost) async throws
  /// Changes the rate of a host's interface, in both directions.
  ///
  /// - Throws: `MobulaError` (`unavailable`) where this can't be emulated.
  func limit(_ host: EmulatedHost, to rate: LinkRate) async throws
  /// Undoes `cut`.
  func join(_ host: EmulatedHost) async throws
  /// Kills every process of the hosts, and returns when they and the network are gone.
  func stop() async
}

/// What this machine lets us emulate.
public enum Emulation {
  public enum Availability: Hashable, Sendable {
    /// Namespaces; `root` is false when they need a user namespace around them.
    case namespaces(root: Bool)
    /// A sentence with the reason and the remedy.
    case unavailable(String)
  }

  /// Finds out by trying everything that an emulated host needs, once, in namespaces that vanish again (about 50 ms).
  public static func availability() async -> Availability {
    if let missing = SystemTool.missing() { return .unavailable(missing) }
    var reason = ""
    for root in isRoot ? [true, false] : [false] {
      do {
        try await NamespaceScripts.trial.run(
          prefix: NamespaceScripts.unshare(root: root, "--uts"), orSay: "Hosts can't be emulated in namespaces")
        return .namespaces(root: root)
      } catch {
        reason = "\(error)"
      }
    }
    let remedy =
      isRoot
      ? "Run outside of the container, or in a privileged one."
      : "Run as root, or allow user namespaces (sysctl -w user.max_user_namespaces=10000, and where they exist, kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0)."
    return .unavailable("\(reason) \(remedy)")
  }

  /// Brings up `count` hosts, h0 first: in namespaces when this process runs inside
  /// `BenchIsolation` of that kind, on loopback addresses otherwise.
  ///
  /// - Parameters:
  ///   - nic: the rate of every host's interface in both directions, `nil` for as fast as it goes; loopback hosts
  ///     ignore it.
  ///   - keep: files and directories that the hosts' processes read, seen at their own paths even where they
  ///     lie under a host's private `/tmp`, `/run` or `/dev/shm`. This executable and its libraries always are.
  /// - Throws: `MobulaError` (`unavailable`, `invalidArgument`); nothing is left behind then.
  public static func start(hosts count: Int, nic: LinkRate?, keep: [String] = []) async throws -> any HostEmulation {
    switch BenchIsolation.current {
    case .inside(.netns, let scratch):
      try await NamespaceEmulation.start(hosts: count, nic: nic, keep: keep, scratch: scratch)
    case .inside(.loopback, let scratch): try LoopbackEmulation(hosts: count, directory: scratch)
    case .outside: try LoopbackEmulation(hosts: count)
    }
  }
}
