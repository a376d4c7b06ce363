internal import MobulaCore

// How an object comes to be, and goes.
extension StoreStateMachine {
  // MARK: Making

  struct Creation: Hashable, Sendable {
    let entry: EntryNumber
    let grant: Grant
    let slot: Int
  }

  /// A client is about to write an object too big for an extent: `footprint` bytes with its trailer.
  ///
  /// - Returns: `nil` when there is no room: `makeRoom`.
  /// - Throws: `MobulaError`: `alreadyExists`, `full` for one larger than the store, `invalidArgument`.
  mutating func create(_ object: ObjectID, footprint: Int, client id: StoreClientID) throws(MobulaError) -> Creation? {
    let client = try client(id)
    try checkNew(object, size: footprint)
    // One that was deleted while it was made is its maker's still.
    guard client.creating[object] == nil else { throw Self.exists(object) }
    let slot = try nextSlot(client)
    guard let grant = take(Self.pages(footprint), of: client.segment) else { return nil }
    let number = newEntry(
      Entry(
        object: object, segment: client.segment, offset: grant.range.lowerBound, size: footprint, trailerSize: 0,
        chunkShift: 0, phase: .writing, isDirect: true, isCache: false, isHeld: false, maker: id))
    use(slot, of: id, GrantTable.Grant(range: grant.range, isExtent: false))
    clients[id]!.creating[object] = number
    return Creation(entry: number, grant: grant, slot: slot)
  }

  /// The system had no memory for what `create` promised.
  mutating func notCreated(_ creation: Creation, client id: StoreClientID, reserved: [Range<Int>]) -> Freed {
    var freed = Freed()
    guard let entry = entries.find(creation.entry), entry.phase == .writing,
      entry.offset == creation.grant.range.lowerBound
    else { return freed }
    segments[entry.segment]!.entries -= 1
    notReserved(creation.grant, reserved: reserved)
    if clients[id] != nil {
      clients[id]!.creating[entry.object] = nil
      leave(creation.slot, of: id, &freed)
    }
    entries.drop(creation.entry)
    freed.entries.append(creation.entry)
    return freed
  }

  /// A maker gives its unsealed object up; nothing happens when it has none by that name.
  ///
  /// - Parameter offset: where it is, for one whose creation a store saw that died since.
  mutating func abort(_ object: ObjectID, client id: StoreClientID, offset: Int) -> Freed {
    var freed = Freed()
    guard let client = clients[id], let number = client.creating[object], let entry = entries.find(number) else {
      freeUnclaimed(offset, of: id, &freed)
      return freed
    }
    clients[id]!.creating[object] = nil
    let range = entry.offset..<entry.offset + Self.pages(entry.footprint)
    if let slot = slot(of: range, isExtent: false, client: client) { leave(slot, of: id, &freed) }
    free(number, &freed)
    return freed
  }

  /// Frees the region of a big object of which nothing but the grant is known.
  private mutating func freeUnclaimed(_ offset: Int, of id: StoreClientID, _ freed: inout Freed) {
    guard let client = clients[id], let (slot, grant) = unclaimed(offset, client) else { return }
    leave(slot, of: id, &freed)
    release(grant.range, of: client.segment, &freed)
  }

  /// The grant of a big object at `offset` that no entry is for.
  private func unclaimed(_ offset: Int, _ client: Client) -> (slot: Int, grant: GrantTable.Grant)? {
    guard let found = client.grants.first(where: { !$0.value.isExtent && $0.value.range.lowerBound == offset }),
      !client.creating.values.contains(where: { entries[$0].offset == offset })
    else { return nil }
    return (found.key, found.value)
  }

  enum Announced: Hashable, Sendable {
    /// To be put into the index.
    case sealed(EntryNumber, Freed)
    /// It was known, as after a restart.
    case known
    /// Nothing that can be: what it took is free again.
    case refused(MobulaError, Freed)
  }

  /// Whether the trailer of an announced object is its own and whole; asked once it is known that it lies in memory
  /// that its maker has.
  typealias Verify = (SegmentID, ClientPage.Announcement) -> Bool

