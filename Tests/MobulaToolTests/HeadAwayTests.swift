import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import MobulaTestKit
import Testing

/// What hosts and their processes do without a head, or with something else in its place.
@Suite(.serialized) struct HeadAwayTests {
  /// The process of a host's directory that runs this command.
  private func process(_ command: String, of host: Int, in cluster: TestCluster) -> RunningProcess? {
    RunningProcess.all().first {
      $0.variable("MOBULA_DIRECTORY") == cluster.directory(host) && $0.arguments.dropFirst().first == command
        && $0.program == "mobula"
    }
  }

  private func status(_ host: Int, in cluster: TestCluster) async throws -> JSONValue {
    let finished = try await cluster.mobula("status", "--json", host: host)
    try #require(finished.status.isSuccess, "\(finished)")
    return try JSONDecoder().decode(JSONValue.self, from: Data(finished.output.utf8))
  }

  private func headState(_ status: JSONValue) -> JSONValue? { status["here"]?["host"]?["head"]?["state"] }

  private func eventually(_ condition: () async throws -> Bool) async throws {
    let end = ContinuousClock.now + .seconds(60)
    while try await !condition() {
      try #require(ContinuousClock.now < end, "it did not come about")
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  private func file(_ name: String, _ count: Int, in cluster: TestCluster) throws -> (path: String, data: Data) {
    let data = Data((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) })
    let path = cluster.folder.path + "/" + name
    try data.write(to: URL(filePath: path))
    return (path, data)
  }

  private func expect(_ name: String, is data: Data, at host: Int, in cluster: TestCluster) async throws {
    let copy = cluster.folder.path + "/copy"
    let got = try await cluster.mobula("get", name, "-o", copy, host: host)
    #expect(got.status.isSuccess, "\(got)")
    #expect(try Data(contentsOf: URL(filePath: copy)) == data)
  }

  /// A host that was stopped is not waited for; one that its supervisor starts again is.
  @Test func commandsEndWithTheirHost() async throws {
    try await withCluster { cluster in
      let silent = try SilentPort()
      try silent.listen("silent")
      let fetching = Task {
        try await cluster.mobula(
          "fetch", "s3://bucket/key", "--s3-endpoint", "http://127.0.0.1:\(silent.port)", "--no-sign-request")
      }
      try await eventually {
        RunningProcess.all().contains {
          $0.variable("MOBULA_DIRECTORY") == cluster.directory(0) && $0.arguments.dropFirst().first == "fetch"
        }
      }
      try await Task.sleep(for: .milliseconds(500))
      let host = try #require(process("host", of: 0, in: cluster))
      kill(host.pid, SIGKILL)
      try await eventually { process("host", of: 0, in: cluster).map { $0.pid != host.pid } ?? false }
      try await Task.sleep(for: .milliseconds(1500))
      #expect(RunningProcess.all().contains { $0.arguments.dropFirst().starts(with: ["fetch", "s3://bucket/key"]) })
      #expect(try await cluster.mobula("stop").status.isSuccess)
      let begin = ContinuousClock.now
      let finished = try await fetching.value
      silent.stop()
      #expect(finished.status == .status(1) && finished.errors.contains("was stopped"), "\(finished)")
      // It is waited for 60 s where that is not certain.
      #expect(begin.duration(to: .now) < .seconds(30))
    }
  }

  @Test func statusSaysWhoAnswersInTheHeadsPlace() async throws {
    try await withCluster(others: 1) { cluster in
      let kept = try file("kept", 300_000, in: cluster)
      #expect(try await cluster.mobula("put", kept.path, host: 1).status.isSuccess)
      let host = try #require(process("host", of: 1, in: cluster))
      let supervisor = try #require(process("supervise", of: 0, in: cluster))
      kill(supervisor.pid, SIGKILL)
      try await eventually { process("head", of: 0, in: cluster) == nil }
      try await eventually { headState(try await status(1, in: cluster)) == .string("away") }

      let port = try #require(Int(cluster.head.split(separator: ":").last ?? ""))
      let rogue = try SilentPort(port: port)
      try rogue.listen("rogue") { $0.answer(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)) }
      try await eventually { headState(try await status(1, in: cluster)) == .string("unproven") }
      let shown = try await cluster.mobula("status", host: 1)
      #expect(shown.status.isSuccess)
      #expect(shown.output.contains("can't prove that it has the cluster's token"), "\(shown)")
      #expect(shown.output.contains("host h1"), "\(shown)")
      rogue.stop()

      try await eventually {
        try await run(
          Products.mobula, ["start", "--head", "--port", "\(port)", "--name", "h0", "--capacity", "256MB"],
          environment: cluster.environment(0)
        ).status.isSuccess
      }
      try await eventually { try await status(1, in: cluster)["hosts"]?.elements.count == 2 }
      #expect(process("host", of: 1, in: cluster) == host, "the same process went on")
      try await expect("kept", is: kept.data, at: 1, in: cluster)
    }
  }

