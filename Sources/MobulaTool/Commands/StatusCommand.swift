import ArgumentParser
import Mobula
import MobulaCore
import MobulaTerminal

struct JSONFlag: ParsableArguments {
  @Flag(help: "Print JSON instead of text.")
  var json = false
}

struct StatusCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Show the cluster's hosts, pods and jobs.",
    discussion: "Examples:\n  mobula status\n  mobula status --json")

  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    let cluster = try await Cluster.connectTool(directory.options)
    let status: ClusterStatus
    do { status = try await cluster.status() } catch {
      await cluster.close()
      throw error
    }
    await cluster.close()
    if json.json { return try printJSON(status) }
    print("cluster \(status.cluster.short), head at \(status.head)")
    var hosts = TextTable([
      ("host", .left), ("id", .left), ("objects", .right), ("stored", .right), ("capacity", .right), ("state", .left),
      ("labels", .left),
    ])
    for host in status.hosts.sorted(by: { $0.name < $1.name }) {
      hosts.add([
        host.name, host.host.short, "\(host.objects)", "\(host.bytes)", "\(host.capacity)",
        host.connected ? "connected" : "lost",
        host.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " "),
      ])
    }
    print(hosts.lines().joined(separator: "\n"))
    let names = Dictionary(status.hosts.map { ($0.host, $0.name) }, uniquingKeysWith: { a, _ in a })
    var pods = TextTable([("pod", .left), ("host", .left), ("leases", .right), ("leased", .left), ("has", .left)])
    for pod in status.pods.sorted(by: { $0.name < $1.name }) {
      pods.add([
        pod.name, names[pod.host] ?? pod.host.short, "\(pod.leases)", pod.leases == 0 ? "-" : "\(pod.leased)",
        "\(pod.resources)",
      ])
    }
    print(pods.lines().joined(separator: "\n"))
    print("\(status.objects) objects, \(status.jobs.count) jobs, \(status.waiting) lease requests waiting")
  }
}
