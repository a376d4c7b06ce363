import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Uploads in parts to services that fail.
@Suite struct S3UploadTests {
  private let bytes = pattern(1_000_003)

  /// A service that keeps the parts of uploads in memory; `fault` may answer in its place.
  private final class Service: Sendable {
    struct State {
      var parts: [Int: [UInt8]] = [:]
      var object: [UInt8]?
      var aborted = 0
    }
    let state = Mutex(State())

    func reply(_ request: FaultyServer.Request) -> FaultyServer.Reply {
      let words = request.head.split(separator: " ")
      let (method, target) = (words[0], words[1])
      return state.withLock { state in
        switch method {
        case "POST" where target.contains("uploads="):
          return .init(
            bytes: answer(
              "200 OK", [:],
              "<InitiateMultipartUploadResult><UploadId>U&amp;1</UploadId></InitiateMultipartUploadResult>".utf8))
        case "PUT":
          guard target.contains("uploadId=U%261"), let number = Self.part(target) else { return .init(bytes: []) }
          state.parts[number] = request.body
          return .init(bytes: answer("200 OK", ["ETag": "\"p\(number)\""]))
        case "POST":
          let text = String(decoding: request.body, as: UTF8.self)
          let numbers = text.split(separator: "<PartNumber>").compactMap { Int($0.prefix { $0.isNumber }) }
          state.object = numbers.flatMap { state.parts[$0] ?? [] }
          return .init(
            bytes: answer(
              "200 OK", [:],
              "\n<CompleteMultipartUploadResult><ETag>\"all-\(numbers.count)\"</ETag></CompleteMultipartUploadResult>"
                .dropFirst().utf8))
        case "DELETE":
          state.aborted += 1
          return .init(bytes: answer("204 No Content"))
        default:
          let count = state.object?.count ?? 0
          return .init(
            bytes: answer("200 OK", ["Content-Length": "\(count)", "ETag": "\"all-\(state.parts.count)\""]))
        }
      }
    }

    static func part(_ target: Substring) -> Int? {
      target.split { "?&".contains($0) }.first { $0.hasPrefix("partNumber=") }.flatMap { Int($0.dropFirst(11)) }
    }

    var object: [UInt8]? { state.withLock { $0.object } }
    var aborted: Int { state.withLock { $0.aborted } }
  }

