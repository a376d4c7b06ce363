internal import MobulaCore

// Where memory comes from, and what goes when there is none left.
extension StoreStateMachine {
  /// A range of a segment that is promised: reserve the missing parts, then `reserved` or `notReserved`.
  struct Grant: Hashable, Sendable {
    let segment: SegmentID
    let range: Range<Int>
    let toReserve: [Range<Int>]
  }

  /// What to do for room.
  enum Pressure: Hashable, Sendable {
    /// There is enough now, or will be when these were given back: do it, and ask again.
    case freed(Freed, evicted: [ObjectID])
    /// Write this entry, which is pinned for it, to disk, then `spilled` or `notSpilled`, and ask again.
    case spill(EntryNumber)
    /// Everything is pinned, or being given back by others: wait for a change.
    case wait
  }

  /// Takes `size` bytes (whole pages) of a segment; `nil` when the capacity has no room for what has to be
  /// reserved, or no free range is long enough.
  mutating func take(_ size: Int, of segment: SegmentID, alignment: Int = pageSize) -> Grant? {
    guard let found = segments[segment]?.space.allocate(size, alignment: alignment) else { return nil }
    let new = found.toReserve.reduce(0) { $0 + $1.count }
    guard used + new <= capacity else {
      // Given back as it was found: what was not warm is not.
      let warm = RangeSet(of: found.toReserve).gaps(in: found.range)
      segments[segment]!.space.freeUnreserved(found.range, reserved: warm)
      return nil
    }
    used += new
    return Grant(segment: segment, range: found.range, toReserve: found.toReserve)
  }

  /// The system had no memory: `reserved` parts of the grant are there, the others are not.
  mutating func notReserved(_ grant: Grant, reserved: [Range<Int>]) {
    let missing = grant.toReserve.reduce(0) { $0 + $1.count } - reserved.reduce(0) { $0 + $1.count }
    used -= missing
    let warm = RangeSet(of: grant.toReserve).gaps(in: grant.range) + reserved
    segments[grant.segment]?.space.freeUnreserved(grant.range, reserved: warm)
  }

  /// Frees a range of a segment: it stays warm for its maker, within limits.
  mutating func release(_ range: Range<Int>, of id: SegmentID, _ freed: inout Freed) {
    segments[id]!.space.free(range)
    if segments[id]!.maker == nil, id != ownSegment {
      trim(id, by: range.count, &freed)
    } else {
      let over = warmBytes - warmLimit
      if over > 0 { trim(id, by: over, &freed) }
    }
    closeIfUnneeded(id, &freed)
  }

  /// Bytes of free memory that are kept.
  var warmBytes: Int { segments.values.reduce(0) { $0 + $1.space.warmBytes } }

  mutating func trim(_ id: SegmentID, by bytes: Int, _ freed: inout Freed) {
    for range in segments[id]!.space.trim(bytes) {
      // Nobody may be granted it before the system has it.
      _ = segments[id]!.space.take(range)
      freed.pages.append(.init(segment: id, range: range))
      leaving += range.count
    }
  }

  /// The system has these pages again.
  mutating func gaveBack(_ pages: [Freed.Pages]) -> Freed {
    var freed = Freed()
    for page in pages {
      used -= page.range.count
      leaving -= page.range.count
      guard segments[page.segment] != nil else { continue }
      segments[page.segment]!.space.freeUnreserved(page.range, reserved: [])
      closeIfUnneeded(page.segment, &freed)
    }
    return freed
  }

  /// Closes the segment of a client that is gone, once nothing is in it; one that is warm may serve another.
  mutating func closeIfUnneeded(_ id: SegmentID, _ freed: inout Freed) {
    guard let segment = segments[id], segment.maker == nil, id != ownSegment, segment.entries == 0,
      segment.space.usedBytes == 0
    else { return }
    let kept = spares.reduce(0) { $0 + segments[$1]!.space.warmBytes }
    if !spares.contains(id), segment.space.warmBytes > 0, kept + segment.space.warmBytes <= warmLimit / 2,
      spares.count < 8
    {
      spares.append(id)
    } else if !spares.contains(id) {
      close(id, &freed)
    }
  }