  /// A client says that an object's bytes and its trailer are there.
  mutating func announce(
    _ announcement: ClientPage.Announcement, client id: StoreClientID, isWhole: Verify = { _, _ in true }
  ) -> Announced {
    guard let (segment, created) = making(announcement.object, id) else {
      return .refused(MobulaError(.unavailable, "Client \(id) is gone."), Freed())
    }
    let object = announcement.object
    let region = announcement.offset
    guard announcement.size > 0, region >= 0,
      ObjectTrailer.isPossible(
        objectSize: announcement.size, chunkShift: announcement.chunkShift, trailerSize: announcement.trailerSize)
    else {
      return refuse(
        announcement, id,
        MobulaError(
          .protocolViolation, "Object \(object) was announced with sizes that no object has: use the same mobula."))
    }
    let footprint = ObjectTrailer.offset(objectSize: announcement.size) + announcement.trailerSize
    if let known = entries.number(of: object), known != created {
      // One of the store's that died may have been the one that took it.
      if let entry = entries.find(known), entry.segment == segment, entry.offset == region, entry.phase == .sealed {
        return .known
      }
      return refuse(announcement, id, Self.exists(object))
    }
    if created != nil, entries.number(of: object) == nil {
      return refuse(
        announcement, id,
        MobulaError(.cancelled, "Object \(object) was deleted while it was made: put it again if it is wanted."))
    }
    if let created {
      guard entries[created].offset == region, Self.pages(footprint) <= Self.pages(entries[created].size) else {
        return refuse(announcement, id, Self.isElsewhere(object))
      }
      guard isWhole(segment, announcement) else { return refuse(announcement, id, Self.isBroken(object)) }
      return sealCreated(created, announcement, footprint: footprint, client: id)
    }
    let range = region..<region + footprint
    let place = region % UnitMap.unit == 0 ? withExtent(of: region, id) { $0.take(range) } : nil
    guard let place else { return adopt(announcement, footprint: footprint, client: id, isWhole: isWhole) }
    guard place else { return refuse(announcement, id, Self.isElsewhere(object)) }
    guard isWhole(segment, announcement) else {
      withExtent(of: region, id) { $0.free(range) }
      return refuse(announcement, id, Self.isBroken(object))
    }
    let number = newEntry(
      Entry(
        object: object, segment: segment, offset: region, size: announcement.size,
        trailerSize: announcement.trailerSize, chunkShift: UInt8(announcement.chunkShift), phase: .sealed,
        isDirect: false, isCache: false, isHeld: announcement.holds, maker: id))
    entries.list(number)
    return .sealed(number, Freed())
  }

  /// Nothing that can be: what it took is free again.
  private mutating func refuse(
    _ announcement: ClientPage.Announcement, _ id: StoreClientID, _ error: MobulaError
  ) -> Announced {
    let region = announcement.offset
    var freed = abort(announcement.object, client: id, offset: region)
    // Its allocator has it again, unless another object's bytes are there.
    if freed.entries.isEmpty, withExtent(of: region, id, { $0.isFree(at: region) }) == true {
      freed.regions.append(.init(client: id, offset: region))
    }
    return .refused(error, freed)
  }

  private static func isElsewhere(_ object: ObjectID) -> MobulaError {
    MobulaError(
      .protocolViolation, "Object \(object) was announced where it is not: use the same mobula on both sides.")
  }

  private static func isBroken(_ object: ObjectID) -> MobulaError {
    MobulaError(
      .corrupted, "Object \(object) was announced with a trailer that is not its own, or damaged: put it again.")
  }

  /// A big object whose region was made for it.
  private mutating func sealCreated(
    _ created: EntryNumber, _ announcement: ClientPage.Announcement, footprint: Int, client id: StoreClientID
  ) -> Announced {
    let (region, segment) = (announcement.offset, entries[created].segment)
    let range = region..<region + Self.pages(entries[created].size)
    var freed = Freed()
    if let slot = clients[id].flatMap({ slot(of: range, isExtent: false, client: $0) }) { leave(slot, of: id, &freed) }
    // What was asked for, and is not needed.
    let end = region + Self.pages(footprint)
    if end < range.upperBound { release(end..<range.upperBound, of: segment, &freed) }
    clients[id]!.creating[announcement.object] = nil
    seal(created, announcement)
    return .sealed(created, freed)
  }

