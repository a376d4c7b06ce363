internal import MobulaCore

// How an object comes to be: from a client's arena, or filled by the store.
extension StoreStateMachine {
  /// Memory for a new object.
  struct Allocation: Hashable, Sendable {
    let entry: EntryID
    let region: Region
    let segmentSize: Int
    /// Whether the segment is new: make its memory, then call `segmentMade` or `segmentFailed`.
    let isNewSegment: Bool
    /// What had to go for it.
    var evicted: [ObjectID] = []
    var freed = Freed()
  }

  /// A client is about to write an object of `size` bytes.
  ///
  /// - Throws: `MobulaError`: `alreadyExists`, `invalidArgument` for an empty one, `full`,
  ///   `unavailable` for a client that isn't attached.
  mutating func create(
    _ object: ObjectID, size: Int, client: StoreClientID
  ) throws(MobulaError) -> Allocation {
    try checkAttached(client)
    try checkNew(object, size: size)
    let allocation = try allocate(object, size: size, maker: client)
    clients[client]!.unsealed.insert(allocation.entry)
    return allocation
  }

  /// The store is about to fill an object of `size` bytes. The writer's pin is taken with it.
  ///
  /// - Throws: `MobulaError`: `alreadyExists`, `full`.
  mutating func receive(_ object: ObjectID, size: Int) throws(MobulaError) -> Allocation {
    try checkNew(object, size: size)
    let allocation = try allocate(object, size: size, maker: nil)
    pin(allocation.entry)
    return allocation
  }

  /// The new segment of `allocation` is there. False when nobody wants it any
  /// more: drop it, and call `segmentFailed`.
  mutating func segmentMade(_ allocation: Allocation) -> Bool {
    guard let entry = entries[allocation.entry], entry.phase != .doomed else { return false }
    segments[allocation.region.segment]!.isReady = true
    return true
  }

  /// The new segment of `allocation` can't be had, or isn't wanted any more: forget both.
  mutating func segmentFailed(_ allocation: Allocation) -> Freed {
    var freed = Freed()
    guard let entry = entries[allocation.entry] else { return freed }
    discard(allocation.entry, &freed)
    // Nobody but the writer that never was can have pinned it.
    if entry.pins > 0 { unpin(allocation.entry, &freed) }
    return freed
  }

  struct Sealing: Hashable, Sendable {
    let entry: EntryID
    let region: Region
  }

  /// A maker says that all bytes are there: compute the checksums, then call `finishSeal`.
  ///
  /// - Throws: `MobulaError`: `notFound`, `denied` for another's object, `alreadyExists` when it was sealed before.
  mutating func beginSeal(_ object: ObjectID, client: StoreClientID) throws(MobulaError) -> Sealing {
    try checkAttached(client)
    guard let id = index[object], let entry = entries[id] else { throw Self.notFound(object) }
    switch entry.phase {
    case .writing(let maker) where maker == client: break
    case .writing, .receiving:
      throw MobulaError(.denied, "Object \(object) is being written by another: only its maker can seal it.")
    case .sealing, .sealed:
      throw MobulaError(.alreadyExists, "Object \(object) was sealed before: seal an object once.")
    case .doomed: preconditionFailure("a doomed entry is never in the index")
    }
    guard segments[entry.region.segment]!.isReady else {
      throw MobulaError(.unavailable, "Object \(object) has no memory yet: seal it once its creation has returned.")
    }
    entries[id]!.phase = .sealing(client)
    pin(id)
    return Sealing(entry: id, region: entry.region)
  }

  enum SealEnd: Hashable, Sendable {
    case sealed(Freed)
    /// It was deleted, or its maker went, while the checksums were computed.
    case aborted(Freed)
  }

  /// The checksums of a sealing object are there.
  mutating func finishSeal(_ sealing: Sealing) -> SealEnd {
    guard case .sealing(let client) = entries[sealing.entry]?.phase else { return .aborted(unpin(sealing.entry)) }
    entries[sealing.entry]!.phase = .sealed
    clients[client]?.unsealed.remove(sealing.entry)
    touch(sealing.entry)
    return .sealed(unpin(sealing.entry))
  }

  /// Every chunk of an arriving object is in. False when it was deleted meanwhile.
  mutating func completeReceive(_ entry: EntryID) -> Bool {
    switch entries[entry]?.phase {
    case .receiving:
      entries[entry]!.phase = .sealed
      touch(entry)
      return true
    case .sealed: return true
    default: return false
    }
  }

  /// An arriving object won't be completed; its memory goes with the last pin.
  mutating func abandonReceive(_ entry: EntryID) -> Freed {
    var freed = Freed()
    if entries[entry]?.phase == .receiving { discard(entry, &freed) }
    return freed
  }

  private func checkNew(_ object: ObjectID, size: Int) throws(MobulaError) {
    guard size > 0 else {
      throw MobulaError(
        .invalidArgument, "An object of \(size) bytes can't be stored: a value has at least its header.")
    }
    guard index[object] == nil else {
      throw MobulaError(
        .alreadyExists, "Object \(object) is in this host's store already: use it, or choose a new identifier.")
    }
  }
}
