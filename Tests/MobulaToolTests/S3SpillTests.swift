import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaS3
import Testing

/// `mobula start --spill s3://…` with a real host and a real S3 server.
@Suite(.serialized, .enabled(if: SeaweedServer.isInstalled(), "skipped: SeaweedFS is not installed (make environment)"))
struct S3SpillTests {
  private static let bucket = "scratch"
  private static let place = "s3://\(bucket)/mobula"
  private static let capacity = "160MB"
  /// Three times the capacity, with one that goes by one PUT and others that go in parts.
  private static let sizes = [20_000_000] + (0..<7).map { 70_000_000 + $0 }

  /// A server with a bucket, and how a host is told of it.
  private struct S3 {
    let server: SeaweedServer
    let client: S3Client
    var environment: [String: String] { ["AWS_REGION": "us-east-1"].merging(server.credentials.environment) { $1 } }
    var start: [String] {
      ["--capacity", capacity, "--spill", place, "--s3-endpoint", server.endpoint.description]
    }

    /// Keys of all that is spilled, by all hosts.
    func keys() async throws -> [String] { try await client.list(bucket: bucket, prefix: "mobula/").map(\.key.text) }

    func uploads() async throws -> [S3UnfinishedUpload] {
      try await client.unfinishedUploads(bucket: bucket, prefix: "mobula/")
    }

    func isEmpty(within seconds: Int = 20) async throws -> Bool {
      for _ in 0..<seconds * 10 {
        if try await keys().isEmpty, try await uploads().isEmpty { return true }
        try await Task.sleep(for: .milliseconds(100))
      }
      return false
    }
  }

  private static func withS3(_ body: (S3) async throws -> Void) async throws {
    let server = try await SeaweedServer.start()
    let client = server.client()
    do {
      try await client.createBucket(bucket)
      try await body(S3(server: server, client: client))
    } catch {
      await client.shutdown()
      await server.stop()
      throw error
    }
    await client.shutdown()
    await server.stop()
  }

  private static func bytes(_ number: Int) -> [UInt8] {
    let model = SyntheticModel(size: sizes[number], seed: UInt64(number))
    return model.bytes(in: 0..<model.size)
  }

  /// Puts all, which is more than the store holds.
  private static func put(_ numbers: some Sequence<Int>, into cluster: TestCluster) async throws {
    let file = cluster.folder.path + "/file"
    for number in numbers {
      try Data(bytes(number)).write(to: URL(filePath: file))
      let put = try await cluster.mobula("put", file, "--name", "o\(number)")
      #expect(put.status.isSuccess, "\(put)")
    }
    unlink(file)
  }

  private static func get(_ number: Int, from cluster: TestCluster) async throws -> Finished {
    try await cluster.mobula("get", "o\(number)", "-o", cluster.folder.path + "/copy")
  }

  private static func expectAll(_ cluster: TestCluster) async throws {
    for number in sizes.indices {
      let got = try await get(number, from: cluster)
      #expect(got.status.isSuccess, "\(got)")
      let same = try Data(contentsOf: URL(filePath: cluster.folder.path + "/copy")) == Data(bytes(number))
      #expect(same, "object \(number) came back as it was put")
    }
  }

  /// From a server that was just started.
  private static func expectInTime(_ numbers: Range<Int>, _ cluster: TestCluster) async throws {
    for number in numbers {
      var got = try await get(number, from: cluster)
      for _ in 0..<60 where !got.status.isSuccess {
        try await Task.sleep(for: .milliseconds(500))
        got = try await get(number, from: cluster)
      }
      let same = try Data(contentsOf: URL(filePath: cluster.folder.path + "/copy")) == Data(bytes(number))
      #expect(got.status.isSuccess && same, "object \(number) came back as it was put: \(got)")
    }
  }

  /// The host's process, as a child of the supervisor.
  private static func process(_ command: String, of cluster: TestCluster) -> RunningProcess? {
    RunningProcess.all().first {
      $0.arguments.dropFirst().first == command && $0.arguments.contains(cluster.directory(0))
    }
  }

