import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaSupervisor
@testable import MobulaTool

/// What outlives a reboot, and what is done where it did not.
@Suite struct StateTests {
  /// A head with one host, its run directory and its state directory apart.
  private struct Machine {
    let folder: TemporaryFolder
    let port: Int
    var run: String { folder.path + "/run" }
    var state: String { folder.path + "/state" }
    var journal: String { state + "/journal.sqlite" }

    init() throws {
      folder = try TemporaryFolder()
      port = try TestCluster.freePort()
    }

    func mobula(_ arguments: String..., within limit: Duration = .seconds(60)) async throws -> Finished {
      try await MobulaToolTests.run(
        Products.mobula, arguments, environment: ["MOBULA_DIRECTORY": run, "MOBULA_STATE": state], within: limit)
    }

    /// Whether a head has the journal open.
    var headRuns: Bool {
      let lock = open(journal + ".lock", O_RDONLY | O_CLOEXEC)
      guard lock >= 0 else { return false }
      defer { close(lock) }
      return flock(lock, LOCK_SH | LOCK_NB) != 0
    }

    func start() async throws -> Finished {
      try await mobula(
        "start", "--head", "--port", "\(port)", "--name", "m", "--capacity", "64MB", "--spill", "none")
    }

    /// Who the cluster and its host say that they are.
    func identity() async throws -> [JSONValue?] {
      let status = try await mobula("status", "--json")
      try #require(status.status.isSuccess, "\(status)")
      let json = try JSONDecoder().decode(JSONValue.self, from: Data(status.output.utf8))
      return [json["cluster"], json["hosts"]?.elements.first?["host"]]
    }
  }

  private func withMachine(_ body: (Machine) async throws -> Void) async throws {
    let machine = try Machine()
    do {
      try await body(machine)
    } catch {
      _ = try? await machine.mobula("stop")
      machine.folder.remove()
      throw error
    }
    _ = try? await machine.mobula("stop")
    machine.folder.remove()
  }

  @Test func aRebootKeepsWhoIsWho() async throws {
    try await withMachine { machine in
      let first = try await machine.start()
      try #require(first.status.isSuccess, "\(first)")
      let (identity, token) = (try await machine.identity(), try readText(machine.run + "/token"))
      _ = try await machine.mobula("stop")
      try FileManager.default.removeItem(atPath: machine.run)
      let second = try await machine.start()
      try #require(second.status.isSuccess, "\(second)")
      #expect(try await machine.identity() == identity)
      #expect(try readText(machine.run + "/token") == token)
      #expect(try readText(machine.state + "/token") == token)
      for file in [machine.run + "/token", machine.state + "/token", machine.journal, machine.state + "/identity.json"]
      {
        var status = stat()
        #expect(stat(file, &status) == 0 && status.st_mode & 0o777 == 0o600, "\(file)")
      }
    }
  }

