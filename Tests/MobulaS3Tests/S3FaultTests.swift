import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaS3

/// What the client makes of servers that fail.
@Suite struct S3FaultTests {
  let info = S3ObjectInfo(size: 200_000, etag: "\"v1\"")
  let bytes = pattern(200_000)

  func client(_ port: Int, attempts: Int = 5) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(
      maximumAttempts: attempts, firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    return S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
  }

  /// The range that a request asks for.
  static func range(in head: String) -> Range<Int> {
    let line = head.split(separator: "\r\n").first { $0.lowercased().hasPrefix("range: bytes=") }!
    let ends = line.split(separator: "=")[1].split(separator: "-").map { Int($0)! }
    return ends[0]..<ends[1] + 1
  }

  /// The right answer to a ranged GET of `bytes`.
  static func part(_ bytes: [UInt8], _ range: Range<Int>, etag: String = "\"v1\"") -> [UInt8] {
    answer(
      "206 Partial Content",
      ["Content-Range": "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(bytes.count)", "ETag": etag],
      bytes[range])
  }

  func expectError(_ code: MobulaError.Code, _ part: String, _ body: () async throws -> Void) async {
    await #expect {
      try await body()
    } throws: { error in
      guard let error = (error as? S3Error)?.mobulaError else { return false }
      return error.code == code && error.message.contains(part)
    }
  }

  @Test func throttlingIsRetried() async throws {
    let server = try FaultyServer { number, _ in
      switch number {
      case 0: answer("503 Slow Down", [:], "<Error><Code>SlowDown</Code></Error>".utf8)
      case 1: answer("500 Internal Server Error")
      case 2: []
      default: answer("200 OK", ["ETag": "\"e\""], "hello".utf8)
      }
    }
    defer { server.stop() }
    let body = try await client(server.port).get(bucket: "b", key: "k")
    #expect(try await body.bytes(upTo: 100) == Array("hello".utf8))
    #expect(server.requests.count == 4)
  }

  @Test func attemptsAreLimited() async throws {
    let server = try FaultyServer { _, _ in answer("503 Slow Down") }
    defer { server.stop() }
    await expectError(.unavailable, "status 503") {
      _ = try await client(server.port, attempts: 3).list(bucket: "b")
    }
    #expect(server.requests.count == 3)
  }

  @Test func refusalsAreNotRetried() async throws {
    let server = try FaultyServer { _, _ in
      answer("403 Forbidden", [:], "<Error><Code>AccessDenied</Code></Error>".utf8)
    }
    defer { server.stop() }
    await expectError(.denied, "AccessDenied") { try await client(server.port).delete(bucket: "b", key: "k") }
    #expect(server.requests.count == 1)
  }

  @Test func nobodyListens() async throws {
    let silent = try SilentPort()
    await expectError(
      .unavailable, "http://127.0.0.1:\(silent.port) can't be reached for s3://b/k (Connection refused)"
    ) {
      _ = try await client(silent.port, attempts: 2).head(bucket: "b", key: "k")
    }
    withExtendedLifetime(silent) {}
  }

  @Test func aBodyThatIsTooLongForItsReader() async throws {
    let server = try FaultyServer { _, _ in answer("200 OK", [:], "hello".utf8) }
    defer { server.stop() }
    let body = try await client(server.port).get(bucket: "b", key: "k")
    await expectError(.unavailable, "more than 4 bytes") { _ = try await body.bytes(upTo: 4) }
  }

  @Test func shortBodiesAreFetchedAgain() async throws {
    let bytes = bytes
    let server = try FaultyServer { number, head in
      let right = Self.part(bytes, Self.range(in: head))
      return number < 3 ? right.dropLast(30_000) : right
    }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    let progress = Mutex(0)
    try await client(server.port).download(bucket: "b", key: "k", info: info, into: sink, concurrency: 2) { count in
      progress.withLock { $0 += count }
    }
    #expect(sink.bytes == bytes)
    #expect(sink.isCompleteAndRight)
    #expect(progress.withLock { $0 } == 200_000)
  }

  @Test func aServerThatNeverSendsItAllIsGivenUp() async throws {
    let bytes = bytes
    let server = try FaultyServer { _, head in Self.part(bytes, Self.range(in: head)).dropLast(1) }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    await expectError(.unavailable, "s3://b/k") {
      try await client(server.port, attempts: 3).download(bucket: "b", key: "k", info: info, into: sink)
    }
    #expect(sink.checksums[3] == nil)
    #expect(sink.free.contains(3))
    #expect(sink.free.union(sink.checksums.keys) == [0, 1, 2, 3])
  }

  @Test func anotherRangeThanTheOneAskedForIsNotTaken() async throws {
    let bytes = bytes
    let server = try FaultyServer { _, head in
      let range = Self.range(in: head)
      return Self.part(bytes, range.lowerBound + 1..<range.upperBound)
    }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    await expectError(.unavailable, "not the range") {
      try await client(server.port, attempts: 2).download(bucket: "b", key: "k", info: info, into: sink)
    }
    #expect(sink.checksums.isEmpty)
  }

  @Test func anAnswerOfAnotherVersionIsAMismatch() async throws {
    let bytes = bytes
    let server = try FaultyServer { _, head in Self.part(bytes, Self.range(in: head), etag: "\"v2\"") }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    await expectError(.mismatch, "changed while it was downloaded") {
      try await client(server.port).download(bucket: "b", key: "k", info: info, into: sink)
    }
    #expect(sink.free == [0, 1, 2, 3])
  }

  @Test func theSinkMustFit() async throws {
    let sink = try MemorySink(size: 200_001)
    await #expect {
      try await client(1).download(bucket: "b", key: "k", info: info, into: sink)
    } throws: { error in
      let error = error as? MobulaError
      return error?.code == .invalidArgument && error?.message.contains("does not fit") == true
    }
  }

  @Test func anObjectOfHeaderAlone() async throws {
    let sink = try MemorySink(size: 100)
    try await client(1).download(
      bucket: "b", key: "k", info: S3ObjectInfo(size: 0, etag: "\"e\""), into: sink, header: pattern(100))
    #expect(sink.bytes == pattern(100))
    #expect(sink.isCompleteAndRight)
  }

  @Test func cancellingStopsAll() async throws {
    // Sends the head of an answer and 10 bytes, then nothing: only cancelling ends it.
    let bytes = bytes
    let asked = AsyncStream<Void>.makeStream()
    let server = try FaultyServer { _, head in
      asked.continuation.yield()
      let whole = Self.part(bytes, Self.range(in: head))
      return Array(whole.prefix(300))
    }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: server.port))
    configuration.retry = S3RetryPolicy(maximumAttempts: .max, firstPause: .seconds(3600), maximumPause: .seconds(3600))
    let client = S3Client(
      configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
    let info = info
    let task = Task { try await client.download(bucket: "b", key: "k", info: info, into: sink) }
    for await _ in asked.stream { break }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(sink.free == [0, 1, 2, 3])
  }
}
