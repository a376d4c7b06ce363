import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import Testing

@testable import MobulaTool

/// `mobula broadcast`, with hosts of their own.
@Suite struct BroadcastTests {
  private struct Report: Decodable {
    struct Host: Decodable {
      var name: String
      var bytes: Int
      var isComplete: Bool
      var error: String?
    }
    var object: String
    var size: Int
    var hosts: [Host]
  }

  private struct Listing: Decodable {
    var hosts: [String]
    var names: [String]
  }

  private struct Status: Decodable {
    struct Host: Decodable {
      var host: String
      var name: String
      var labels: [String: String]
    }
    var hosts: [Host]
  }

  /// Three hosts: h0 and h1 in zone a, h2 in zone b.
  private func withHosts(_ body: (TestCluster) async throws -> Void) async throws {
    let cluster = try await TestCluster.start(["--label", "zone=a", "--label", "gpu=none"])
    do {
      for (host, zone) in [(1, "a"), (2, "b")] {
        let joined = try await cluster.mobula(
          "start", "--address", cluster.head, "--token-file", cluster.directory(0) + "/token", "--name", "h\(host)",
          "--capacity", "256MB", "--label", "zone=\(zone)", host: host)
        try #require(joined.status.isSuccess, "\(joined.errors)")
      }
      try await body(cluster)
    } catch {
      await cluster.stop()
      throw error
    }
    await cluster.stop()
  }

  private func file(_ size: Int, in cluster: TestCluster) throws -> String {
    let path = cluster.folder.path + "/model.bin"
    var bytes = Data(count: size)
    for place in stride(from: 0, to: size, by: 1021) { bytes[place] = UInt8(truncatingIfNeeded: place) }
    try bytes.write(to: URL(filePath: path))
    return path
  }

  @Test func aFileReachesTheHostsThatAreMeantAndStays() async throws {
    try await withHosts { cluster in
      let path = try file(5_000_001, in: cluster)
      let status = try await cluster.mobula("status", "--json")
      let hosts = try JSONDecoder().decode(Status.self, from: Data(status.output.utf8)).hosts
      #expect(hosts.first { $0.name == "h0" }?.labels == ["zone": "a", "gpu": "none"])
      let names = Dictionary(uniqueKeysWithValues: hosts.map { ($0.host, $0.name) })
      #expect(try await cluster.mobula("status").output.contains("zone=b"))

      let some = try await cluster.mobula("broadcast", path, "--to", "zone=a", "--json")
      #expect(some.status.isSuccess, "\(some)")
      let report = try JSONDecoder().decode(Report.self, from: Data(some.output.utf8))
      #expect(Set(report.hosts.map(\.name)) == ["h0", "h1"])
      #expect(report.hosts.allSatisfy { $0.isComplete && $0.bytes == report.size && $0.error == nil })
      func holders() async throws -> Set<String> {
        let listed = try await cluster.mobula("ls", "--json")
        let objects = try JSONDecoder().decode([Listing].self, from: Data(listed.output.utf8))
        #expect(objects.first?.names == ["model.bin"])
        return Set(objects.first?.hosts.map { names[$0] ?? $0 } ?? [])
      }
      #expect(try await holders() == ["h0", "h1"])

      // By name, to all; whoever has it has nothing to do.
      let all = try await cluster.mobula("broadcast", "model.bin", host: 1)
      #expect(all.status.isSuccess && all.output.contains("3 of 3 hosts, 100%"), "\(all)")
      #expect(try await holders() == ["h0", "h1", "h2"])
      let copy = cluster.folder.path + "/copy"
      #expect(try await cluster.mobula("get", "model.bin", "-o", copy, host: 2).status.isSuccess)
      #expect(try Data(contentsOf: URL(filePath: copy)) == Data(contentsOf: URL(filePath: path)))

      for (arguments, word) in [
        (["broadcast", "nothing"], "nothing"), (["broadcast", path, "--to", "zone=c"], "zone=c"),
        (["broadcast", path, "--to", "zone"], "KEY=VALUE"),
      ] {
        let failed = try await run(Products.mobula, arguments, environment: cluster.environment(0))
        #expect(!failed.status.isSuccess && failed.errors.contains(word), "\(failed)")
      }
    }
  }

  @Test func programsPushAndPrefetch() async throws {
    let cluster = try await TestCluster.start()
    do {
      let joined = try await cluster.mobula(
        "start", "--address", cluster.head, "--token-file", cluster.directory(0) + "/token", "--name", "h1",
        "--capacity", "256MB", "--label", "zone=b", host: 1)
      try #require(joined.status.isSuccess, "\(joined.errors)")
      let environment = cluster.environment(0).merging(["SCENARIO": "broadcasts"]) { $1 }
      let finished = try await run(Products.testApp, [], environment: environment)
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
    } catch {
      await cluster.stop()
      throw error
    }
    await cluster.stop()
  }

