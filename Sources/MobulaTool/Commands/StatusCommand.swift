import ArgumentParser
import Mobula
import MobulaCore
import MobulaSupervisor
import MobulaTerminal
import MobulaWire

struct JSONFlag: ParsableArguments { @Flag(help: "Print JSON instead of text.") var json = false }

struct StatusCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Show the cluster's hosts, pods and jobs.",
    discussion: """
      While the head is away, or does not answer within three seconds, what this machine's host knows is shown, and why it \
      is without. With --address, the head alone is asked, from anywhere.

      Examples:
        mobula status
        mobula status --json
        mobula status --address 10.0.0.1:7600 --token-file viewer-token
      """)

  @OptionGroup var json: JSONFlag
  @OptionGroup var remote: RemoteOptions
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    if let head = try remote.head {
      let status = try await head.withConnection { try await RemoteHead.status($0) }
      let report = StatusReport(cluster: status, host: nil)
      return json.json ? try printJSON(report) : print(report.lines().joined(separator: "\n"))
    }
    let processes = directory.runDirectory.processes()
    let host: HostState?
    do {
      host = try await Cluster.hostState(directory.options)
    } catch {
      // Its supervisor may say why.
      for trouble in processes.compactMap(\.trouble) { Log.write(2, "\(trouble)\n") }
      if directory.runDirectory.supervisor() != nil {
        throw MobulaError(
          .unavailable,
          "The host's process does not answer just now, and is started again: try again in a moment. Its log is \(directory.runDirectory.path)/logs/mobula.log."
        )
      }
      for other in RunningSupervisor.all() where other.directory != directory.runDirectory.path {
        Log.write(
          2,
          "A host runs in \(other.directory.printable): `mobula status --directory \(other.directory.printable)` shows it.\n"
        )
      }
      throw error
    }
    var report = StatusReport(host: host, processes: processes)
    do {
      // Only where the host has an answer to wait for.
      if host.map({ $0.head.state == .connected }) ?? true {
        report.cluster = try await clusterStatus(within: host == nil ? .seconds(30) : Self.patience)
      }
    } catch let error as MobulaError {
      guard host != nil, [.unavailable, .deadlineExceeded, .connectionClosed].contains(error.code) else { throw error }
      report.problem = error.message
    }
    if json.json { return try printJSON(report) }
    print(report.lines().joined(separator: "\n"))
  }

  /// For how long a head that hangs keeps from the user what the host knows.
  static let patience = Duration.seconds(3)

  private func clusterStatus(within patience: Duration) async throws -> ClusterStatus {
    try await firstAnswer(
      within: patience, else: "it did not answer within \(patience): it hangs, or has much to do; see its log"
    ) { [options = directory.options] in
      try await withCluster(options) { try await $0.status() }
    }
  }
}

/// What `body` returns, unless it takes longer: then it goes on by itself, and ends with the process.
///
/// - Throws: `MobulaError` (`deadlineExceeded`) with `sentence`; what `body` throws.
func firstAnswer<Answer: Sendable>(
  within patience: Duration, else sentence: String, _ body: @escaping @Sendable () async throws -> Answer
) async throws -> Answer {
  let (answers, continuation) = AsyncThrowingStream.makeStream(of: Answer.self)
  let asking = Task {
    do {
      continuation.yield(try await body())
      continuation.finish()
    } catch { continuation.finish(throwing: error) }
  }
  let timer = Task {
    try await Task.sleep(for: patience)
    asking.cancel()
    continuation.finish(throwing: MobulaError(.deadlineExceeded, sentence))
  }
  defer { timer.cancel() }
  for try await answer in answers { return answer }
  throw CancellationError()
}

/// The cluster as the head knows it, if it is there, and this machine's host as it knows itself.
struct StatusReport: Encodable {
  var cluster: ClusterStatus?
  /// `nil` for a host of a version that doesn't say.
  var host: HostState?
  var processes: [ProcessReport]
  /// Why the head said nothing although the host is connected to it.
  var problem: String?

  init(cluster: ClusterStatus? = nil, host: HostState?, processes: [ProcessReport] = [], problem: String? = nil) {
    self.cluster = cluster
    self.host = host
    self.processes = processes
    self.problem = problem
  }

  private enum CodingKeys: String, CodingKey { case here }

  private struct Here: Encodable {
    var host: HostState?
    var problem: String?
    var processes: [ProcessReport]
  }

  /// The cluster's fields, empty while the head is away, and beside them `here`.
  func encode(to encoder: any Encoder) throws {
    if let cluster = cluster ?? absent { try ClusterReport(cluster).encode(to: encoder) }
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(
      Here(host: host, problem: problem ?? host?.head.problem, processes: processes), forKey: .here)
  }

  private var absent: ClusterStatus? {
    host.map { host in
      ClusterStatus(
        cluster: host.cluster ?? ClusterID(high: 0, low: 0), head: host.head.endpoint, hosts: [], pods: [], jobs: [],
        objects: 0, waiting: 0)
    }
  }

