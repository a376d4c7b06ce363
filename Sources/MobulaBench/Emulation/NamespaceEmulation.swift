internal import Glibc
public import MobulaCore

/// Hosts as namespaces on one bridge, each with its own network, mount, PID, IPC and UTS namespaces,
/// its own `/tmp`, `/run` and `/dev/shm`, and an interface shaped in both directions.
///
/// Runs inside `BenchIsolation`, whose end takes everything here with it.
public final class NamespaceEmulation: HostEmulation {
  /// The bridge's address; the hosts' follow from 10.77.0.10.
  private static let bridgeAddress = "10.77.0.1"
  /// As many as the addresses and the names suffice for.
  private static let maximumHosts = 200

  public let hosts: [EmulatedHost]
  private let inits: [ChildProcess]

  public var kind: EmulationKind { .netns }
  public var serverAddress: String { Self.bridgeAddress }

  private init(hosts: [EmulatedHost], inits: [ChildProcess]) {
    self.hosts = hosts
    self.inits = inits
  }

  /// - Parameter scratch: a directory in which the hosts' own directories are made ready.
  static func start(
    hosts count: Int, nic: LinkRate?, keep: [String], scratch: String
  ) async throws -> NamespaceEmulation {
    guard 1...maximumHosts ~= count else {
      throw MobulaError(.invalidArgument, "\(count) hosts can't be emulated: ask for 1 to \(maximumHosts).")
    }
    let kept = KeptPaths.needed(keep)
    var hosts: [EmulatedHost] = []
    var inits: [ChildProcess] = []
    do {
      try await NamespaceScripts.bridge.run(["\(bridgeAddress)/24"], orSay: "The hosts' bridge can't be made")
      for index in 0..<count {
        let name = "h\(index)"
        let (unshare, initProcess) = try await startInit(name, stage: "\(scratch)/\(name)", kept: kept)
        inits.append(unshare)
        let host = EmulatedHost(
          index: index, name: name, address: "10.77.0.\(10 + index)", directory: "/run/mobula",
          place: .namespaces(initProcess: initProcess, interface: "v\(index)"))
        hosts.append(host)
        try await NamespaceScripts.cable.run(
          ["v\(index)", "\(initProcess)", "\(host.address)/24", nic.map { "\($0.bitsPerSecond)bit" } ?? ""],
          orSay: "Host \(name) can't be connected")
      }
      return NamespaceEmulation(hosts: hosts, inits: inits)
    } catch {
      await NamespaceEmulation(hosts: hosts, inits: inits).stop()
      throw error
    }
  }

  /// Starts a host's init, and waits until its namespaces are ready.
  private static func startInit(
    _ name: String, stage: String, kept: [String]
  ) async throws -> (ChildProcess, Int32) {
    // The stage of an earlier emulation in the same isolation may still be there, unmounted and empty.
    guard mkdir(stage, 0o755) == 0 || errno == EEXIST else {
      throw MobulaError.system("\(stage) can't be made")
    }
    let output = try ProcessOutput()
    let unshare = try ChildProcess.spawn(
      SystemTool.unshare.path(),
      ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--", SystemTool.sh.path()]
        + NamespaceScripts.hostInit.shellArguments([stage, name, "/run/mobula"] + kept),
      environment: ShellScript.environment(), output: output.stream, errors: output.stream)
    output.started()
    do {
      var said = ""
      while let line = try await output.line(within: .seconds(20)) {
        said += line + "\n"
        let words = line.split(separator: " ")
        if words.count == 2, words[0] == "up", let pid = Int32(words[1]) { return (unshare, pid) }
      }
      throw MobulaError(
        .unavailable, ShellScript.sentence("Host \(name) can't be emulated", said: said, or: "its init ended"))
    } catch {
      unshare.signal(SIGKILL)
      throw error
    }
  }

  public func cut(_ host: EmulatedHost) async throws { try await set(host, "down") }
  public func join(_ host: EmulatedHost) async throws { try await set(host, "up") }

  public func limit(_ host: EmulatedHost, to rate: LinkRate) async throws {
    guard case .namespaces(let initProcess, let interface) = host.place else { return }
    try await NamespaceScripts.limit.run(
      [interface, "\(initProcess)", "\(rate.bitsPerSecond)bit"],
      orSay: "The interface of host \(host.name) can't be limited")
  }

  private func set(_ host: EmulatedHost, _ state: String) async throws {
    try await NamespaceScripts.link.run(
      ["v\(host.index)", state], orSay: "The interface of host \(host.name) can't be set \(state)")
  }

  public func stop() async {
    // The first has the head, at whose end the others would complain.
    for (host, unshare) in zip(hosts, inits).reversed() {
      // unshare reaps the init only after every process of its namespace is gone; then it ends too.
      if case .namespaces(let initProcess, _) = host.place, unshare.exit == nil { _ = kill(initProcess, SIGKILL) }
    }
    for unshare in inits.dropFirst(hosts.count) { unshare.signal(SIGKILL) }
    // What takes longer ends with the isolation.
    let deadline = ContinuousClock.now + .seconds(10)
    while inits.contains(where: { $0.exit == nil }), ContinuousClock.now < deadline {
      Orphans.reapFromNamespacesBelow()
      try? await Task.sleep(for: .milliseconds(10))
    }
    // A namespace's interfaces go a while after it; the next emulation may want the names at once.
    try? await NamespaceScripts.unlink.run(
      (0...hosts.count).map { "v\($0)" } + ["br0"], orSay: "The hosts' bridge can't be removed")
  }
}
