import FoundationEssentials
import Glibc
import MobulaBench
import MobulaCore
import Testing

@testable import MobulaS3

/// `mobula fetch` of buckets that keep versions.
@Suite struct FetchVersionTests {
  private func pattern(_ seed: UInt64, size: Int = 5_000_001) -> [UInt8] {
    SyntheticModel(size: size, seed: seed).bytes(in: 0..<size)
  }

  private func expect(
    _ url: String, _ bytes: [UInt8], on cluster: TestCluster, host: Int = 0,
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    let fetched = try await cluster.mobula("fetch", url, host: host)
    #expect(fetched.status.isSuccess && fetched.output.contains(url), "\(fetched)", sourceLocation: sourceLocation)
    let copy = cluster.folder.path + "/copy"
    let got = try await cluster.mobula("get", url, "-o", copy, host: host)
    #expect(got.status.isSuccess, "\(got)", sourceLocation: sourceLocation)
    let isSame = try Data(contentsOf: URL(filePath: copy)) == Data(bytes)
    #expect(isSame, sourceLocation: sourceLocation)
    unlink(copy)
  }

  @Test(
    .enabled(if: SeaweedServer.isInstalled(), "skipped: SeaweedFS is not installed (make environment)"),
    .timeLimit(.minutes(2)))
  func versionsOfARealServer() async throws {
    let s3 = try await SeaweedServer.start()
    do {
      try await fetchVersions(of: s3)
    } catch {
      await s3.stop()
      throw error
    }
    await s3.stop()
  }

  private func fetchVersions(of s3: SeaweedServer) async throws {
    let client = s3.client()
    try await client.createBucket("models")
    let status = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    try await client.done(
      S3Request(method: .put, bucket: "models", query: [("versioning", "")], payload: .bytes(Array(status.utf8))))
    let (old, new) = (pattern(1), pattern(2))
    try await client.put(bucket: "models", key: "m", bytes: old)
    let version = try #require(try await client.head(bucket: "models", key: "m").versionID)
    try await client.put(bucket: "models", key: "m", bytes: new)
    let environment = ["AWS_ENDPOINT_URL": s3.endpoint.description, "AWS_REGION": "us-east-1"]
      .merging(s3.credentials.environment) { $1 }
    try await withCluster(others: 1, environment: environment) { cluster in
      let named = "s3://models/m?versionId=\(version)"
      try await expect("s3://models/m", new, on: cluster)
      try await expect(named, old, on: cluster)
      try await expect(named, old, on: cluster, host: 1)
      try await expect("s3://models/m", new, on: cluster, host: 1)
      let none = try await cluster.mobula("fetch", "s3://models/m?versionId=\(String(version.reversed()))")
      #expect(none.status == .status(1) && none.errors.contains("s3://models/m"), "\(none)")
      // A key that is called so comes first.
      try await client.put(bucket: "models", key: "m?versionId=\(version)", bytes: Array("a key".utf8))
      try await expect(named, Array("a key".utf8), on: cluster)
    }
    await client.shutdown()
  }

  private let path = "/models/m"

  @Test(.timeLimit(.minutes(1))) func everyRangeNamesTheVersion() async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    let (old, new) = (pattern(1), pattern(2))
    server.put(path, .init(id: "v1", bytes: old, etag: "\"same\""))
    try await withCluster(environment: server.environment) { cluster in
      try await expect("s3://models/m", old, on: cluster)
      // Even an ETag may stay, as with some encryption; the version does not.
      server.put(path, .init(id: "v2", bytes: new, etag: "\"same\""))
      try await expect("s3://models/m", new, on: cluster)
      // Without those of a byte, which ask why there is no key.
      func ranges() -> [ObjectServer.Request] { server.requests.filter { $0.range.map { $0.count > 1 } ?? false } }
      let both = ranges()
      #expect(Set(both.map { $0.query["versionId"] }) == ["v1", "v2"])
      #expect(both.reduce(0) { $0 + $1.range!.count } == old.count + new.count)
      // What the cluster has by one name it has by the other.
      try await expect("s3://models/m?versionId=v2", new, on: cluster)
      #expect(ranges().count == both.count)
    }
  }

  /// Who may read objects need not be allowed to name their versions.
  @Test(.timeLimit(.minutes(1))) func whoMayNotNameVersionsReadsTheCurrentOne() async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    let bytes = pattern(1)
    server.put(path, .init(id: "v1", bytes: bytes, etag: "\"e1\""))
    server.denyVersions()
    try await withCluster(environment: server.environment) { cluster in
      try await expect("s3://models/m", bytes, on: cluster)
      let denied = try await cluster.mobula("fetch", "s3://models/m?versionId=v1")
      #expect(denied.status == .status(1) && denied.errors.contains("denies access"), "\(denied)")
    }
  }

  @Test(.timeLimit(.minutes(1))) func aBucketWithoutVersions() async throws {
    let server = try ObjectServer()
    defer { server.stop() }
    let bytes = pattern(1, size: 100_000)
    server.put(path, .init(bytes: bytes, etag: "\"e1\"", headers: ["x-amz-version-id": "null"]))
    try await withCluster(environment: server.environment) { cluster in
      try await expect("s3://models/m", bytes, on: cluster)
      #expect(server.requests.allSatisfy { $0.query["versionId"] == nil })
    }
  }
}
