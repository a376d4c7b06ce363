internal import Crypto
internal import MobulaCore

/// The checksums that S3 keeps of objects and that are known here.
public enum S3ChecksumAlgorithm: String, Sendable, Hashable, CaseIterable {
  case crc64nvme, crc32c, crc32, sha256

  /// The header that carries one, and the parameter of S3's documents in small letters.
  var header: String { "x-amz-checksum-\(rawValue)" }

  var byteCount: Int {
    switch self {
    case .crc64nvme: 8
    case .crc32c, .crc32: 4
    case .sha256: 32
    }
  }

  /// The polynomial, reflected, without its highest power; `nil` where checksums of parts can't be combined.
  private var polynomial: (value: UInt64, bits: Int)? {
    switch self {
    case .crc64nvme: (0x9A6C_9329_AC4B_C9B5, 64)
    case .crc32c: (0x82F6_3B78, 32)
    case .crc32: (0xEDB8_8320, 32)
    case .sha256: nil
    }
  }

  /// Whether the checksum of bytes follows from those of their parts.
  var canBeCombined: Bool { polynomial != nil }

  /// The CRC of two stretches of bytes together, from the CRC of each and the second's length.
  ///
  /// As zlib's `crc32_combine`: the first is multiplied by x to the power of the second's bits, modulo P.
  func combine(_ first: UInt64, _ second: UInt64, length: Int) -> UInt64? {
    guard let (polynomial, bits) = polynomial else { return nil }
    let one = UInt64(1) << (bits - 1)
    /// Bit `bits` - 1 is x⁰.
    func times(_ a: UInt64, _ b: UInt64) -> UInt64 {
      var (product, shifted, bit) = (UInt64(0), b, one)
      while bit != 0 {
        if a & bit != 0 { product ^= shifted }
        shifted = shifted & 1 == 1 ? shifted >> 1 ^ polynomial : shifted >> 1
        bit >>= 1
      }
      return product
    }
    var (result, power, rest) = (first, one >> 8, length)
    while rest > 0 {
      if rest & 1 == 1 { result = times(result, power) }
      power = times(power, power)
      rest >>= 1
    }
    return result ^ second
  }
}

/// A checksum that S3 keeps of an object.
public struct S3Checksum: Sendable, Hashable, CustomStringConvertible {
  public let algorithm: S3ChecksumAlgorithm
  /// Big-endian, where the checksum is a number.
  public let bytes: [UInt8]
  /// For a checksum of the checksums of an object's parts, their number; `nil` for one of the object's bytes.
  public let parts: Int?

  init(algorithm: S3ChecksumAlgorithm, bytes: [UInt8], parts: Int? = nil) {
    self.algorithm = algorithm
    self.bytes = bytes
    self.parts = parts
  }

  /// Reads the value of a header: base 64, and `-N` behind it for one of N parts' checksums.
  ///
  /// - Returns: `nil` for a text that is none, or without one.
  init?(_ algorithm: S3ChecksumAlgorithm, text: String?) {
    guard let text else { return nil }
    let halves = text.split(separator: "-", omittingEmptySubsequences: false)
    guard 1...2 ~= halves.count, let bytes = MobulaS3.bytes(base64: halves[0]), bytes.count == algorithm.byteCount
    else { return nil }
    var parts: Int?
    if halves.count == 2 {
      guard let number = Int(halves[1]), 1...S3PartLayout.maximumCount ~= number else { return nil }
      parts = number
    }
    self.init(algorithm: algorithm, bytes: bytes, parts: parts)
  }

  /// The first that the headers name, of those that are quickest to compute.
  ///
  /// - Parameter header: a header's value by its name.
  init?(headers header: (String) -> String?) {
    for algorithm in S3ChecksumAlgorithm.allCases {
      guard let checksum = S3Checksum(algorithm, text: header(algorithm.header)) else { continue }
      // One that says that it is of parts, but not of how many, says nothing. Nor does one without a word on what it is
      // of, of an object in parts: some services leave the number away.
      let type = header("x-amz-checksum-type")?.uppercased()
      if checksum.parts == nil, type == "COMPOSITE" || type == nil && Self.isInParts(header("etag")) { continue }
      self = checksum
      return
    }
    return nil
  }

  /// Whether an object was uploaded in parts, by its ETag.
  private static func isInParts(_ etag: String?) -> Bool {
    guard let number = etag?.split(separator: "-").last?.dropLast() else { return false }
    return etag!.contains("-") && Int(number) != nil
  }

  /// As S3 writes it: base 64, and `-N` behind that of N parts.
  package var text: String { text(of: bytes) }

  /// As S3 would write it if `bytes` were its value.
  package func text(of bytes: [UInt8]) -> String { MobulaS3.base64(bytes) + (parts.map { "-\($0)" } ?? "") }

  public var description: String {
    "\(algorithm.rawValue) \(hexadecimal(bytes))\(parts.map { " of \($0) parts" } ?? "")"
  }
}

/// A checksum of bytes that come one after another.
struct S3RunningChecksum {
  private enum State {
    case crc(UInt64)
    case hash(SHA256)
  }

  let algorithm: S3ChecksumAlgorithm
  private var state: State

  init(_ algorithm: S3ChecksumAlgorithm) {
    self.algorithm = algorithm
    state = algorithm == .sha256 ? .hash(SHA256()) : .crc(0)
  }

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    switch state {
    case .hash(var hash):
      // Before the update, so that the hash is not copied for it.
      state = .crc(0)
      hash.update(bufferPointer: bytes)
      state = .hash(hash)
    case .crc(let crc):
      switch algorithm {
      case .crc32: state = .crc(UInt64(crc32(bytes, continuing: UInt32(crc))))
      case .crc32c: state = .crc(UInt64(crc32c(bytes, continuing: UInt32(crc))))
      default: state = .crc(crc64NVME(bytes, continuing: crc))
      }
    }
  }

  /// As `update`, for a CRC32C, while the bytes are copied.
  mutating func copy(_ bytes: UnsafeRawBufferPointer, to place: UnsafeMutableRawBufferPointer) {
    precondition(algorithm == .crc32c)
    state = .crc(UInt64(copyWithChecksum(bytes, to: place, continuing: UInt32(crc))))
  }

  /// The CRC so far; of no meaning for a hash.
  var crc: UInt64 {
    if case .crc(let crc) = state { return crc }
    return 0
  }

  var bytes: [UInt8] {
    switch state {
    case .hash(let hash): Array(hash.finalize())
    case .crc(let crc): bigEndian(crc, count: algorithm.byteCount)
    }
  }
}

/// The last `count` bytes of `number`, the highest first.
func bigEndian(_ number: UInt64, count: Int) -> [UInt8] {
  (0..<count).reversed().map { UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) }
}
