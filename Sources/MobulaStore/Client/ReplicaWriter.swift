package import MobulaCore
internal import Synchronization

/// A replica that the store's own process fills, chunk by chunk, in any order
/// and from several threads. Its memory stays until it is complete or given up;
/// a writer that goes away before that gives it up.
package protocol ReplicaWriter: ChunkSink {
  /// Every chunk is verified: the object can be pinned from now on. Calling it again changes nothing.
  ///
  /// - Throws: `MobulaError`: `unavailable` while chunks are missing, `notFound` when the
  ///   object was deleted meanwhile, or what the replica was abandoned with.
  func complete() throws(MobulaError) -> ObjectDigest
  /// Gives the replica up: it is found no more, no chunk can be claimed any more, and whoever
  /// waits for one gets `error`. The memory goes once every claimed chunk is committed or given
  /// back, and the last source is gone. Nothing happens to a complete one.
  func abandonReplica(_ error: MobulaError)
}

final class StoreReplicaWriter: ReplicaWriter {
  private let replica: Replica
  private let entry: Int
  private let store: Store
  private let released = Atomic(false)

  init(_ replica: Replica, entry: Int, store: Store) {
    self.replica = replica
    self.entry = entry
    self.store = store
  }

  deinit {
    let error = MobulaError(.notFound, "The transfer of object \(replica.object) was given up: ask for it again.")
    replica.abandon(error)
    store.abandonReceive(entry, replica)
    release()
  }

  var object: ObjectID { replica.object }
  var geometry: ChunkGeometry { replica.geometry }
  var chunkMap: ChunkMap { replica.chunkMap }

  func claimChunk(from start: Int) -> Int? { replica.claimChunk(from: start) }

  func claim(_ index: Int) -> Bool { replica.claim(index) }

  func memory(of index: Int) -> UnsafeMutableRawBufferPointer { replica.bytes(ofClaimed: index) }

  func commit(_ index: Int, checksum: UInt32) { commit(index, checksum: checksum, isOwn: false) }

  func commit(_ index: Int, checksum: UInt32, isOwn: Bool) {
    replica.commit(index, checksum: checksum, isOwn: isOwn)
    releaseIfAbandoned()
  }

  func abandon(_ index: Int) {
    replica.returnClaim(index)
    releaseIfAbandoned()
  }

  func complete() throws(MobulaError) -> ObjectDigest {
    let digest = try replica.completedDigest()
    defer { release() }
    guard try store.completeReceive(entry, replica) else {
      throw MobulaError(
        .notFound, "Object \(object) was deleted while it was arriving: ask for it again if it is still wanted.")
    }
    return digest
  }

  func checkNotAbandoned() throws(MobulaError) { try replica.checkNotAbandoned() }

  func abandonReplica(_ error: MobulaError) {
    replica.abandon(error)
    store.abandonReceive(entry, replica)
    releaseIfAbandoned()
  }

  /// A thread that was late to hear of the end may still be writing into what
  /// it claimed, so the memory counts as used until all claims are returned.
  private func releaseIfAbandoned() {
    if replica.isAbandonedAndIdle { release() }
  }

  private func release() {
    if !released.exchange(true, ordering: .acquiringAndReleasing) { store.unpin(entry) }
  }
}

/// A replica to send from; pins its object until it goes.
final class StoreSource: ChunkSource {
  private let replica: Replica
  private let entry: Int
  private let store: Store

  /// Takes over a pin of `entry`.
  init(_ replica: Replica, pinned entry: Int, store: Store) {
    self.replica = replica
    self.entry = entry
    self.store = store
  }

  deinit { store.unpin(entry) }

  var object: ObjectID { replica.object }
  var geometry: ChunkGeometry { replica.geometry }
  var descriptor: CInt { replica.memory.writable.rawValue }
  var offset: Int { replica.offset }
  var digest: ObjectDigest? { replica.digest }

  var isOrigin: Bool { replica.isOrigin }
  var foreignChunks: ChunkMap? { replica.foreignChunks }
  var chunkMap: ChunkMap { replica.chunkMap }
  var failure: MobulaError? { replica.failure }

  func checksum(of index: Int) -> UInt32 { replica.checksum(of: index) }

  func observe(_ body: @escaping @Sendable () -> Void) -> any AnyObject & Sendable { replica.observers.add(body) }
}
