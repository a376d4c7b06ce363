internal import MobulaCore

// Where memory comes from, and what goes when there is none left.
extension StoreStateMachine {
  /// Finds room for an object, evicting as much as it takes; nothing is evicted in vain.
  mutating func allocate(
    _ object: ObjectID, size: Int, maker: StoreClientID?
  ) throws(MobulaError) -> Allocation {
    guard size <= capacity, Self.pages(size) <= capacity else {
      throw MobulaError(
        .full,
        "An object of \(ByteCount(size)) is larger than the whole store of \(ByteCount(capacity)): start the host with a larger --capacity."
      )
    }
    if let place = findRoom(size, maker: maker) { return place.allocation(object, size, maker, in: &self) }
    let before = self
    var freed = Freed()
    var evicted: [ObjectID] = []
    for (id, segment) in segments where segment.entries == 0 { close(id, &freed) }
    var candidates = entries.filter { $0.value.phase == .sealed && $0.value.pins == 0 && $0.value.evictable }
      .sorted { $0.value.lastUse > $1.value.lastUse }
    while true {
      if let place = findRoom(size, maker: maker) {
        var allocation = place.allocation(object, size, maker, in: &self)
        allocation.freed = freed
        allocation.evicted = evicted
        return allocation
      }
      guard let victim = candidates.popLast() else { break }
      evicted.append(victim.value.object)
      discard(victim.key, &freed)
      if segments[victim.value.region.segment]?.entries == 0 { close(victim.value.region.segment, &freed) }
    }
    self = before
    throw MobulaError(
      .full,
      "The store has no room for \(ByteCount(size)) more (\(ByteCount(capacity)) capacity, \(ByteCount(used)) used, \(ByteCount(pinnedBytes)) of it pinned): start the host with a larger --capacity, or remove objects with `mobula rm`."
    )
  }

  private enum Room {
    case region(SegmentID, offset: Int)
    case newArena(size: Int)
    case newSegment(size: Int)

    func allocation(
      _ object: ObjectID, _ size: Int, _ maker: StoreClientID?, in machine: inout StoreStateMachine
    ) -> Allocation {
      let segment: SegmentID
      var offset = 0
      switch self {
      case .region(let arena, let free):
        segment = arena
        offset = free
      case .newArena(let bytes):
        var regions = RegionAllocator(size: bytes)
        offset = regions.allocate(size)!
        segment = machine.open(Segment(size: bytes, maker: maker, regions: regions))
        machine.clients[maker!]!.arenas.append(segment)
      case .newSegment(let bytes):
        segment = machine.open(Segment(size: bytes, maker: maker))
      }
      let region = Region(segment: segment, offset: offset, size: size)
      let phase = maker.map { Phase.writing($0) } ?? .receiving
      var isNew = true
      if case .region = self { isNew = false }
      return Allocation(
        entry: machine.newEntry(object, region, phase), region: region,
        segmentSize: machine.segments[segment]!.size, isNewSegment: isNew)
    }
  }

  /// Takes a region of one of the maker's arenas, or finds that a new segment has room.
  private mutating func findRoom(_ size: Int, maker: StoreClientID?) -> Room? {
    if let maker, size <= largestSmallObject {
      for arena in clients[maker]!.arenas.reversed() where segments[arena]!.isReady {
        if let offset = segments[arena]!.regions!.allocate(size) { return .region(arena, offset: offset) }
      }
      if used + arenaSize <= capacity { return .newArena(size: arenaSize) }
    }
    let bytes = Self.pages(size)
    return used + bytes <= capacity ? .newSegment(size: bytes) : nil
  }

  private mutating func open(_ segment: Segment) -> SegmentID {
    let id = newSegment()
    segments[id] = segment
    used += segment.size
    return id
  }

  /// Closes a segment without objects. An attached client keeps one empty
  /// arena, warm for its next object, until somebody needs the room.
  mutating func closeIfUnneeded(_ id: SegmentID, _ freed: inout Freed) {
    guard let segment = segments[id], segment.entries == 0 else { return }
    if segment.regions != nil, segment.isReady, let client = segment.maker.flatMap({ clients[$0] }),
      !client.arenas.contains(where: { $0 != id && segments[$0]!.entries == 0 })
    {
      return
    }
    close(id, &freed)
  }

  private mutating func close(_ id: SegmentID, _ freed: inout Freed) {
    let segment = segments.removeValue(forKey: id)!
    if let maker = segment.maker { clients[maker]?.arenas.removeAll { $0 == id } }
    used -= segment.size
    freed.segments.append(id)
  }

  /// `size` rounded up to whole pages.
  static func pages(_ size: Int) -> Int { (size + pageSize - 1) / pageSize * pageSize }
}
