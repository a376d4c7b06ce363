import MobulaCore
import Testing

@testable import MobulaS3

/// Answers that say something else than success, in whatever form they come.
@Suite struct S3AnswerTests {
  private static let page = Array(
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 40\r\nConnection: close\r\n\r\n<html><body>Welcome, guest!</body></html>"
      .utf8)

  private func client(_ port: Int) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(
      maximumAttempts: 2, firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    configuration.multipartThreshold = ByteCount(100_000)
    configuration.uploadPartSize = ByteCount(50_000)
    return S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
  }

  /// A portal answers a page to everything, with status 200.
  @Test func aPageIsNoSuccess() async throws {
    let server = try FaultyServer { _, _ in Self.page }
    defer { server.stop() }
    let client = client(server.port)
    let error = await #expect(throws: S3Error.self) {
      try await client.put(bucket: "b", key: "k", bytes: [1, 2, 3])
    }
    #expect(error?.code == S3Error.impossible && error?.mobulaError.message.contains("ETag") == true)
    for size in [1000, 250_000] {
      await #expect(throws: S3Error.self, "\(size)") {
        try await client.put(bucket: "b", key: "k", size: size) { [UInt8](repeating: 7, count: $0.count) }
      }
    }
    await #expect(throws: S3Error.self) { try await client.list(bucket: "b") }
    await #expect(throws: S3Error.self) {
      try await client.copy(from: S3URL(bucket: "b", key: "k"), to: S3URL(bucket: "b", key: "l"))
    }
  }

  private func message(_ status: Int, _ code: String, _ said: String, location: String? = nil) -> MobulaError {
    S3Error.answer(
      .init(status: status, location: location),
      body: Array("<Error><Code>\(code)</Code><Message>\(said)</Message></Error>".utf8),
      endpoint: S3Endpoint(host: "h", port: 1), bucket: "b", key: "k"
    ).mobulaError
  }

  /// One status, and several reasons that only S3's own words tell apart.
  @Test(arguments: [
    "User x is not authorized to perform: kms:Decrypt on the resource",
    "Access Denied because object protected by object lock", "this is a Requester Pays bucket",
  ])
  func whatS3SaysIsShown(said: String) {
    let error = message(403, "AccessDenied", said)
    #expect(error.code == .denied && error.message.contains(said), "\(error)")
  }

  @Test func anArchivedObjectIsSaidToBe() {
    let error = message(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
    #expect(error.message.contains("archived") && error.message.contains("storage class"), "\(error)")
  }

  @Test(arguments: [301, 302, 307, 308]) func aRedirectSaysWhereTo(status: Int) {
    let error = message(status, "Found", "", location: "https://portal.example/login")
    #expect(error.code == .invalidArgument && error.message.contains("https://portal.example/login"), "\(error)")
  }

  /// An answer whose bytes come one by one lives for as long as they do; one that stalls has a deadline.
  @Test(.timeLimit(.minutes(1))) func bytesThatComeKeepAnAnswerAlive() async throws {
    var configuration = S3Configuration()
    #expect(configuration.idleTimeout == .seconds(15) && configuration.stallTimeout == .seconds(60))
    let server = try FaultyServer { _, _ in
      Array("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"e\"\r\n\r\n".utf8) + [1, 2, 3]
    }
    defer { server.stop() }
    configuration.endpoint = S3Endpoint(host: "127.0.0.1", port: server.port)
    configuration.idleTimeout = .milliseconds(300)
    configuration.requestTimeout = .milliseconds(200)
    configuration.retry = S3RetryPolicy(maximumAttempts: 1)
    let client = S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
    await #expect(throws: S3Error.self) { try await client.bytes(bucket: "b", key: "k", upTo: 2000) }
  }
}
