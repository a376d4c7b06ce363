import FoundationEssentials
import Glibc
import MobulaCore
import MobulaTestKit
import Testing

/// What users get wrong: one sentence that says what to do, and the right exit status.
@Suite struct BadInputTests {
  /// One sentence, status 1.
  private func expectError(_ finished: Finished, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation)
  {
    #expect(finished.status == .status(1), "\(finished)", sourceLocation: sourceLocation)
    for word in words {
      #expect(finished.errors.contains(word), "\(finished)", sourceLocation: sourceLocation)
    }
    let lines = finished.errors.split(separator: "\n").filter { $0.hasPrefix("Error: ") }
    #expect(lines.count == 1, "one sentence: \(finished)", sourceLocation: sourceLocation)
  }

  @Test(arguments: [
    ["--no-such-flag"], ["put"], ["start"], ["start", "--head", "--address", "127.0.0.1:1"],
    ["bench", "--size", "big"],
    ["bench", "--runs", "0"], ["microbenchmark", "--filter", "no such row"], ["microbenchmark", "--seconds", "0"],
    ["start", "--head", "--warm", "101"], ["start", "--head", "--spill", "none", "--spill", "/tmp"], ["hold"],
    ["get", "x"], ["start", "--head", "--port", "70000"],
  ])
  func usage(_ arguments: [String]) async throws {
    let finished = try await run(Products.mobula, arguments)
    #expect(finished.status == .status(64), "\(finished)")
    #expect(finished.errors.contains("Usage: mobula"), "\(finished)")
  }

  /// What is found wrong only when the command runs is said with the same status, and no usage of another command.
  @Test(arguments: [
    ["put", ""], ["fetch", "s3://"], ["get", "s3://", "-o", "x"], ["broadcast", "s3://"], ["put", "x", "s3://"],
    ["broadcast", "s3://bucket"], ["broadcast", "s3://bucket/folder/"],
  ])
  func usageOfArguments(_ arguments: [String]) async throws {
    let finished = try await run(Products.mobula, arguments)
    #expect(finished.status == .status(64), "\(finished)")
    #expect(!finished.errors.contains("mobula <subcommand>"), "\(finished)")
  }

  /// As others' tools write it; a file that is called so is still one.
  @Test(arguments: [["--request-payer"], ["--request-payer", "requester"], ["--request-payer=requester"]])
  func whoPays(_ option: [String]) async throws {
    let fetched = try await run(Products.mobula, ["fetch", "file"] + option)
    #expect(fetched.status == .status(64) && fetched.errors.contains("is no address in S3"), "\(fetched)")
    let put = try await run(Products.mobula, ["put", "requester"] + option)
    #expect(put.status == .status(64) && put.errors.contains("--request-payer is for s3://"), "\(put)")
  }

  @Test func help() async throws {
    for command in [
      [], ["start"], ["put"], ["get"], ["ls"], ["rm"], ["fetch"], ["status"], ["stop"], ["bench"], ["store"],
      ["hold"], ["release"], ["microbenchmark"],
    ] {
      let finished = try await run(Products.mobula, command + ["--help"])
      #expect(finished.status.isSuccess && finished.output.contains("Example"), "\(command): \(finished)")
    }
  }

  /// No line of an example is wrapped: each can be pasted.
  @Test func examplesCanBePasted() async throws {
    struct Dump: Decodable {
      struct Command: Decodable {
        var commandName: String
        var subcommands: [Command]?
        func all(_ path: [String]) -> [[String]] {
          [path] + (subcommands ?? []).flatMap { $0.all(path + [$0.commandName]) }
        }
      }
      var command: Command
    }
    let dumped = try await run(Products.mobula, ["--experimental-dump-help"])
    for command in try JSONDecoder().decode(Dump.self, from: Data(dumped.output.utf8)).command.all([]) {
      let help = try await run(Products.mobula, command + ["--help"], environment: ["COLUMNS": "80"])
      let lines = help.output.split(separator: "\n", omittingEmptySubsequences: false)
      guard let start = lines.firstIndex(where: { $0.hasPrefix("Example") }) else { continue }
      for line in lines[(start + 1)...].prefix(while: { !$0.isEmpty }) {
        #expect(line.hasPrefix("  ") && line.utf8.count <= 80, "\(command): \(line)")
      }
    }
  }