  @Test func aHostThatHasNoRoomIsNamed() async throws {
    try await withHosts { cluster in
      let small = try await cluster.mobula(
        "start", "--address", cluster.head, "--token-file", cluster.directory(0) + "/token", "--name", "tiny",
        "--capacity", "16MB", "--spill", "none", host: 3)
      try #require(small.status.isSuccess, "\(small.errors)")
      let sent = try await cluster.mobula("broadcast", try file(40_000_000, in: cluster), "--json")
      #expect(sent.status == .status(1) && sent.errors.contains("Host tiny did not get it"), "\(sent)")
      let report = try JSONDecoder().decode(Report.self, from: Data(sent.output.utf8))
      #expect(Set(report.hosts.filter(\.isComplete).map(\.name)) == ["h0", "h1", "h2"])
    }
  }

  /// The source is limited, so that the host dies while it receives.
  @Test func aHostThatDiesMidwayIsNamedAndHarmsNobody() async throws {
    let cluster = try await TestCluster.start(others: 3, ["--send-limit", "10MB/s"])
    do {
      let path = try file(40_000_000, in: cluster)
      async let sending = cluster.mobula("broadcast", path, "--json", within: .seconds(120))
      try await becomes(true) { try await cluster.mobula("ls").output.contains("(h2)") }
      for process in RunningProcess.all() where process.variable("MOBULA_DIRECTORY") == cluster.directory(2) {
        kill(process.pid, SIGKILL)
      }
      let sent = try await sending
      #expect(sent.status == .status(1) && sent.errors.contains("Host h2 did not get it"), "\(sent)")
      let report = try JSONDecoder().decode(Report.self, from: Data(sent.output.utf8))
      #expect(Set(report.hosts.filter(\.isComplete).map(\.name)) == ["h0", "h1", "h3"])
      for host in [1, 3] {
        let copy = cluster.folder.path + "/copy\(host)"
        #expect(try await cluster.mobula("get", "model.bin", "-o", copy, host: host).status.isSuccess)
        #expect(try Data(contentsOf: URL(filePath: copy)) == Data(contentsOf: URL(filePath: path)))
      }
    } catch {
      await cluster.stop()
      throw error
    }
    await cluster.stop()
  }

  /// A limited host keeps a broadcast going for long; interrupted, it ends, and so does what the hosts receive.
  @Test func interruptedItLeavesNothingBehind() async throws {
    let cluster = try await TestCluster.start(others: 1, ["--send-limit", "2MB/s"])
    do {
      let path = try file(60_000_000, in: cluster)
      let files = [cluster.folder.path + "/out", cluster.folder.path + "/err"]
      let descriptors = try files.map { path in
        SharedDescriptor(
          OwnedDescriptor(owning: try systemCall("open") { open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600) }))
      }
      let child = try ChildProcess.spawn(
        Products.mobula, ["broadcast", path],
        environment: currentEnvironment().merging(cluster.environment(0)) { $1 },
        output: .descriptor(descriptors[0].rawValue), errors: .descriptor(descriptors[1].rawValue))
      withExtendedLifetime(descriptors) {}
      func receives() async throws -> Bool { try await cluster.mobula("ls").output.contains("(h1)") }
      try await becomes(true, receives)
      child.signal(SIGINT)
      #expect(await child.waitForExit() == .status(130))
      try await becomes(false, receives)
    } catch {
      await cluster.stop()
      throw error
    }
    await cluster.stop()
  }

  /// What happens soon after, and not at once.
  private func becomes(_ wanted: Bool, _ condition: () async throws -> Bool) async throws {
    for _ in 0..<400 {
      if try await condition() == wanted { return }
      try await Task.sleep(for: .milliseconds(50))
    }
    Issue.record("it has not become \(wanted)")
  }

  @Test func thePictureShowsWhoLacksMostFirst() {
    var states = (0..<5).map { BroadcastState(host: .random(), name: Name("h\($0)")) }
    states[0].isComplete = true
    states[1].verified = ByteCount(500)
    states[2].failure = MobulaError(.full, "No room.")
    var picture = BroadcastPicture(title: "model", size: 1000)
    picture.states = states
    #expect(picture.summary == "model: 1 kB, 1 of 5 hosts, 1 failed, 30%")
    let lines = picture.lines(width: 80, rows: 10)
    #expect(lines.count == 6)
    #expect(lines[1] == "  h2  failed: No room.")
    #expect(lines[2] == "  h3  [" + String(repeating: "-", count: 30) + "]  0%")
    #expect(lines[4].hasSuffix("%") && lines[4].contains("h1") && lines[4].contains("50%"))
    #expect(lines[5].contains("h0") && lines[5].contains("100%"))
    let cut = picture.lines(width: 20, rows: 4)
    #expect(cut.count == 4 && cut.last == "  and 3 more, 1 of t")
  }
}