  private func client(_ port: Int) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(
      maximumAttempts: 20, firstPause: .milliseconds(1), maximumPause: .milliseconds(4))
    configuration.multipartThreshold = ByteCount(100_000)
    configuration.uploadPartSize = ByteCount(100_000)
    configuration.uploadChecksums = false
    return S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
  }

  private func upload(to port: Int, progress: (@Sendable (Int) -> Void)? = nil) async throws -> String? {
    let bytes = bytes
    return try await client(port).put(bucket: "b", key: "k", size: bytes.count, progress: progress) { Array(bytes[$0]) }
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func partsThatFailNowAndThen(seed: UInt64) async throws {
    let service = Service()
    let generator = Mutex(SeededGenerator(seed: seed))
    let server = try FaultyServer(replying: { request in
      switch generator.withLock({ Int.random(in: 0..<10, using: &$0) }) {
      case 0, 1: return .init(bytes: answer("503 Slow Down", [:], "<Error><Code>SlowDown</Code></Error>".utf8))
      case 2: return .init(bytes: [], resets: true)
      case 3: return .init(bytes: answer("500 Internal Server Error"))
      default: return service.reply(request)
      }
    })
    defer { server.stop() }
    // What is sent again counts once.
    let sent = Mutex((sum: 0, most: 0))
    let etag = try await upload(to: server.port) { count in
      sent.withLock { sent in
        sent.sum += count
        sent.most = max(sent.most, sent.sum)
      }
    }
    #expect(etag == "\"all-11\"", "seed \(seed)")
    #expect(sent.withLock { $0.most } <= bytes.count, "seed \(seed)")
    #expect(service.object == bytes && service.aborted == 0, "seed \(seed)")
  }

  /// A part that is sent again is not read again for its checksums.
  @Test func partsAreReadOnceForTheirChecksums() async throws {
    let service = Service()
    let refused = Mutex<Set<Substring>>([])
    let server = try FaultyServer(replying: { request in
      let target = request.head.split(separator: " ")[1]
      guard request.head.hasPrefix("PUT "), refused.withLock({ $0.insert(target).inserted }) else {
        return service.reply(request)
      }
      return .init(bytes: answer("503 Slow Down", [:], "<Error><Code>SlowDown</Code></Error>".utf8))
    })
    defer { server.stop() }
    let begun = Mutex<[Int: Int]>([:])
    let bytes = bytes
    _ = try await client(server.port).put(bucket: "b", key: "k", size: bytes.count) { range in
      if range.lowerBound.isMultiple(of: 100_000) { begun.withLock { $0[range.lowerBound, default: 0] += 1 } }
      return Array(bytes[range])
    }
    #expect(service.object == bytes && refused.withLock { $0.count } == 11)
    // Over plain HTTP the signature needs the checksum first; then each is sent twice.
    #expect(begun.withLock { $0.values.allSatisfy { $0 == 3 } && $0.count == 11 })
  }

  /// S3 answers 200 before it knows whether it can put the parts together.
  @Test func anErrorWithStatus200IsOne() async throws {
    let service = Service()
    let failures = Counter()
    let server = try FaultyServer(replying: { request in
      if request.head.hasPrefix("POST /b/k?uploadId"), failures.value < 2 {
        failures.add(1)
        return .init(bytes: answer("200 OK", [:], "<Error><Code>InternalError</Code></Error>".utf8))
      }
      return service.reply(request)
    })
    defer { server.stop() }
    #expect(try await upload(to: server.port) == "\"all-11\"")
    #expect(service.object == bytes && failures.value == 2)
  }

  /// The upload is complete, but the answer that says so was lost.
  @Test func aLostAnswerToTheEnd() async throws {
    let service = Service()
    let ends = Counter()
    let server = try FaultyServer(replying: { request in
      guard request.head.hasPrefix("POST /b/k?uploadId") else { return service.reply(request) }
      ends.add(1)
      if ends.value == 1 {
        _ = service.reply(request)
        return .init(bytes: [], resets: true)
      }
      return .init(bytes: answer("404 Not Found", [:], "<Error><Code>NoSuchUpload</Code></Error>".utf8))
    })
    defer { server.stop() }
    #expect(try await upload(to: server.port) == "\"all-11\"")
    #expect(service.object == bytes && service.aborted == 0)
  }

  @Test func aRefusalGivesTheUploadUp() async throws {
    let service = Service()
    let server = try FaultyServer(replying: { request in
      request.head.contains("partNumber=3&")
        ? .init(bytes: answer("403 Forbidden", [:], "<Error><Code>AccessDenied</Code></Error>".utf8))
        : service.reply(request)
    })
    defer { server.stop() }
    await #expect {
      _ = try await upload(to: server.port)
    } throws: { ($0 as? S3Error)?.mobulaError.code == .denied }
    #expect(service.object == nil && service.aborted >= 1)
  }

  @Test func anEndThatIsRefusedGivesTheUploadUp() async throws {
    let service = Service()
    let server = try FaultyServer(replying: { request in
      request.head.hasPrefix("POST /b/k?uploadId")
        ? .init(bytes: answer("400 Bad Request", [:], "<Error><Code>InvalidPart</Code></Error>".utf8))
        : service.reply(request)
    })
    defer { server.stop() }
    await #expect {
      _ = try await upload(to: server.port)
    } throws: { ($0 as? S3Error)?.code == "InvalidPart" }
    #expect(service.object == nil && service.aborted >= 1)
  }

  /// The service has begun the upload, and its answer is on its way: who stops waiting for that leaves it there for good.
  @Test func oneThatIsCancelledAsItBeginsIsGivenUp() async throws {
    let service = Service()
    let hasBegun = Mutex(false)
    let server = try FaultyServer(replying: { request in
      let reply = service.reply(request)
      if request.head.contains("uploads=") {
        hasBegun.withLock { $0 = true }
        usleep(200_000)
      }
      return reply
    })
    defer { server.stop() }
    let sending = Task { try await upload(to: server.port) }
    while !hasBegun.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(1)) }
    sending.cancel()
    await #expect(throws: (any Error).self) { _ = try await sending.value }
    #expect(service.object == nil && service.aborted >= 1)
  }

  @Test func etagsAreEscaped() { #expect(xmlEscaped("\"a<b>&c\"") == "\"a&lt;b&gt;&amp;c\"") }
}