  /// Two hosts with one state folder would be one host twice: the second would take the first's place for good.
  @Test func oneStateFolderIsForOneHost() async throws {
    try await withMachine { machine in
      let first = try await machine.start()
      try #require(first.status.isSuccess, "\(first)")
      let identity = try await machine.identity()
      for arguments in [["--head", "--port", "0"], ["--address", "127.0.0.1:\(machine.port)"]] {
        let second = try await MobulaToolTests.run(
          Products.mobula, ["start"] + arguments + ["--capacity", "64MB", "--spill", "none"],
          environment: ["MOBULA_DIRECTORY": machine.folder.path + "/other", "MOBULA_STATE": machine.state])
        #expect(
          second.status == .status(1) && second.errors.contains("The host in \(machine.run) runs")
            && second.errors.contains("--state"), "\(second)")
      }
      #expect(try await machine.identity() == identity)
      _ = try await machine.mobula("stop")
      let again = try await machine.start()
      #expect(again.status.isSuccess, "\(again)")
    }
  }

  /// The head's machine is rebooted, with its disk or without: what other hosts have keeps its name, and they need not
  /// be started again.
  @Test(arguments: [true]) func othersKeepWhatTheyHave(diskIsKept: Bool) async throws {
    try await withCluster(others: 1) { cluster in
      let content = cluster.folder.path + "/content"
      try Data((0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }).write(to: URL(filePath: content))
      for command in [["put", content, "--name", "model"], ["broadcast", "model"]] {
        let done = try await run(Products.mobula, command, environment: cluster.environment(0))
        try #require(done.status.isSuccess, "\(done)")
      }
      let directory = cluster.directory(0)
      let token = cluster.folder.path + "/token"
      try FileManager.default.copyItem(atPath: directory + "/token", toPath: token)
      let known = try JSONDecoder().decode(
        StateDirectory.Identity.self, from: Data(contentsOf: URL(filePath: directory + "/state/identity.json")))
      let supervisor = try #require(Int32(try readText(directory + "/supervisor.pid").filter(\.isNumber)))
      kill(supervisor, SIGKILL)
      let port = cluster.head.split(separator: ":")[1]
      // Its processes notice, and end.
      while try await run("/bin/sh", ["-c", "ss -ltn | grep -q ':\(port) '"]).status.isSuccess {
        try await Task.sleep(for: .milliseconds(20))
      }
      for entry in try FileManager.default.contentsOfDirectory(atPath: directory) where entry != "state" || !diskIsKept
      {
        try FileManager.default.removeItem(atPath: directory + "/" + entry)
      }
      if !diskIsKept {
        let recovered = try await cluster.mobula(
          "head", "recover", "--token-file", token, "--cluster", try #require(known.cluster).description)
        try #require(recovered.status.isSuccess, "\(recovered)")
      }
      let started = try await cluster.mobula(
        "start", "--head", "--port", String(port), "--name", "h0", "--capacity", "256MB")
      try #require(started.status.isSuccess, "\(started)")
      var got = try await cluster.mobula("get", "model", "-o", cluster.folder.path + "/got")
      // The other host may take a second to notice that there is a head again.
      for _ in 0..<200 where !got.status.isSuccess {
        try await Task.sleep(for: .milliseconds(50))
        got = try await cluster.mobula("get", "model", "-o", cluster.folder.path + "/got")
      }
      #expect(got.status.isSuccess, "\(got)")
      #expect(
        try Data(contentsOf: URL(filePath: cluster.folder.path + "/got")) == Data(contentsOf: URL(filePath: content)))
      let there = try await cluster.mobula("get", "model", "-o", cluster.folder.path + "/there", host: 1)
      #expect(there.status.isSuccess, "\(there)")
    }
  }

  @Test func aDamagedJournalIsRecovered() async throws {
    try await withMachine { machine in
      var started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      let identity = try await machine.identity()
      var recovered = try await machine.mobula("head", "recover")
      #expect(recovered.status == .status(1) && recovered.errors.contains("Another head has"), "\(recovered)")
      _ = try await machine.mobula("stop")
      recovered = try await machine.mobula("head", "recover")
      #expect(recovered.status == .status(1) && recovered.errors.contains("is whole"), "\(recovered)")

      try Data(repeating: 0x5A, count: 10_000).write(to: URL(filePath: machine.journal))
      started = try await machine.start()
      #expect(
        started.status == .status(1) && started.errors.contains(machine.journal)
          && started.errors.contains("mobula head recover"), "\(started)")
      recovered = try await machine.mobula("head", "recover")
      #expect(recovered.status.isSuccess, "\(recovered)")
      #expect(access(machine.journal + ".damaged-1", F_OK) == 0)
      started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      #expect(try await machine.identity() == identity)
    }
  }

  /// A head that began with nothing would deny the names of hosts that are away.
  @Test(.timeLimit(.minutes(2)), arguments: [["", "-wal", "-shm"], ["", "-wal", "-shm", ".lock"], ["-wal"]])
  func aJournalThatIsLostIsSaid(suffixes: [String]) async throws {
    try await withMachine { machine in
      var started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      let supervisor = try #require(Int32(try readText(machine.run + "/supervisor.pid").filter(\.isNumber)))
      // All at once, as when the power goes: nothing is closed in order.
      kill(supervisor, SIGKILL)
      while machine.headRuns { try await Task.sleep(for: .milliseconds(20)) }
      for suffix in suffixes { unlink(machine.journal + suffix) }
      started = try await machine.start()
      #expect(
        started.status == .status(1) && started.errors.contains(machine.journal)
          && started.errors.contains("mobula head recover"), "\(started)")
      let recovered = try await machine.mobula("head", "recover")
      #expect(recovered.status.isSuccess, "\(recovered)")
      started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
    }
  }

  @Test func nothingIsLeft() async throws {
    try await withMachine { machine in
      var started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      guard case .string(let cluster)? = try await machine.identity()[0] else {
        Issue.record("no cluster")
        return
      }
      _ = try await machine.mobula("stop")
      let token = machine.folder.path + "/token"
      try FileManager.default.moveItem(atPath: machine.state + "/token", toPath: token)
      for folder in [machine.run, machine.state] { try FileManager.default.removeItem(atPath: folder) }

      var recovered = try await machine.mobula("head", "recover", "--token-file", token)
      #expect(recovered.status == .status(1) && recovered.errors.contains("--cluster"), "\(recovered)")
      recovered = try await machine.mobula("head", "recover", "--cluster", cluster)
      #expect(recovered.status == .status(1) && recovered.errors.contains("--token-file"), "\(recovered)")
      recovered = try await machine.mobula("head", "recover", "--cluster", cluster, "--token-file", token)
      #expect(recovered.status.isSuccess, "\(recovered)")
      started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      #expect(try await machine.identity()[0] == .string(cluster))
      #expect(try readText(machine.run + "/token") == readText(token))
    }
  }

  @Test func aBackupWhileItRuns() async throws {
    try await withMachine { machine in
      var started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      let identity = try await machine.identity()
      let backup = machine.folder.path + "/backup"
      let made = try await machine.mobula("head", "backup", backup)
      #expect(made.status.isSuccess, "\(made)")
      let again = try await machine.mobula("head", "backup", backup)
      #expect(again.status == .status(1) && again.errors.contains("is there already"), "\(again)")
      _ = try await machine.mobula("stop")
      for suffix in ["", "-wal", "-shm"] { unlink(machine.journal + suffix) }
      try FileManager.default.moveItem(atPath: backup, toPath: machine.journal)
      started = try await machine.start()
      try #require(started.status.isSuccess, "\(started)")
      #expect(try await machine.identity() == identity)
    }
  }

  /// Whether a file system can be mounted here that only some processes see.
  private static let canMount: Bool = {
    guard getuid() == 0, let child = try? ChildProcess.spawn("/bin/sh", ["-c", "exec unshare -m true"]) else {
      return false
    }
    while child.exit == nil { usleep(1000) }
    return child.exit?.isSuccess == true
  }()

  /// The journal's disk is full: what needs the journal fails and says why, all else goes on, and all of it does when
  /// there is room again.
  @Test(.enabled("skipped: a small file system can't be mounted (not root)") { canMount })
  func aFullDisk() async throws {
    try await withMachine { machine in
      let content = machine.folder.path + "/content"
      try Data(repeating: 7, count: 10_000).write(to: URL(filePath: content))
      let started = try await MobulaToolTests.run(
        "/bin/sh",
        [
          "-c",
          "exec unshare -m sh -c 'mkdir -p $MOBULA_STATE && mount -t tmpfs -o size=2m,mode=700 none $MOBULA_STATE && exec \(Products.mobula) start --head --port \(machine.port) --name m --capacity 64MB --spill none'",
        ], environment: ["MOBULA_DIRECTORY": machine.run, "MOBULA_STATE": machine.state])
      try #require(started.status.isSuccess, "\(started)")
      let before = try await machine.mobula("put", content, "--name", "before")
      try #require(before.status.isSuccess, "\(before)")

      func inside(_ command: String) async throws {
        let supervisor = try readText(machine.run + "/supervisor.pid").filter(\.isNumber)
        _ = try await MobulaToolTests.run(
          "/bin/sh", ["-c", "exec nsenter -t \(supervisor) -m sh -c '\(command)'"])
      }
      try await inside("cat /dev/zero > \(machine.state)/filler; true")
      var refused: Finished?
      // A last page may have room.
      for number in 0..<500 {
        let put = try await machine.mobula(
          "put", content, "--name", String(repeating: "long", count: 900) + "\(number)")
        if !put.status.isSuccess {
          refused = put
          break
        }
      }
      #expect(refused?.errors.contains("The disk of the head's journal") == true, "\(String(describing: refused))")
      let got = try await machine.mobula("get", "before", "-o", machine.folder.path + "/got")
      #expect(got.status.isSuccess, "\(got)")
      let listed = try await machine.mobula("ls")
      #expect(listed.status.isSuccess && listed.output.contains("before"), "\(listed)")
      try await inside("rm \(machine.state)/filler")
      let after = try await machine.mobula("put", content, "--name", "after")
      #expect(after.status.isSuccess, "\(after)")
    }
  }

  /// Where state lies when nobody says so.
  @Test func whereItLies() {
    func path(_ given: String? = nil, _ directory: String? = nil, _ environment: [String: String] = [:]) -> String {
      StateDirectory.choose(given, directory: directory, environment: environment).path
    }
    #expect(path("/s", "/d", ["MOBULA_STATE": "/e"]) == "/s")
    #expect(path(nil, "/d", ["MOBULA_STATE": "/e"]) == "/e")
    #expect(path(nil, "/d", ["MOBULA_DIRECTORY": "/f"]) == "/d/state")
    #expect(path(nil, nil, ["MOBULA_DIRECTORY": "/f"]) == "/f/state")
    if getuid() == 0 {
      #expect(path(nil, nil, ["HOME": "/h"]) == "/var/lib/mobula")
    } else {
      #expect(path(nil, nil, ["HOME": "/h"]) == "/h/.local/state/mobula")
      #expect(path(nil, nil, ["HOME": "/h", "XDG_STATE_HOME": "/x"]) == "/x/mobula")
    }
  }
}