  /// A big object whose creation a store saw that died since: its grant is all that is known of it.
  private mutating func adopt(
    _ announcement: ClientPage.Announcement, footprint: Int, client id: StoreClientID, isWhole: Verify
  ) -> Announced {
    guard let client = clients[id], let (slot, grant) = unclaimed(announcement.offset, client),
      Self.pages(footprint) <= grant.range.count
    else {
      return .refused(
        MobulaError(.protocolViolation, "Object \(announcement.object) was announced outside of what its maker has."),
        Freed())
    }
    guard isWhole(client.segment, announcement) else {
      return refuse(announcement, id, Self.isBroken(announcement.object))
    }
    var freed = Freed()
    leave(slot, of: id, &freed)
    let end = announcement.offset + Self.pages(footprint)
    if end < grant.range.upperBound { release(end..<grant.range.upperBound, of: client.segment, &freed) }
    let number = newEntry(
      Entry(
        object: announcement.object, segment: client.segment, offset: announcement.offset, size: announcement.size,
        trailerSize: announcement.trailerSize, chunkShift: UInt8(announcement.chunkShift), phase: .sealed,
        isDirect: true, isCache: false, isHeld: announcement.holds, maker: id))
    entries.list(number)
    return .sealed(number, freed)
  }

  private mutating func seal(_ number: EntryNumber, _ announcement: ClientPage.Announcement) {
    entries[number].size = announcement.size
    entries[number].trailerSize = announcement.trailerSize
    entries[number].chunkShift = UInt8(announcement.chunkShift)
    entries[number].isHeld = announcement.holds
    entries[number].phase = .sealed
    entries.list(number)
  }

  private func checkNew(_ object: ObjectID, size: Int) throws(MobulaError) {
    guard size > 0 else {
      throw MobulaError(
        .invalidArgument, "An object of \(size) bytes can't be stored: a value has at least its header.")
    }
    if entries.number(of: object) != nil { throw Self.exists(object) }
    guard Self.pages(size) <= capacity else { throw tooLarge(size) }
  }

  // MARK: Filling

  /// Where an object lies that the store fills.
  struct Filling: Hashable, Sendable {
    let entry: EntryNumber
    let offset: Int
    /// What is promised, and not reserved yet.
    let grant: Grant?
  }

  enum Place: Hashable, Sendable {
    case filling(Filling)
    /// An extent of so many bytes is wanted first: `growOwn`.
    case needsExtent(Int)
    /// There is no room for so many bytes: `makeRoom`.
    case noRoom(Int)
  }

  /// The store is about to fill an object itself. The writer's pin is taken with it.
  ///
  /// - Parameter isCache: whether there is another replica.
  /// - Throws: `MobulaError`: `alreadyExists`, `full`.
  mutating func receive(
    _ object: ObjectID, geometry: ChunkGeometry, contained: Int = 0, isCache: Bool
  ) throws(MobulaError) -> Place {
    let footprint = ObjectTrailer.footprint(geometry, contained: contained)
    try checkNew(object, size: footprint)
    let spot: Spot
    switch findSpot(footprint) {
    case .spot(let found): spot = found
    case .place(let place): return place
    }
    let number = newEntry(
      Entry(
        object: object, segment: ownSegment!, offset: spot.offset, size: geometry.objectSize,
        trailerSize: ObjectTrailer.size(chunks: geometry.count, contained: contained),
        chunkShift: UInt8(geometry.chunkShift), phase: .receiving, isDirect: spot.isDirect, isCache: isCache,
        isHeld: false, maker: nil))
    entries[number].pins = 1
    return .filling(Filling(entry: number, offset: spot.offset, grant: spot.grant))
  }

  private struct Spot {
    let offset: Int
    let grant: Grant?
    let isDirect: Bool
  }

  private enum Search {
    case spot(Spot)
    case place(Place)
  }

