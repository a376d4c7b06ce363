import FoundationEssentials
import Glibc
import MobulaCore
import MobulaWire
import Testing

/// What workers are started with, and what is said of those that can't be.
@Suite struct WorkerTests {
  private static let secrets = [
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "VAULT_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "MY_API_KEY",
    "DATABASE_PASSWORD", "GITHUB_TOKEN",
  ]

  @Test func noSecretOfTheHostReachesAWorker() async throws {
    var environment = Dictionary(uniqueKeysWithValues: Self.secrets.map { ($0, "hidden-\($0.lowercased())") })
    environment["MOBULA_TOKEN"] = String(repeating: "ab", count: 32)
    let token = environment["MOBULA_TOKEN"]!
    environment["TZ"] = "Europe/Lisbon"
    environment["SOMETHING_ELSE"] = "not-listed"
    try await withCluster(environment: environment) { cluster in
      let finished = try await run(
        Products.testApp, [], environment: cluster.environment(0).merging(["SCENARIO": "environment"]) { $1 })
      #expect(finished.status.isSuccess, "\(finished)")
      // Its own, and what it finds in /proc of head, pod, host and supervisor: as the same user it may look there.
      let seen = finished.output.split(separator: "\n").map(String.init)
      #expect(seen.contains("TZ=Europe/Lisbon") && seen.contains("APP_MODE=test") && seen.contains("LANG=C.UTF-8"))
      #expect(seen.contains("MOBULA_DIRECTORY=\(cluster.directory(0))"))
      #expect(seen.contains { $0.hasPrefix("PATH=") } && seen.contains { $0.hasPrefix("HOME=") })
      #expect(!finished.output.contains("hidden-") && !finished.output.contains(token), "\(seen)")
    }
  }

  /// What a program does that is no worker, and what the driver has to hear.
  @Test(arguments: [
    ("#!/bin/sh\necho no library >&2\nexit 127\n", ["exit status 127", "no library"]),
    ("#!/bin/sh\nexit 0\n", ["exit status 0", "is empty"]),
    ("#!/bin/sh\necho before; kill -SEGV $$\n", ["signal 11", "before"]),
    ("\u{7f}ELF and nothing behind it", ["can't be started"]),
    ("#!/no/such/interpreter\n", ["can't be started"]),
  ])
  func aProgramThatCannotStartIsAnError(_ program: String, _ said: [String]) async throws {
    try await withCluster { cluster in
      let path = cluster.folder.path + "/program"
      try Data(program.utf8).write(to: URL(filePath: path))
      #expect(chmod(path, 0o700) == 0)
      let error = try await refusal(of: path, cluster)
      #expect(said.allSatisfy { error.contains($0) }, "\(error)")
      #expect(chmod(path, 0o600) == 0)
      #expect(try await refusal(of: path, cluster).contains("can't be started: Permission denied"))
    }
  }

  /// Why a driver gets no lease for a program.
  private func refusal(of program: String, _ cluster: TestCluster) async throws -> String {
    let token = try ClusterToken.read(file: cluster.directory(0) + "/token")
    let parts = cluster.head.split(separator: ":")
    let driver = try await RPCConnection.connect(
      to: .tcp(host: String(parts[0]), port: Int(parts[1])!), token: token, hello: Hello(role: .driver, name: "test"))
    let job = try await driver.call(HeadAPI.startJob, JobStart()).job
    let request = LeaseRequest(
      lease: .random(), job: job, demand: Resources(["CPU": 1]), strategy: .pack,
      program: WorkerProgram(executable: program, build: try BuildID.compute(program)))
    let begun = ContinuousClock.now
    do {
      _ = try await driver.call(HeadAPI.requestLease, request, deadline: .seconds(60))
      await driver.close()
      Issue.record("a lease was granted for \(program)")
      return ""
    } catch let error as MobulaError {
      await driver.close()
      #expect(error.code != .deadlineExceeded, "after \(begun.duration(to: .now))")
      return error.message
    }
  }
}