  mutating func close(_ id: SegmentID, _ freed: inout Freed) {
    trim(id, by: Int.max / 2, &freed)
    spares.removeAll { $0 == id }
    segments[id] = nil
    freed.segments.append(id)
  }

  /// Makes room for `bytes` more. Warm memory goes first, then what is cached, then to disk.
  ///
  /// - Parameters:
  ///   - spills: whether there is a disk to spill to.
  ///   - isPinned: whether a client's page pins the entry now, so that to write it would be in vain.
  mutating func makeRoom(
    _ bytes: Int, spills: Bool, isPinned isRefused: (EntryNumber) -> Bool, retire: Retire
  ) -> Pressure {
    var freed = reap(retire: retire)
    var evicted: [ObjectID] = []
    func missing(_ machine: StoreStateMachine) -> Int { machine.used - machine.leaving + bytes - machine.capacity }
    for id in spares where missing(self) > 0 { close(id, &freed) }
    for id in segments.keys.sorted(by: { $0.number < $1.number }) where missing(self) > 0 {
      trim(id, by: missing(self), &freed)
    }
    for tier in [Tier.cache, .heldCache] where missing(self) > 0 {
      // By the batch, each with one look at all pins: a look costs more than an eviction.
      var next = entries.leastRecentlyUsed(tier)
      while missing(self) > 0, next != nil {
        var batch: [EntryNumber] = []
        var size = 0
        while let number = next, batch.count < 64, batch.isEmpty || size < missing(self) {
          next = entries.successor(of: number)
          guard entries[number].pins == 0 else { continue }
          batch.append(number)
          size += entries[number].footprint
        }
        for (number, isPinned) in zip(batch, retire(batch, false)) where !isPinned {
          evicted.append(entries[number].object)
          free(number, &freed)
        }
        for id in segments.keys where missing(self) > 0 && segments[id]!.space.warmBytes > 0 {
          trim(id, by: missing(self), &freed)
        }
      }
    }
    if missing(self) <= 0 || !freed.pages.isEmpty || !evicted.isEmpty || !freed.entries.isEmpty {
      return .freed(freed, evicted: evicted)
    }
    if spills {
      // Of those that were not used for long the biggest: a file for each small one helps nobody.
      var candidates: [EntryNumber] = []
      var next = entries.leastRecentlyUsed(.primary)
      while let number = next, candidates.count < 64 {
        next = entries.successor(of: number)
        if entries[number].pins == 0, !entries[number].isDamaged, !isRefused(number) { candidates.append(number) }
      }
      if let number = candidates.max(by: { entries[$0].footprint < entries[$1].footprint }) {
        // Readers may go on while it is written; whether it can leave is asked afterwards.
        entries[number].pins += 1
        entries.unlist(number)
        return .spill(number)
      }
    }
    return .wait
  }

  /// The entry is on disk: it leaves memory unless somebody pins it by now.
  ///
  /// - Returns: whether it left; otherwise remove the file.
  mutating func spilled(_ number: EntryNumber, retire: Retire) -> (left: Bool, freed: Freed) {
    var freed = Freed()
    entries[number].pins -= 1
    guard entries[number].phase == .sealed else {
      if entries[number].phase == .doomed { freed += reap(retire: retire) }
      return (false, freed)
    }
    guard entries[number].pins == 0, !retire([number], false)[0] else {
      entries.list(number)
      return (false, freed)
    }
    freeRegion(number, &freed)
    entries[number].phase = .spilled
    return (true, freed)
  }

  /// The entry could not be written.
  ///
  /// - Parameter isDamaged: whether it never can.
  mutating func notSpilled(_ number: EntryNumber, isDamaged: Bool = false, retire: Retire) -> Freed {
    entries[number].pins -= 1
    entries[number].isDamaged = isDamaged
    if entries[number].phase == .doomed { return reap(retire: retire) }
    entries.list(number)
    return Freed()
  }

  /// Frees what was deleted while it was pinned, and is pinned no more.
  mutating func reap(retire: Retire) -> Freed {
    var freed = Freed()
    let candidates = doomed.filter { entries[$0].pins == 0 }.sorted()
    guard !candidates.isEmpty else { return freed }
    for (number, isPinned) in zip(candidates, retire(candidates, true)) where !isPinned {
      doomed.remove(number)
      free(number, &freed)
    }
    return freed
  }