  private mutating func findSpot(_ footprint: Int) -> Search {
    if footprint > largestSmall {
      let size = Self.pages(footprint)
      guard let grant = take(size, of: ownSegment!) else { return .place(.noRoom(size)) }
      return .spot(Spot(offset: grant.range.lowerBound, grant: grant, isDirect: true))
    }
    guard let offset = ownExtents.allocate(footprint) else {
      return .place(.needsExtent(ownExtents.extentSize(for: footprint)))
    }
    return .spot(Spot(offset: offset, grant: nil, isDirect: false))
  }

  /// An extent for what the store fills: reserve it, then `ownGrown`, or `notReserved`.
  mutating func growOwn(_ bytes: Int) -> Grant? {
    take(bytes, of: ownSegment!, alignment: ExtentAllocator.spanSize)
  }

  mutating func ownGrown(_ grant: Grant) { ownExtents.add(grant.range) }

  /// Every chunk of an arriving object is in. False when it was deleted meanwhile.
  mutating func completeReceive(_ number: EntryNumber) -> Bool {
    guard entries.find(number)?.phase == .receiving else { return false }
    entries[number].phase = .sealed
    entries.list(number)
    return true
  }

  /// An arriving object won't be completed; its memory goes with the writer's pin.
  mutating func abandonReceive(_ number: EntryNumber) {
    guard entries.find(number)?.phase == .receiving else { return }
    doom(number)
  }

  private mutating func doom(_ number: EntryNumber) {
    entries.unlist(number)
    entries.hide(number)
    entries[number].phase = .doomed
    doomed.insert(number)
  }

  // MARK: Spilled ones

  /// A spilled object is to come back; pinned until `completeRestore` or `abandonRestore`.
  mutating func beginRestore(_ number: EntryNumber) -> Place {
    let spot: Spot
    switch findSpot(entries[number].footprint) {
    case .spot(let found): spot = found
    case .place(let place): return place
    }
    segments[ownSegment!]!.entries += 1
    entries[number].segment = ownSegment!
    entries[number].offset = spot.offset
    entries[number].isDirect = spot.isDirect
    entries[number].maker = nil
    entries[number].phase = .restoring
    entries[number].pins += 1
    return .filling(Filling(entry: number, offset: spot.offset, grant: spot.grant))
  }

  /// True when it is to be put into the index; false when it was deleted meanwhile.
  mutating func completeRestore(_ number: EntryNumber) -> Bool {
    entries[number].pins -= 1
    guard entries[number].phase == .restoring else { return false }
    entries[number].phase = .sealed
    entries.list(number)
    return true
  }

  mutating func abandonRestore(_ number: EntryNumber, retire: Retire) -> Freed {
    var freed = Freed()
    entries[number].pins -= 1
    guard entries[number].phase == .restoring else { return reap(retire: retire) }
    freeRegion(number, &freed)
    entries[number].phase = .spilled
    return freed
  }

  // MARK: Going

  /// Objects are not wanted any more; their memory goes with the last pin. All pins are looked at once.
  ///
  /// - Returns: the entries of those that are here.
  mutating func delete(_ objects: some Sequence<ObjectID>, retire: Retire) -> (entries: [EntryNumber], freed: Freed) {
    var deleted: [EntryNumber] = []
    var sealed: [EntryNumber] = []
    var isArriving = false
    var freed = Freed()
    for object in objects {
      guard let number = entries.number(of: object) else { continue }
      deleted.append(number)
      switch entries[number].phase {
      case .writing:
        // Its maker goes on writing into what is its own until it announces or aborts it.
        entries.hide(number)
      case .spilled: free(number, &freed)
      case .sealed:
        entries.hide(number)
        sealed.append(number)
      case .receiving, .restoring:
        doom(number)
        isArriving = true
      case .doomed: preconditionFailure("a doomed entry is never in the index")
      }
    }
    for (number, isPinned) in zip(sealed, sealed.isEmpty ? [] : retire(sealed, true)) {
      if isPinned || entries[number].pins > 0 { doom(number) } else { free(number, &freed) }
    }
    if isArriving { freed += reap(retire: retire) }
    return (deleted, freed)
  }
}
