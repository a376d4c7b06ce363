import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaTool

/// `mobula host drain`, with real processes.
@Suite struct DrainTests {
  private func json(_ finished: Finished) throws -> JSONValue {
    try JSONDecoder().decode(JSONValue.self, from: Data(finished.output.utf8))
  }

  @Test func whatOnlyThatHostHasIsElsewhereBeforeItGoes() async throws {
    try await withCluster(others: 2) { cluster in
      let file = cluster.folder.path + "/x"
      for (number, size) in [10, 300_000, 5_000_000].enumerated() {
        try Data((0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }).write(to: URL(filePath: file))
        let put = try await cluster.mobula("put", file, "--name", "x\(number)", host: 1)
        try #require(put.status.isSuccess, "\(put)")
      }
      let last = try Data(contentsOf: URL(filePath: file))
      let drained = try await cluster.mobula("host", "drain", "h1", "--json", "--timeout", "60")
      #expect(drained.status.isSuccess, "\(drained)")
      let report = try json(drained)
      #expect(report["mayGo"] == .bool(true) && report["objects"] == .number(0) && report["name"] == .string("h1"))
      var shown = try await cluster.mobula("status")
      #expect(shown.output.contains("draining"), "\(shown)")

      // A head that is started again knows it, and so does a broadcast.
      let head = try #require(
        RunningProcess.all().first {
          $0.arguments.dropFirst().first == "head" && $0.arguments.last == cluster.directory(0)
        })
      kill(head.pid, SIGKILL)
      let pushed = try await cluster.mobula("broadcast", "x0", "--json")
      #expect(pushed.status.isSuccess, "\(pushed)")
      for _ in 0..<200 {
        shown = try await cluster.mobula("status")
        if shown.output.contains("draining") { break }
        try await Task.sleep(for: .milliseconds(50))
      }
      #expect(shown.output.contains("draining"), "\(shown)")

      let stopped = try await cluster.mobula("stop", host: 1)
      #expect(stopped.status.isSuccess, "\(stopped)")
      for host in [0, 2] {
        let got = try await cluster.mobula("get", "x2", "-o", file + "got", "--timeout", "20", host: host)
        #expect(got.status.isSuccess, "\(got)")
        #expect(try Data(contentsOf: URL(filePath: file + "got")) == last)
      }
    }
  }

  @Test func whatHasNoRoomElsewhereIsSaid() async throws {
    try await withCluster(
      others: 1, ["--capacity", "64MB", "--spill", "none"], joining: ["--spill", "none"]
    ) { cluster in
      let file = cluster.folder.path + "/x"
      try Data(count: 80_000_000).write(to: URL(filePath: file))
      let put = try await cluster.mobula("put", file, "--name", "big", host: 1)
      try #require(put.status.isSuccess, "\(put)")
      let drained = try await cluster.mobula("host", "drain", "h1")
      #expect(drained.status == .status(1), "\(drained)")
      #expect(
        drained.errors.contains("only it has 1 object (") && drained.errors.contains("a store for object big"),
        "\(drained)")
      let cancelled = try await cluster.mobula("host", "drain", "h1", "--cancel")
      #expect(cancelled.status.isSuccess && cancelled.output.contains("takes work again"), "\(cancelled)")
      let shown = try await cluster.mobula("status", "--json")
      #expect(shown.status.isSuccess && !shown.output.contains("draining"), "\(shown)")
      let unknown = try await cluster.mobula("host", "drain", "h7")
      #expect(unknown.status == .status(1) && unknown.errors.contains("h7"), "\(unknown)")
      // What is said when somebody interrupts it is said then only.
      #expect(!unknown.errors.contains("goes on") && !drained.errors.contains("goes on"), "\(unknown) \(drained)")
      let wrong = try await cluster.mobula("host", "drain", "h1", "--timeout", "nan")
      #expect(wrong.status == .status(64), "\(wrong)")
    }
  }

  @Test func copiesGoWhereThereIsRoom() {
    func host(_ number: UInt64, _ capacity: Int, _ bytes: Int, connected: Bool = true, draining: Bool? = nil)
      -> ClusterStatus.Host
    {
      ClusterStatus.Host(
        host: HostID(high: 0, low: number), name: "h\(number)", bulk: .tcp(host: "h", port: 1),
        capacity: ByteCount(capacity), objects: 0, bytes: ByteCount(bytes), connected: connected, draining: draining)
    }
    let status = ClusterStatus(
      cluster: ClusterID(high: 0, low: 0), head: .tcp(host: "h", port: 1),
      hosts: [
        host(1, 100, 0, draining: true), host(2, 100, 40), host(3, 100, 50), host(4, 100, 0, connected: false),
      ], pods: [], jobs: [], objects: 0, waiting: 0)
    var targets = DrainTargets(status)
    #expect(targets.take(101) == nil)
    #expect(targets.take(20)?.name == "h2")
    #expect(targets.take(50)?.name == "h3")
    #expect(targets.take(40)?.name == "h2")
    // What is on disk counts, too: who has no room by the books may have it.
    #expect(targets.take(90)?.name == "h2")

    func listing(_ number: UInt64, _ hosts: [UInt64]) -> ObjectListing {
      ObjectListing(
        object: ObjectID(high: 0, low: number), names: [], size: ByteCount(7), digest: nil,
        hosts: hosts.map { HostID(high: 0, low: $0) }, receiving: [], holders: 0)
    }
    let remains = HostRemains(
      of: HostID(high: 0, low: 1), status, [listing(1, [1]), listing(2, [1, 2]), listing(3, [2]), listing(4, [])])
    #expect(remains.objects.map(\.object.low) == [1] && remains.bytes == 7 && !remains.isEmpty)
    // A copy on a host that has just gone counts for nothing, and who is away may have what nobody knows of.
    let onLost = HostRemains(of: HostID(high: 0, low: 1), status, [listing(5, [1, 4])])
    #expect(onLost.objects.map(\.object.low) == [5])
    #expect(HostRemains(of: HostID(high: 0, low: 1), status, []).isEmpty)
    #expect(!HostRemains(of: HostID(high: 0, low: 4), status, []).isEmpty)
    let away = HostRemains(of: HostID(high: 0, low: 9), status, [])
    #expect(away.isAbsent && !away.isEmpty)
    #expect(!HostRemains(of: HostID(high: 0, low: 2), status, []).isDraining)
    #expect(targets.without([HostID(high: 0, low: 2)]).canHave(100))
    #expect(!targets.without([HostID(high: 0, low: 2), HostID(high: 0, low: 3)]).canHave(1))
  }
}
