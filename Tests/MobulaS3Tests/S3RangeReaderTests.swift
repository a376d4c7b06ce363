import MobulaBench
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Bytes as they come from any thread, and how often each did.
private final class Gathered: Sendable {
  private let state: Mutex<(bytes: [UInt8], counts: [Int])>
  let start: Int

  init(_ range: Range<Int>) {
    start = range.lowerBound
    state = Mutex(([UInt8](repeating: 0, count: range.count), [Int](repeating: 0, count: range.count)))
  }

  var bytes: [UInt8] { state.withLock { $0.bytes } }
  var isEachOnce: Bool { state.withLock { $0.counts.allSatisfy { $0 == 1 } } }

  func add(_ offset: Int, _ piece: UnsafeRawBufferPointer) {
    state.withLock { state in
      for (index, byte) in piece.enumerated() {
        state.bytes[offset - start + index] = byte
        state.counts[offset - start + index] += 1
      }
    }
  }
}

/// Ranges of one version that come in parallel, from servers good and bad.
struct S3RangeReaderTests {
  private let bytes = pattern(5_000_001)
  private let faults = S3FaultTests()

  private func read(_ port: Int, _ range: Range<Int>, _ gathered: Gathered, attempts: Int = 5) async throws {
    try await faults.client(port, attempts: attempts)
      .read(bucket: "b", key: "k", range: range, ifMatch: "\"v1\"") { gathered.add($0, $1) }
  }

  @Test(arguments: [0..<1, 0..<5_000_001, 4096..<5_000_001, 1_048_575..<3_145_729])
  func aRangeComesWhole(range: Range<Int>) async throws {
    let bytes = bytes
    let server = try FaultyServer { _, head in
      head.lowercased().contains("if-match: \"v1\"")
        ? S3FaultTests.part(bytes, S3FaultTests.range(in: head)) : answer("400 Bad Request")
    }
    defer { server.stop() }
    let gathered = Gathered(range)
    try await read(server.port, range, gathered)
    #expect(gathered.isEachOnce && gathered.bytes.elementsEqual(bytes[range]))
  }

  @Test func whatBreaksOffGoesOnWhereItDid() async throws {
    let bytes = bytes
    let server = try FaultyServer { number, head in
      let part = S3FaultTests.part(bytes, S3FaultTests.range(in: head))
      return number % 3 == 2 ? part : Array(part.prefix(part.count / 2))
    }
    defer { server.stop() }
    let gathered = Gathered(0..<bytes.count)
    try await read(server.port, 0..<bytes.count, gathered)
    #expect(gathered.isEachOnce && gathered.bytes == bytes)
  }

  @Test func anotherVersionIsAnError() async throws {
    let bytes = bytes
    for reply in [answer("412 Precondition Failed"), S3FaultTests.part(bytes, 0..<9, etag: "\"v2\"")] {
      let server = try FaultyServer { _, _ in reply }
      defer { server.stop() }
      let gathered = Gathered(0..<9)
      await faults.expectError(.mismatch, "changed") { try await read(server.port, 0..<9, gathered) }
      #expect(gathered.bytes == [UInt8](repeating: 0, count: 9))
    }
  }

  @Test func anotherRangeIsAnError() async throws {
    let bytes = bytes
    for reply in [
      S3FaultTests.part(bytes, 10..<19), answer("200 OK", ["ETag": "\"v1\""], bytes), answer("206 Partial Content"),
    ] {
      let server = try FaultyServer { _, _ in reply }
      defer { server.stop() }
      let gathered = Gathered(0..<9)
      await faults.expectError(.unavailable, "not the range") {
        try await read(server.port, 0..<9, gathered, attempts: 2)
      }
      #expect(server.requests.count == 2 && gathered.bytes == [UInt8](repeating: 0, count: 9))
    }
  }
}

/// What is left is found and removed, at a real server.
@Suite(
  .seaweed, .enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"))
struct S3CleaningTests {
  let client: S3Client
  let bucket = "c-\(ObjectID.random())"

  init() async throws {
    client = try #require(WithSeaweed.server).client()
    try await client.createBucket(bucket)
  }

  @Test func manyGoAtOnce() async throws {
    // As keys may be: with all that XML has another meaning for.
    let keys = (0..<30).map { "p/<k>&\"\($0)\" ü" }
    for key in keys + ["q/other"] { try await client.put(bucket: bucket, key: key, bytes: [1]) }
    try await client.delete(bucket: bucket, keys: keys + ["p/never"])
    #expect(try await client.list(bucket: bucket).map(\.key) == ["q/other"])
    try await client.delete(bucket: bucket, keys: [])
  }

  @Test func aBucketThatIsNotThereIsAnError() async throws {
    await #expect(throws: S3Error.self) { try await client.delete(bucket: "nowhere-\(ObjectID.random())", keys: ["a"]) }
  }

  @Test func unfinishedUploadsAreFoundAndGivenUp() async throws {
    for key in ["p/a", "p/b", "q/c"] {
      _ = try await client.document(
        S3Request(method: .post, bucket: bucket, key: key, query: [("uploads", "")]),
        named: "InitiateMultipartUploadResult")
    }
    let found = try await client.unfinishedUploads(bucket: bucket, prefix: "p/")
    #expect(found.map(\.key).sorted() == ["p/a", "p/b"])
    for upload in found { try await client.abort(upload, bucket: bucket) }
    #expect(try await client.unfinishedUploads(bucket: bucket, prefix: "p/") == [])
    #expect(try await client.unfinishedUploads(bucket: bucket, prefix: "").map(\.key) == ["q/c"])
    // One that is over is no error.
    for upload in found { try await client.abort(upload, bucket: bucket) }
  }

  @Test func aRangeOfARealObjectComes() async throws {
    let bytes = pattern(23_000_001)
    let etag = try await client.put(bucket: bucket, key: "m", size: bytes.count) { Array(bytes[$0]) }
    for range in [0..<bytes.count, 4096..<bytes.count, 22_999_999..<23_000_001] {
      let gathered = Gathered(range)
      try await client.read(bucket: bucket, key: "m", range: range, ifMatch: try #require(etag)) {
        gathered.add($0, $1)
      }
      #expect(gathered.isEachOnce && gathered.bytes.elementsEqual(bytes[range]))
    }
    await #expect {
      try await client.read(bucket: bucket, key: "m", range: 0..<9, ifMatch: "\"other\"") { _, _ in }
    } throws: { ($0 as? S3Error)?.httpStatus == 412 }
    await #expect {
      try await client.read(bucket: bucket, key: "gone", range: 0..<9, ifMatch: "\"other\"") { _, _ in }
    } throws: { ($0 as? S3Error)?.mobulaError.code == .notFound }
  }
}
