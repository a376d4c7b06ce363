import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// Tasks, actors and holds, by a program as users write them, on a cluster of two pods.
@Suite struct RuntimeTests {
  @Test(arguments: ["tasks", "actors", "holds", "losses", "outage", "traps"])
  func scenario(_ name: String) async throws {
    try await withCluster(others: 0, ["--pod", "main:CPU=2", "--pod", "other:CPU=2,special=1"]) { cluster in
      let finished = try await run(
        Products.testApp, [],
        environment: cluster.environment(0).merging(["SCENARIO": name, "MARKER": cluster.folder.path + "/marker"]) {
          $1
        },
        within: .seconds(120))
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")

      // With the driver, its job went: its objects, but for the named one, and its workers.
      var listed = try await cluster.mobula("ls")
      for _ in 0..<100 where listed.output.split(separator: "\n").count > (name == "holds" ? 2 : 1) {
        try await Task.sleep(for: .milliseconds(50))
        listed = try await cluster.mobula("ls")
      }
      #expect(listed.output.split(separator: "\n").count == (name == "holds" ? 2 : 1), "\(listed)")
      #expect(listed.output.contains("named by the test") == (name == "holds"), "\(listed)")
    }
  }

  /// Options of tasks, their errors and ends, on two hosts; and tasks that wait for tasks, on pods that have as many CPUs
  /// as those need.
  @Test(arguments: ["options", "waits", "calls", "restarts", "ends", "named", "gpus"]) func work(_ name: String)
    async throws
  {
    let isLong = currentEnvironment()["MOBULA_LONG_TESTS"] != nil
    let pods =
      switch name {
      case "waits": ["--pod", "main:CPU=2"]
      case "gpus": ["--pod", "main:CPU=2,GPU=2"]
      default: ["--pod", "main:CPU=2", "--pod", "other:CPU=2"]
      }
    try await withCluster(others: ["waits", "gpus"].contains(name) ? 0 : 1, pods) { cluster in
      let finished = try await run(
        Products.testApp, [],
        environment: cluster.environment(0).merging([
          "SCENARIO": name, "MARKER": cluster.folder.path + "/marker", "CALLS": isLong ? "1000000" : "100000",
        ]) { $1 },
        within: .seconds(120))
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
    }
  }

