public import MobulaCore

/// Waits until so many more bytes may be received.
public typealias S3Pace = @Sendable (_ bytes: Int) async throws -> Void

extension S3Client {
  /// Fills `sink` with `header` followed by the S3 object's bytes, by parallel ranged GETs.
  ///
  /// Every GET carries the ETag of `info`, so that two versions are never mixed.
  /// Chunks become visible as they complete, the lowest first as far as
  /// `concurrency` allows. Chunks that another source has claimed are left to it.
  /// What fails for the moment is tried again while it makes progress;
  /// on failure and on cancellation claimed chunks are abandoned, committed ones stay.
  ///
  /// - Parameters:
  ///   - info: what `head` said of the object.
  ///   - header: the sink's first bytes; S3's byte 0 lies right after it.
  ///   - concurrency: GETs at a time, each on its own connection; 8 by default.
  ///   - partSize: bytes that one GET asks for, at least one chunk; 8 MiB by default.
  ///   - lead: how far a GET may be ahead of the first missing byte, where others take the chunks in
  ///     order meanwhile; unlimited by default.
  ///   - pace: waits until so many more bytes may be received.
  ///   - progress: called with the bytes that became visible since its last call, from any thread.
  /// - Throws: `MobulaError`: `mismatch` when the object changed, `invalidArgument` when the sink's size is not
  ///   header and object together, else as `get`; `CancellationError`.
  public func download(
    bucket: String, key: String, info: S3ObjectInfo, into sink: any ChunkSink, header: [UInt8] = [],
    concurrency: Int = 8, partSize: ByteCount = ByteCount(8 * 1_048_576),
    lead: ByteCount? = nil, progress: (@Sendable (Int) -> Void)? = nil, pace: S3Pace? = nil
  ) async throws {
    guard sink.geometry.objectSize == header.count + info.size else {
      throw MobulaError(
        .invalidArgument,
        "s3://\(bucket)/\(key) has \(info.size) bytes and does not fit an object of \(sink.geometry.objectSize) with a header of \(header.count): ask for its size again."
      )
    }
    let download = S3Download(
      client: self, bucket: bucket, key: key, info: info, sink: sink, header: header, partSize: partSize.bytes,
      lead: lead?.bytes,
      progress: progress, pace: pace)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<max(1, concurrency) { group.addTask { try await download.fetchParts() } }
      try await group.waitForAll()
    }
  }
}

/// What the concurrent fetchers of one download share.
private struct S3Download: Sendable {
  let client: S3Client
  let bucket: String
  let key: String
  let info: S3ObjectInfo
  let sink: any ChunkSink
  let header: [UInt8]
  let partSize: Int
  let lead: Int?
  let progress: (@Sendable (Int) -> Void)?
  let pace: S3Pace?

  /// Fetches one part after another until no chunk is free.
  func fetchParts() async throws {
    var generator = SystemRandomNumberGenerator()
    var failures = 0
    while var part = S3PartWriter(claimingFrom: sink, partSize: partSize) {
      let first = part.chunks.lowerBound
      do {
        try await waitForTurn(of: first)
        try await fetch(&part)
        failures = 0
      } catch {
        let progressed = part.chunks.lowerBound > first
        part.abandon()
        guard let error = error as? S3Error else { throw error }
        failures = progressed ? 1 : failures + 1
        guard error.isRetryable,
          let pause = client.configuration.retry.pause(after: failures, using: &generator)
        else { throw error.mobulaError }
        try await Task.sleep(for: pause)
      }
    }
  }

  /// Waits until the part that begins with `chunk` is not too far ahead of the first missing one.
  ///
  /// Connections don't share a link evenly: without this the slowest part may lag by many, and
  /// whoever takes the chunks in order would wait for it with an idle link.
  private func waitForTurn(of chunk: Int) async throws {
    try Task.checkCancellation()
    guard let lead else { return }
    let chunks = max(1, lead / sink.geometry.chunkSize)
    while let missing = sink.chunkMap.firstMissing(), chunk - missing > chunks {
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  private func fetch(_ part: inout S3PartWriter) async throws {
    if part.position < header.count {
      let end = min(header.count, part.missing.upperBound)
      let own = header[part.position..<end]
      report(own.withUnsafeBytes { part.write($0) })
    }
    // Header only: nothing of this part is in S3.
    guard !part.missing.isEmpty else { return }
    let range = part.missing.lowerBound - header.count..<part.missing.upperBound - header.count
    let answer = try await client.transport.send(
      .get(bucket: bucket, key: key, range: range, ifMatch: info.etag))
    try check(answer, range: range)
    try await answer.readPieces(pace: pace) { piece in
      guard piece.count <= part.missing.count else { throw broken("more bytes came than were asked for") }
      report(part.write(piece))
    }
    guard part.missing.isEmpty else { throw broken("\(part.missing.count) of \(range.count) bytes did not come") }
  }

  /// The range asked for, of the version asked for, or an error.
  private func check(_ answer: S3Body, range: Range<Int>) throws {
    guard answer.etag == nil || answer.etag == info.etag else {
      throw S3Error(
        code: "PreconditionFailed", httpStatus: 412, endpoint: client.configuration.baseEndpoint, bucket: bucket,
        key: key)
    }
    let expected = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(info.size)"
    // A server that ignores ranges answers 200; right only where the range is everything.
    let isRight =
      answer.status == 206
      ? answer.header("content-range") == expected : range == 0..<info.size && answer.size == info.size
    guard isRight else { throw broken("its answer is not the range that was asked for") }
  }

  private func broken(_ message: String) -> S3Error {
    S3Error(
      code: S3Error.interrupted, message: message, endpoint: client.configuration.baseEndpoint, bucket: bucket,
      key: key)
  }

  private func report(_ bytes: Int) {
    if bytes > 0 { progress?(bytes) }
  }
}
