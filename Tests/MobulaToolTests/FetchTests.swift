import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import MobulaS3
import Testing

/// `mobula fetch` against a real S3 server.
@Suite(.enabled(if: SeaweedServer.isInstalled(), "skipped: SeaweedFS is not installed (make environment)"))
struct FetchTests {
  @Test func eachByteLeavesS3Once() async throws {
    let s3 = try await SeaweedServer.start()
    do {
      try await fetchFrom(s3)
    } catch {
      await s3.stop()
      throw error
    }
    await s3.stop()
  }

  /// Small objects come by one GET each, whichever host wants them; what is not as the listing says comes all the same.
  @Test func manySmallObjects() async throws {
    let s3 = try await SeaweedServer.start()
    do {
      try await fetchSmall(from: s3)
    } catch {
      await s3.stop()
      throw error
    }
    await s3.stop()
  }

  private func fetchSmall(from s3: SeaweedServer) async throws {
    let client = s3.client()
    try await client.createBucket("models")
    func content(_ number: Int) -> [UInt8] { Array(repeating: UInt8(truncatingIfNeeded: number), count: number * 1003) }
    for number in 0..<100 {
      try await client.put(bucket: "models", key: "set/\(number)", bytes: content(number))
    }
    let environment = ["AWS_ENDPOINT_URL": s3.endpoint.description, "AWS_REGION": "us-east-1"]
      .merging(s3.credentials.environment) { $1 }
    try await withCluster(others: 1, environment: environment) { cluster in
      async let first = cluster.mobula("fetch", "s3://models/set/", "-q", host: 0)
      async let second = cluster.mobula("fetch", "s3://models/set/", "-q", host: 1)
      let (a, b) = try await (first, second)
      #expect(a.status.isSuccess && b.status.isSuccess, "\(a) \(b)")
      #expect(a.output == b.output && Set(a.output.split(whereSeparator: \.isNewline)).count == 100)
      let again = try await cluster.mobula("fetch", "s3://models/set/", host: 1)
      #expect(again.status.isSuccess && again.errors.contains("on this host already"), "\(again)")
      let got = try await cluster.mobula("get", "s3://models/set/", "-o", cluster.folder.path + "/got/", host: 1)
      #expect(got.status.isSuccess, "\(got)")
      for number in 0..<100 {
        let bytes = try Data(contentsOf: URL(filePath: cluster.folder.path + "/got/\(number)"))
        #expect(Array(bytes) == content(number), "\(number)")
      }
      // Another version, and all again.
      try await client.put(bucket: "models", key: "set/7", bytes: content(8))
      let newer = try await cluster.mobula("fetch", "s3://models/set/", host: 0)
      #expect(newer.status.isSuccess, "\(newer)")
      let seven = try await cluster.mobula("get", "s3://models/set/7", "-o", cluster.folder.path + "/seven", host: 1)
      #expect(seven.status.isSuccess, "\(seven)")
      #expect(try Array(Data(contentsOf: URL(filePath: cluster.folder.path + "/seven"))) == content(8))
      let removed = try await cluster.mobula("rm", "s3://models/set/", host: 1)
      #expect(removed.status.isSuccess && removed.output.contains("stays in S3"), "\(removed)")
    }
    await client.shutdown()
  }

  /// Files and objects of the cluster to S3, and what goes wrong there.
  @Test func putAndGetToS3() async throws {
    let s3 = try await SeaweedServer.start()
    do {
      try await upload(to: s3)
    } catch {
      await s3.stop()
      throw error
    }
    await s3.stop()
  }