  /// Somebody cleans up under a head that runs: it writes its journal anew. A journal that is gone when a head starts is
  /// said to be, with the way out.
  @Test(.timeLimit(.minutes(2))) func aJournalThatIsRemovedIsMadeAnew() async throws {
    try await withCluster { cluster in
      let files = [try file("first", 100_000, in: cluster), try file("second", 200_000, in: cluster)]
      #expect(try await cluster.mobula("put", files[0].path).status.isSuccess)
      let journal = cluster.directory(0) + "/state/journal.sqlite"
      func clean() throws {
        for suffix in ["", "-wal", "-shm"] { try FileManager.default.removeItem(atPath: journal + suffix) }
      }
      try clean()
      let put = try await cluster.mobula("put", files[1].path)
      #expect(put.status.isSuccess, "\(put)")
      let before = try #require(process("head", of: 0, in: cluster))
      kill(before.pid, SIGKILL)
      try await eventually { process("head", of: 0, in: cluster).map { $0 != before } ?? false }
      try await eventually { try await cluster.mobula("ls").status.isSuccess }
      try await expect("first", is: files[0].data, at: 0, in: cluster)
      try await expect("second", is: files[1].data, at: 0, in: cluster)

      let head = try #require(process("head", of: 0, in: cluster))
      try clean()
      kill(head.pid, SIGKILL)
      try await eventually {
        try await cluster.mobula("status").output.contains("mobula head recover")
      }
      #expect(try await cluster.mobula("head", "recover").status.isSuccess)
      try await eventually { try await cluster.mobula("ls").status.isSuccess }
      try await expect("second", is: files[1].data, at: 0, in: cluster)
    }
  }

  /// As SIGKILL does: only `mobula stop` ends what processes have in memory.
  @Test(arguments: [SIGTERM, SIGINT, SIGKILL]) func aSignalToTheHostsProcessKeepsItsObjects(signal: CInt) async throws {
    try await withCluster { cluster in
      let kept = try file("kept", 3_000_000, in: cluster)
      #expect(try await cluster.mobula("put", kept.path).status.isSuccess)
      let driver = try await Cluster.connect(ClusterOptions(directory: cluster.directory(0)))
      let held = try await driver.put([1, 2, 3])
      let before = try #require(process("host", of: 0, in: cluster))
      kill(before.pid, signal)
      if signal != SIGINT {
        try await eventually { process("host", of: 0, in: cluster).map { $0 != before } ?? false }
      }
      // The new process is there before it listens.
      try await eventually { try await cluster.mobula("status", "--json").status.isSuccess }
      try await eventually { try await status(0, in: cluster)["hosts"]?.elements.count == 1 }
      try await expect("kept", is: kept.data, at: 0, in: cluster)
      #expect(try await held.value == [1, 2, 3])
      await driver.close()
      #expect(try await cluster.mobula("stop").status.isSuccess)
      #expect(process("host", of: 0, in: cluster) == nil)
    }
  }

  @Test func statusDoesNotWaitForAHeadThatHangs() async throws {
    try await withCluster { cluster in
      let head = try #require(process("head", of: 0, in: cluster))
      kill(head.pid, SIGSTOP)
      defer { kill(head.pid, SIGCONT) }
      // For less than a handshake waits.
      let shown = try await cluster.mobula("status", within: .seconds(9))
      #expect(shown.status.isSuccess, "\(shown)")
      #expect(shown.output.contains("does not answer") && shown.output.contains("host h0"), "\(shown)")
    }
  }

