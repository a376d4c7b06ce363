import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// The tool as its users meet it, with real processes.
@Suite struct CommandTests {
  @Test func putListGetRemove() async throws {
    try await withCluster(others: 1) { cluster in
      let file = cluster.folder.path + "/model.bin"
      let bytes = Data((0..<3_000_001).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
      try bytes.write(to: URL(filePath: file))

      let put = try await cluster.mobula("put", file)
      #expect(put.status.isSuccess && put.output.hasSuffix("  model.bin\n"), "\(put)")
      let listed = try await cluster.mobula("ls", host: 1)
      #expect(listed.output.contains("model.bin") && listed.output.contains("3 MB"), "\(listed)")

      // On the other host: fetched over the network, then written.
      let copy = cluster.folder.path + "/copy.bin"
      let got = try await cluster.mobula("get", "model.bin", "-o", copy, host: 1)
      #expect(got.status.isSuccess, "\(got)")
      #expect(try Data(contentsOf: URL(filePath: copy)) == bytes)
      let identifier = String(put.output.prefix(32))
      let byID = try await cluster.mobula("get", identifier, "-o", copy)
      #expect(byID.status.isSuccess, "\(byID)")

      let status = try await cluster.mobula("status", "--json")
      #expect(status.output.contains("\"name\" : \"h1\"") || status.output.contains("\"name\": \"h1\""), "\(status)")

      let removed = try await cluster.mobula("rm", "model.bin")
      #expect(removed.status.isSuccess, "\(removed)")
      let gone = try await cluster.mobula("get", "model.bin", "-o", copy)
      #expect(gone.status == .status(1) && gone.errors.contains("model.bin"), "\(gone)")
    }
  }

  @Test func stoppingLeavesNothing() async throws {
    let cluster = try await TestCluster.start()
    let twice = try await cluster.mobula("start", "--head")
    #expect(twice.status == .status(1) && twice.errors.contains("mobula stop"), "\(twice)")
    let stopped = try await cluster.mobula("stop")
    #expect(stopped.status.isSuccess)
    let left = try FileManager.default.contentsOfDirectory(atPath: cluster.directory(0)).filter {
      $0.hasSuffix(".sock")
    }
    #expect(left.isEmpty, "sockets are gone: \(left)")
    #expect(try processes(of: cluster).isEmpty, "processes are gone")
    let again = try await cluster.mobula("stop")
    #expect(again.status == .status(1), "\(again)")
    cluster.folder.remove()
  }

  @Test func killingTheSupervisorEndsItsProcesses() async throws {
    let cluster = try await TestCluster.start()
    let pid = try #require(Int32(try text(cluster.directory(0) + "/supervisor.pid").filter(\.isNumber)))
    kill(pid, SIGKILL)
    for _ in 0..<250 {
      if try processes(of: cluster).isEmpty { break }
      try await Task.sleep(for: .milliseconds(20))
    }
    #expect(try processes(of: cluster).isEmpty)
    // What a kill left behind does not hinder the next start.
    let again = try await cluster.mobula(
      "start", "--head", "--port", String(cluster.head.split(separator: ":")[1]), "--capacity", "64MB")
    #expect(again.status.isSuccess, "\(again)")
    await cluster.stop()
  }

  @Test(arguments: ["head", "host", "pod"])
  func aKilledProcessIsStartedAgain(_ which: String) async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/small"
      try Data("hello".utf8).write(to: URL(filePath: file))
      #expect(try await cluster.mobula("put", file, "--name", "before").status.isSuccess)
      let found = try processes(of: cluster).filter { $0.command.contains("\0\(which)\0") }
      try #require(found.count == 1, "\(found)")
      kill(found[0].pid, SIGKILL)
      // Commands given meanwhile end, one way or the other; soon they succeed again.
      var last: Finished?
      for _ in 0..<50 {
        last = try await cluster.mobula("put", file, "--name", "after", within: .seconds(30))
        if last?.status.isSuccess == true { break }
        #expect(last?.status == .status(1), "an error, not a hang: \(String(describing: last))")
        try await Task.sleep(for: .milliseconds(200))
      }
      #expect(last?.status.isSuccess == true, "\(String(describing: last))")
      let got = try await cluster.mobula("get", "after", "-o", file + ".copy")
      #expect(got.status.isSuccess, "\(got)")
      // What was there before is there after, but for the store's own process, which takes its memory along.
      if which == "host" { return }
      // Longer than a restarted head waits for others to speak up for what it heard of.
      if which == "head" { try await Task.sleep(for: .seconds(12)) }
      let before = try await cluster.mobula("get", "before", "-o", file + ".before")
      #expect(before.status.isSuccess, "\(before)")
    }
  }

  private func processes(of cluster: TestCluster) throws -> [(pid: Int32, command: String)] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { entry in
      guard let pid = Int32(entry), let data = try? Data(contentsOf: URL(filePath: "/proc/\(entry)/cmdline")) else {
        return nil
      }
      let command = String(decoding: data, as: UTF8.self)
      return command.contains(cluster.directory(0) + "\0") && !command.contains("xctest") ? (pid, command) : nil
    }
  }

  private func text(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
  }

  /// What the only host that had it took along is put again, under its name.
  @Test func whatIsGoneIsPutAgain() async throws {
    try await withCluster(others: 1) { cluster in
      let file = cluster.folder.path + "/model.bin"
      try Data((0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }).write(to: URL(filePath: file))
      try #require(try await cluster.mobula("put", file, host: 1).status.isSuccess)
      let there = try await cluster.mobula("put", file)
      #expect(there.status.isSuccess && there.errors.contains("is there already"), "\(there)")
      try #require(try await cluster.mobula("stop", host: 1).status.isSuccess)
      let again = try await cluster.mobula("put", file)
      #expect(again.status.isSuccess && !again.errors.contains("is there already"), "\(again)")
      let copy = cluster.folder.path + "/copy"
      let got = try await cluster.mobula("get", "model.bin", "-o", copy)
      #expect(got.status.isSuccess, "\(got)")
      #expect(try Data(contentsOf: URL(filePath: copy)) == Data(contentsOf: URL(filePath: file)))
    }
  }

  /// A list of which a part could not be written looks like another list.
  @Test(arguments: ["ls", "status", "status --json", "ls -q", "store", "--help"])
  func whatCanNotBePrintedIsNoSuccess(command: String) async throws {
    try await withCluster { cluster in
      let file = cluster.folder.path + "/x"
      try Data([1]).write(to: URL(filePath: file))
      try #require(try await cluster.mobula("put", file).status.isSuccess)
      let done = try await run(
        "/bin/sh", ["-c", "\"$0\" \(command) > /dev/full", Products.mobula], environment: cluster.environment(0))
      #expect(done.status == .status(1) && done.errors.contains("Standard output"), "\(done)")
    }
  }
}
