internal import MobulaCore

/// What a store decides: which object lies where, who pins it, what has to go.
///
/// One `mutating func` an event; what it returns is for the shell to do. Bytes
/// of segments are counted from the moment they are promised, so that two
/// creations at a time can't pass the capacity together.
struct StoreStateMachine: Sendable {
  /// What an object's memory is in the middle of.
  enum Phase: Hashable, Sendable {
    /// Its maker writes. Can transition to: `sealing`, or gone.
    case writing(StoreClientID)
    /// The store computes its checksums, which pins it. Can transition to: `sealed`, `doomed`.
    case sealing(StoreClientID)
    /// The store fills it, and the writer pins it. Can transition to: `sealed`, `doomed`.
    case receiving
    /// Immutable. Can transition to: `doomed`, or gone.
    case sealed
    /// Deleted, not found any more, but still pinned. Can transition to: gone.
    case doomed
  }

  struct Entry: Sendable {
    let object: ObjectID
    let region: Region
    var phase: Phase
    /// One for each client that pins it, each live source, the writer that fills it, a running seal.
    var pins = 0
    var evictable = false
    /// Counts uses, not time: the lowest was used longest ago.
    var lastUse: UInt64
  }

  struct Segment: Sendable {
    let size: Int
    /// Who writes it; `nil` for the store itself.
    let maker: StoreClientID?
    /// For an arena of small objects; `nil` when the segment is one object's.
    var regions: RegionAllocator?
    /// Whether the memory is there yet.
    var isReady = false
    var entries = 0
  }

  struct Client: Sendable {
    /// Its arenas of small objects.
    var arenas: [SegmentID] = []
    var pins: [ObjectID: Pin] = [:]
    var unsealed: Set<EntryID> = []
  }

  /// A client's pins of one object. There is more than one entry when the
  /// object was deleted and came again meanwhile; all are let go with the last
  /// pin, since nobody can tell which of them the client still reads.
  struct Pin: Sendable {
    var count = 0
    var entries: Set<EntryID> = []
  }

  /// What is over, for the shell to drop.
  struct Freed: Hashable, Sendable {
    var entries: [EntryID] = []
    /// To unmap and close.
    var segments: [SegmentID] = []
  }

  let capacity: Int
  /// Bytes of a new arena, a power of two: 8 MiB, or a sixteenth of a small capacity.
  let arenaSize: Int
  var clients: [StoreClientID: Client] = [:]
  var entries: [EntryID: Entry] = [:]
  /// The entries that can be found: all but the doomed.
  var index: [ObjectID: EntryID] = [:]
  var segments: [SegmentID: Segment] = [:]
  private(set) var pinnedBytes = 0
  /// Bytes of all segments; never over `capacity`.
  var used = 0
  private var clock: UInt64 = 0
  private var nextClient: UInt64 = 1
  private var nextEntry: UInt64 = 1
  private var nextSegment: UInt64

  static let smallestCapacity = 1_048_576
  static let largestArena = 8_388_608

  /// - Parameters:
  ///   - capacity: the most bytes that segments may take.
  ///   - epoch: differs between two starts of a store, so that no segment's identifier comes again.
  /// - Throws: `MobulaError` (`invalidArgument`) for less than 1 MiB.
  init(capacity: Int, epoch: UInt32) throws(MobulaError) {
    guard capacity >= Self.smallestCapacity else {
      throw MobulaError(
        .invalidArgument,
        "A store of \(ByteCount(capacity)) is too small: start the host with --capacity of at least 1MiB.")
    }
    self.capacity = capacity
    var arenaSize = 65_536
    while arenaSize < Self.largestArena, arenaSize * 2 * 16 <= capacity { arenaSize *= 2 }
    self.arenaSize = arenaSize
    nextSegment = UInt64(epoch) << 32 | 1
  }

  /// The largest object that shares an arena, in bytes: 1 MiB, less for a small capacity.
  var largestSmallObject: Int { arenaSize / 8 }

  // MARK: Clients

  mutating func attach() -> StoreClientID {
    let client = StoreClientID(nextClient)
    nextClient += 1
    clients[client] = Client()
    return client
  }

  struct Detachment: Hashable, Sendable {
    /// The objects that were not sealed yet, and never will be.
    var aborted: [ObjectID] = []
    var freed = Freed()
  }

  /// A client is gone: so are its pins, its unsealed objects and its empty arenas.
  mutating func detach(_ id: StoreClientID) -> Detachment {
    guard let client = clients.removeValue(forKey: id) else { return Detachment() }
    var result = Detachment()
    for entry in client.unsealed {
      if let object = entries[entry]?.object { result.aborted.append(object) }
      discard(entry, &result.freed)
    }
    for pin in client.pins.values {
      for entry in pin.entries { unpin(entry, &result.freed) }
    }
    for arena in client.arenas { closeIfUnneeded(arena, &result.freed) }
    result.aborted.sort()
    return result
  }

  func checkAttached(_ client: StoreClientID) throws(MobulaError) {
    guard clients[client] != nil else {
      throw MobulaError(.unavailable, "Client \(client) is not attached to the store: connect to the host again.")
    }
  }

  // MARK: Pins