  /// What the host can ask of the head a process does not ask itself.
  @Test func puttingAndGettingNeedsNoConnectionToTheHead() async throws {
    try await withCluster { cluster in
      let (name, bytes) = ("piped", "some bytes\n")
      var ends: [CInt] = [-1, -1]
      try #require(pipe(&ends) == 0)
      let put = try ChildProcess.spawn(
        Products.mobula, ["put", "-", "--name", name],
        environment: currentEnvironment().merging(cluster.environment(0)) { $1 }, input: .descriptor(ends[0]),
        output: .null)
      close(ends[0])
      #expect(write(ends[1], bytes, bytes.utf8.count) == bytes.utf8.count)
      // Once it reads, it has asked whether the name is free.
      try await eventually {
        var waiting: CInt = 0
        return ioctl(ends[1], UInt(FIONREAD), &waiting) == 0 && waiting == 0
      }
      #expect(try connectionsOverTCP(of: put.pid) == 0)
      close(ends[1])
      #expect(await put.waitForExit().isSuccess)

      try #require(pipe(&ends) == 0)
      let get = try ChildProcess.spawn(
        Products.mobula, ["get", name, "-o", "-"],
        environment: currentEnvironment().merging(cluster.environment(0)) { $1 }, output: .descriptor(ends[1]))
      #expect(await get.waitForExit().isSuccess)
      var buffer = [UInt8](repeating: 0, count: 100)
      let count = read(ends[0], &buffer, buffer.count)
      #expect(String(decoding: buffer.prefix(max(0, count)), as: UTF8.self) == bytes)
      for end in ends { close(end) }
    }
  }

  /// Sockets of a process that are connected over TCP.
  private func connectionsOverTCP(of pid: Int32) throws -> Int {
    let folder = "/proc/\(pid)/fd/"
    let sockets = try FileManager.default.contentsOfDirectory(atPath: folder).compactMap { entry -> String? in
      guard let link = try? FileManager.default.destinationOfSymbolicLink(atPath: folder + entry) else { return nil }
      return link.hasPrefix("socket:[") ? String(link.dropFirst(8).dropLast()) : nil
    }
    #expect(!sockets.isEmpty, "it is connected to its host")
    let tables = ["tcp", "tcp6"].map { table in
      (try? Data(contentsOf: URL(filePath: "/proc/net/\(table)"))).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
    let inodes = Set(
      tables.joined().split(separator: "\n").compactMap { line -> String? in
        let fields = line.split(separator: " ")
        return fields.count > 9 ? String(fields[9]) : nil
      })
    return sockets.count { inodes.contains($0) }
  }

  @Test func aHangingHeadStallsNobodyWhoDoesNotNeedIt() async throws {
    try await withCluster(["--spill", "none"]) { cluster in
      let driver = try await Cluster.connect(ClusterOptions(directory: cluster.directory(0)))
      let kept = try await driver.put(Array(repeating: UInt8(7), count: 1 << 20))
      // Some are known to the head when it stops, and let go while it hangs.
      var known: [ObjectRef<[UInt8]>] = []
      for number in 0..<60 {
        known.append(try await driver.put(Array(repeating: UInt8(number), count: 1 << 20)))
      }
      try await Task.sleep(for: .milliseconds(300))
      let head = try #require(process("head", of: 0, in: cluster))
      kill(head.pid, SIGSTOP)
      defer { kill(head.pid, SIGCONT) }
      known.removeAll()
      for number in 0..<600 {
        let reference = try await driver.put(Array(repeating: UInt8(truncatingIfNeeded: number), count: 1 << 20))
        if number % 50 == 0 { #expect(try await reference.value.count == 1 << 20) }
        // For some longer than the host waits before it tells the head.
        if number % 10 == 0 { try await Task.sleep(for: .milliseconds(30)) }
      }
      #expect(try await kept.value == Array(repeating: 7, count: 1 << 20))
      kill(head.pid, SIGCONT)
      // The head learns the truth: what is left is what is held.
      try await eventually {
        let statistics = try await driver.storeStatistics()
        return statistics.objects <= 2
      }
      #expect(try await kept.value.count == 1 << 20)
      await driver.close()
    }
  }
}