  @Test(.timeLimit(.minutes(4))) func threeTimesTheCapacityGoesThroughS3() async throws {
    try await Self.withS3 { s3 in
      try await withCluster(s3.start, environment: s3.environment) { cluster in
        try await Self.put(Self.sizes.indices, into: cluster)
        let keys = try await s3.keys()
        #expect(keys.count >= 5)
        let host = try String(#require(keys.first).split(separator: "/")[1])
        #expect(HostID(host) != nil && keys.allSatisfy { $0.hasPrefix("mobula/\(host)/") }, "\(keys)")
        let shown = try await cluster.mobula("store")
        #expect(shown.output.contains("on disk 0 (0 B), in S3 \(keys.count) ("), "\(shown)")
        try await Self.expectAll(cluster)

        // A damaged object is lost, says so, and costs nothing else.
        let damaged = try #require(try await s3.client.list(bucket: Self.bucket, prefix: "mobula/").first)
        var content = try await s3.client.bytes(bucket: Self.bucket, key: damaged.key.text, upTo: damaged.size)
        content[content.count / 2] ^= 1
        try await s3.client.put(bucket: Self.bucket, key: damaged.key.text, bytes: content)
        var failures: [Finished] = []
        for number in Self.sizes.indices {
          let got = try await Self.get(number, from: cluster)
          if !got.status.isSuccess { failures.append(got) }
        }
        #expect(failures.count == 1)
        #expect(failures.allSatisfy { $0.errors.contains("is lost:") }, "\(failures)")
        for number in Self.sizes.indices { _ = try await cluster.mobula("rm", "o\(number)") }
        #expect(try await s3.isEmpty(), "what was spilled goes with its objects")

        // What is there when the host stops goes with it.
        try await Self.put(0..<6, into: cluster)
        #expect(try await !s3.keys().isEmpty)
        #expect(try await cluster.mobula("stop").status.isSuccess)
        #expect(try await s3.isEmpty(within: 1))
      }
    }
  }

  @Test(.timeLimit(.minutes(4))) func aKilledHostsObjectsAreTakenOverOrRemoved() async throws {
    try await Self.withS3 { s3 in
      try await withCluster(s3.start, environment: s3.environment) { cluster in
        try await Self.put(Self.sizes.indices, into: cluster)
        // The store's process alone: its objects stay, in memory and in S3.
        let first = try #require(Self.process("host", of: cluster))
        kill(first.pid, SIGKILL)
        for _ in 0..<200 {
          if let next = Self.process("host", of: cluster), next.pid != first.pid,
            try await cluster.mobula("store").status.isSuccess
          {
            break
          }
          try await Task.sleep(for: .milliseconds(50))
        }
        try await Self.expectAll(cluster)

        // All of it, in the middle of a spill.
        let file = cluster.folder.path + "/file"
        try Data(Self.bytes(7)).write(to: URL(filePath: file))
        let before = try await s3.keys()
        async let late = cluster.mobula("put", file, "--name", "late")
        for _ in 0..<500 {
          if try await !s3.uploads().isEmpty { break }
          if try await s3.keys() != before { break }
        }
        let processes = ["supervise", "host"].compactMap { Self.process($0, of: cluster) }
        #expect(processes.count == 2)
        for process in processes { kill(process.pid, SIGKILL) }
        #expect(try await !late.status.isSuccess)
        let left = try await (s3.keys().count, s3.uploads().count)
        print("S3SpillTests: the killed host left \(left.0) objects and \(left.1) unfinished uploads")
        #expect(left.0 > 0)
        let port = String(cluster.head.split(separator: ":")[1])
        let again = try await run(
          Products.mobula, ["start", "--head", "--port", port, "--name", "h0"] + s3.start,
          environment: s3.environment.merging(cluster.environment(0)) { $1 })
        #expect(again.status.isSuccess, "\(again)")
        #expect(try await s3.isEmpty(), "what the dead one left is gone")
        try await Self.put(0..<5, into: cluster)
        #expect(try await !s3.keys().isEmpty)
      }
    }
  }

  @Test(.timeLimit(.minutes(4))) func nothingIsLostWhileS3IsAwayOrDenies() async throws {
    try await Self.withS3 { s3 in
      try await withCluster(s3.start, environment: s3.environment) { cluster in
        try await Self.put(0..<6, into: cluster)
        let spilled = try await s3.keys().count
        #expect(spilled >= 2)
        try await s3.server.pause {
          let start = ContinuousClock.now
          let file = cluster.folder.path + "/file"
          try Data(Self.bytes(7)).write(to: URL(filePath: file))
          let put = try await cluster.mobula("put", file, "--name", "refused")
          #expect(put.status == .status(1) && put.errors.contains("can't be spilled to \(Self.place)/"), "\(put)")
          #expect(put.errors.contains("can't be reached"), "\(put)")
          var failed = 0
          for number in 0..<6 {
            let got = try await Self.get(number, from: cluster)
            if got.status.isSuccess { continue }
            failed += 1
            #expect(got.errors.contains("can't be"), "\(got)")
          }
          #expect(failed >= spilled)
          #expect(start.duration(to: .now) < .seconds(100))
          // What is deleted now is removed when S3 is back.
          #expect(try await cluster.mobula("rm", "o0").status.isSuccess)
        }
        try await Self.expectInTime(1..<6, cluster)
        // And in the middle of a spill: it is made again, or the put says why it was not.
        let file = cluster.folder.path + "/file"
        async let late = cluster.mobula("put", file, "--name", "o0")
        for _ in 0..<200 {
          if try await !s3.uploads().isEmpty { break }
        }
        try await s3.server.restart()
        let put = try await late
        #expect(put.status.isSuccess || put.errors.contains("can't be spilled to \(Self.place)/"), "\(put)")
        try await Self.expectInTime(1..<6, cluster)
        for number in 0..<6 { _ = try await cluster.mobula("rm", "o\(number)") }
        let isEmpty = try await s3.isEmpty(within: 60)
        let left = try await (s3.keys(), s3.uploads())
        #expect(isEmpty, "left: \(left)")
      }
      // A secret that S3 does not accept.
      let wrong = s3.environment.merging(["AWS_SECRET_ACCESS_KEY": "wrong"]) { $1 }
      try await withCluster(s3.start, environment: wrong) { cluster in
        try await Self.put(0..<2, into: cluster)
        let file = cluster.folder.path + "/file"
        try Data(Self.bytes(6) + Self.bytes(7)).write(to: URL(filePath: file))
        let put = try await cluster.mobula("put", file)
        #expect(put.status == .status(1) && put.errors.contains("does not accept the credentials"), "\(put)")
        let got = try await Self.get(1, from: cluster)
        #expect(got.status.isSuccess, "\(got)")
      }
    }
  }

  @Test(.timeLimit(.minutes(2))) func foldersAreUsedBeforeS3() async throws {
    try await Self.withS3 { s3 in
      let spill = try TemporaryFolder()
      defer { spill.remove() }
      try await withCluster(s3.start + ["--spill", spill.path + "/a"], environment: s3.environment) { cluster in
        try await Self.put(0..<5, into: cluster)
        #expect(try await s3.keys() == [])
        // A folder that can't be written any more, nor made again.
        try FileManager.default.removeItem(atPath: spill.path + "/a")
        #expect(symlink("/dev/null", spill.path + "/a") == 0)
        try await Self.put(5..<8, into: cluster)
        #expect(try await !s3.keys().isEmpty)
      }
      #expect(try await s3.isEmpty(within: 1))
    }
  }

  @Test func badPlacesAreRefusedAtOnce() async throws {
    for (arguments, word) in [
      (["--spill", "s3://"], "no S3 address"), (["--spill", "s3://a/x", "--spill", "s3://b/x"], "once"),
      (["--s3-endpoint", "http://127.0.0.1:1"], "--spill"), (["--spill", "none", "--spill", "s3://a"], "none"),
      (["--spill", "s3://a", "--s3-endpoint", "http://x/y"], "no S3 endpoint"),
    ] {
      let folder = try TemporaryFolder()
      defer { folder.remove() }
      let finished = try await run(
        Products.mobula, ["start", "--head", "--port", "0", "--directory", folder.path] + arguments)
      #expect(!finished.status.isSuccess && finished.errors.contains(word), "\(arguments): \(finished)")
    }
  }
}
