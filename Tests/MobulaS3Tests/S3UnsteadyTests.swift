import MobulaBench
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Services that refuse now and then, break off, send elsewhere, or have another time.
@Suite struct S3UnsteadyTests {
  private let size = 2_000_000
  private let bytes = pattern(2_000_000)
  private var info: S3ObjectInfo { S3ObjectInfo(size: size, etag: "\"v1\"") }

  private func client(_ port: Int, region: String = "us-east-1", attempts: Int = 8) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port), region: region)
    configuration.retry = S3RetryPolicy(
      maximumAttempts: attempts, firstPause: .milliseconds(1), maximumPause: .milliseconds(4))
    return S3Client(
      configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s", sessionToken: "t"))
  }

  private func expectError(
    _ code: MobulaError.Code, _ part: String, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Void
  ) async {
    await #expect(sourceLocation: sourceLocation) {
      try await body()
    } throws: { error in
      guard let error = (error as? S3Error)?.mobulaError else { return false }
      return error.code == code && error.message.contains(part)
    }
  }

  /// Downloads from a server of which the answers are `reply`'s, in parts of 128 KiB, and expects the right bytes.
  private func expectRightBytes(
    seed: UInt64, _ reply: @escaping @Sendable (FaultyServer.Request, inout SeededGenerator) -> FaultyServer.Reply
  ) async throws {
    let generator = Mutex(SeededGenerator(seed: seed))
    let server = try FaultyServer(replying: { request in generator.withLock { reply(request, &$0) } })
    defer { server.stop() }
    let sink = try MemorySink(size: size)
    try await client(server.port).download(
      bucket: "b", key: "k", info: info, into: sink, concurrency: 4, partSize: ByteCount(131_072))
    #expect(sink.bytes == bytes && sink.isCompleteAndRight, "seed \(seed)")
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func aFifthOfAllRequestsIsRefused(seed: UInt64) async throws {
    let bytes = bytes
    try await expectRightBytes(seed: seed) { request, generator in
      if Int.random(in: 0..<5, using: &generator) == 0 {
        let text = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        return .init(bytes: answer("503 Slow Down", ["Retry-After": "0"], text.utf8))
      }
      return .init(bytes: S3FaultTests.part(bytes, S3FaultTests.range(in: request.head)))
    }
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func connectionsAreResetAtRandom(seed: UInt64) async throws {
    let bytes = bytes
    try await expectRightBytes(seed: seed) { request, generator in
      let whole = S3FaultTests.part(bytes, S3FaultTests.range(in: request.head))
      switch Int.random(in: 0..<4, using: &generator) {
      case 0: return .init(bytes: Array(whole.prefix(Int.random(in: 0...whole.count, using: &generator))), resets: true)
      case 1: return .init(bytes: Array(whole.prefix(Int.random(in: 0..<whole.count, using: &generator))))
      default: return .init(bytes: whole)
      }
    }
  }

  /// An answer breaks off again and again, in the middle of chunks: no byte is asked for twice.
  @Test func whatBreaksOffGoesOnAtItsByte() async throws {
    let bytes = bytes
    let asked = Mutex<[Range<Int>]>([])
    let server = try FaultyServer { _, head in
      let range = S3FaultTests.range(in: head)
      asked.withLock { $0.append(range) }
      let whole = S3FaultTests.part(bytes, range)
      // The head of the answer, and 50,000 bytes of 131,072.
      return Array(whole.prefix(whole.count - range.count + min(range.count, 50_000)))
    }
    defer { server.stop() }
    let sink = try MemorySink(size: size)
    try await client(server.port, attempts: 3).download(
      bucket: "b", key: "k", info: info, into: sink, concurrency: 4, partSize: ByteCount(131_072))
    #expect(sink.bytes == bytes && sink.isCompleteAndRight)
    let starts = asked.withLock { $0.map(\.lowerBound) }
    #expect(Set(starts).count == starts.count, "no byte is asked for twice")
    // Three for each part of 131,072 bytes, and one for the last, which has 33,920.
    #expect(starts.count == 15 * 3 + 1)
  }

  /// A request without a signature asks for no credentials; who pays says so, signed.
  @Test func requestsWithoutASignatureAndThoseThatArePaidFor() async throws {
    let server = try FaultyServer { _, _ in answer("200 OK", ["ETag": "\"e\""], "x".utf8) }
    defer { server.stop() }
    struct NoCredentials: S3CredentialsProvider {
      func credentials() async throws -> S3Credentials { throw MobulaError(.unauthenticated, "There are none.") }
    }
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: server.port))
    configuration.signsRequests = false
    _ = try await S3Client(configuration: configuration, credentials: NoCredentials()).get(bucket: "b", key: "k")
    configuration.signsRequests = true
    configuration.paysForRequests = true
    let credentials = S3Credentials(accessKey: "a", secretKey: "s")
    _ = try await S3Client(configuration: configuration, credentials: credentials).get(bucket: "b", key: "k")
    let (open, paid) = (server.received[0], server.received[1])
    #expect(open.header("authorization") == nil && open.header("x-amz-date") == nil)
    #expect(open.header("x-amz-request-payer") == nil)
    #expect(paid.header("x-amz-request-payer") == "requester")
    #expect(paid.header("authorization")?.contains("x-amz-request-payer") == true)
  }

  @Test func retryAfterIsWaitedFor() async throws {
    let server = try FaultyServer { number, _ in
      number == 0 ? answer("503 Slow Down", ["Retry-After": "1"]) : answer("200 OK", ["ETag": "\"e\""], "x".utf8)
    }
    defer { server.stop() }
    let start = ContinuousClock.now
    _ = try await client(server.port).get(bucket: "b", key: "k")
    #expect(ContinuousClock.now - start >= .seconds(1))
  }

  @Test func anExpiredTokenMidDownload() async throws {
    let bytes = bytes
    let server = try FaultyServer { number, head in
      number < 3
        ? S3FaultTests.part(bytes, S3FaultTests.range(in: head))
        : answer("400 Bad Request", [:], "<Error><Code>ExpiredToken</Code></Error>".utf8)
    }
    defer { server.stop() }
    let sink = try MemorySink(size: size)
    let client = client(server.port)
    await expectError(.denied, "get new temporary credentials") {
      try await client.download(
        bucket: "b", key: "k", info: info, into: sink, concurrency: 1, partSize: ByteCount(131_072))
    }
    #expect(server.requests.count == 4)
    #expect(Set(sink.checksums.keys) == Set(0..<6))
  }

  @Test func aChangedETagMidDownload() async throws {
    let bytes = bytes
    let server = try FaultyServer { number, head in
      number < 3
        ? S3FaultTests.part(bytes, S3FaultTests.range(in: head))
        : answer("412 Precondition Failed", [:], "<Error><Code>PreconditionFailed</Code></Error>".utf8)
    }
    defer { server.stop() }
    let sink = try MemorySink(size: size)
    let client = client(server.port)
    await expectError(.mismatch, "s3://b/k changed while it was downloaded: begin again") {
      try await client.download(
        bucket: "b", key: "k", info: info, into: sink, concurrency: 2, partSize: ByteCount(131_072))
    }
    #expect(sink.free.union(sink.checksums.keys) == Set(0..<sink.geometry.count))
  }

  private static func regionSigned(_ request: FaultyServer.Request) -> String {
    String(request.header("authorization")!.split(separator: "/")[2])
  }

  /// What AWS answers from the wrong region: to HEAD without a text, to others with one.
  @Test(arguments: ["301 Moved Permanently", "307 Temporary Redirect", "400 Bad Request"])
  func anotherRegionIsFollowedAndRemembered(status: String) async throws {
    let server = try FaultyServer(replying: { request in
      if Self.regionSigned(request) == "eu-north-1" {
        return .init(bytes: answer("200 OK", ["ETag": "\"e\""], request.head.hasPrefix("HEAD") ? [] : [1]))
      }
      let code = status.hasPrefix("400") ? "AuthorizationHeaderMalformed" : "PermanentRedirect"
      let text = "<Error><Code>\(code)</Code><Region>eu-north-1</Region></Error>"
      return .init(
        bytes: answer(
          status, ["x-amz-bucket-region": "eu-north-1"], request.head.hasPrefix("HEAD") ? [] : Array(text.utf8)))
    })
    defer { server.stop() }
    let client = client(server.port)
    #expect(try await client.head(bucket: "b", key: "k").etag == "\"e\"")
    _ = try await client.get(bucket: "b", key: "k")
    #expect(server.received.map(Self.regionSigned) == ["us-east-1", "eu-north-1", "eu-north-1"])
    _ = try await client.get(bucket: "other", key: "k")
    #expect(server.received.map(Self.regionSigned).suffix(2) == ["us-east-1", "eu-north-1"])
  }

  @Test func aRedirectThatLeadsNowhere() async throws {
    let server = try FaultyServer { _, _ in
      answer("307 Temporary Redirect", ["Location": "http://elsewhere.example/"], "<Error/>".utf8)
    }
    defer { server.stop() }
    await expectError(.invalidArgument, "on to http://elsewhere.example/") {
      _ = try await client(server.port).get(bucket: "b", key: "k")
    }
    #expect(server.requests.count == 1)
  }

  @Test(arguments: ["us-east-1", "EU WEST", "a.b/c"]) func aRegionThatIsNoneIsNotFollowed(region: String) async throws {
    let server = try FaultyServer { _, _ in
      answer(
        "301 Moved Permanently", [:],
        "<Error><Code>PermanentRedirect</Code><Region>\(region)</Region></Error>".utf8)
    }
    defer { server.stop() }
    await expectError(.invalidArgument, "not in the region asked") {
      _ = try await client(server.port).get(bucket: "b", key: "k")
    }
    #expect(server.requests.count == 1)
  }

  private static let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>"

  /// S3's clock says 2013, and so does the second signature, and all after it.
  @Test func aWrongClockIsCorrectedOnce() async throws {
    let server = try FaultyServer { _, head in
      head.contains("x-amz-date: 20130524T0000")
        ? answer("200 OK", ["ETag": "\"e\""], [1])
        : answer("403 Forbidden", ["Date": "Fri, 24 May 2013 00:00:00 GMT"], Self.skewed.utf8)
    }
    defer { server.stop() }
    let client = client(server.port)
    _ = try await client.get(bucket: "b", key: "k")
    _ = try await client.get(bucket: "b", key: "k")
    #expect(server.requests.count == 3)
  }

  @Test func aClockThatCannotBeCorrected() async throws {
    let server = try FaultyServer { _, _ in
      answer("403 Forbidden", ["Date": "Fri, 24 May 2013 00:00:00 GMT"], Self.skewed.utf8)
    }
    defer { server.stop() }
    await expectError(.denied, "this host's clock is wrong: set it") {
      _ = try await client(server.port).get(bucket: "b", key: "k")
    }
    #expect(server.requests.count == 2)
  }

  @Test(arguments: [
    ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>", MobulaError.Code.notFound, "bucket b does not exist"),
    ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>", .notFound, "no object s3://b/k"),
    ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>", .denied, "denies access to s3://b/k"),
  ])
  func whatIsNotThereOrNotAllowed(status: String, text: String, code: MobulaError.Code, part: String) async throws {
    let server = try FaultyServer { _, head in answer(status, [:], head.hasPrefix("HEAD") ? [] : Array(text.utf8)) }
    defer { server.stop() }
    let client = client(server.port)
    await expectError(code, part) { _ = try await client.head(bucket: "b", key: "k") }
    await expectError(code, part) { _ = try await client.get(bucket: "b", key: "k") }
    let sink = try MemorySink(size: size)
    await expectError(code, part) { try await client.download(bucket: "b", key: "k", info: info, into: sink) }
    #expect(sink.free.count == sink.geometry.count)
  }
}

