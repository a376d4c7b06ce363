import FoundationEssentials
public import MobulaCore

/// Bytes that an interface has carried since it came up, link-layer headers included.
public struct NetworkCounters: Hashable, Sendable {
  public var received: Int
  public var sent: Int

  public init(received: Int, sent: Int) {
    self.received = received
    self.sent = sent
  }

  public static func - (later: Self, earlier: Self) -> Self {
    Self(received: later.received - earlier.received, sent: later.sent - earlier.sent)
  }

  /// Reads one interface's line of `/proc/net/dev`; `nil` when it isn't there.
  init?(interface: String, in text: String) {
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2, parts[0].drop(while: { $0 == " " }) == interface else { continue }
      let numbers = parts[1].split(separator: " ").compactMap { Int($0) }
      guard numbers.count >= 9 else { return nil }
      self.init(received: numbers[0], sent: numbers[8])
      return
    }
    return nil
  }
}

/// One emulated host.
public struct EmulatedHost: Sendable {
  enum Place: Sendable {
    /// The host's namespaces are those of its init; `interface` is the outer end of its cable.
    case namespaces(initProcess: Int32, interface: String)
    case loopback(LoopbackProcesses)
  }

  /// From 0.
  public let index: Int
  /// `h` and the index.
  public let name: String
  /// Its IPv4 address.
  public let address: String
  /// A directory of its own, for sockets, state and logs: a path as the host's processes see it.
  public let directory: String
  let place: Place

  /// Starts a process on this host. Its working directory is `/` in namespaces, so paths have to be absolute.
  ///
  /// - Parameter environment: all of it; `nil` for this process's, less what concerns the bench's isolation.
  /// - Throws: `MobulaError` (`inputOutput`, `unavailable`) when nothing can be started. An executable that doesn't
  ///   exist on the host ends the process with status 127.
  package func spawn(
    _ executable: String, _ arguments: [String], environment: [String: String]? = nil,
    output: ChildProcess.Stream = .inherit, errors: ChildProcess.Stream = .inherit
  ) throws(MobulaError) -> HostProcess {
    var environment = environment ?? currentEnvironment()
    environment[BenchIsolation.variable] = nil
    switch place {
    case .namespaces(let initProcess, _):
      environment["PATH"] = SystemTool.searchPath(environment)
      // nsenter forks to enter the PID namespace. Whoever kills it means the process inside: hence --pdeathsig.
      let child = try ChildProcess.spawn(
        SystemTool.nsenter.path(),
        NamespaceScripts.enter(initProcess, "-m", "-p", "-i", "-u", "-n")
          + [SystemTool.setpriv.path(), "--pdeathsig", "KILL", "--", executable] + arguments,
        environment: environment, output: output, errors: errors)
      return HostProcess(child, isEntering: true)
    case .loopback(let processes):
      environment["TMPDIR"] = directory
      let process = HostProcess(
        try ChildProcess.spawn(executable, arguments, environment: environment, output: output, errors: errors),
        isEntering: false)
      processes.add(process)
      return process
    }
  }

  /// What the host has received and sent, counted at the outer end of its cable (what its NIC dropped isn't in it);
  /// `nil` on loopback, where hosts have no interfaces.
  ///
  /// - Throws: `MobulaError` (`unavailable`) once the emulation was stopped.
  public func counters() throws(MobulaError) -> NetworkCounters? {
    guard case .namespaces(_, let interface) = place else { return nil }
    guard let data = try? Data(contentsOf: URL(filePath: "/proc/net/dev")),
      let outer = NetworkCounters(interface: interface, in: String(decoding: data, as: UTF8.self))
    else { throw MobulaError(.unavailable, "Host \(name) has no interface any more: its emulation was stopped.") }
    // What the outer end sends is what the host receives.
    return NetworkCounters(received: outer.sent, sent: outer.received)
  }
}
