internal import Glibc
internal import MobulaCore

/// What a store that starts again tells its books before anything else: of segments, then clients, then entries; then
/// `endRestoring`, then what was spilled.
extension StoreStateMachine {
  /// A segment that was kept; nothing of it is used until entries and grants have said so.
  mutating func restoreSegment(_ id: SegmentID, size: Int, user: UInt32, isOwn: Bool) {
    segments[id] = Segment(
      size: size, maker: nil, user: user, space: VirtualSpace(size: size, granularity: pageSize))
    if isOwn { ownSegment = id }
  }

  /// A client whose process may still live, with the grants that the store before this one gave it.
  ///
  /// - Returns: false when its segment was not kept, or is the store's own.
  mutating func restoreClient(
    _ id: StoreClientID, segment: SegmentID, user: UInt32, process: Int32,
    grants: some Sequence<(Int, GrantTable.Grant)>
  ) -> Bool {
    guard let old = segments[segment], segment != ownSegment else { return false }
    segments[segment] = Segment(size: old.size, maker: id, user: user, space: old.space)
    clients[id] = Client(name: "client \(id)", process: process, user: user, segment: segment)
    for (slot, grant) in grants {
      guard grant.range.upperBound <= old.size, grant.range.lowerBound % pageSize == 0,
        grant.range.count % pageSize == 0, segments[segment]!.space.take(grant.range)
      else { continue }
      clients[id]!.nextSlot = slot
      use(slot, of: id, grant)
    }
    let taken = clients[id]!.grants
    let next = (taken.keys.max() ?? -1) + 1
    clients[id]!.nextSlot = next
    clients[id]!.freeSlots = (0..<next).filter { taken[$0] == nil }
    return true
  }

  /// What became of the region of an entry.
  enum Restored: Hashable, Sendable {
    case taken
    /// A big object's, whose maker's grant in this slot is over: the store died between sealing it and ending that.
    case ended(slot: Int, of: StoreClientID)
    /// Something else is there.
    case refused
  }

  /// Marks an entry's region as used.
  mutating func restoreRegion(of entry: Entry) -> Restored {
    let id = entry.segment
    if entry.isDirect {
      let range = entry.offset..<entry.offset + Self.pages(entry.footprint)
      return segments[id]!.space.take(range) ? .taken : endGrant(of: range, id)
    }
    if let maker = segments[id]!.maker,
      let isFree = withExtent(of: entry.offset, maker, { $0.take(entry.offset..<entry.offset + entry.footprint) })
    {
      return isFree ? .taken : .refused
    }
    // An extent without a maker is looked after page by page.
    let pages = pages(of: entry)
    for page in pages where segments[id]!.pages[page] == nil {
      guard segments[id]!.space.take(page..<page + pageSize) else { return .refused }
      segments[id]!.pages[page] = 0
    }
    for page in pages { segments[id]!.pages[page]! += 1 }
    return .taken
  }

  private mutating func endGrant(of range: Range<Int>, _ id: SegmentID) -> Restored {
    guard let maker = segments[id]!.maker,
      let (slot, grant) = clients[maker]!.grants.first(where: {
        !$0.value.isExtent && $0.value.range.lowerBound == range.lowerBound && $0.value.range.count >= range.count
      })
    else { return .refused }
    clients[maker]!.grants[slot] = nil
    clients[maker]!.freeSlots.append(slot)
    if range.upperBound < grant.range.upperBound {
      segments[id]!.space.freeUnreserved(range.upperBound..<grant.range.upperBound, reserved: [])
    }
    return .ended(slot: slot, of: maker)
  }

  /// Takes exactly this number, for an entry whose region was restored.
  mutating func restoreEntry(_ number: EntryNumber, _ entry: Entry) {
    // A deleted one may have a successor of the same name.
    entries.restore(number, entry, isFound: entry.phase != .doomed)
    segments[entry.segment]!.entries += 1
    if entry.phase == .sealed { entries.list(number) }
    if entry.phase == .doomed { doomed.insert(number) }
  }

  /// After all entries in memory were restored: what nobody uses is free.
  ///
  /// - Returns: the free memory of each segment, to be given back: what was warm is not known any more.
  @discardableResult
  mutating func endRestoring() -> [SegmentID: [Range<Int>]] {
    entries.complete()
    used = segments.values.reduce(0) { $0 + $1.space.usedBytes }
    return segments.mapValues { Array($0.space.free.ranges) }
  }

  /// An object that is in a spill place; `nil` when it is in memory as well, or there is no segment of the store's own.
  mutating func restoreSpilled(_ object: ObjectID, geometry: ChunkGeometry, contained: Int, isCache: Bool)
    -> EntryNumber?
  {
    guard entries.number(of: object) == nil, let own = ownSegment else { return nil }
    // It has no bytes in the segment.
    return entries.add(
      Entry(
        object: object, segment: own, offset: 0, size: geometry.objectSize,
        trailerSize: ObjectTrailer.size(chunks: geometry.count, contained: contained),
        chunkShift: UInt8(geometry.chunkShift), phase: .spilled, isDirect: true, isCache: isCache, isHeld: true,
        maker: nil))
  }
}
