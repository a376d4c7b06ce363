internal import MobulaCore
internal import Synchronization

extension S3Client {
  /// Brings a range of one version of an object by parallel ranged GETs, as many as S3 takes well.
  ///
  /// Every GET carries the ETag, so that two versions are never mixed. What breaks off is asked for again from where
  /// it did. Nothing is compared with a checksum: a range has none.
  ///
  /// - Parameters:
  ///   - etag: with its quotes.
  ///   - pace: waits until so many more bytes may be received.
  ///   - consume: takes bytes, valid during the call, and where they begin in the object; from any thread, each
  ///     byte once.
  /// - Throws: as `get`, `S3Error` with status 412 when the object is another; what `consume` and `pace` threw.
  public func read(
    bucket: String, key: String, range: Range<Int>, ifMatch etag: String, pace: S3Pace? = nil,
    consume: @escaping @Sendable (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void
  ) async throws {
    guard !range.isEmpty else { return }
    let settings = configuration.concurrency(of: nil, partSize: nil, smallestPart: 1)
    let reader = S3RangeReader(
      client: self, bucket: bucket, key: key, etag: etag, gate: S3RequestGate(settings, remaining: range.count),
      range: range, pace: pace, consume: consume)
    let tasks = min(settings.maximum, (range.count - 1) / max(1, settings.smallestPart) + 1)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<tasks { group.addTask { try await reader.readParts() } }
      try await group.waitForAll()
    }
  }
}

/// What the concurrent readers of one range share.
private final class S3RangeReader: Sendable {
  private let client: S3Client
  private let bucket: String
  private let key: String
  private let etag: String
  private let gate: S3RequestGate
  /// What nobody has begun to read.
  private let rest: Mutex<Range<Int>>
  private let pace: S3Pace?
  private let consume: @Sendable (Int, UnsafeRawBufferPointer) throws -> Void

  init(
    client: S3Client, bucket: String, key: String, etag: String, gate: S3RequestGate, range: Range<Int>,
    pace: S3Pace?, consume: @escaping @Sendable (Int, UnsafeRawBufferPointer) throws -> Void
  ) {
    self.client = client
    self.bucket = bucket
    self.key = key
    self.etag = etag
    self.gate = gate
    rest = Mutex(range)
    self.pace = pace
    self.consume = consume
  }

  /// Reads one part after another until none is left.
  func readParts() async throws {
    var persistence = S3Persistence(client.configuration.retry, waiting: nil)
    // What was begun, and is to be read again from where it broke off.
    var missing = 0..<0
    while true {
      let turn = try await gate.turn()
      if missing.isEmpty {
        missing = take(turn.bytes)
        if missing.isEmpty { return gate.failed() }
        gate.claimed(missing.count)
      }
      let part = missing
      do {
        try await read(&missing)
        gate.finished(turn, bytes: part.count)
        persistence.succeeded()
      } catch {
        guard let error = error as? S3Error else {
          gate.failed()
          throw error
        }
        if error.isThrottling { gate.throttled(turn) } else { gate.failed() }
        guard
          let pause = persistence.pause(
            after: error, isRetryable: error.isRetryable, hasProgressed: missing.lowerBound > part.lowerBound)
        else { throw error }
        try await Task.sleep(for: pause)
      }
    }
  }

  private func take(_ bytes: Int) -> Range<Int> {
    rest.withLock { rest in
      let end = min(rest.upperBound, rest.lowerBound + max(1, bytes))
      defer { rest = end..<rest.upperBound }
      return rest.lowerBound..<end
    }
  }

  private func read(_ missing: inout Range<Int>) async throws {
    let range = missing
    let answer = try await client.transport.send(.get(bucket: bucket, key: key, range: range, ifMatch: etag))
    guard answer.etag == nil || answer.etag == etag else {
      throw S3Error(
        code: "PreconditionFailed", httpStatus: 412, endpoint: client.configuration.baseEndpoint, bucket: bucket,
        key: key)
    }
    guard answer.isOf(range, of: nil) else {
      throw client.malformed("its answer is not the range that was asked for", bucket: bucket, key: key)
    }
    try await answer.readPieces(pace: pace) { piece in
      guard piece.count <= missing.count else {
        throw client.malformed("more bytes came than were asked for", bucket: bucket, key: key)
      }
      try consume(missing.lowerBound, piece)
      missing = missing.lowerBound + piece.count..<missing.upperBound
      gate.received(piece.count)
    }
    guard missing.isEmpty else {
      throw S3Error(
        code: S3Error.interrupted, message: "\(missing.count) of \(range.count) bytes did not come",
        endpoint: client.configuration.baseEndpoint, bucket: bucket, key: key)
    }
  }
}
