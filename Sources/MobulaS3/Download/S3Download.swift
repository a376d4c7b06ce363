package import MobulaCore
internal import Synchronization

/// Waits until so many more bytes may be received.
public typealias S3Pace = @Sendable (_ bytes: Int) async throws -> Void

extension S3Client {
  /// Fills `sink` with `header` followed by the S3 object's bytes, by parallel ranged GETs.
  ///
  /// Every GET carries the ETag of `info`, and names its version where the bucket keeps them, so that two versions are
  /// never mixed.
  /// Chunks become visible as they complete, the lowest first as far as the
  /// number of GETs allows. Chunks that another source has claimed are left to it.
  /// What fails for the moment is tried again while it makes progress;
  /// on failure and on cancellation claimed chunks are abandoned, committed ones stay.
  ///
  /// - Parameters:
  ///   - info: what `head` said of the object.
  ///   - header: the sink's first bytes; S3's byte 0 lies right after it.
  ///   - concurrency: GETs at a time, each on its own connection; fewer while S3 asks for less. By default as
  ///     many as bring more bytes a second, at most `S3Configuration.maximumConnections`.
  ///   - partSize: bytes that one GET asks for, at least one chunk. By default what a connection brings in a fifth
  ///     of a second, from 1 to 64 MiB; 8 MiB to begin with.
  ///   - pace: waits until so many more bytes may be received.
  ///   - progress: called with the bytes that became visible since its last call, from any thread.
  ///   - throttled: called when S3 asks for less.
  ///   - waiting: called now and then while a service that does not answer is waited for.
  ///   - since: since when nothing of the object has come, from wherever: from then it is waited for.
  /// - Returns: whether the bytes were compared with a checksum of S3's. The chunk that would make the object whole
  ///   is committed only after that.
  /// - Throws: `S3Error` with status 412 when the object changed, with the code `wrongChecksum` when the bytes are
  ///   not those of S3's checksum, else as `get`; `MobulaError` (`invalidArgument`)
  ///   when the sink's size is not header and object together; `CancellationError`.
  @discardableResult
  package func download(
    bucket: String, key: String, info: S3ObjectInfo, into sink: any ChunkSink, header: [UInt8] = [],
    concurrency: Int? = nil, partSize: ByteCount? = nil,
    progress: (@Sendable (Int) -> Void)? = nil, pace: S3Pace? = nil,
    throttled: (@Sendable () -> Void)? = nil, waiting: (@Sendable (S3Error) -> Void)? = nil,
    since: ContinuousClock.Instant? = nil
  ) async throws -> S3Verification {
    guard sink.geometry.objectSize == header.count + info.size else {
      throw MobulaError(
        .invalidArgument,
        "s3://\(bucket)/\(key) has \(info.size) bytes and does not fit an object of \(sink.geometry.objectSize) with a header of \(header.count): ask for its size again."
      )
    }
    let settings = configuration.concurrency(
      of: concurrency, partSize: partSize, smallestPart: sink.geometry.chunkSize)
    let (checks, verification) = try await checks(bucket: bucket, key: key, info: info, headerSize: header.count)
    let download = S3Download(
      client: self, bucket: bucket, key: key, info: info, sink: sink, header: header, checks: checks,
      gate: S3RequestGate(settings, remaining: sink.geometry.objectSize), progress: progress,
      pace: pace, throttled: throttled, waiting: waiting, since: since)
    // No more than there can be parts.
    let leastPart = settings.isPartFixed ? settings.initialPart : settings.smallestPart
    let tasks = min(settings.maximum, (sink.geometry.objectSize - 1) / max(1, leastPart) + 1)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<tasks { group.addTask { try await download.fetchParts() } }
      try await group.waitForAll()
    }
    guard let checks else { return verification }
    if download.partsDiffer.value { return .notVerified(.unknownParts) }
    return checks.isRight == nil ? .notVerified(.otherSources) : verification
  }
}

