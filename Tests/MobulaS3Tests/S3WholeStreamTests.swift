import MobulaCore
import Testing

@testable import MobulaS3

/// Services that answer all of an object to a range of it.
@Suite struct S3WholeStreamTests {
  private let bytes = pattern(3_000_017)
  private var info: S3ObjectInfo { S3ObjectInfo(size: bytes.count, etag: "\"e\"") }

  private func client(_ port: Int) -> S3Client {
    var configuration = S3Configuration(endpoint: S3Endpoint(host: "127.0.0.1", port: port))
    configuration.retry = S3RetryPolicy(firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    return S3Client(configuration: configuration, credentials: S3Credentials(accessKey: "a", secretKey: "s"))
  }

  /// It comes once, besides the answers by which that is found out; and once more for each of these that comes so late that
  /// its range has gone by.
  @Test(.timeLimit(.minutes(1)), arguments: [1, 3]) func itComesOnce(concurrency: Int) async throws {
    let bytes = bytes
    let server = try FaultyServer { _, _ in answer("200 OK", ["ETag": "\"e\""], bytes) }
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    try await client(server.port).download(
      bucket: "b", key: "k", info: info, into: sink, concurrency: concurrency, partSize: ByteCount(200_000))
    #expect(sink.bytes == bytes && sink.isCompleteAndRight)
    #expect(1...concurrency ~= server.requests.count { !$0.lowercased().contains("range:") })
    #expect(server.requests.count <= 2 * concurrency)
  }

  /// What breaks off is asked for again, and what is another object meanwhile is no part of this one.
  @Test(.timeLimit(.minutes(1))) func itBreaksOff() async throws {
    let bytes = bytes
    let server = try FaultyServer { number, _ in
      let all = answer("200 OK", ["ETag": "\"e\""], bytes)
      return number < 4 ? Array(all.prefix(1_000_000 * (number + 1) / 2)) : all
    }
    defer { server.stop() }
    let sink = try MemorySink(size: bytes.count)
    try await client(server.port).download(
      bucket: "b", key: "k", info: info, into: sink, concurrency: 2, partSize: ByteCount(300_000))
    #expect(sink.bytes == bytes && sink.isCompleteAndRight)

    let changing = try FaultyServer { number, _ in
      answer("200 OK", ["ETag": number < 2 ? "\"e\"" : "\"f\""], bytes)
    }
    defer { changing.stop() }
    let error = await #expect(throws: S3Error.self) {
      try await client(changing.port).download(
        bucket: "b", key: "k", info: info, into: try MemorySink(size: bytes.count), concurrency: 2,
        partSize: ByteCount(300_000))
    }
    #expect(error?.httpStatus == 412)
  }

  /// Ranges that are given up leave the others what they need.
  @Test(.timeLimit(.minutes(1))) func readersThatGiveUp() async throws {
    let bytes = bytes
    let server = try FaultyServer { _, _ in answer("200 OK", ["ETag": "\"e\""], bytes) }
    defer { server.stop() }
    let client = client(server.port)
    let stream = client.wholes.begin(of: info, bucket: "b", key: "k", client.transport)
    let size = bytes.count / 10
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<10 {
        group.addTask {
          let reading = Task {
            var got: [UInt8] = []
            try await stream.read(number * size..<(number + 1) * size, pace: nil) { got += $0 }
            return got
          }
          if number % 3 == 1 {
            reading.cancel()
            _ = await reading.result
          } else {
            let got = try await reading.value
            #expect(got == Array(bytes[number * size..<(number + 1) * size]))
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(!stream.isBusy)
  }
}
