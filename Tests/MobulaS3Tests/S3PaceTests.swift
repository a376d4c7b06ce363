import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Downloads that are slow on purpose.
@Suite struct S3PaceTests {
  private let bytes = pattern(200_000)
  private let info = S3ObjectInfo(size: 200_000, etag: "\"v1\"")

  private func client(_ port: Int) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(
      maximumAttempts: 1, firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    // The head of an answer has this time; its bytes have as long as they come.
    configuration.requestTimeout = .seconds(1)
    return S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
  }

  /// Every byte waits for its turn, and the time that it waits is not the server's fault.
  @Test func everyByteIsWaitedForAndNoDeadlineCountsThat() async throws {
    let bytes = bytes
    let server = try FaultyServer { _, head in S3FaultTests.part(bytes, S3FaultTests.range(in: head)) }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    let admitted = Mutex(0)
    try await client(server.port).download(
      bucket: "b", key: "k", info: info, into: sink, concurrency: 1,
      pace: { count in
        admitted.withLock { $0 += count }
        // Together more than the deadline, whatever the pieces.
        try await Task.sleep(for: .milliseconds(2000 * count / 200_000))
      })
    #expect(admitted.withLock { $0 } == 200_000)
    #expect(sink.bytes == bytes && sink.isCompleteAndRight)
    #expect(server.requests.count == 1)
  }

  @Test func whatPaceThrowsEndsTheDownload() async throws {
    let bytes = bytes
    let server = try FaultyServer { _, head in S3FaultTests.part(bytes, S3FaultTests.range(in: head)) }
    defer { server.stop() }
    let sink = try MemorySink(size: 200_000)
    await #expect(throws: CancellationError.self) {
      try await client(server.port).download(
        bucket: "b", key: "k", info: info, into: sink, pace: { _ in throw CancellationError() })
    }
    #expect(sink.free == [0, 1, 2, 3])
  }
}
