import MobulaCore
import Synchronization
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

  /// A service that keeps something else than it was sent, and says so, or shows it when it is asked.
  @Test(arguments: [
    (["x-amz-checksum-crc32c": "AAAAAA=="], "", false), ([:], "200 OK\r\nContent-Length: 4\r\nETag: \"e\"", false),
    (["x-amz-checksum-crc32c": "Nks/tw=="], "", true), ([:], "200 OK\r\nContent-Length: 3\r\nETag: \"e\"", true),
    ([:], "403 Forbidden", true), ([:], "503 Slow Down", true), ([:], "404 Not Found", false),
    ([:], "200 OK\r\nContent-Length: 3\r\nETag: \"e\"\r\nx-amz-checksum-crc32c: AAAAAA==", false),
  ])
  func whatWasStoredIsCompared(headers: [String: String], head: String, isRight: Bool) async throws {
    let server = try FaultyServer { _, request in
      if request.hasPrefix("HEAD") || request.hasPrefix("GET") {
        return Array("HTTP/1.1 \(head)\r\nConnection: close\r\n\r\n".utf8)
      }
      return answer("200 OK", headers.merging(["ETag": "\"e\""], uniquingKeysWith: { a, _ in a }))
    }
    defer { server.stop() }
    let client = client(server.port)
    for isStreamed in [false, true] {
      do {
        if isStreamed {
          _ = try await client.put(bucket: "b", key: "k", size: 3) { Array(Array("abc".utf8)[$0]) }
        } else {
          _ = try await client.put(bucket: "b", key: "k", bytes: Array("abc".utf8))
        }
        #expect(isRight, "\(headers) \(head)")
      } catch let error as S3Error {
        #expect(!isRight && error.code == S3Error.impossible, "\(error)")
      }
    }
  }

  /// GetObject alone is enough to read an object: its head may be denied, and so may be a listing.
  @Test func whoMayReadNeedNotAskForTheHead() async throws {
    let server = try FaultyServer { _, request in
      if request.hasPrefix("HEAD") { return answer("403 Forbidden") }
      #expect(request.lowercased().contains("range: bytes=0-0"))
      return answer("206 Partial Content", ["ETag": "\"e\"", "Content-Range": "bytes 0-0/1234"], [7])
    }
    defer { server.stop() }
    let info = try await client(server.port).head(bucket: "b", key: "k")
    #expect(info.size == 1234 && info.etag == "\"e\"")
  }

  /// Some services say 206 and not which range it is; what is of another length is not taken.
  @Test(arguments: [(10, true), (9, false), (11, false)]) func aRangeThatIsNotNamed(length: Int, isRight: Bool)
    async throws
  {
    let bytes = [UInt8](repeating: 7, count: length)
    let server = try FaultyServer { _, _ in answer("206 Partial Content", ["ETag": "\"e\""], bytes) }
    defer { server.stop() }
    let got = Mutex(0)
    do {
      try await client(server.port).read(bucket: "b", key: "k", range: 5..<15, ifMatch: "\"e\"") { _, piece in
        got.withLock { $0 += piece.count }
      }
      #expect(isRight && got.withLock { $0 } == 10)
    } catch let error as S3Error {
      #expect(!isRight && error.code == S3Error.malformed, "\(error)")
    }
  }

  /// Some services answer 200 to a range, and say all the same which one they send.
  @Test(arguments: [("bytes 5-14/100", true), ("bytes 0-9/100", false)])
  func aNamedRangeWithStatus200(range: String, isRight: Bool) async throws {
    let server = try FaultyServer { _, _ in
      answer("200 OK", ["ETag": "\"e\"", "Content-Range": range], Array(repeating: 7, count: 10))
    }
    defer { server.stop() }
    let got = Mutex(0)
    do {
      try await client(server.port).read(bucket: "b", key: "k", range: 5..<15, ifMatch: "\"e\"") { _, piece in
        got.withLock { $0 += piece.count }
      }
      #expect(isRight && got.withLock { $0 } == 10)
    } catch let error as S3Error {
      #expect(!isRight && error.code == S3Error.malformed, "\(error)")
    }
  }

  /// A checksum of an object in parts of which nobody says what it is of says nothing.
  @Test(
    arguments: [
      ("\"abc\"", nil, true), ("\"abc-2\"", nil, false), ("\"abc-2\"", "FULL_OBJECT", true),
      ("\"abc-2\"", "COMPOSITE", false),
    ] as [(String, String?, Bool)])
  func whatAChecksumIsOf(etag: String, type: String?, isKnown: Bool) {
    let headers = ["etag": etag, "x-amz-checksum-crc32c": "Nks/tw==", "x-amz-checksum-type": type]
    #expect((S3Checksum { headers[$0] ?? nil } != nil) == isKnown)
  }

  /// A key that ends in a slash is a folder's mark only without bytes.
  @Test func keysThatEndInASlash() async throws {
    let server = try FaultyServer { _, _ in
      answer(
        "200 OK", [:],
        "<ListBucketResult><Contents><Key>a/</Key><Size>0</Size></Contents><Contents><Key>b/</Key><Size>3</Size></Contents></ListBucketResult>"
          .utf8)
    }
    defer { server.stop() }
    let objects = try await client(server.port).objects(at: S3URL(bucket: "b", key: ""))
    #expect(objects.map(\.key) == [Name("b/")])
  }

  /// The range's length is not the object's.
  @Test func aRangeOfAnUnknownWholeIsNoHead() async throws {
    let server = try FaultyServer { _, request in
      if request.hasPrefix("HEAD") { return answer("403 Forbidden") }
      return answer("206 Partial Content", ["ETag": "\"e\""], [7])
    }
    defer { server.stop() }
    let error = await #expect(throws: S3Error.self) {
      try await client(server.port).head(bucket: "b", key: "k")
    }
    #expect(error?.code == S3Error.impossible)
  }

  /// A service that goes away in the middle is waited for, for as long as the policy says.
  @Test func whoIsAwayIsWaitedFor() {
    let away = S3Error(code: S3Error.unreachable, endpoint: S3Endpoint(host: "h", port: 1), bucket: "b")
    let told = Mutex(0)
    var patient = S3Persistence(
      S3RetryPolicy(maximumAttempts: 3, firstPause: .milliseconds(1), patience: .seconds(60))
    ) { _ in told.withLock { $0 += 1 } }
    for _ in 0..<10 { #expect(patient.pause(after: away, isRetryable: true, hasProgressed: false) != nil) }
    #expect(told.withLock { $0 } == 8)
    // A service that is just being started answers so.
    let error = S3Error(code: "InternalError", httpStatus: 500, endpoint: S3Endpoint(host: "h", port: 1), bucket: "b")
    #expect(patient.pause(after: error, isRetryable: true, hasProgressed: false) != nil)
    #expect(patient.pause(after: error, isRetryable: true, hasProgressed: true) != nil)
    // An answer that is none of S3's is no absence.
    let nonsense = S3Error(code: S3Error.malformed, endpoint: S3Endpoint(host: "h", port: 1), bucket: "b")
    #expect(nonsense.isRetryable && patient.pause(after: nonsense, isRetryable: true, hasProgressed: false) != nil)
    for _ in 0..<3 { _ = patient.pause(after: nonsense, isRetryable: true, hasProgressed: false) }
    #expect(patient.pause(after: nonsense, isRetryable: true, hasProgressed: false) == nil)
    var impatient = S3Persistence(S3RetryPolicy(maximumAttempts: 3, firstPause: .milliseconds(1)), waiting: nil)
    for number in 1...3 {
      #expect((impatient.pause(after: away, isRetryable: true, hasProgressed: false) != nil) == (number < 3))
    }
    #expect(S3Configuration().retry.patience == .seconds(60))
    // Who was given what another has waited for in vain does not begin to wait anew.
    var second = S3Persistence(
      S3RetryPolicy(maximumAttempts: 3, firstPause: .milliseconds(1), patience: .seconds(60)),
      since: .now - .seconds(61),
      waiting: nil)
    for number in 1...3 {
      #expect((second.pause(after: away, isRetryable: true, hasProgressed: false) != nil) == (number < 3))
    }
    #expect(second.pause(after: away, isRetryable: true, hasProgressed: true) != nil)
    // Attempts that each wait for their deadline are not all made.
    let silent = S3Error(code: S3Error.timedOut, endpoint: S3Endpoint(host: "h", port: 1), bucket: "b")
    let policy = S3RetryPolicy(maximumAttempts: 5, firstPause: .milliseconds(1), patience: .seconds(60))
    var third = S3Persistence(policy, since: .now - .seconds(61), waiting: nil)
    #expect(third.pause(after: silent, isRetryable: true, hasProgressed: false) == nil)
    var fourth = S3Persistence(policy, since: .now - .seconds(30), waiting: nil)
    #expect(fourth.pause(after: silent, isRetryable: true, hasProgressed: false) != nil)
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
