internal import MobulaCore

/// One object's bytes with what is known of its chunks. Keeps the memory mapped
/// as long as anybody has hold of it, so that no late reader or writer crashes.
final class Replica: Sendable {
  private enum Phase: Sendable {
    /// Chunks are missing. Can transition to: `complete`, `abandoned`.
    case arriving
    /// Every chunk is verified; for good.
    case complete(ObjectDigest)
    /// The missing chunks won't come; for good.
    case abandoned(MobulaError)
  }

  private struct State: Sendable {
    var phase = Phase.arriving
    var verified: ChunkMap
    var claimed: Set<Int> = []
    /// Of an origin what came from other hosts all the same.
    var foreign: ChunkMap?
    /// One a chunk; of no meaning until the chunk is verified.
    var checksums: [UInt32]
  }

  let object: ObjectID
  let geometry: ChunkGeometry
  let memory: SegmentMemory
  private let reservation: Reservation?
  /// Where the object begins in the segment.
  let offset: Int
  /// Whether the bytes come from elsewhere than another host, or some of them do.
  let isOrigin: Bool
  let observers = ObserverList()
  private let state: Monitor<State>

  /// An object of which no chunk is there yet.
  init(
    _ object: ObjectID, geometry: ChunkGeometry, memory: SegmentMemory, offset: Int, reservation: Reservation?,
    isOrigin: Bool
  ) {
    self.isOrigin = isOrigin
    self.reservation = reservation
    self.object = object
    self.geometry = geometry
    self.memory = memory
    self.offset = offset
    state = Monitor(
      State(verified: ChunkMap(count: geometry.count), checksums: Array(repeating: 0, count: geometry.count)))
  }

  /// A sealed object.
  init(
    _ object: ObjectID, geometry: ChunkGeometry, memory: SegmentMemory, offset: Int, checksums: [UInt32],
    isOrigin: Bool
  ) {
    self.isOrigin = isOrigin
    reservation = nil
    self.object = object
    self.geometry = geometry
    self.memory = memory
    self.offset = offset
    var verified = ChunkMap(count: geometry.count)
    for index in 0..<geometry.count { verified.insert(index) }
    let digest = ObjectDigest(geometry: geometry, checksums: checksums)
    state = Monitor(State(phase: .complete(digest), verified: verified, checksums: checksums))
  }

  var digest: ObjectDigest? {
    state.read { if case .complete(let digest) = $0.phase { digest } else { nil } }
  }

  var chunkMap: ChunkMap { state.read { $0.verified } }

  var foreignChunks: ChunkMap? { state.read { $0.foreign } }

  /// Given up, and no thread is writing into a chunk any more.
  var isAbandonedAndIdle: Bool {
    state.read { if case .abandoned = $0.phase { $0.claimed.isEmpty } else { false } }
  }

  /// The CRC32C of a verified chunk.
  func checksum(of index: Int) -> UInt32 { state.read { $0.checksums[index] } }

  var failure: MobulaError? {
    state.read { if case .abandoned(let error) = $0.phase { error } else { nil } }
  }

  /// Claims a chunk whose pages are reserved, so that it may block for the time that takes.
  /// `nil` when there is none, or no memory for it: the replica is abandoned then.
  func claimChunk(from start: Int) -> Int? {
    guard let index = claimUnreserved(from: start) else { return nil }
    return reserved(index) ? index : nil
  }

  /// Claims this chunk, once its pages are reserved. False when it is not to be had.
  func claim(_ index: Int) -> Bool {
    let isFree = state.update { state in
      guard case .arriving = state.phase, !state.verified.contains(index) else { return false }
      return state.claimed.insert(index).inserted
    }
    return isFree && reserved(index)
  }

  /// Waits for the pages of a claimed chunk. Without memory the replica is abandoned.
  private func reserved(_ index: Int) -> Bool {
    do throws(MobulaError) {
      try reservation?.wait(for: geometry.range(of: index).upperBound)
      return true
    } catch {
      returnClaim(index)
      abandon(error)
      return false
    }
  }

  private func claimUnreserved(from start: Int) -> Int? {
    state.update { state in
      guard case .arriving = state.phase else { return nil }
      var candidate = state.verified.firstMissing(from: start)
      while let index = candidate, !state.claimed.insert(index).inserted {
        candidate = state.verified.firstMissing(from: index + 1)
      }
      return candidate
    }
  }

  /// The bytes of a claimed chunk.
  func bytes(ofClaimed index: Int) -> UnsafeMutableRawBufferPointer {
    precondition(state.read { $0.claimed.contains(index) }, "chunk \(index) is written by who claimed it")
    let range = geometry.range(of: index)
    return UnsafeMutableRawBufferPointer(
      rebasing: memory.mapping.bytes[offset + range.lowerBound..<offset + range.upperBound])
  }

  /// - Parameter isOwn: the bytes come from elsewhere than another host.
  func commit(_ index: Int, checksum: UInt32, isOwn: Bool) {
    state.update { state in
      precondition(state.claimed.remove(index) != nil, "chunk \(index) is committed by who claimed it, once")
      // A chunk that comes after the replica was given up is right, but nobody waits for it.
      guard case .arriving = state.phase else { return }
      state.checksums[index] = checksum
      state.verified.insert(index)
      if isOrigin, !isOwn {
        if state.foreign == nil { state.foreign = ChunkMap(count: geometry.count) }
        state.foreign!.insert(index)
      }
      if state.verified.isComplete {
        state.phase = .complete(ObjectDigest(geometry: geometry, checksums: state.checksums))
      }
    }
    observers.notify()
  }

  func returnClaim(_ index: Int) {
    state.update { state in
      precondition(state.claimed.remove(index) != nil, "chunk \(index) is given back by who claimed it, once")
    }
  }

  /// The missing chunks won't come: whoever waits for one gets `error`. Nothing when none is missing.
  func abandon(_ error: MobulaError) {
    state.update { if case .arriving = $0.phase { $0.phase = .abandoned(error) } }
    observers.notify()
  }

  func checkNotAbandoned() throws(MobulaError) {
    if case .abandoned(let error) = state.read({ $0.phase }) { throw error }
  }

  /// Writes the trailer of a complete replica behind it.
  func writeTrailer() {
    let checksums = state.read { $0.checksums }
    let footprint = ObjectTrailer.footprint(geometry, contained: 0)
    try? reservation?.wait(for: footprint)
    ObjectTrailer.write(
      object, geometry, checksums: checksums, contains: [], to: memory.writableBytes(of: offset..<offset + footprint))
  }

  /// The digest of a complete replica.
  ///
  /// - Throws: `MobulaError`: `unavailable` while chunks are missing, or what it was abandoned with.
  func completedDigest() throws(MobulaError) -> ObjectDigest {
    let (phase, missing) = state.read { ($0.phase, $0.verified.count - $0.verified.verifiedCount) }
    switch phase {
    case .complete(let digest): return digest
    case .abandoned(let error): throw error
    case .arriving:
      throw MobulaError(
        .unavailable,
        "Object \(object) misses \(missing) of \(geometry.count) chunks: go on with another source.")
    }
  }
}
