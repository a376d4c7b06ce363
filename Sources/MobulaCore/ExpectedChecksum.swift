/// The checksum that a service outside the cluster keeps of an object's bytes: whoever receives them compares them with
/// it, as long as no host is known to have them right.
public struct ExpectedChecksum: Codable, Hashable, Sendable {
  /// Which object of which service, for people: `s3://bucket/key at https://…`.
  public var source: String
  /// As the service calls it: `crc64nvme`.
  public var algorithm: String
  /// The checksum, the most significant byte first.
  public var bytes: [UInt8]
  /// Bytes of the object before those of the service.
  public var headerSize: Int

  /// A checksum of a service's.
  public init(source: String, algorithm: String, bytes: [UInt8], headerSize: Int) {
    self.source = source
    self.algorithm = algorithm
    self.bytes = bytes
    self.headerSize = headerSize
  }
}
