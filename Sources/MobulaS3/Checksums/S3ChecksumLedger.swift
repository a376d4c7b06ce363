internal import MobulaCore

/// The checksums of an object's stretches, from which those of the whole, or of its parts, follow: a value.
///
/// A stretch ends where a chunk ends and where a part of the upload ended, so
/// that both chunks and parts are made of whole stretches.
struct S3ChecksumLedger: Sendable {
  /// A stretch of the S3 object.
  struct Stretch: Sendable {
    var start: Int
    var length: Int
    var crc: UInt64
  }

  /// What S3 says.
  let expected: S3Checksum
  /// Bytes of the S3 object.
  let size: Int
  /// Bytes of each part of the upload but the last, where `expected` is one of parts.
  let partSize: Int?
  private var stretches: [Int: Stretch] = [:]
  private var known = 0

  init(expected: S3Checksum, size: Int, partSize: Int? = nil) {
    precondition(expected.algorithm.canBeCombined && (expected.parts == nil) == (partSize == nil))
    self.expected = expected
    self.size = size
    self.partSize = partSize
  }

  /// Takes the checksums of stretches; those known before count no more.
  ///
  /// - Returns: whether all bytes are known now.
  mutating func record(_ new: [Stretch]) -> Bool {
    for stretch in new {
      known += stretch.length - (stretches.updateValue(stretch, forKey: stretch.start)?.length ?? 0)
    }
    return known == size
  }

  /// What came from `range` comes again.
  mutating func forget(_ range: Range<Int>) {
    for (start, stretch) in stretches where range.contains(start) {
      stretches[start] = nil
      known -= stretch.length
    }
  }

  /// Whether what came has the checksum that S3 says; `nil` while bytes are missing.
  var isRight: Bool? { checksum.map { $0 == expected.bytes } }

  /// The checksum of what came, of its parts where `expected` is of them; `nil` while bytes are missing.
  var checksum: [UInt8]? {
    guard known == size else { return nil }
    let sorted = stretches.values.sorted { $0.start < $1.start }
    let algorithm = expected.algorithm
    guard let partSize else { return bigEndian(Self.crc(of: sorted[...], algorithm), count: algorithm.byteCount) }
    var ofParts = S3RunningChecksum(algorithm)
    var rest = sorted[...]
    while let first = rest.first {
      let end = (first.start / partSize + 1) * partSize
      let part = rest.prefix { $0.start < end }
      bigEndian(Self.crc(of: part, algorithm), count: algorithm.byteCount).withUnsafeBytes { ofParts.update($0) }
      rest = rest.dropFirst(part.count)
    }
    return ofParts.bytes
  }

  private static func crc(of stretches: ArraySlice<Stretch>, _ algorithm: S3ChecksumAlgorithm) -> UInt64 {
    stretches.reduce(0) { algorithm.combine($0, $1.crc, length: $1.length)! }
  }
}