  func lines() -> [String] {
    (cluster.map(Self.lines) ?? host.map(hostLines) ?? []) + processes.compactMap(\.trouble)
  }

  /// What the host says while the head doesn't.
  private func hostLines(_ host: HostState) -> [String] {
    let why =
      switch host.head.state {
      case .connected: problem ?? "it does not answer"
      case .unproven:
        "something answers there that can't prove that it has the cluster's token (\(host.head.problem ?? ""))"
      case .refused: "it refuses this host: \(host.head.problem ?? "")"
      default: host.head.problem ?? "nobody was reached yet"
      }
    var lines = [
      host.head.state == .connected
        ? "head at \(host.head.endpoint): does not answer"
        : "head at \(host.head.endpoint): away, for \(Self.duration(host.head.seconds))", "  \(why)",
    ]
    lines.append("host \(host.name) (\(host.host.short)) runs here, with \(host.objects) objects")
    if host.queued > 0 { lines.append("  \(host.queued) changes wait to be told to the head") }
    return lines
  }

  private static func duration(_ seconds: Double) -> String {
    let whole = Int(min(max(seconds, 0), 1e9))
    return whole < 120 ? "\(whole) s" : whole < 7200 ? "\(whole / 60) min" : "\(whole / 3600) h"
  }

  private static func lines(_ status: ClusterStatus) -> [String] {
    var lines = ["cluster \(status.cluster.short), head at \(status.head)"]
    var hosts = TextTable([
      ("host", .left), ("id", .left), ("objects", .right), ("stored", .right), ("capacity", .right), ("state", .left),
      ("labels", .left),
    ])
    for host in status.hosts.sorted(by: { $0.name < $1.name }) {
      hosts.add([
        "\(host.name)", host.host.short, "\(host.objects)", "\(host.bytes)", "\(host.capacity)",
        !host.connected ? "lost" : host.draining == true ? "draining" : "connected",
        host.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " "),
      ])
    }
    for host in (status.absent ?? []).sorted(by: { $0.name < $1.name }) {
      hosts.add(["\(host.name)", host.host.short, "-", "-", "-", "absent for \(host.seconds) s", ""])
    }
    lines += hosts.lines()
    let names = Dictionary(status.hosts.map { ($0.host, $0.name) }, uniquingKeysWith: { a, _ in a })
    var pods = TextTable([("pod", .left), ("host", .left), ("leases", .right), ("leased", .left), ("has", .left)])
    for pod in status.pods.sorted(by: { $0.name < $1.name }) {
      pods.add([
        "\(pod.name)", names[pod.host].map { "\($0)" } ?? pod.host.short, "\(pod.leases)",
        pod.leases == 0 ? "-" : "\(pod.leased)",
        "\(pod.resources)",
      ])
    }
    lines += pods.lines()
    lines.append("\(status.objects) objects, \(status.jobs.count) jobs, \(status.waiting) lease requests waiting")
    for demand in status.demands ?? [] {
      let requests = demand.requests == 1 ? "1 request waits" : "\(demand.requests) requests wait"
      lines.append("\(requests) for \(demand.resources), for \(demand.seconds) s: \(demand.reason.printable)")
    }
    return lines
  }
}

/// A cluster's state as `--json` has it: amounts in whole CPUs, bytes, and units of other resources.
struct ClusterReport: Encodable {
  struct Pod: Encodable {
    var pod: PodID
    var name: Name
    var host: HostID
    var resources: [Name: Amount]
    var leased: [Name: Amount]
    var leases: Int
  }

  /// A whole number, or one with up to four digits after the point.
  struct Amount: Encodable {
    var amount: ResourceAmount

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      if amount.tenThousandths % 10_000 == 0 {
        try container.encode(amount.tenThousandths / 10_000)
      } else {
        try container.encode(Double(amount.tenThousandths) / 10_000)
      }
    }
  }

  var cluster: ClusterID
  var head: Endpoint
  var hosts: [ClusterStatus.Host]
  var pods: [Pod]
  struct Demand: Encodable {
    var resources: [Name: Amount]
    var requests: Int
    var seconds: Int
    var reason: String
  }

  var jobs: [JobID]
  var objects: Int
  var waiting: Int
  var demands: [Demand]
  var absent: [ClusterStatus.AbsentHost]

  init(_ status: ClusterStatus) {
    func amounts(_ resources: Resources) -> [Name: Amount] { resources.amounts.mapValues { Amount(amount: $0) } }
    cluster = status.cluster
    head = status.head
    hosts = status.hosts
    pods = status.pods.map {
      Pod(
        pod: $0.pod, name: $0.name, host: $0.host, resources: amounts($0.resources), leased: amounts($0.leased),
        leases: $0.leases)
    }
    jobs = status.jobs
    objects = status.objects
    waiting = status.waiting
    demands = (status.demands ?? []).map {
      Demand(resources: amounts($0.resources), requests: $0.requests, seconds: $0.seconds, reason: $0.reason)
    }
    absent = status.absent ?? []
  }
}