  /// A client maps a sealed object.
  mutating func pin(_ object: ObjectID, client id: StoreClientID) throws(MobulaError) -> Region {
    try checkAttached(id)
    guard let entry = index[object], let found = entries[entry] else { throw Self.notFound(object) }
    switch found.phase {
    case .sealed: break
    case .writing, .sealing:
      throw MobulaError(.unavailable, "Object \(object) is not sealed yet: get it once its maker's put has returned.")
    case .receiving:
      throw MobulaError(.unavailable, "Object \(object) is still arriving: wait until it is complete.")
    case .doomed: preconditionFailure("a doomed entry is never in the index")
    }
    clients[id]!.pins[object, default: Pin()].count += 1
    if clients[id]!.pins[object]!.entries.insert(entry).inserted { pin(entry) }
    touch(entry)
    return found.region
  }

  /// A client lets one of its pins go; nothing happens when it has none.
  mutating func unpin(_ object: ObjectID, client id: StoreClientID) -> Freed {
    var freed = Freed()
    guard var pin = clients[id]?.pins[object] else { return freed }
    pin.count -= 1
    if pin.count > 0 {
      clients[id]!.pins[object] = pin
    } else {
      clients[id]!.pins[object] = nil
      for entry in pin.entries { unpin(entry, &freed) }
    }
    return freed
  }

  /// The store itself reads a sealed or arriving object, to send it on.
  mutating func pinSource(_ object: ObjectID) -> EntryID? {
    guard let entry = index[object], let found = entries[entry] else { return nil }
    guard found.phase == .sealed || found.phase == .receiving && segments[found.region.segment]!.isReady else {
      return nil
    }
    pin(entry)
    touch(entry)
    return entry
  }

  /// A source, or the writer of an arriving object, is gone.
  mutating func unpin(_ entry: EntryID) -> Freed {
    var freed = Freed()
    unpin(entry, &freed)
    return freed
  }

  mutating func pin(_ entry: EntryID) {
    entries[entry]!.pins += 1
    if entries[entry]!.pins == 1 { pinnedBytes += entries[entry]!.region.size }
  }

  mutating func unpin(_ entry: EntryID, _ freed: inout Freed) {
    precondition(entries[entry]?.pins ?? 0 > 0, "an entry is unpinned as often as it was pinned")
    entries[entry]!.pins -= 1
    guard entries[entry]!.pins == 0 else { return }
    pinnedBytes -= entries[entry]!.region.size
    if entries[entry]!.phase == .doomed { free(entry, &freed) }
  }

  // MARK: Going

  struct Deletion: Hashable, Sendable {
    let entry: EntryID
    let freed: Freed
  }

  /// An object is not wanted any more; its memory goes with the last pin. `nil` when it isn't here.
  mutating func delete(_ object: ObjectID) -> Deletion? {
    guard let entry = index[object] else { return nil }
    var freed = Freed()
    discard(entry, &freed)
    return Deletion(entry: entry, freed: freed)
  }

  /// A maker gives its unsealed object up; nothing happens when it has none by that name.
  mutating func abort(_ object: ObjectID, client: StoreClientID) -> Freed {
    var freed = Freed()
    if let entry = index[object], clients[client]?.unsealed.contains(entry) == true { discard(entry, &freed) }
    return freed
  }

  /// Whether the object may be removed to make room while nobody pins it.
  mutating func setEvictable(_ object: ObjectID, _ evictable: Bool) {
    if let entry = index[object] { entries[entry]!.evictable = evictable }
  }

  /// Takes an entry out of the index, and frees it unless it is pinned.
  mutating func discard(_ id: EntryID, _ freed: inout Freed) {
    guard let entry = entries[id], entry.phase != .doomed else { return }
    switch entry.phase {
    case .writing(let client), .sealing(let client): clients[client]?.unsealed.remove(id)
    case .receiving, .sealed, .doomed: break
    }
    index[entry.object] = nil
    entries[id]!.phase = .doomed
    if entry.pins == 0 { free(id, &freed) }
  }

  private mutating func free(_ id: EntryID, _ freed: inout Freed) {
    let entry = entries.removeValue(forKey: id)!
    precondition(entry.pins == 0 && entry.phase == .doomed, "only what nobody pins or finds is freed")
    freed.entries.append(id)
    segments[entry.region.segment]!.regions?.deallocate(entry.region.offset, count: entry.region.size)
    segments[entry.region.segment]!.entries -= 1
    closeIfUnneeded(entry.region.segment, &freed)
  }

  // MARK: Numbers

  mutating func touch(_ entry: EntryID) {
    clock += 1
    entries[entry]!.lastUse = clock
  }

  mutating func newEntry(_ object: ObjectID, _ region: Region, _ phase: Phase) -> EntryID {
    let id = EntryID(number: nextEntry)
    nextEntry += 1
    clock += 1
    entries[id] = Entry(object: object, region: region, phase: phase, lastUse: clock)
    index[object] = id
    segments[region.segment]!.entries += 1
    return id
  }

  mutating func newSegment() -> SegmentID {
    defer { nextSegment += 1 }
    return SegmentID(nextSegment)
  }

  static func notFound(_ object: ObjectID) -> MobulaError {
    MobulaError(.notFound, "Object \(object) is not in this host's store: fetch it first, or check its identifier.")
  }
}