  private func upload(to s3: SeaweedServer) async throws {
    let client = s3.client()
    try await client.createBucket("models")
    let environment = ["AWS_ENDPOINT_URL": s3.endpoint.description, "AWS_REGION": "us-east-1"]
      .merging(s3.credentials.environment) { $1 }
    // More than the size from which on it goes in parts.
    let model = SyntheticModel(size: 70_000_001, seed: 3)
    let bytes = model.bytes(in: 0..<model.size)
    try await withCluster(environment: environment) { cluster in
      let file = cluster.folder.path + "/model.bin"
      try Data(bytes).write(to: URL(filePath: file))
      let put = try await cluster.mobula("put", file, "s3://models/a/", environment: environment)
      #expect(put.status.isSuccess && put.output == "70 MB in s3://models/a/model.bin\n", "\(put)")
      #expect(try await client.bytes(bucket: "models", key: "a/model.bin", upTo: model.size) == bytes)
      #expect(try await client.head(bucket: "models", key: "a/model.bin").etag.hasSuffix("-5\""))

      // Interrupted, it leaves no parts behind, which cost for good.
      let big = cluster.folder.path + "/big"
      #expect(FileManager.default.createFile(atPath: big, contents: nil) && truncate(big, 600_000_000) == 0)
      let sending = try ChildProcess.spawn(
        Products.mobula, ["put", big, "s3://models/big"],
        environment: currentEnvironment().merging(environment) { $1 }, output: .null, errors: .null)
      while try await client.unfinishedUploads(bucket: "models", prefix: "").isEmpty, sending.exit == nil {
        try await Task.sleep(for: .milliseconds(5))
      }
      sending.signal(SIGINT)
      while sending.exit == nil { try await Task.sleep(for: .milliseconds(5)) }
      #expect(sending.exit == .status(130))
      #expect(try await client.unfinishedUploads(bucket: "models", prefix: "").isEmpty)

      let stored = try await cluster.mobula("put", file)
      #expect(stored.status.isSuccess, "\(stored)")
      let got = try await cluster.mobula(
        "get", "model.bin", "-o", "s3://models/b", "--json", environment: environment)
      #expect(got.status.isSuccess && got.output.contains("s3://models/b"), "\(got)")
      #expect(try await client.bytes(bucket: "models", key: "b", upTo: model.size) == bytes)

      let nowhere = try await cluster.mobula("put", file, "s3://", environment: environment)
      #expect(!nowhere.status.isSuccess && nowhere.errors.contains("s3://BUCKET/KEY"), "\(nowhere)")
      let wrong = environment.merging(["AWS_SECRET_ACCESS_KEY": "wrong"]) { $1 }
      let denied = try await cluster.mobula("put", file, "s3://models/x", environment: wrong)
      #expect(denied.status == .status(1) && denied.errors.contains("SignatureDoesNotMatch"), "\(denied)")
      let without = try await cluster.mobula("put", file, "s3://models/x")
      #expect(without.status == .status(1) && without.errors.contains("AWS_SECRET_ACCESS_KEY"), "\(without)")
    }
    await client.shutdown()
  }

  /// What host 1 says of an object that the other gave it, when it is asked for once more.
  private func explains(_ size: Int, on cluster: TestCluster) async throws {
    struct Fetched: Decodable {
      struct Source: Decodable { var bytes: Int }
      var sources: [Source]
    }
    let url = "s3://models/whisper/model.bin"
    let text = try await cluster.mobula("fetch", url, "--explain", host: 1).output
    #expect(text.contains("on this host already"), "\(text)")
    let json = try await cluster.mobula("fetch", url, "--explain", "--json", host: 1).output
    let sources = try JSONDecoder().decode([Fetched].self, from: Data(json.utf8)).flatMap(\.sources)
    #expect(!sources.isEmpty && sources.reduce(0) { $0 + $1.bytes } == size, "\(json)")
  }

