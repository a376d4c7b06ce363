import FoundationEssentials
internal import Glibc
public import MobulaCore
internal import Synchronization

/// Hosts as mere addresses of the loopback interface and directories of their own, where namespaces are not to be had.
///
/// Nothing is shaped or counted, and hosts share the machine's `/tmp` and `/dev/shm`.
public final class LoopbackEmulation: HostEmulation {
  public let hosts: [EmulatedHost]
  private let directory: String
  private let ownsDirectory: Bool
  private let processes = LoopbackProcesses()

  public var kind: EmulationKind { .loopback }
  public var serverAddress: String { "127.0.0.1" }

  /// - Parameter directory: where the hosts' directories go; `nil` for a temporary one that `stop` removes.
  /// - Throws: `MobulaError` (`invalidArgument`, `inputOutput`).
  public init(hosts count: Int, directory: String? = nil) throws(MobulaError) {
    guard 1...200 ~= count else {
      throw MobulaError(.invalidArgument, "\(count) hosts can't be emulated: ask for 1 to 200.")
    }
    ownsDirectory = directory == nil
    if let directory { self.directory = directory } else { self.directory = try makeTemporaryDirectory("bench") }
    var hosts: [EmulatedHost] = []
    for index in 0..<count {
      let own = "\(self.directory)/h\(index)"
      guard mkdir(own, 0o700) == 0 || errno == EEXIST else { throw MobulaError.system("\(own) can't be made") }
      hosts.append(
        EmulatedHost(
          index: index, name: "h\(index)", address: "127.0.0.\(10 + index)", directory: own,
          place: .loopback(processes)))
    }
    self.hosts = hosts
  }

  public func cut(_ host: EmulatedHost) async throws {
    throw MobulaError(
      .unavailable, "Host \(host.name) shares the loopback interface and can't be cut off: run where namespaces work.")
  }

  public func limit(_ host: EmulatedHost, to rate: LinkRate) async throws {
    throw MobulaError(
      .unavailable, "Nothing shapes hosts on loopback: run as root, or where users may have namespaces.")
  }

  public func join(_ host: EmulatedHost) async throws {}

  public func stop() async {
    await processes.kill()
    for host in hosts { removeTree(host.directory) }
    if ownsDirectory { removeTree(directory) }
  }
}

/// The processes of loopback hosts, which no namespace ends.
final class LoopbackProcesses: Sendable {
  private let running = Mutex<[HostProcess]>([])

  func add(_ process: HostProcess) {
    running.withLock { running in
      running.removeAll { $0.exit != nil }
      running.append(process)
    }
  }

  func kill() async {
    let processes = running.withLock { running in
      defer { running = [] }
      return running
    }
    for process in processes { process.signal(SIGKILL) }
    for process in processes { _ = await process.waitForExit() }
  }
}

/// Removes a directory and what is in it, trying again while dying processes still write there.
func removeTree(_ path: String) {
  for _ in 0..<10 {
    try? FileManager.default.removeItem(atPath: path)
    if !FileManager.default.fileExists(atPath: path) { return }
    usleep(20_000)
  }
}