  @Test func withoutAHost() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let environment = ["MOBULA_DIRECTORY": folder.path + "/none"]
    expectError(try await run(Products.mobula, ["status"], environment: environment), "mobula start")
    expectError(try await run(Products.mobula, ["stop"], environment: environment), folder.path)
  }

  @Test func nobodyListensAtTheAddress() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    try Data("0123456789abcdef0123456789abcdef\n".utf8).write(to: URL(filePath: folder.path + "/token"))
    let silent = try SilentPort()
    let finished = try await run(
      Products.mobula,
      [
        "start", "--address", "\(silent.endpoint)", "--token-file", folder.path + "/token", "--directory",
        folder.path + "/d",
        "--capacity", "64MB",
      ])
    expectError(finished, "Nobody listens at \(silent.endpoint)")
  }

  @Test func wrongToken() async throws {
    try await withCluster { cluster in
      try Data("0123456789abcdef0123456789abcdef\n".utf8).write(to: URL(filePath: cluster.folder.path + "/wrong"))
      let joined = try await run(
        Products.mobula,
        ["start", "--address", cluster.head, "--token-file", cluster.folder.path + "/wrong", "--capacity", "64MB"],
        environment: cluster.environment(1))
      expectError(joined, "token")
      let missing = try await run(
        Products.mobula, ["start", "--address", cluster.head, "--directory", cluster.folder.path + "/2"])
      expectError(missing, "--token-file")
    }
  }

  @Test func filesAndObjects() async throws {
    try await withCluster(["--spill", "none"]) { cluster in
      expectError(try await cluster.mobula("put", "/no/such/file"), "/no/such/file")
      expectError(try await cluster.mobula("put", "/dev/null"), "/dev/null")
      expectError(try await cluster.mobula("get", "00000000000000000000000000000001", "-o", "/tmp/never"), "ls")
      expectError(try await cluster.mobula("rm", "nothing"), "nothing")
      let file = cluster.folder.path + "/file"
      try Data("x".utf8).write(to: URL(filePath: file))
      // What can be done is done.
      #expect(try await cluster.mobula("put", file).status.isSuccess)
      let both = try await cluster.mobula("rm", "nothing", "file")
      expectError(both, "nothing")
      #expect(both.output.contains("removed file"), "\(both)")
      #expect(try await cluster.mobula("put", file).status.isSuccess)
      expectError(try await cluster.mobula("get", "file", "-o", "/no/such/folder/file"), "/no/such/folder/file")

      // A file larger than the whole store, and one that finds it occupied.
      let large = cluster.folder.path + "/large"
      let descriptor = open(large, O_CREAT | O_WRONLY, 0o600)
      ftruncate(descriptor, 300_000_000)
      expectError(try await cluster.mobula("put", large), "--capacity")
      ftruncate(descriptor, 200_000_000)
      close(descriptor)
      #expect(try await cluster.mobula("put", large, "--name", "one").status.isSuccess)
      expectError(try await cluster.mobula("put", large, "--name", "two"), "--capacity", "mobula rm")
    }
  }

  @Test(arguments: ["12", "nonsense", "-5MB"])
  func capacity(_ text: String) async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let finished = try await run(
      Products.mobula, ["start", "--head", "--port", "\(try TestCluster.freePort())", "--capacity=\(text)"],
      environment: ["MOBULA_DIRECTORY": folder.path])
    // Also where it is a size, and too small for any store.
    #expect(finished.status == .status(64) && finished.errors.contains("--capacity"), "\(finished)")
    #expect(text != "12" || finished.errors.contains("MiB"), "\(finished)")
  }

  @Test func resources() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let finished = try await run(
      Products.mobula, ["start", "--head", "--resources", "gpu"], environment: ["MOBULA_DIRECTORY": folder.path])
    #expect(finished.status == .status(64) && finished.errors.contains("gpu"), "\(finished)")
  }

  @Test func benchCases() async throws {
    let finished = try await run(Products.mobula, ["bench", "--cases", "replication-9"])
    #expect(finished.status == .status(64), "\(finished)")
    for word in ["Error: ", "replication-9", "s3-4"] { #expect(finished.errors.contains(word), "\(finished)") }
  }
}
