/// The checksum that a service outside the cluster keeps of an object's bytes: whoever receives them compares them with
/// it, as long as no host is known to have them right.
package struct ExpectedChecksum: Codable, Hashable, Sendable {
  /// Which object of which service, for people: `s3://bucket/key at https://…`.
  package var source: String
  /// As the service calls it: `crc64nvme`.
  package var algorithm: String
  /// The checksum, the most significant byte first.
  package var bytes: [UInt8]
  /// Bytes of the object before those of the service.
  package var headerSize: Int

  /// A checksum of a service's.
  package init(source: String, algorithm: String, bytes: [UInt8], headerSize: Int) {
    self.source = source
    self.algorithm = algorithm
    self.bytes = bytes
    self.headerSize = headerSize
  }
}
