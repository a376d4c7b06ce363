import MobulaCore
import MobulaS3
import MobulaStore
import MobulaTransfer
import Synchronization

/// What one host spills to S3: `s3://bucket/prefix/<host>/…`, which is this host's alone.
final class S3SpillPlace: SpillPlace {
  let title: String
  private let bucket: String
  /// Of all keys; ends in `/`.
  private let prefix: String
  private let endpoint: String?
  private let credentials: S3CredentialsChain
  private let traffic: TrafficControl
  private let made = Mutex<S3Client?>(nil)

  /// - Parameters:
  ///   - url: `s3://bucket/prefix`, or a bucket alone.
  ///   - endpoint: the environment's when `nil`.
  ///   - traffic: what this host receives.
  /// - Throws: `MobulaError` (`invalidArgument`) for an address that can't be.
  init(
    _ url: String, host: HostID, endpoint: String?, credentials: S3CredentialsChain, traffic: TrafficControl
  ) throws(MobulaError) {
    let url = try S3URL(url)
    bucket = url.bucket
    prefix = Self.prefix(of: url, host: host)
    title = "s3://\(url.bucket)/\(prefix)"
    self.endpoint = endpoint
    self.credentials = credentials
    self.traffic = traffic
  }

  static func prefix(of url: S3URL, host: HostID) -> String {
    url.key.isEmpty || url.key.hasSuffix("/") ? "\(url.key)\(host)/" : "\(url.key)/\(host)/"
  }

  /// Its connections are closed; without it they are when it goes.
  func close() async { await made.withLock { $0.take() }?.shutdown() }

  private func client() async throws -> S3Client {
    if let client = made.withLock({ $0 }) { return client }
    // The store has patience of its own, and says what it waits for.
    let client = try await S3Client.fromEnvironment(
      S3Access(endpoint: endpoint), credentials: credentials, patience: .zero)
    let kept = made.withLock { made in
      made = made ?? client
      return made!
    }
    if kept !== client { await client.shutdown() }
    return kept
  }

  private func asking<Result>(_ body: (S3Client) async throws -> Result) async throws -> Result {
    let client = try await client()
    return try await S3Error.asMobulaError { try await body(client) }
  }

  func write(
    _ name: String, size: Int, bytes: @escaping @Sendable (Range<Int>) throws -> [UInt8]
  ) async throws -> String {
    try await asking { client in
      let etag = try await client.put(bucket: bucket, key: prefix + name, size: size) { try bytes($0) }
      if let etag { return etag }
      let info = try await client.head(bucket: bucket, key: prefix + name)
      guard info.size == size else {
        throw MobulaError(.unavailable, "S3 has \(info.size) bytes of \(title)\(name) in place of \(size): try again.")
      }
      return info.etag
    }
  }

  func read(
    _ item: SpillItem, _ range: Range<Int>,
    piece: @escaping @Sendable (_ offset: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void
  ) async throws {
    do {
      try await client().read(
        bucket: bucket, key: prefix + item.name, range: range, ifMatch: item.version,
        pace: { [traffic] in try await traffic.admit($0, .get) }, consume: piece)
    } catch {
      throw Self.readFailure(error)
    }
  }

  /// What a failed read is to the store, which gives an object up that is not found: only S3's own word counts, not
  /// a proxy's page, or a bucket that is away.
  static func readFailure(_ error: any Error) -> any Error {
    guard let failure = error as? S3Error else {
      guard let error = error as? MobulaError, error.code == .notFound else { return error }
      return MobulaError(.unavailable, error.message)
    }
    let told = failure.mobulaError
    return told.code == .notFound && failure.code != "NoSuchKey" ? MobulaError(.unavailable, told.message) : told
  }

  func items() async throws -> [SpillItem] {
    try await asking { client in
      try await client.list(bucket: bucket, prefix: prefix).map {
        SpillItem(name: String(Substring($0.key.utf8.dropFirst(prefix.utf8.count))), size: $0.size, version: $0.etag)
      }
    }
  }

  func remove(_ names: [String]) async throws {
    let keys = names.map { prefix + $0 }
    try await asking { client in
      do {
        try await client.delete(bucket: bucket, keys: keys)
      } catch let error as S3Error where [400, 405, 501].contains(error.httpStatus) {
        // Not every service deletes several at once.
        var failure: (any Error)?
        for key in keys {
          do {
            try await client.delete(bucket: bucket, key: key)
          } catch {
            try Task.checkCancellation()
            failure = failure ?? error
          }
        }
        if let failure { throw failure }
      }
    }
  }

  func removeUnfinished(unless isNeeded: @escaping @Sendable (String) -> Bool) async throws {
    try await asking { client in
      for upload in try await client.unfinishedUploads(bucket: bucket, prefix: prefix)
      where !isNeeded(String(upload.key.dropFirst(prefix.count))) {
        try await client.abort(upload, bucket: bucket)
      }
    }
  }
}
