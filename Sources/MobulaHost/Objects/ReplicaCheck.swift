import MobulaCore
import MobulaS3
import MobulaStore

/// Compares the bytes of an object of S3 with the checksum that S3 keeps of them, wherever they come from: each host all
/// that it receives, chunk by chunk as it comes and while it is in a cache. A CRC32C follows from those of the chunks.
struct ReplicaCheck: Sendable {
  enum Outcome: Sendable {
    /// The bytes have S3's checksum of this algorithm.
    case verified(String)
    /// They were not compared with one.
    case notVerified(why: String)
  }

  private let source: String
  private let checks: S3DownloadChecks?
  private let verification: S3Verification
  /// Asks S3 whether a checksum of parts can be compared at all.
  private let partsAreKnown: (@Sendable () async throws -> Bool)?

  /// For what is read from S3, by this host or by others.
  ///
  /// - Parameter headerSize: bytes of the object before those of S3.
  /// - Throws: `S3Error` when S3 does not say what it has to be asked, as where parts end.
  init(_ url: S3URL, _ info: S3ObjectInfo, source: String, headerSize: Int, client: S3Client) async throws {
    self.source = source
    let (checks, verification) = try await client.checks(
      bucket: url.bucket, key: url.key, info: info, headerSize: headerSize)
    self.checks = checks
    self.verification = verification
    guard let partSize = checks?.partSize else {
      partsAreKnown = nil
      return
    }
    partsAreKnown = {
      try await client.partsAreEqual(
        partSize, bucket: url.bucket, key: url.key, info: info, parts: info.checksum?.parts ?? 1)
    }
  }

  /// For what comes from hosts that read it from S3 and have not compared it yet.
  ///
  /// - Parameter size: bytes of the object, its header's among them.
  /// - Returns: `nil` for a checksum that can't be one of S3's.
  init?(_ expected: ExpectedChecksum, size: Int) {
    guard let checks = S3DownloadChecks(expected, size: size) else { return nil }
    source = expected.source
    self.checks = checks
    verification = .verified(checks.expected)
    partsAreKnown = nil
  }

  /// `writer`, of which every chunk is taken into the account.
  func watching(_ writer: any ReplicaWriter) -> any ReplicaWriter {
    checks.map { CheckedWriter(writer, $0) } ?? writer
  }

  /// Compares, once all is here.
  ///
  /// - Throws: `MobulaError` (`corrupted`) when the bytes are others; others when S3 can't be asked.
  func outcome() async throws -> Outcome {
    guard let checks else {
      guard case .notVerified(let reason) = verification else {
        preconditionFailure("what is verified is verified by something")
      }
      return .notVerified(why: Self.sentence(reason))
    }
    let expected = checks.expected
    guard let checksum = checks.checksum else {
      preconditionFailure("every chunk of a complete replica was committed through its writer")
    }
    if checksum == expected.bytes { return .verified(expected.algorithm.rawValue) }
    if let partsAreKnown, try await !S3Error.asMobulaError(partsAreKnown) {
      return .notVerified(why: Self.sentence(.unknownParts))
    }
    throw MobulaError(
      .corrupted,
      "The bytes of \(source) have the \(expected.algorithm.rawValue) checksum \(expected.text(of: checksum)), but S3 says \(expected.text): fetch it again, and if that fails, upload it again."
    )
  }

  /// What is known of an object that came at once.
  static func outcome(of small: S3SmallObject) -> Outcome {
    small.checksum.map { .verified($0.algorithm.rawValue) } ?? .notVerified(why: sentence(.noChecksum))
  }

  private static func sentence(_ reason: S3Verification.Reason) -> String {
    switch reason {
    case .noChecksum: "S3 keeps none of this object, or none that is known here"
    case .notCombinable: "its algorithm needs one pass over all bytes in their order"
    case .unknownParts: "it is one of an upload's parts, which are of unknown or different sizes"
    case .otherSources: "other sources had some of the bytes"
    }
  }
}

extension ExpectedChecksum {
  /// - Returns: `nil` where a host that does not ask S3 can't compare it.
  init?(_ checksum: S3Checksum, source: String, headerSize: Int) {
    guard checksum.parts == nil else { return nil }
    self.init(
      source: source, algorithm: checksum.algorithm.rawValue, bytes: checksum.bytes, headerSize: headerSize)
  }
}

/// Shows every chunk to a check before it is committed.
private final class CheckedWriter: ReplicaWriter {
  private let writer: any ReplicaWriter
  private let checks: S3DownloadChecks

  init(_ writer: any ReplicaWriter, _ checks: S3DownloadChecks) {
    self.writer = writer
    self.checks = checks
  }

  var object: ObjectID { writer.object }
  var geometry: ChunkGeometry { writer.geometry }
  var chunkMap: ChunkMap { writer.chunkMap }

  func claimChunk(from start: Int) -> Int? { writer.claimChunk(from: start) }
  func claim(_ index: Int) -> Bool { writer.claim(index) }
  func memory(of index: Int) -> UnsafeMutableRawBufferPointer { writer.memory(of: index) }
  func abandon(_ index: Int) { writer.abandon(index) }

  func commit(_ index: Int, checksum: UInt32) { commit(index, checksum: checksum, isOwn: false) }

  func commit(_ index: Int, checksum: UInt32, isOwn: Bool) {
    checks.record(
      UnsafeRawBufferPointer(writer.memory(of: index)), at: geometry.range(of: index).lowerBound, crc32c: checksum)
    writer.commit(index, checksum: checksum, isOwn: isOwn)
  }

  func complete() throws(MobulaError) -> ObjectDigest { try writer.complete() }
  func checkNotAbandoned() throws(MobulaError) { try writer.checkNotAbandoned() }
  func abandonReplica(_ error: MobulaError) { writer.abandonReplica(error) }
}
