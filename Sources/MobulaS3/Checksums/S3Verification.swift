package import MobulaCore
internal import Synchronization

/// Whether the bytes of a download were compared with a checksum that S3 keeps of them.
public enum S3Verification: Sendable, Hashable {
  /// They are those of this checksum.
  case verified(S3Checksum)
  /// They were not compared. Each came over a connection that was closed in order, as long as it should be.
  case notVerified(Reason)

  public enum Reason: String, Sendable, Hashable {
    /// S3 keeps no checksum of this object, or none that is known here.
    case noChecksum
    /// Only one pass from the first byte to the last would tell.
    case notCombinable
    /// The checksum is of parts of which the sizes are not known, or not equal.
    case unknownParts
    /// Another source had some of the bytes.
    case otherSources
  }
}

/// What the fetchers of one download know together of its checksum.
package final class S3DownloadChecks: Sendable {
  let algorithm: S3ChecksumAlgorithm
  /// Bytes of the sink before S3's first.
  let headerSize: Int
  /// As the ledger has it.
  package let partSize: Int?
  private let ledger: Mutex<S3ChecksumLedger>

  init(_ ledger: S3ChecksumLedger, headerSize: Int) {
    algorithm = ledger.expected.algorithm
    self.headerSize = headerSize
    partSize = ledger.partSize
    self.ledger = Mutex(ledger)
  }

  /// For bytes that come from hosts that read them from S3.
  ///
  /// - Parameter size: bytes of the sink.
  /// - Returns: `nil` where `expected` can't be what S3 keeps of such an object, and be compared.
  package convenience init?(_ expected: ExpectedChecksum, size: Int) {
    guard let algorithm = S3ChecksumAlgorithm(rawValue: expected.algorithm), algorithm.canBeCombined,
      expected.bytes.count == algorithm.byteCount, 0..<size ~= expected.headerSize
    else { return nil }
    let checksum = S3Checksum(algorithm: algorithm, bytes: expected.bytes)
    self.init(
      S3ChecksumLedger(expected: checksum, size: size - expected.headerSize), headerSize: expected.headerSize)
  }

  /// What S3 says.
  package var expected: S3Checksum { ledger.withLock { $0.expected } }

  /// The checksum of what came, to be compared with `expected`; `nil` while bytes are missing.
  package var checksum: [UInt8]? { ledger.withLock { $0.checksum } }

  /// A chunk has come, just now, so that it is still in a cache.
  ///
  /// - Parameters:
  ///   - start: where in the sink it begins.
  ///   - crc32c: of all of it.
  package func record(_ chunk: UnsafeRawBufferPointer, at start: Int, crc32c: UInt32) {
    var stretches: [S3ChecksumLedger.Stretch] = []
    var position = 0
    while position < chunk.count {
      let end = min(chunk.count, cut(after: start + position).map { $0 - start } ?? .max)
      let (from, length) = (start + position, end - position)
      if from >= headerSize {
        let crc: UInt64
        if algorithm == .crc32c, length == chunk.count {
          crc = UInt64(crc32c)
        } else {
          var running = S3RunningChecksum(algorithm)
          running.update(UnsafeRawBufferPointer(rebasing: chunk[position..<end]))
          crc = running.crc
        }
        stretches.append(.init(start: from - headerSize, length: length, crc: crc))
      }
      position = end
    }
    _ = record(stretches)
  }

  /// Where in the sink a stretch that reaches beyond `position` has to end, because the header or a part does.
  func cut(after position: Int) -> Int? {
    if position < headerSize { return headerSize }
    return partSize.map { ((position - headerSize) / $0 + 1) * $0 + headerSize }
  }

  func record(_ stretches: [S3ChecksumLedger.Stretch]) -> Bool { ledger.withLock { $0.record(stretches) } }

  /// `range` is one of the sink's.
  func forget(_ range: Range<Int>) {
    ledger.withLock { $0.forget(range.lowerBound - headerSize..<range.upperBound - headerSize) }
  }

  var isRight: Bool? { ledger.withLock { $0.isRight } }
}

extension S3Client {
  /// What a download of several ranges can be checked by, or why it can't.
  package func checks(
    bucket: String, key: String, info: S3ObjectInfo, headerSize: Int
  ) async throws -> (S3DownloadChecks?, S3Verification) {
    guard let checksum = info.checksum, info.size > 0 else { return (nil, .notVerified(.noChecksum)) }
    guard checksum.algorithm.canBeCombined else { return (nil, .notVerified(.notCombinable)) }
    var partSize: Int?
    if let parts = checksum.parts {
      partSize = try await self.partSize(bucket: bucket, key: key, info: info, parts: parts)
      if partSize == nil { return (nil, .notVerified(.unknownParts)) }
    }
    let ledger = S3ChecksumLedger(expected: checksum, size: info.size, partSize: partSize)
    return (S3DownloadChecks(ledger, headerSize: headerSize), .verified(checksum))
  }

  /// The size of all parts but the last, by what S3 says of the first and of their number.
  private func partSize(bucket: String, key: String, info: S3ObjectInfo, parts: Int) async throws -> Int? {
    if parts == 1 { return info.size }
    guard let first = try await part(1, bucket: bucket, key: key, info: info), first.count == parts, first.size > 0,
      (info.size + first.size - 1) / first.size == parts
    else { return nil }
    return first.size
  }

  /// Whether all parts but the last have `partSize` bytes: asked before a wrong checksum of parts is believed.
  package func partsAreEqual(_ partSize: Int, bucket: String, key: String, info: S3ObjectInfo, parts: Int) async throws
    -> Bool
  {
    // The first was asked before, and the last has the rest.
    for number in 2..<max(2, parts) {
      guard let part = try await part(number, bucket: bucket, key: key, info: info), part.size == partSize else {
        return false
      }
    }
    return true
  }

  /// The size of one part and the number of all; `nil` where S3 does not say.
  private func part(_ number: Int, bucket: String, key: String, info: S3ObjectInfo) async throws -> (
    size: Int, count: Int
  )? {
    let request = S3Request(
      method: .head, bucket: bucket, key: key, query: [("partNumber", "\(number)")],
      headers: [("if-match", info.etag)])
    do {
      let answer = try await retrying { try await self.send(request, version: info.versionID) }
      guard let size = answer.size, let count = answer.header("x-amz-mp-parts-count").flatMap({ S3Size.parse($0) })
      else {
        return nil
      }
      return (size, count)
    } catch let error as S3Error where 400...499 ~= error.httpStatus && error.httpStatus != 412 {
      return nil
    }
  }
}