  /// What outlives its driver is found by another, also when the head was started again meanwhile; and ends when it is
  /// told so.
  @Test func detachedActorsOutliveTheirDriver() async throws {
    try await withCluster(others: 1) { cluster in
      func scenario(_ name: String, on host: Int) async throws {
        let finished = try await run(
          Products.testApp, [],
          environment: cluster.environment(host).merging([
            "SCENARIO": name, "MARKER": cluster.folder.path + "/marker",
          ]) { $1 }, within: .seconds(60))
        #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      }
      try await scenario("leaves", on: 0)
      let head = try #require(
        RunningProcess.all().first {
          $0.arguments.dropFirst().first == "head" && $0.arguments.last == cluster.directory(0)
        })
      kill(head.pid, SIGKILL)
      try await scenario("finds", on: 1)
      let listed = try await cluster.mobula("actor", "ls")
      #expect(
        listed.status.isSuccess && listed.output.contains("left ") && listed.output.contains("(detached)"), "\(listed)")
      let json = try await cluster.mobula("actor", "ls", "--json")
      let actors = try JSONDecoder().decode(JSONValue.self, from: Data(json.output.utf8)).elements
      #expect(actors.count == 1 && actors.first?["state"] == .string("alive"), "\(json)")
      let again = try await cluster.mobula("actor", "stop", "left", "--restart")
      #expect(again.status.isSuccess && again.output == "Actor left is started again.\n", "\(again)")
      let stopped = try await cluster.mobula("actor", "stop", "left")
      #expect(stopped.status.isSuccess && stopped.output == "Stopped actor left.\n", "\(stopped)")
      let nobody = try await cluster.mobula("actor", "stop", "left")
      #expect(nobody.status == .status(1) && nobody.errors.contains("No actor is called left"), "\(nobody)")
      let status = try await cluster.mobula("status", "--json")
      let jobs = try JSONDecoder().decode(JSONValue.self, from: Data(status.output.utf8))["jobs"]?.elements
      #expect(jobs?.isEmpty == true, "\(status)")
    }
  }

  /// What a worker prints is shown where its work was submitted, and is in its log.
  @Test func whatWorkersPrintIsShown() async throws {
    try await withCluster { cluster in
      let finished = try await run(
        Products.testApp, [], environment: cluster.environment(0).merging(["SCENARIO": "prints"]) { $1 },
        within: .seconds(30))
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      let lines = finished.errors.split(separator: "\n").filter { $0.hasPrefix("(h0 ") }
      for number in 0..<5 { #expect(lines.contains { $0.hasSuffix(") print \(number)") }, "\(finished.errors)") }
      #expect(lines.contains { $0.hasSuffix(") not a whole line") }, "\(finished.errors)")
      #expect(finished.errors.contains("colour \\u{1B}[31m"), "\(finished.errors)")
      let logs = try await cluster.mobula("logs", "--lines", "3")
      #expect(logs.status.isSuccess && logs.output.contains("== worker ") && logs.output.contains("print 4"), "\(logs)")
      let all = try await cluster.mobula("logs", "--lines", "\(Int.max)")
      #expect(all.status.isSuccess && all.output.contains("print 0"), "\(all)")
      let none = try await cluster.mobula("logs", "--job", "4711")
      #expect(none.status == .status(1) && none.errors.contains("No worker has printed anything here"), "\(none)")
    }
  }

  /// Work that no pod could ever do says so where it was submitted, and in the cluster's state.
  @Test func whatCannotBeScheduledSaysSo() async throws {
    try await withCluster { cluster in
      async let running = run(
        Products.testApp, [], environment: cluster.environment(0).merging(["SCENARIO": "starved"]) { $1 },
        within: .seconds(30))
      var demands: [JSONValue] = []
      for _ in 0..<100 where demands.isEmpty {
        try await Task.sleep(for: .milliseconds(20))
        let status = try await cluster.mobula("status", "--json")
        demands = try JSONDecoder().decode(JSONValue.self, from: Data(status.output.utf8))["demands"]?.elements ?? []
      }
      let demand = try #require(demands.first)
      #expect(demand["resources"]?["unobtainium"] == .number(2), "\(demand)")
      #expect("\(demand)".contains("--resources unobtainium=2"), "\(demand)")
      let status = try await cluster.mobula("status")
      #expect(status.output.contains("for CPU=1,unobtainium=2"), "\(status)")
      let finished = try await running
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      #expect(finished.errors.contains("3 tasks wait: No pod has unobtainium=2"), "\(finished)")
    }
  }

  /// Nobody waits a minute for a driver of which its host knows that it has ended.
  @Test(arguments: [false, true]) func aKilledDriversJobEndsWithIt(hostWasStartedAgain: Bool) async throws {
    try await withCluster { cluster in
      let output = cluster.folder.path + "/said"
      let file = open(output, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
      let driver = try ChildProcess.spawn(
        Products.testApp, [],
        environment: currentEnvironment().merging(cluster.environment(0)) { $1 }.merging(["SCENARIO": "sleep"]) { $1 },
        output: .descriptor(file))
      close(file)
      func jobs() async throws -> [JSONValue] {
        let status = try await cluster.mobula("status", "--json")
        try #require(status.status.isSuccess, "\(status)")
        return try JSONDecoder().decode(JSONValue.self, from: Data(status.output.utf8))["jobs"]?.elements ?? []
      }
      while try Data(contentsOf: URL(filePath: output)).isEmpty { try await Task.sleep(for: .milliseconds(20)) }
      if hostWasStartedAgain {
        let host = try #require(
          RunningProcess.all().first {
            $0.arguments.dropFirst().first == "host" && $0.arguments.last == cluster.directory(0)
          })
        kill(host.pid, SIGKILL)
        // The driver has told the new one once it is registered.
        for _ in 0..<100 where try await cluster.mobula("ls").output.split(separator: "\n").count < 2 {
          try await Task.sleep(for: .milliseconds(50))
        }
        try await Task.sleep(for: .seconds(2))
      }
      #expect(try await jobs().count == 1)
      driver.signal(SIGKILL)
      // It is a minute for one whose end nobody sees.
      var left = try await jobs()
      for _ in 0..<300 where !left.isEmpty {
        try await Task.sleep(for: .milliseconds(50))
        left = try await jobs()
      }
      #expect(left.isEmpty, "\(left)")
    }
  }

  @Test func whatIsSpilledIsReadWithoutRoom() async throws {
    let spill = try TemporaryFolder()
    defer { spill.remove() }
    try await withCluster(["--capacity", "64MB", "--spill", spill.path + "/below"]) { cluster in
      let finished = try await run(
        Products.testApp, [], environment: cluster.environment(0).merging(["SCENARIO": "full"]) { $1 },
        within: .seconds(120))
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
    }
  }

  @Test func aSpillFolderThatCannotBeUsedIsSaid() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    try Data().write(to: URL(filePath: folder.path + "/file"))
    let started = try await run(
      Products.mobula,
      ["start", "--head", "--port", "\(try TestCluster.freePort())", "--spill", folder.path + "/file"],
      environment: ["MOBULA_DIRECTORY": folder.path + "/0"])
    #expect(!started.status.isSuccess && started.errors.contains("\(folder.path)/file is no folder"), "\(started)")
  }

  /// A million tasks that wait at once, each for less than a kilobyte; a thousand actors.
  @Test(.enabled(if: currentEnvironment()["MOBULA_LONG_TESTS"] != nil), arguments: ["million", "thousand"])
  func many(_ name: String) async throws {
    try await withCluster(["--pod", "main:CPU=2,special=1"]) { cluster in
      let finished = try await run(
        Products.testApp, [],
        environment: cluster.environment(0).merging(["SCENARIO": name, "MARKER": cluster.folder.path + "/marker"]) {
          $1
        },
        within: .seconds(300))
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      print(finished.errors)
    }
  }

  /// The head is killed ten times, or two hundred times with MOBULA_LONG_TESTS, under all that a program does.
  @Test func theHeadDies() async throws {
    let rounds = currentEnvironment()["MOBULA_LONG_TESTS"] == nil ? 10 : 200
    try await withCluster(["--pod", "main:CPU=2", "--pod", "other:CPU=2"]) { cluster in
      let finished = try await run(
        Products.testApp, [],
        environment: cluster.environment(0).merging(["SCENARIO": "heads", "ROUNDS": "\(rounds)"]) { $1 },
        within: .seconds(120 + 5 * rounds))
      #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      print(finished.errors)
    }
  }

  @Test func withoutAHost() async throws {
    let finished = try await run(Products.testApp, [], environment: ["MOBULA_DIRECTORY": "/tmp/no-such-directory"])
    #expect(finished.status == .status(1) && finished.errors.contains("mobula start"), "\(finished)")
  }
}