/// A real server.
@Suite(
  .serialized, .enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"))
struct SeaweedFaultTests {
  /// Killed in the middle of a download and started again seconds later: the download goes on where it was.
  @Test(.timeLimit(.minutes(2))) func theServerIsKilledAndStartedAgain() async throws {
    let server = try await SeaweedServer.start()
    do {
      var configuration = S3Configuration(endpoint: server.endpoint)
      configuration.retry = S3RetryPolicy(
        maximumAttempts: 60, firstPause: .milliseconds(100), maximumPause: .seconds(2))
      let client = S3Client(configuration: configuration, credentials: server.credentials)
      try await client.createBucket("models")
      let bytes = pattern(40_000_000)
      try await client.put(bucket: "models", key: "m", bytes: bytes)
      let info = try await client.head(bucket: "models", key: "m")
      let sink = try MemorySink(size: bytes.count)
      let received = Counter()
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          // 20 MB/s: the kill meets it in the middle.
          try await client.download(
            bucket: "models", key: "m", info: info, into: sink, concurrency: 3, partSize: ByteCount(2_000_000),
            pace: { count in
              received.add(count)
              try await Task.sleep(for: .nanoseconds(count * 150))
            })
        }
        group.addTask {
          while received.value < 10_000_000 { try await Task.sleep(for: .milliseconds(5)) }
          try await server.restart()
        }
        try await group.waitForAll()
      }
      #expect(sink.bytes == bytes && sink.isCompleteAndRight)
      await client.shutdown()
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  /// SeaweedFS itself refuses a signature of two hours ago; the client notices and signs again.
  @Test func aClockThatIsTwoHoursLate() async throws {
    let server = try await SeaweedServer.start()
    let client = server.client()
    do {
      try await client.createBucket("models")
      client.transport.learned.believe(clockOffset: -7200)
      try await client.put(bucket: "models", key: "m", bytes: [1, 2, 3])
      #expect(abs(client.transport.learned.clockOffset) < 60)
      client.transport.learned.believe(clockOffset: 7200)
      #expect(try await client.head(bucket: "models", key: "m").size == 3)
    } catch {
      await server.stop()
      throw error
    }
    await client.shutdown()
    await server.stop()
  }
}
