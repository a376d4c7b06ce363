import FoundationEssentials
import Mobula
import MobulaCore
import MobulaWire
import Synchronization

/// The cluster under test: `mobula start` on every emulated host, and the driver on the first.
final class BenchCluster: Sendable {
  private let emulation: any HostEmulation
  private let token: ClusterToken
  private let secret: String
  private let environment: [String: String]
  private let size: ByteCount
  private let processes = Mutex<[HostProcess]>([])
  /// The host that a fault befell: its end is no surprise.
  private let lost = Mutex<Int?>(nil)

  private let headPort: Int
  /// The hosts' certificates, and this process's, which asks the head.
  private let certificates: CertificateFolder?
  private let tls: ClusterTLS?

  /// Whether a host is gone, and its interface with it.
  var hasLost: Bool { lost.withLock { $0 != nil } }

  /// - Parameters:
  ///   - secret: the token's text, for the hosts.
  ///   - environment: S3's address and credentials, for the hosts and their workers.
  ///   - certificates: for TLS among the hosts, which have to see this folder; none without.
  ///   - size: of the model; the stores have room for a few of them.
  /// - Throws: `MobulaError` (`unavailable`) when no port is free.
  init(
    emulation: any HostEmulation, token: ClusterToken, secret: String, environment: [String: String], size: ByteCount,
    certificates: CertificateFolder?
  ) throws(MobulaError) {
    self.emulation = emulation
    self.token = token
    self.secret = secret
    self.environment = environment
    self.size = size
    // Other benches on this machine have the same loopback addresses.
    self.certificates = certificates
    tls = if let certificates { try ClusterTLS(certificates) } else { nil }
    headPort = emulation.kind == .netns ? 7600 : try FreePorts.draw(1)[0]
  }

  private var head: EmulatedHost { emulation.hosts[0] }

  private func variables(of host: EmulatedHost) -> [String: String] {
    var variables = currentEnvironment().merging(environment) { $1 }
    variables["MOBULA_TOKEN"] = secret
    variables["MOBULA_TLS"] = nil
    variables["MOBULA_DIRECTORY"] = host.directory
    variables["MOBULA_LOG"] = variables["MOBULA_LOG"] ?? "error"
    return variables
  }

  /// Starts every host, the head's first.
  ///
  /// - Throws: `MobulaError` when one does not come up within 30 seconds.
  func start(say: (String) -> Void) async throws {
    say("starting a cluster of \(emulation.hosts.count) hosts")
    for host in emulation.hosts {
      var arguments = ["start", "--foreground", "--name", host.name, "--listen", host.address]
      arguments += ["--capacity", "\(max(64_000_000, size.bytes * 4))", "--memory", "1GB", "--cpus", "2"]
      arguments +=
        host.index == head.index
        ? ["--head", "--port", "\(headPort)"] : ["--address", "\(head.address):\(headPort)"]
      if let certificates { arguments += ["--tls", certificates.path] }
      for pod in [LoaderPlace.PodLetter.a, .b] {
        let place = LoaderPlace(host: host.index, pod: pod)
        arguments += ["--pod", "\(place.podName):\(place.resource)=8"]
      }
      let process = try host.spawn(try Executable.path(), arguments, environment: variables(of: host))
      processes.withLock { $0.append(process) }
    }
    try await waitUntilReady()
  }

  /// Asks the head, as anybody would, until it knows all hosts and pods.
  private func waitUntilReady() async throws {
    let deadline = ContinuousClock.now + .seconds(30 + emulation.hosts.count)
    let endpoint = Endpoint.tcp(host: head.address, port: headPort)
    var last = "nobody answered"
    while ContinuousClock.now < deadline {
      for (host, process) in zip(emulation.hosts, processes.withLock { $0 }) {
        if let exit = process.exit {
          throw MobulaError(
            .unavailable, "Host \(host.name) ended with \(exit) instead of starting: its reason is above.")
        }
      }
      do {
        let connection = try await RPCConnection.connect(
          to: endpoint, token: token, hello: Hello(role: .tool, name: "bench"), tls: tls)
        let status = try? await connection.call(HeadAPI.status, StatusRequest())
        await connection.close()
        if let status {
          if status.hosts.count == emulation.hosts.count, status.pods.count == 2 * emulation.hosts.count { return }
          last = "\(status.hosts.count) hosts and \(status.pods.count) pods registered"
        }
      } catch { last = "\(error)" }
      try await Task.sleep(for: .milliseconds(50))
    }
    throw MobulaError(.deadlineExceeded, "The cluster was not ready in time: \(last).")
  }

  /// Makes a fault happen.
  ///
  /// - Throws: `MobulaError` (`unavailable`) where it can't be emulated.
  func happen(_ fault: BenchFault, nic: LinkRate?) async throws {
    let host = emulation.hosts[fault.host]
    switch fault.kind {
    case .killed:
      lost.withLock { $0 = fault.host }
      guard emulation.kind == .netns else {
        throw MobulaError(
          .unavailable, "Hosts on loopback can't be killed whole: run as root, or where users may have namespaces.")
      }
      // In its PID namespace that is every process but its init.
      let killing = try host.spawn(SystemTool.sh.path(), ["-c", "kill -9 -1"])
      _ = await killing.waitForExit()
    case .slow:
      guard let nic else {
        throw MobulaError(.invalidArgument, "An unshaped host can't have a tenth of its rate: give a --nic.")
      }
      try await emulation.limit(host, to: LinkRate(bitsPerSecond: nic.bitsPerSecond / 10))
    }
  }

  /// Runs the driver on the head's host until it ends, or something else does that has to last as long.
  ///
  /// - Throws: `MobulaError` (`workFailed`) that names what was killed: the driver would only meet the effects.
  func runDriver(_ orders: DriverOrders, beside seaweed: SeaweedServer?) async throws -> ChildProcess.Exit {
    var variables = variables(of: head)
    variables[DriverOrders.variable] = String(decoding: try JSONEncoder().encode(orders), as: UTF8.self)
    let driver = try head.spawn(try Executable.path(), [], environment: variables)
    let (ends, first) = AsyncStream.makeStream(of: (String?, ChildProcess.Exit).self)
    Task { first.yield((nil, await driver.waitForExit())) }
    for (host, process) in zip(emulation.hosts, processes.withLock { $0 }) {
      Task {
        let exit = await process.waitForExit()
        if self.lost.withLock({ $0 }) != host.index { first.yield(("Host \(host.name)", exit)) }
      }
    }
    if let seaweed { Task { first.yield(("SeaweedFS", await seaweed.waitForExit())) } }
    for await (name, exit) in ends {
      if name == nil, case .status = exit { return exit }
      throw MobulaError(
        .workFailed, "\(name ?? "The bench's driver") ended with \(exit) during the measurement: run the bench again.")
    }
    throw CancellationError()
  }
}