  /// An entry is no more: its region is free.
  mutating func free(_ number: EntryNumber, _ freed: inout Freed) {
    if entries[number].phase != .spilled { freeRegion(number, &freed) }
    freed.entries.append(number)
    entries.drop(number)
  }

  /// The region of an entry is free, for its maker if that lives.
  mutating func freeRegion(_ number: EntryNumber, _ freed: inout Freed) {
    let entry = entries[number]
    let id = entry.segment
    let (isByPage, maker) = leaveSegment(entry)
    if entry.isDirect {
      release(entry.offset..<entry.offset + Self.pages(entry.footprint), of: id, &freed)
    } else if !isByPage, let maker {
      withExtent(of: entry.offset, maker) { $0.free(entry.offset..<entry.offset + entry.footprint) }
      freed.regions.append(.init(client: maker, offset: entry.offset))
    } else if isByPage {
      // Of a maker that is gone, or of the store that was before this one.
      for page in pages(of: entry) {
        let left = segments[id]!.pages[page, default: 1] - 1
        segments[id]!.pages[page] = left > 0 ? left : nil
        if left == 0 { release(page..<page + pageSize, of: id, &freed) }
      }
      closeIfUnneeded(id, &freed)
    } else if id == ownSegment {
      _ = ownExtents.free(offset: entry.offset)
      for extent in ownExtents.takeEmptyExtents(keeping: 1) { release(extent, of: id, &freed) }
    }
  }

  /// The pages that an entry's region touches, by offset.
  func pages(of entry: Entry) -> [Int] {
    let first = entry.offset / pageSize
    let last = (entry.offset + entry.footprint - 1) / pageSize
    return (first...last).map { $0 * pageSize }
  }

  /// Turns the extents of a segment whose maker is gone into single pages: those without objects are free.
  mutating func dissolve(_ extents: [Range<Int>], of id: SegmentID, _ freed: inout Freed) {
    if extents.isEmpty { return }
    if segments[id]!.entries > 0 {
      for (_, entry) in entries.all where entry.segment == id && !entry.isDirect && entry.phase != .spilled {
        for page in pages(of: entry) { segments[id]!.pages[page, default: 0] += 1 }
      }
    }
    for extent in extents {
      var start = extent.lowerBound
      while start < extent.upperBound {
        var end = start
        while end < extent.upperBound, segments[id]!.pages[end] == nil { end += pageSize }
        if end > start { segments[id]!.space.free(start..<end) }
        start = end + pageSize
      }
    }
  }

  /// Why there is no room, with the numbers.
  func full(_ bytes: Int, spills: Bool, pinned: [(client: StoreClientID, bytes: Int)]) -> MobulaError {
    let held = entries.all.reduce(0) { $0 + ($1.entry.phase == .sealed && $1.entry.isHeld ? $1.entry.footprint : 0) }
    let total = pinned.reduce(0) { $0 + $1.bytes }
    let by = pinned.sorted { $0.bytes > $1.bytes }.prefix(3).map { pin in
      "\(ByteCount(pin.bytes)) by \(clients[pin.client].map { "\($0.name) (process \($0.process))" } ?? "client \(pin.client)")"
    }
    return MobulaError(
      .full,
      "The store has no room for \(ByteCount(bytes)) more (\(ByteCount(capacity)) capacity, \(ByteCount(used)) used, \(ByteCount(held)) held, \(ByteCount(total)) pinned\(by.isEmpty ? "" : ": " + by.joined(separator: ", "))): release objects or remove some with `mobula rm`, \(spills ? "" : "give the host a --spill directory, ")or start it with a larger --capacity."
    )
  }

  func tooLarge(_ size: Int) -> MobulaError {
    MobulaError(
      .full,
      "An object of \(ByteCount(size)) is larger than the whole store of \(ByteCount(capacity)): start the host with --capacity \(ByteCount(Self.pages(size)).roundedUp) or more."
    )
  }
}

extension RangeSet {
  /// All of these.
  init(of ranges: [Range<Int>]) {
    self.init()
    for range in ranges { insert(range) }
  }
}
