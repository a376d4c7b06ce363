import Logging
import MobulaCore
import MobulaS3
import MobulaTransfer
import MobulaWire
import Synchronization

/// Reads from S3 what this host is to read of one object: the parts that the head gives it, and more where S3 is faster
/// than the hosts that have the rest.
final class S3PartReader: Sendable {
  /// How often S3 and hosts are compared, and how often the number of parts is thought about.
  private static let (interval, glance) = (Duration.milliseconds(250), Duration.milliseconds(50))

  /// What a connection should bring a second at least.
  private static let leastRate = 131_072.0

  private let host: HostID
  private let head: PeerLink
  private let client: S3Client
  private let url: S3URL
  private let info: S3ObjectInfo
  private let header: [UInt8]
  private let traffic: TrafficControl
  private let ledger: FetchLedger
  private let takesParts: Bool
  private let log: Logger
  private let choice = Mutex(SourceChoice())
  private let concurrency: Mutex<PartConcurrency>
  /// Whether the head has nothing to read any more.
  private let hasAll = Atomic(false)
  private let start = ContinuousClock.now
  /// When something of the object has come last, and the chunks that were missing then.
  private let progress = Mutex((last: ContinuousClock.now, missing: Int.max))

  /// - Parameters:
  ///   - header: the object's first bytes, before those of S3.
  ///   - traffic: what this host receives.
  ///   - takesParts: whether the head gives this host parts to read; otherwise others have everything.
  init(
    host: HostID, head: PeerLink, client: S3Client, url: S3URL, info: S3ObjectInfo, header: [UInt8],
    traffic: TrafficControl, ledger: FetchLedger, takesParts: Bool, log: Logger
  ) {
    self.log = log
    self.host = host
    self.head = head
    self.client = client
    self.url = url
    // Without S3's checksum, which is of all bytes: no host reads all of them.
    self.info = S3ObjectInfo(size: info.size, etag: info.etag, versionID: info.versionID)
    self.header = header
    self.traffic = traffic
    self.ledger = ledger
    self.takesParts = takesParts
    // Of many connections that share a limit, one may get nothing for longer than a connection is kept.
    let shared = traffic.limit.map { max(1, Int(min($0.bytesPerSecond / Self.leastRate, 1e6))) } ?? .max
    concurrency = Mutex(PartConcurrency(maximum: min(client.configuration.maximumConnections, shared)))
  }

  private var now: Duration { ContinuousClock.now - start }

  /// Reads until the calling task is cancelled: as long as S3 answers, the object can't be lost.
  ///
  /// - Throws: `MobulaError` when S3 can't be read; the other hosts get what this one was to read.
  func fill(_ exchange: ObjectExchange) async throws {
    do {
      try await withThrowingDiscardingTaskGroup { group in
        group.addTask { try await self.readWhatIsSlow(exchange) }
        while takesParts, !group.isCancelled, !hasAll.load(ordering: .relaxed) {
          let missing = look(exchange) * exchange.geometry.chunkSize
          let hasHosts = exchange.hasHosts
          concurrency.withLock { $0.tick(missing: missing, hasHosts: hasHosts, now: now) }
          while concurrency.withLock({ $0.begins() }) { group.addTask { try await self.readParts(exchange) } }
          try await Task.sleep(for: Self.glance)
        }
      }
    } catch {
      if !(error is CancellationError) {
        // The exchange need not wait for a head that is away.
        let failed = TransferEnded(receiver: host, object: exchange.object)
        Task { [head] in _ = try? await head.call(HeadAPI.partsFailed, failed, deadline: .seconds(600)) }
      }
      throw error
    }
  }

  /// Reads one part after another, until the head has none any more, or fewer should be read at once.
  private func readParts(_ exchange: ObjectExchange) async throws {
    defer { concurrency.withLock { $0.ended() } }
    var finished: Range<Int>?
    while true {
      // What it doesn't take another host can read.
      let wantsMore = finished == nil || !concurrency.withLock { $0.isAbove }
      let request = PartRequest(
        host: host, object: exchange.object, geometry: exchange.geometry, finished: finished, wantsMore: wantsMore)
      let reply = try await head.call(HeadAPI.takePart, request, deadline: .seconds(3600))
      guard let chunks = reply.chunks else {
        if wantsMore { hasAll.store(true, ordering: .relaxed) }
        return
      }
      // From the head, and yet from outside.
      guard chunks.lowerBound >= 0, chunks.upperBound <= exchange.geometry.count else {
        throw MobulaError(
          .protocolViolation, "The head gave chunks \(chunks) that \(url) does not have: run one version.")
      }
      try await read(exchange.reserve(chunks))
      // Some may have been asked of a host, which may fail.
      while !exchange.has(chunks) {
        try await Task.sleep(for: .milliseconds(20))
        try await read(exchange.reserve(chunks))
      }
      finished = chunks
    }
  }

  /// Looks what has come.
  ///
  /// - Returns: chunks that are missing.
  private func look(_ exchange: ObjectExchange) -> Int {
    let missing = exchange.progress.missing
    progress.withLock { if missing < $0.missing { $0 = (.now, missing) } }
    return missing
  }

  private func readWhatIsSlow(_ exchange: ObjectExchange) async throws {
    while true {
      try await Task.sleep(for: Self.interval)
      let (bytesPerSecond, missing) = exchange.progress
      let chunkSize = exchange.geometry.chunkSize
      let reason = choice.withLock {
        $0.tick(hosts: bytesPerSecond, missing: missing * chunkSize, now: now)
      }
      guard let reason else { continue }
      let reserved = exchange.reserveLast(max(1, SourceChoice.part / chunkSize))
      guard !reserved.runs.isEmpty else { continue }
      ledger.explain(exchange.object, reason)
      try await read(reserved)
    }
  }

  private func read(_ reserved: ReservedChunks) async throws {
    // Nobody else reads it before it is given up.
    defer { reserved.release() }
    guard !reserved.runs.isEmpty else { return }
    let (begin, object) = (now, reserved.object)
    choice.withLock { $0.began(now: begin) }
    var bytes = 0
    defer { choice.withLock { $0.ended(bytes: bytes, now: now) } }
    defer { ledger.waits(object, for: nil) }
    _ = try await S3Error.asMobulaError {
      try await client.download(
        bucket: url.bucket, key: url.key, info: info, into: reserved, header: header, concurrency: 1,
        partSize: ByteCount(reserved.bytes),
        pace: {
          self.progress.withLock { $0.last = .now }
          try await self.traffic.admit($0, .get)
        },
        throttled: { self.concurrency.withLock { $0.throttled(startedAt: begin, now: self.now) } },
        waiting: { [ledger, log] error in
          let problem = error.mobulaError.message
          if ledger.wait(for: object) == nil { log.warning("waiting for S3", metadata: ["problem": "\(problem)"]) }
          ledger.waits(object, for: problem)
        },
        // Of several hosts that are given the same part, one after the other, each has waited all the time.
        since: progress.withLock { $0.last })
    }
    bytes = reserved.bytes
  }
}