  private func fetchFrom(_ s3: SeaweedServer) async throws {
    let client = s3.client()
    try await client.createBucket("models")
    let model = SyntheticModel(size: 5_000_001, seed: 1)
    let bytes = model.bytes(in: 0..<model.size)
    try await client.put(bucket: "models", key: "whisper/model.bin", bytes: bytes)
    try await client.put(bucket: "models", key: "whisper/a name+with ü.json", bytes: Array("{}".utf8))
    await client.shutdown()
    let environment = ["AWS_ENDPOINT_URL": s3.endpoint.description, "AWS_REGION": "us-east-1"]
      .merging(s3.credentials.environment) { $1 }

    try await withCluster(others: 1, environment: environment) { cluster in
      let before = try await s3.bytesSent(bucket: "models")
      let fetched = try await cluster.mobula("fetch", "s3://models/whisper/")
      #expect(fetched.status.isSuccess && fetched.output.contains("s3://models/whisper/model.bin"), "\(fetched)")
      let once = try await s3.bytesSent(bucket: "models")
      #expect(once - before == model.size + 2)

      // From the other host: what the cluster has does not leave S3 again.
      let again = try await cluster.mobula("fetch", "s3://models/whisper/", host: 1)
      #expect(again.status.isSuccess, "\(again)")
      try await explains(model.size, on: cluster)
      let copy = cluster.folder.path + "/copy"
      let got = try await cluster.mobula("get", "s3://models/whisper/model.bin", "-o", copy, host: 1)
      #expect(got.status.isSuccess, "\(got)")
      #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bytes))
      #expect(try await s3.bytesSent(bucket: "models") == once)

      // A new version takes the URL for its name; nothing holds the old one.
      let next = s3.client()
      try await next.put(bucket: "models", key: "whisper/model.bin", bytes: Array(bytes.reversed()))
      await next.shutdown()
      #expect(try await cluster.mobula("fetch", "s3://models/whisper/model.bin", host: 1).status.isSuccess)
      let newer = cluster.folder.path + "/newer"
      #expect(try await cluster.mobula("get", "s3://models/whisper/model.bin", "-o", newer).status.isSuccess)
      #expect(try Data(contentsOf: URL(filePath: newer)) == Data(bytes.reversed()))
      let listed = try await cluster.mobula("ls").output
      #expect(listed.split(separator: "\n").filter { $0.contains("model.bin") }.count == 1, "\(listed)")
      // The names of versions are for programs.
      #expect(!listed.contains("#") && listed.contains("s3://models/whisper/model.bin "), "\(listed)")
      #expect(try await cluster.mobula("ls", "--json").output.contains("model.bin#"))

      for (url, status, word) in [
        ("s3://nowhere/model", 1, "nowhere"), ("s3://models/missing", 1, "s3://models/missing"),
        ("http://x", 64, "s3://"), ("s3://", 64, "s3://BUCKET/KEY"),
      ] as [(String, CInt, String)] {
        let failed = try await cluster.mobula("fetch", url)
        #expect(failed.status == .status(status) && failed.errors.contains(word), "\(failed)")
      }
    }
    // Evicted for want of room, it comes from S3 once more, for whoever asks by its name.
    let big = SyntheticModel(size: 100_000_000, seed: 2)
    let bigBytes = big.bytes(in: 0..<big.size)
    let again = s3.client()
    try await again.put(bucket: "models", key: "big/model.bin", bytes: bigBytes)
    await again.shutdown()
    try await withCluster(["--spill", "none"], environment: environment) { cluster in
      #expect(try await cluster.mobula("fetch", "s3://models/big/model.bin").status.isSuccess)
      let once = try await s3.bytesSent(bucket: "models")
      let file = cluster.folder.path + "/file"
      try Data(count: 200_000_000).write(to: URL(filePath: file))
      let put = try await cluster.mobula("put", file)
      #expect(put.status.isSuccess, "\(put)")
      #expect(try await cluster.mobula("rm", "file").status.isSuccess)
      let copy = cluster.folder.path + "/copy"
      let got = try await cluster.mobula("get", "s3://models/big/model.bin", "-o", copy)
      #expect(got.status.isSuccess, "\(got)")
      #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bigBytes))
      #expect(try await s3.bytesSent(bucket: "models") - once == big.size)
    }
    // What comes from S3 is received, too: no load makes it faster than its limit.
    try await withCluster(["--receive-limit", "40MB/s"], environment: environment) { cluster in
      let began = ContinuousClock.now
      let copy = cluster.folder.path + "/copy"
      let got = try await cluster.mobula("fetch", "s3://models/big/model.bin")
      #expect(got.status.isSuccess, "\(got)")
      #expect(try await cluster.mobula("get", "s3://models/big/model.bin", "-o", copy).status.isSuccess)
      let seconds = (ContinuousClock.now - began) / .seconds(1)
      print("100 MB from S3 at most 40 MB/s: \(seconds) s")
      #expect(seconds > 0.95 * Double(big.size) / 40e6)
    }
    var wrong = environment
    wrong["AWS_SECRET_ACCESS_KEY"] = "not the secret"
    try await withCluster(environment: wrong) { cluster in
      let denied = try await cluster.mobula("fetch", "s3://models/whisper/")
      #expect(denied.status == .status(1) && denied.errors.contains("Error: "), "\(denied)")
    }
    var without = environment
    without["AWS_SECRET_ACCESS_KEY"] = ""
    try await withCluster(environment: without) { cluster in
      let missing = try await cluster.mobula("fetch", "s3://models/whisper/")
      #expect(missing.status == .status(1) && missing.errors.contains("AWS_SECRET_ACCESS_KEY"), "\(missing)")
    }
  }

  private struct Fetched: Decodable {
    struct Source: Decodable {
      var source: String
      var bytes: Int
    }
    var name: String
    var size: Int
    var sources: [Source]?
    var reason: String?

    func bytes(from source: String) -> Int { sources?.first { $0.source == source }?.bytes ?? 0 }
    /// Besides S3's bytes an object has a header.
    var isWhole: Bool { size <= sources!.reduce(0) { $0 + $1.bytes } }
  }

  private func explained(_ finished: Finished) throws -> Fetched {
    try #require(finished.status.isSuccess, "\(finished)")
    return try #require(try JSONDecoder().decode([Fetched].self, from: Data(finished.output.utf8)).first)
  }

  private func withModel(
    of size: Int, _ body: (SeaweedServer, [UInt8], [String: String]) async throws -> Void
  ) async throws {
    let s3 = try await SeaweedServer.start()
    do {
      let client = s3.client()
      try await client.createBucket("models")
      let model = SyntheticModel(size: size, seed: 3)
      let bytes = model.bytes(in: 0..<size)
      try await client.put(bucket: "models", key: "m/model.bin", bytes: bytes)
      try await client.put(bucket: "models", key: "m/model.bin.txt", bytes: Array("text".utf8))
      try await client.put(bucket: "models", key: "m/sub/empty", bytes: [0])
      await client.shutdown()
      let environment = ["AWS_ENDPOINT_URL": s3.endpoint.description, "AWS_REGION": "us-east-1"]
        .merging(s3.credentials.environment) { $1 }
      try await body(s3, bytes, environment)
    } catch {
      await s3.stop()
      throw error
    }
    await s3.stop()
  }

