import ArgumentParser
import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaSupervisor

struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure replication against S3 on emulated hosts, on this machine.",
    discussion: """
      Six hosts on one bridge, each with its own network, mounts, processes and shaped NIC (as root, or where users \
      may have namespaces; else processes on loopback), a real cluster, and for the cases with S3 a server (SeaweedFS; \
      without it they are left out). Times are compared with the line rate measured in the same run. What the cases \
      are: docs/bench-schema.md.

      Examples:
        mobula bench
        mobula bench --size 564MB --runs 3 --json results.json
        mobula bench --cases replication-5 s3-2 --nic 1gbit
        mobula bench --cases replication-1 --nic unshaped --size 564MB --runs 5
      """)

  @Option(help: "The model's size.") var size = "128MB"
  @Option(
    help:
      "The rate of every host's NIC, in both directions; \"unshaped\" compares with a plain loop of sendfile and recv.")
  var nic = "840mbit"
  @Option(parsing: .upToNextOption, help: "The cases to run. Default: all.") var cases: [String] = []
  @Option(help: "How often each case runs; the median is reported.") var runs = 1
  @Flag(help: "Let the hosts talk to each other through TLS, with certificates of the bench's own.") var tls = false
  @Option(help: "Write the figures to this file, as JSON.") var json: String?
  @Option(help: "How hosts are emulated: netns or loopback. Default: netns where it works.") var emulation: String?
  @Option(
    help:
      "An S3 server that runs already, as http://HOST:PORT, with credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Needs --emulation loopback: emulated hosts reach nothing outside."
  ) var s3Endpoint: String?

  private static let unshaped = "unshaped"

  func validate() throws {
    guard let size = ByteCount(size), 1_000_000...100_000_000_000 ~= size.bytes else {
      throw ValidationError("--size takes 1MB to 100GB, as in 128MB.")
    }
    guard nic == Self.unshaped || LinkRate(nic).map({ $0.bitsPerSecond >= 1_000_000 }) == true else {
      throw ValidationError("--nic takes a rate of at least 1mbit, as in 840mbit or 10gbit, or \"unshaped\".")
    }
    try asUsage { try BenchOptions.check(cases: cases) }
    if nic == Self.unshaped, cases.contains("fault-slow") {
      throw ValidationError("fault-slow takes nine tenths of a host's rate: give a --nic.")
    }
    guard 1...100 ~= runs else { throw ValidationError("--runs takes 1 to 100.") }
    if let emulation, EmulationKind(rawValue: emulation) == nil {
      throw ValidationError("--emulation takes netns or loopback.")
    }
    if s3Endpoint != nil, emulation != "loopback" {
      throw ValidationError(
        "--s3-endpoint needs --emulation loopback: emulated hosts reach nothing outside of the bench.")
    }
  }

  func run() async throws {
    var options = BenchOptions()
    options.size = ByteCount(size)!
    options.nic = nic == Self.unshaped ? nil : LinkRate(nic)!
    options.cases = cases
    options.runs = runs
    options.tls = tls
    options.s3Endpoint = s3Endpoint
    // Fails before anything is started.
    try checkOutput(json)
    let bench = try Bench(options) { Log.write(1, $0 + "\n") }
    let status = try await BenchIsolation.enter(
      arguments: Array(CommandLine.arguments.dropFirst()), kind: emulation.flatMap { EmulationKind(rawValue: $0) }
    ) { Log.write(2, $0 + "\n") }
    if let status { throw ExitCode(status) }
    let report = try await bench.run()
    if let json { try writeOutput(try report.json(), to: json) }
    print("\n\(report.summary())")
  }
}
