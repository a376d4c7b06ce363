import Glibc
import MobulaCore
import Testing

@testable import MobulaS3

/// What answers teach, where several requests are under way: each of them is made again.
@Suite struct S3LearnedTests {
  private func error(
    _ code: String, _ status: Int, region: String? = nil, serverTime: Int? = nil
  ) -> S3Error {
    var error = S3Error(
      code: code, httpStatus: status, region: region, endpoint: S3Endpoint(host: "h"), bucket: "models")
    error.serverTime = serverTime
    return error
  }

  @Test func whatARequestWasSignedWithDecides() {
    let learned = S3Learned()
    let configuration = S3Configuration(region: "us-east-1")
    let first = learned.signing(configuration, for: "models")
    let moved = error("AuthorizationHeaderMalformed", 400, region: "eu-west-1")
    #expect(learned.learn(from: moved, signedWith: first))
    // Sent before that was known.
    #expect(learned.learn(from: moved, signedWith: first))
    let second = learned.signing(configuration, for: "models")
    #expect(second.configuration.region == "eu-west-1" && second.clockOffset == 0)
    // Signed for the right region already.
    #expect(!learned.learn(from: moved, signedWith: second))
    #expect(learned.signing(configuration, for: "others").configuration.region == "us-east-1")

    let skewed = error("RequestTimeTooSkewed", 403, serverTime: SigV4Timestamp.secondsSince1970() + 7200)
    #expect(learned.learn(from: skewed, signedWith: second))
    #expect(learned.learn(from: skewed, signedWith: second))
    #expect(abs(learned.clockOffset - 7200) <= 2)
    #expect(!learned.learn(from: skewed, signedWith: learned.signing(configuration, for: "models")))
    #expect(!learned.learn(from: error("AccessDenied", 403), signedWith: first))
  }

  /// Answers no request of the first `count` before all of them are there, so that none knows what another has learned.
  private func server(
    together count: Int, accepts: @escaping @Sendable (FaultyServer.Request) -> Bool, refusal: [UInt8]
  ) throws -> FaultyServer {
    let arrived = Counter()
    return try FaultyServer(replying: { request in
      if arrived.next() < count {
        let end = ContinuousClock.now + .seconds(10)
        while arrived.value < count, ContinuousClock.now < end { usleep(1000) }
      }
      guard accepts(request) else { return .init(bytes: refusal) }
      let isListing = request.head.hasPrefix("GET")
      let listing = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
      var headers = ["ETag": "\"e\""]
      headers["x-amz-checksum-crc32c"] = request.header("x-amz-checksum-crc32c")
      return .init(bytes: answer("200 OK", headers, isListing ? Array(listing.utf8) : []))
    })
  }

  private func askTogether(_ server: FaultyServer) async throws {
    defer { server.stop() }
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: server.port))
    configuration.retry = S3RetryPolicy(maximumAttempts: 1)
    let client = S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<4 {
        group.addTask { _ = try await client.list(bucket: "models") }
        group.addTask { try await client.put(bucket: "models", key: "k\(number)", bytes: [1, 2, 3]) }
      }
      try await group.waitForAll()
    }
    // Each once more, and what comes later is right at once.
    #expect(server.requests.count == 16)
    try await client.put(bucket: "models", key: "later", bytes: [1])
    #expect(server.requests.count == 17)
    await client.shutdown()
  }

  @Test(.timeLimit(.minutes(1))) func anotherRegionForAll() async throws {
    let refusal = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
    try await askTogether(
      try server(
        together: 8, accepts: { $0.header("authorization")?.contains("/eu-west-1/s3/") == true },
        refusal: answer("400 Bad Request", [:], Array(refusal.utf8))))
  }

  @Test(.timeLimit(.minutes(1))) func anotherClockForAll() async throws {
    let refusal = "<Error><Code>RequestTimeTooSkewed</Code></Error>"
    try await askTogether(
      try server(
        // The server's clock stands still at midnight.
        together: 8, accepts: { $0.header("x-amz-date")?.hasPrefix("20130524T0000") == true },
        refusal: answer("403 Forbidden", ["Date": "Fri, 24 May 2013 00:00:00 GMT"], Array(refusal.utf8))))
  }
}
