public import MobulaCore

/// A sealed object of a store: what it is, and what its bytes must be.
public struct ReplicaInfo: Codable, Sendable, Hashable {
  public let object: ObjectID
  public let geometry: ChunkGeometry
  public let digest: ObjectDigest

  public init(object: ObjectID, geometry: ChunkGeometry, digest: ObjectDigest) {
    self.object = object
    self.geometry = geometry
    self.digest = digest
  }
}
