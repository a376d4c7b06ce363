import MobulaBench
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

@Suite(
  .seaweed, .enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"))
struct SeaweedTests {
  let server: SeaweedServer
  let client: S3Client
  let bucket: String

  /// Every test has a bucket of its own.
  init() async throws {
    server = try #require(WithSeaweed.server)
    client = server.client()
    bucket = "b-\(ObjectID.random())"
    try await client.createBucket(bucket)
  }

  func expectError(_ code: MobulaError.Code, _ part: String, _ body: () async throws -> Void) async {
    await #expect {
      try await body()
    } throws: { error in
      guard let error = (error as? S3Error)?.mobulaError else { return false }
      return error.code == code && error.message.contains(part)
    }
  }

  /// No words of a library, nor paths of where it was built.
  @Test func whoSpeaksNoTLSIsSaidToSpeakNone() async throws {
    let plain = client.configuration.baseEndpoint
    var configuration = S3Configuration(endpoint: S3Endpoint(scheme: .https, host: plain.host, port: plain.port))
    configuration.retry = S3RetryPolicy(maximumAttempts: 1)
    let secure = S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
    await expectError(.unavailable, "(what answers there speaks no TLS: http:// may be meant)") {
      _ = try await secure.head(bucket: bucket, key: "k")
    }
  }

  @Test func putHeadGetDelete() async throws {
    let bytes = pattern(100_000)
    try await client.put(bucket: bucket, key: "a/b.bin", bytes: bytes)
    let info = try await client.head(bucket: bucket, key: "a/b.bin")
    #expect(info.size == 100_000)
    #expect(info.etag.hasPrefix("\""))
    #expect(info.lastModified?.hasSuffix("GMT") == true)
    #expect(try await client.get(bucket: bucket, key: "a/b.bin").bytes(upTo: 1 << 20) == bytes)
    let part = try await client.get(bucket: bucket, key: "a/b.bin", range: 10..<5010, ifMatch: info.etag)
    #expect(part.size == 5000)
    #expect(try await part.bytes(upTo: 5000) == Array(bytes[10..<5010]))
    try await client.delete(bucket: bucket, key: "a/b.bin")
    await expectError(.notFound, "no object s3://\(bucket)/a/b.bin") {
      _ = try await client.head(bucket: bucket, key: "a/b.bin")
    }
  }

  @Test func putFromAProducer() async throws {
    let bytes = pattern(3_000_001)
    try await client.put(bucket: bucket, key: "k", size: bytes.count) { Array(bytes[$0]) }
    #expect(try await client.get(bucket: bucket, key: "k").bytes(upTo: bytes.count) == bytes)
  }

  @Test(arguments: [
    "with space", "a+b", "ü/模型/💡", "100%", "a=b&c", "~!*'()@$,;:", "quote\"<&>", "%41", "a//b", "#?",
  ])
  func oddKeys(key: String) async throws {
    try await client.put(bucket: bucket, key: key, bytes: Array(key.utf8))
    #expect(try await client.get(bucket: bucket, key: key).bytes(upTo: 100) == Array(key.utf8))
    #expect(try await client.head(bucket: bucket, key: key).size == key.utf8.count)
  }

  @Test func listingByPages() async throws {
    let keys = ["m/1 2", "m/a+b", "m/c&d", "m/e", "m/sub/f", "m/ü"]
    for key in keys + ["other"] { try await client.put(bucket: bucket, key: key, bytes: [1, 2]) }
    let listed = try await client.list(bucket: bucket, prefix: "m/", pageSize: 2)
    #expect(listed.map(\.key).sorted() == keys.map { Name($0) }.sorted())
    #expect(listed.allSatisfy { $0.size == 2 })
    let info = try await client.head(bucket: bucket, key: "m/e")
    #expect(listed.first { $0.key == "m/e" }?.etag == info.etag)
    #expect(try await client.list(bucket: bucket).count == 7)
    #expect(try await client.list(bucket: bucket, prefix: "x") == [])
  }

  @Test func foldersAreNoObjectsToFetch() async throws {
    try await client.put(bucket: bucket, key: "m/", bytes: [])
    try await client.put(bucket: bucket, key: "m/a", bytes: [1])
    #expect(try await client.objects(at: S3URL("s3://\(bucket)/m")).map(\.key) == ["m/a"])
    await expectError(.notFound, "nothing under s3://\(bucket)/n") {
      _ = try await client.objects(at: S3URL("s3://\(bucket)/n"))
    }
  }

  @Test(arguments: [0, 1, 64, 65_536, 70_000])
  func downloadBehindAHeader(headerSize: Int) async throws {
    let bytes = pattern(1_000_003)
    let header = Array(pattern(headerSize + 7).suffix(headerSize))
    try await client.put(bucket: bucket, key: "model", bytes: bytes)
    let info = try await client.head(bucket: bucket, key: "model")
    let sink = try MemorySink(size: headerSize + bytes.count)
    let progress = Mutex(0)
    try await client.download(
      bucket: bucket, key: "model", info: info, into: sink, header: header, concurrency: 3, partSize: ByteCount(150_000)
    ) { count in progress.withLock { $0 += count } }
    #expect(sink.bytes == header + bytes)
    #expect(sink.isCompleteAndRight)
    #expect(progress.withLock { $0 } == sink.geometry.objectSize)
  }

  @Test func everyByteLeavesTheServerOnce() async throws {
    let bytes = pattern(5_000_000)
    try await client.put(bucket: bucket, key: "model", bytes: bytes)
    // Neither listings nor errors count.
    #expect(try await client.list(bucket: bucket).count == 1)
    _ = try? await client.head(bucket: bucket, key: "missing")
    #expect(try await server.bytesSent(bucket: bucket) == 0)
    let memory = try await client.downloadIntoMemory(bucket: bucket, key: "model", partSize: ByteCount(1_000_000))
    #expect(memory.bytes.elementsEqual(bytes))
    #expect(try await server.bytesSent(bucket: bucket) == 5_000_000)
  }

  @Test func anEmptyObjectIntoMemory() async throws {
    try await client.put(bucket: bucket, key: "empty", bytes: [])
    #expect(try await client.downloadIntoMemory(bucket: bucket, key: "empty").bytes.isEmpty)
  }

  @Test func anObjectThatChangesMidDownload() async throws {
    try await client.put(bucket: bucket, key: "model", bytes: pattern(500_000))
    let info = try await client.head(bucket: bucket, key: "model")
    let other = Array(pattern(500_001).dropFirst())
    let sink = try MemorySink(size: 500_000)
    // One chunk of the old version is there already.
    let first = try #require(sink.claimChunk(from: 0))
    sink.commit(first, checksum: 0)
    try await client.put(bucket: bucket, key: "model", bytes: other)
    await expectError(.mismatch, "s3://\(bucket)/model changed while it was downloaded") {
      try await client.download(bucket: bucket, key: "model", info: info, into: sink)
    }
    #expect(Set(sink.checksums.keys) == [0])
    #expect(sink.free == Set(1..<sink.geometry.count))
  }

  private func keepVersions() async throws {
    let status = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    try await client.done(
      S3Request(method: .put, bucket: bucket, query: [("versioning", "")], payload: .bytes(Array(status.utf8))))
  }

  /// Where the bucket keeps versions, the one that was asked for is read to its end, whatever becomes of the key.
  @Test func aVersionIsReadToItsEnd() async throws {
    try await client.put(bucket: bucket, key: "plain", bytes: [1])
    #expect(try await client.head(bucket: bucket, key: "plain").versionID == nil)
    try await keepVersions()
    let (old, new) = (pattern(500_000), Array(pattern(500_001).dropFirst()))
    try await client.put(bucket: bucket, key: "a?b", bytes: old)
    let info = try await client.head(bucket: bucket, key: "a?b")
    let version = try #require(info.versionID)
    try await client.put(bucket: bucket, key: "a?b", bytes: new)
    let current = try await client.head(bucket: bucket, key: "a?b")
    #expect(current.versionID != version && current.etag != info.etag)
    #expect(try await client.head(bucket: bucket, key: "a?b", versionID: version) == info)
    for (info, bytes) in [(info, old), (current, new)] {
      let sink = try MemorySink(size: bytes.count)
      try await client.download(
        bucket: bucket, key: "a?b", info: info, into: sink, concurrency: 2, partSize: ByteCount(131_072))
      #expect(sink.bytes == bytes && sink.isCompleteAndRight)
    }
    try await client.delete(bucket: bucket, key: "a?b")
    let sink = try MemorySink(size: old.count)
    try await client.download(bucket: bucket, key: "a?b", info: info, into: sink)
    #expect(sink.bytes == old)
    await expectError(.notFound, "no object s3://\(bucket)/a?b") {
      _ = try await client.head(bucket: bucket, key: "a?b")
    }
  }

  @Test func missingBucket() async throws {
    let missing = "missing-\(ObjectID.random().short)"
    let message = "The bucket \(missing) does not exist at \(server.endpoint): create it, or check the name."
    await expectError(.notFound, message) { _ = try await client.head(bucket: missing, key: "k") }
    await expectError(.notFound, message) { _ = try await client.list(bucket: missing) }
    await expectError(.notFound, message) { _ = try await client.get(bucket: missing, key: "k") }
  }

  @Test func wrongSecret() async throws {
    try await client.put(bucket: bucket, key: "k", bytes: [1])
    let wrong = S3Client(
      configuration: client.configuration,
      credentials: S3Credentials(accessKey: server.credentials.accessKey, secretKey: "wrong"))
    await expectError(.denied, "correct them where they come from") {
      _ = try await wrong.head(bucket: bucket, key: "k")
    }
    let unknown = S3Client(
      configuration: client.configuration, credentials: S3Credentials(accessKey: "nobody", secretKey: "x"))
    await expectError(.denied, "InvalidAccessKeyId") { _ = try await unknown.list(bucket: bucket) }
  }
}