extension S3Configuration {
  /// Requests of one transfer at once and bytes of each, both as measured unless they are given.
  func concurrency(
    of number: Int?, partSize: ByteCount?, smallestPart: Int
  ) -> S3ConcurrencyStateMachine.Settings {
    let maximum = max(1, number ?? maximumConnections)
    var settings = S3ConcurrencyStateMachine.Settings(
      maximum: maximum, initial: number ?? min(4, maximum), smallestPart: max(smallestPart, 1_048_576))
    settings.isAdaptive = number == nil
    if let partSize {
      settings.smallestPart = smallestPart
      settings.initialPart = partSize.bytes
      settings.isPartFixed = true
    }
    return settings
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
  let checks: S3DownloadChecks?
  let gate: S3RequestGate
  let progress: (@Sendable (Int) -> Void)?
  let pace: S3Pace?
  let throttled: (@Sendable () -> Void)?
  let waiting: (@Sendable (S3Error) -> Void)?
  let since: ContinuousClock.Instant?
  /// That the checksum, one of parts, can't be checked after all.
  let partsDiffer = S3Flag()
  /// That all of the object has come with a wrong checksum once.
  let wasDamaged = S3Flag()

  /// Fetches one part after another until no chunk is free.
  func fetchParts() async throws {
    var persistence = S3Persistence(client.configuration.retry, since: since, waiting: waiting)
    // What broke off goes on at its byte.
    var broken: S3PartWriter?
    while true {
      let turn: S3RequestGate.Turn
      do { turn = try await gate.turn() } catch {
        broken?.abandon()
        throw error
      }
      guard var part = broken ?? begin(turn.bytes) else { return gate.failed() }
      broken = nil
      let begun = part.position
      do {
        try Task.checkCancellation()
        try await fetch(&part)
        gate.finished(turn, bytes: part.position - begun)
        persistence.succeeded()
      } catch {
        guard let error = error as? S3Error else {
          gate.claimed(-part.abandon())
          gate.failed()
          throw error
        }
        if error.isThrottling {
          gate.throttled(turn)
          throttled?()
        } else {
          gate.failed()
        }
        // Where all of the object came by this GET, the damage is in it, and it may come whole the second time.
        let comesAgain = error.code == S3Error.wrongChecksum && part.holdsAll && !wasDamaged.value
        if comesAgain { wasDamaged.value = true }
        let pause = persistence.pause(
          after: error, isRetryable: error.isRetryable || comesAgain, hasProgressed: part.position > begun)
        guard let pause, !comesAgain, !part.missing.isEmpty else {
          gate.claimed(-part.abandon())
          guard let pause else { throw error }
          try await Task.sleep(for: pause)
          continue
        }
        do { try await Task.sleep(for: pause) } catch {
          part.abandon()
          throw error
        }
        broken = part
      }
    }
  }

  /// Claims the next part; `nil` when no chunk is free.
  private func begin(_ bytes: Int) -> S3PartWriter? {
    guard var part = S3PartWriter(claimingFrom: sink, partSize: bytes, checks: checks) else { return nil }
    gate.claimed(part.missing.count)
    part.holdsAll =
      checks != nil && part.missing == 0..<sink.geometry.objectSize && part.missing.count <= Self.largestHeld
    return part
  }

  /// Objects up to this size that come by one GET become visible only when they are known to be right, and come
  /// again when they are not.
  private static let largestHeld = 8 * 1_048_576

  private func fetch(_ part: inout S3PartWriter) async throws {
    if part.position < header.count {
      let end = min(header.count, part.missing.upperBound)
      let own = header[part.position..<end]
      report(own.withUnsafeBytes { part.write($0) })
    }
    // Header only: nothing of this part is in S3.
    guard !part.missing.isEmpty else { return }
    let range = part.missing.lowerBound - header.count..<part.missing.upperBound - header.count
    func write(_ piece: UnsafeRawBufferPointer) throws {
      guard piece.count <= part.missing.count else {
        throw client.malformed("more bytes came than were asked for", bucket: bucket, key: key)
      }
      report(part.write(piece))
      gate.received(piece.count)
    }
    if let whole = client.wholes.stream(of: info, bucket: bucket, key: key) {
      try await whole.read(range, pace: pace, write)
    } else {
      let answer = try await client.send(
        .get(bucket: bucket, key: key, range: range, ifMatch: info.etag), version: info.versionID)
      if answer.isWhole(of: info, besides: range) {
        // Whoever asked at the same time stands in line as well, so that the lowest range comes first.
        let whole = client.wholes.begin(of: info, bucket: bucket, key: key, client.transport)
        try await Task.sleep(for: .milliseconds(20))
        try await whole.read(range, pace: pace, write)
      } else {
        try check(answer, range: range)
        try await answer.readPieces(pace: pace, write)
      }
    }
    guard part.missing.isEmpty else { throw broken("\(part.missing.count) of \(range.count) bytes did not come") }
    if !part.held.isEmpty { try await verify(&part) }
  }

  /// Makes visible what waits for the object's checksum, if that is right.
  private func verify(_ part: inout S3PartWriter) async throws {
    guard let checks, let checksum = info.checksum, checks.isRight == false else { return report(part.commitHeld()) }
    if let parts = checksum.parts, let partSize = checks.partSize {
      let areEqual = try await client.partsAreEqual(partSize, bucket: bucket, key: key, info: info, parts: parts)
      if !areEqual {
        partsDiffer.value = true
        return report(part.commitHeld())
      }
    }
    throw S3Error(
      code: S3Error.wrongChecksum, message: "they should be those of \(checksum)",
      endpoint: client.configuration.baseEndpoint, bucket: bucket, key: key)
  }

  /// The range asked for, of the version asked for, or an error.
  private func check(_ answer: S3Body, range: Range<Int>) throws {
    guard answer.etag == nil || answer.etag == info.etag else {
      throw S3Error(
        code: "PreconditionFailed", httpStatus: 412, endpoint: client.configuration.baseEndpoint, bucket: bucket,
        key: key)
    }
    guard answer.isOf(range, of: info.size) else {
      throw client.malformed("its answer is not the range that was asked for", bucket: bucket, key: key)
    }
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

/// Set from any task.
final class S3Flag: Sendable {
  private let flag = Mutex(false)

  var value: Bool {
    get { flag.withLock { $0 } }
    set { flag.withLock { $0 = newValue } }
  }
}