  private let url = "s3://models/m/model.bin"

  /// Limited, so that they are at it at the same time.
  @Test(.timeLimit(.minutes(2))) func hostsReadItTogether() async throws {
    try await withModel(of: 40_000_000) { s3, bytes, environment in
      let limit = ["--receive-limit", "10MB/s"]
      try await withCluster(others: 2, limit, joining: limit, environment: environment) { cluster in
        let before = try await s3.bytesSent(bucket: "models")
        async let first = cluster.mobula("fetch", url, "--explain", "--json")
        async let second = cluster.mobula("fetch", url, "--explain", "--json", host: 1)
        async let third = cluster.mobula("fetch", url, "--explain", "--json", host: 2)
        let fetched = try await [first, second, third].map(explained)
        #expect(try await s3.bytesSent(bucket: "models") - before == bytes.count)
        for (index, one) in fetched.enumerated() {
          #expect(one.name == url && one.size == bytes.count && one.isWhole && one.reason == nil, "\(one)")
          #expect(one.bytes(from: "s3") > 0 && one.bytes(from: "h\((index + 1) % 3)") > 0, "\(one)")
        }
        for host in 0..<3 {
          let copy = cluster.folder.path + "/copy\(host)"
          #expect(try await cluster.mobula("get", url, "-o", copy, host: host).status.isSuccess)
          #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bytes))
        }
        let text = try await cluster.mobula("fetch", url, "--explain")
        #expect(text.output.contains("from S3: what this host was to read of it"), "\(text)")
        #expect(text.output.contains("verified: the bytes have S3's checksum (crc32c)"), "\(text)")
        #expect(try await s3.bytesSent(bucket: "models") - before == bytes.count)
      }
    }
  }

  @Test(.timeLimit(.minutes(2))) func whatALostHostWasToReadOthersRead() async throws {
    try await withModel(of: 40_000_000) { s3, bytes, environment in
      let limit = ["--receive-limit", "10MB/s"]
      try await withCluster(others: 2, limit, joining: limit, environment: environment) { cluster in
        async let first = cluster.mobula("fetch", url, "--explain", "--json", within: .seconds(100))
        async let second = cluster.mobula("fetch", url, "--explain", "--json", host: 1, within: .seconds(100))
        async let third = cluster.mobula("fetch", url, host: 2, within: .seconds(100))
        // Until it has read something.
        while try await s3.bytesSent(bucket: "models") < 6_000_000 { try await Task.sleep(for: .milliseconds(50)) }
        for process in RunningProcess.all() where process.variable("MOBULA_DIRECTORY") == cluster.directory(2) {
          kill(process.pid, SIGKILL)
        }
        let fetched = try await [first, second].map(explained)
        for one in fetched { #expect(one.isWhole, "\(one)") }
        _ = try await third
        for host in 0..<2 {
          let copy = cluster.folder.path + "/copy\(host)"
          #expect(try await cluster.mobula("get", url, "-o", copy, host: host).status.isSuccess)
          #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bytes))
        }
      }
    }
  }

  @Test(.timeLimit(.minutes(2))) func s3IsReadWhereItIsFasterThanTheHosts() async throws {
    try await withModel(of: 60_000_000) { s3, bytes, environment in
      try await withCluster(others: 1, ["--send-limit", "2MB/s"], environment: environment) { cluster in
        #expect(try await cluster.mobula("fetch", url).status.isSuccess)
        let one = try explained(try await cluster.mobula("fetch", url, "--explain", "--json", host: 1))
        #expect(one.isWhole && one.bytes(from: "h0") > 0 && one.bytes(from: "s3") > 30_000_000, "\(one)")
        #expect(one.reason?.contains("hosts brought") == true)
        let copy = cluster.folder.path + "/copy"
        #expect(try await cluster.mobula("get", url, "-o", copy, host: 1).status.isSuccess)
        #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bytes))
      }
    }
  }

  @Test(.timeLimit(.minutes(2))) func aDirectoryIsMappedWhole() async throws {
    try await withModel(of: 3_000_001) { s3, bytes, environment in
      try await withCluster(environment: environment) { cluster in
        let own = ["SCENARIO": "directory"].merging(cluster.environment(0)) { $1 }
        let finished = try await run(Products.testApp, [], environment: own)
        #expect(finished.status.isSuccess && finished.output == "done\n", "\(finished)")
      }
    }
  }
}
