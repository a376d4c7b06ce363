import AsyncHTTPClient
import FoundationEssentials
import MobulaBench
import MobulaCore
import NIOCore
import NIOHTTP1
import Testing

@testable import MobulaS3

/// Uploads, copies and checksums at a real server.
@Suite(
  .seaweed, .enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"))
struct SeaweedUploadTests {
  let server: SeaweedServer
  let client: S3Client
  let bucket: String
  /// S3's smallest part.
  static let partSize = 5 * 1_048_576

  init() async throws {
    server = try #require(WithSeaweed.server)
    var configuration = S3Configuration(endpoint: server.endpoint)
    configuration.multipartThreshold = ByteCount(Self.partSize)
    configuration.uploadPartSize = ByteCount(Self.partSize)
    configuration.maximumCopySize = ByteCount(6 * 1_048_576)
    client = S3Client(configuration: configuration, credentials: server.credentials)
    bucket = "u-\(ObjectID.random())"
    try await client.createBucket(bucket)
  }

  /// The uploads that have neither been completed nor given up.
  private func openUploads() async throws -> Int {
    let tree = try await client.document(
      S3Request(method: .get, bucket: bucket, query: [("uploads", "")]), named: "ListMultipartUploadsResult")
    return tree.children.count { $0.name == "Upload" }
  }

  @Test(arguments: [5_242_879, 5_242_880, 5_242_881, 23_000_001]) func anySizeArrivesWhole(size: Int) async throws {
    let bytes = pattern(size)
    let etag = try await client.put(bucket: bucket, key: "m", size: size) { Array(bytes[$0]) }
    let info = try await client.head(bucket: bucket, key: "m")
    #expect(info.size == size && info.etag == etag)
    #expect(info.etag.hasSuffix("-\((size + Self.partSize - 1) / Self.partSize)\"") == (size >= Self.partSize))
    // Of the whole object, also where it came in parts.
    let checksum = S3Checksum(
      algorithm: .crc32c, bytes: bigEndian(UInt64(bytes.withUnsafeBytes { crc32c($0) }), count: 4))
    #expect(info.checksum == checksum)
    let memory = try await client.downloadIntoMemory(bucket: bucket, key: "m", partSize: ByteCount(1_000_000))
    #expect(memory.bytes.elementsEqual(bytes))
    #expect(memory.verification == .verified(checksum))
    #expect(try await openUploads() == 0)
  }

  @Test func downloadsAreComparedWithTheChecksum() async throws {
    let bytes = pattern(3_000_000)
    try await client.put(bucket: bucket, key: "m", size: bytes.count) { Array(bytes[$0]) }
    let info = try await client.head(bucket: bucket, key: "m")
    #expect(info.checksum?.algorithm == .crc32c)
    let sink = try MemorySink(size: bytes.count + 100)
    let result = try await client.download(
      bucket: bucket, key: "m", info: info, into: sink, header: pattern(100), partSize: ByteCount(500_000))
    #expect(result == .verified(try #require(info.checksum)))
    #expect(sink.isCompleteAndRight && sink.bytes == pattern(100) + bytes)
    #expect(try await client.bytes(bucket: bucket, key: "m", upTo: bytes.count) == bytes)
  }

  /// As other clients upload: with one of S3's checksums, of which S3 keeps one of the parts'.
  @Test(arguments: [S3ChecksumAlgorithm.crc32, .crc32c, .crc64nvme, .sha256], [false, true])
  func checksumsOfOtherUploads(algorithm: S3ChecksumAlgorithm, inParts: Bool) async throws {
    let bytes = pattern(inParts ? 2 * Self.partSize + 1_000_003 : 3_000_001)
    func header(_ range: Range<Int>) -> (String, String) {
      var running = S3RunningChecksum(algorithm)
      bytes[range].withUnsafeBytes { running.update($0) }
      return (algorithm.header, Data(running.bytes).base64EncodedString())
    }
    if inParts {
      let begin = S3Request(
        method: .post, bucket: bucket, key: "m", query: [("uploads", "")],
        headers: [("x-amz-checksum-algorithm", algorithm.rawValue.uppercased())])
      let id = try #require(try await client.document(begin, named: "InitiateMultipartUploadResult")["UploadId"])
      let layout = S3PartLayout(size: bytes.count, leastPart: Self.partSize)
      var text = "<CompleteMultipartUpload>"
      for number in 1...layout.count {
        let range = layout.range(of: number)
        let etag = try await client.answered(
          S3Request(
            method: .put, bucket: bucket, key: "m", query: [("partNumber", "\(number)"), ("uploadId", id)],
            headers: [header(range)], payload: .bytes(Array(bytes[range])))
        ).etag
        let name = "Checksum\(algorithm.rawValue.uppercased())"
        text += "<Part><PartNumber>\(number)</PartNumber><ETag>\(try #require(etag))</ETag>"
        text += "<\(name)>\(header(range).1)</\(name)></Part>"
      }
      text += "</CompleteMultipartUpload>"
      let end = S3Request(
        method: .post, bucket: bucket, key: "m", query: [("uploadId", id)], payload: .bytes(Array(text.utf8)))
      _ = try await client.document(end, named: "CompleteMultipartUploadResult")
    } else {
      try await client.done(
        S3Request(
          method: .put, bucket: bucket, key: "m", headers: [header(bytes.indices)], payload: .bytes(bytes)))
    }
    let info = try await client.head(bucket: bucket, key: "m")
    #expect(info.checksum?.algorithm == algorithm)
    print("CHECKSUM", algorithm, inParts, info.checksum as Any)
    let memory = try await client.downloadIntoMemory(bucket: bucket, key: "m", partSize: ByteCount(1_000_000))
    #expect(memory.bytes.elementsEqual(bytes))
    #expect(
      memory.verification
        == (algorithm == .sha256 ? .notVerified(.notCombinable) : .verified(try #require(info.checksum))))
    #expect(try await client.bytes(bucket: bucket, key: "m", upTo: bytes.count) == bytes)
  }

  @Test func aProducerThatFailsLeavesNothing() async throws {
    struct Unwell: Error {}
    let bytes = pattern(20_000_000)
    await #expect(throws: Unwell.self) {
      try await client.put(bucket: bucket, key: "m", size: bytes.count) { range in
        if range.contains(17_000_000) { throw Unwell() }
        return Array(bytes[range])
      }
    }
    #expect(try await openUploads() == 0)
    #expect(try await client.list(bucket: bucket) == [])
  }

  @Test func aCancelledUploadLeavesNothing() async throws {
    let bytes = pattern(20_000_000)
    let began = AsyncStream<Void>.makeStream()
    let (client, bucket) = (client, bucket)
    let task = Task {
      try await client.put(bucket: bucket, key: "m", size: bytes.count) { range in
        if range.lowerBound >= 5_242_880 {
          began.continuation.yield()
          try await Task.sleep(for: .seconds(3600))
        }
        return Array(bytes[range])
      }
    }
    for await _ in began.stream { break }
    #expect(try await openUploads() == 1)
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(try await openUploads() == 0)
    #expect(try await client.list(bucket: bucket) == [])
  }

  @Test(arguments: [0, 1000, 6_291_456, 20_000_000]) func copies(size: Int) async throws {
    let bytes = pattern(size)
    try await client.put(bucket: bucket, key: "a/from ü+.bin", size: size) { Array(bytes[$0]) }
    let source = S3URL(bucket: bucket, key: "a/from ü+.bin")
    try await client.copy(from: source, to: S3URL(bucket: bucket, key: "to"))
    #expect(try await client.bytes(bucket: bucket, key: "to", upTo: size) == bytes)
    #expect(try await openUploads() == 0)
    await #expect {
      try await client.copy(from: S3URL(bucket: bucket, key: "none"), to: S3URL(bucket: bucket, key: "to"))
    } throws: { ($0 as? S3Error)?.code == "NoSuchKey" }
  }

  @Test func presignedURLs() async throws {
    let put = try await client.presignedURL(.put, bucket: bucket, key: "a b", expiry: .seconds(60))
    var request = HTTPClientRequest(url: put)
    request.method = .PUT
    request.body = .bytes(ByteBuffer(string: "hello"))
    #expect(try await HTTPClient.shared.execute(request, timeout: .seconds(10)).status == .ok)
    let get = try await client.presignedURL(.get, bucket: bucket, key: "a b", expiry: .seconds(604_800))
    #expect(try await plainHTTPGet(get) == "hello")
    await #expect(throws: MobulaError.self) { try await plainHTTPGet(get + "0") }
    for expiry in [Duration.zero, .seconds(-1), .seconds(604_801)] {
      await #expect {
        _ = try await client.presignedURL(.get, bucket: bucket, key: "k", expiry: expiry)
      } throws: { ($0 as? MobulaError)?.code == .invalidArgument }
    }
  }
}
