import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// What requests do when the service says that a token has expired.
@Suite struct CredentialsRequestTests {
  /// Gives out session tokens t1, t2 and so on, the next one when the last is dropped.
  final class Tokens: S3CredentialsProvider {
    private let number = Mutex(1)
    let isRefreshable: Bool

    init(isRefreshable: Bool = true) { self.isRefreshable = isRefreshable }

    func credentials() -> S3Credentials {
      S3Credentials(accessKey: "a", secretKey: "s", sessionToken: "t\(number.withLock { $0 })")
    }

    func drop(_ refused: S3Credentials) -> Bool {
      guard isRefreshable else { return false }
      number.withLock { if refused.sessionToken == "t\($0)" { $0 += 1 } }
      return true
    }
  }

  func client(_ port: Int, _ provider: any S3CredentialsProvider) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    return S3Client(configuration: configuration, credentials: provider)
  }

  static func expired(_ code: String) -> [UInt8] {
    answer("400 Bad Request", [:], "<Error><Code>\(code)</Code></Error>".utf8)
  }

  @Test(arguments: ["ExpiredToken", "InvalidToken", "ExpiredTokenException"])
  func oneMoreRequestWithNewCredentials(code: String) async throws {
    let server = try StandInServer { request in
      request.headers["x-amz-security-token"] == "t1" ? Self.expired(code) : answer("200 OK", [:], "hello".utf8)
    }
    defer { server.stop() }
    let body = try await client(server.port, Tokens()).get(bucket: "b", key: "k")
    #expect(try await body.bytes(upTo: 10) == Array("hello".utf8))
    #expect(server.requests.map { $0.headers["x-amz-security-token"] } == ["t1", "t2"])
  }

  @Test func onlyOneMore() async throws {
    let server = try StandInServer { _ in Self.expired("ExpiredToken") }
    defer { server.stop() }
    await expectMobulaError(.denied, "get new temporary credentials") {
      _ = try await client(server.port, Tokens()).get(bucket: "b", key: "k")
    }
    #expect(server.requests.count == 2)
  }

  @Test func fixedCredentialsAreNotTriedTwice() async throws {
    let server = try StandInServer { _ in Self.expired("ExpiredToken") }
    defer { server.stop() }
    await expectMobulaError(.denied, "ExpiredToken") {
      _ = try await client(server.port, Tokens(isRefreshable: false)).get(bucket: "b", key: "k")
    }
    let same = CachedCredentials(S3Credentials(accessKey: "a", secretKey: "s", sessionToken: "t"))
    await expectMobulaError(.denied, "ExpiredToken") {
      _ = try await client(server.port, same).get(bucket: "b", key: "k")
    }
    #expect(server.requests.count == 2)
  }

  /// The answer to a HEAD has no text that would say why.
  @Test func headsToo() async throws {
    let server = try StandInServer { request in
      guard request.headers["x-amz-security-token"] != "t1" else {
        return request.method == "HEAD" ? answer("400 Bad Request") : Self.expired("ExpiredToken")
      }
      return answer(
        "200 OK", ["ETag": "\"e\"", "Content-Length": "5"], request.method == "HEAD" ? [] : Array("hello".utf8))
    }
    defer { server.stop() }
    let info = try await client(server.port, Tokens()).head(bucket: "b", key: "k")
    #expect(info.size == 5)
    #expect(server.requests.map(\.method) == ["HEAD", "GET", "GET", "HEAD"])
  }

  @Test func inTheMiddleOfADownload() async throws {
    let bytes = pattern(200_000)
    let counter = Counter()
    let server = try StandInServer { request in
      // The third part and all after it find the first token expired.
      if counter.next() >= 2, request.headers["x-amz-security-token"] == "t1" { return Self.expired("ExpiredToken") }
      let range = S3FaultTests.range(in: "range: \(request.headers["range"] ?? "")")
      return S3FaultTests.part(bytes, range)
    }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    try await client(server.port, Tokens()).download(
      bucket: "b", key: "k", info: S3ObjectInfo(size: 200_000, etag: "\"v1\""), into: sink, concurrency: 1,
      partSize: ByteCount(65_536))
    #expect(sink.bytes == bytes)
    #expect(sink.isCompleteAndRight)
    #expect(server.requests.map { $0.headers["x-amz-security-token"] } == ["t1", "t1", "t1", "t2", "t2"])
  }

  /// As `s3-to-host` fetches do it: one provider, many requests at a time.
  @Test func manyRequestsShareOneRefresh() async throws {
    let loads = Counter()
    let server = try StandInServer { request in
      request.headers["x-amz-security-token"] == "t0" ? Self.expired("ExpiredToken") : answer("200 OK", [:], "x".utf8)
    }
    defer { server.stop() }
    let cache = CachedCredentials {
      let token = "t\(loads.next())"
      try await Task.sleep(for: .milliseconds(20))
      return S3Credentials(accessKey: "a", secretKey: "s", sessionToken: token)
    }
    let client = client(server.port, cache)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<8 { group.addTask { _ = try await client.get(bucket: "b", key: "k").bytes(upTo: 1) } }
      try await group.waitForAll()
    }
    #expect(loads.next() == 2)
  }
}
