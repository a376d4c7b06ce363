import FoundationEssentials
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
      let copy = cluster.folder.path + "/copy"
      let got = try await cluster.mobula("get", "s3://models/whisper/model.bin", "-o", copy, host: 1)
      #expect(got.status.isSuccess, "\(got)")
      #expect(try Data(contentsOf: URL(filePath: copy)) == Data(bytes))
      #expect(try await s3.bytesSent(bucket: "models") == once)

      for (url, word) in [
        ("s3://nowhere/model", "nowhere"), ("s3://models/missing", "s3://models/missing"), ("http://x", "s3://"),
      ] {
        let failed = try await cluster.mobula("fetch", url)
        #expect(failed.status == .status(1) && failed.errors.contains(word), "\(failed)")
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
}
