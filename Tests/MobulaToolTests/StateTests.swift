import FoundationEssentials
import Glibc
import MobulaCore
import Testing

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
