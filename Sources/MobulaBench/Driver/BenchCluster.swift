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

  private let headPort: Int

  /// - Parameters:
  ///   - secret: the token's text, for the hosts.
  ///   - environment: S3's address and credentials, for the hosts and their workers.
  ///   - size: of the model; the stores have room for a few of them.
  /// - Throws: `MobulaError` (`unavailable`) when no port is free.
  init(
    emulation: any HostEmulation, token: ClusterToken, secret: String, environment: [String: String], size: ByteCount
  ) throws(MobulaError) {
    self.emulation = emulation
    self.token = token
    self.secret = secret
    self.environment = environment
    self.size = size
    // Other benches on this machine have the same loopback addresses.
    headPort = emulation.kind == .netns ? 7600 : try FreePorts.draw(1)[0]
  }

  private var head: EmulatedHost { emulation.hosts[0] }

  private func variables(of host: EmulatedHost) -> [String: String] {
    var variables = currentEnvironment().merging(environment) { $1 }
    variables["MOBULA_TOKEN"] = secret
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
    let deadline = ContinuousClock.now + .seconds(30)
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
          to: endpoint, token: token, hello: Hello(role: .tool, name: "bench"))
        let status = try? await connection.call(HeadAPI.status, Empty())
        await connection.close()
        if let status {
          if status.hosts.count == emulation.hosts.count, status.pods.count == 2 * emulation.hosts.count { return }
          last = "\(status.hosts.count) hosts and \(status.pods.count) pods registered"
        }
      } catch { last = "\(error)" }
      try await Task.sleep(for: .milliseconds(50))
    }
    throw MobulaError(.deadlineExceeded, "The cluster was not ready within 30 seconds: \(last).")
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
      Task { first.yield(("Host \(host.name)", await process.waitForExit())) }
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
