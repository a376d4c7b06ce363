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

/// How much of an object a store has.
public enum ReplicaState: Sendable, Hashable {
  case sealed
  /// Still arriving: `verified` of `count` chunks are in.
  case partial(verified: Int, of: Int)
}
