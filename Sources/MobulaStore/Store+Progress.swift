public import MobulaCore

extension Store {
  /// A sealed object's digest and chunks; `nil` when it isn't here, or not complete.
  public func info(of object: ObjectID) -> ReplicaInfo? {
    guard let (isSealed, replica) = replica(of: object), isSealed, let digest = replica.digest else { return nil }
    return ReplicaInfo(object: object, geometry: replica.geometry, digest: digest)
  }

  /// Bytes of the object in verified chunks, and in all; `nil` when nothing of it is here.
  public func progress(of object: ObjectID) -> (verified: Int, total: Int)? {
    guard let (_, replica) = replica(of: object) else { return nil }
    let total = replica.geometry.objectSize
    return (min(total, replica.chunkMap.verifiedCount * replica.geometry.chunkSize), total)
  }
}
