internal import Glibc
internal import MobulaCore
internal import Synchronization

/// What a store finds of the one before it: the descriptors that the keeper has.
///
/// The index is taken over where it is, so that readers notice nothing; what it says is checked against
/// each object's trailer, and the store's own books are made anew from both.
enum Recovery {
  static let indexKey = "index"
  static func segmentKey(_ id: SegmentID) -> String { "segment \(id.number)" }
  static func ownKey(_ id: SegmentID) -> String { "own \(id.number)" }
  /// With what must not be believed when the client's page says it: it could name the segment of another.
  static func clientKey(_ id: StoreClientID, _ segment: SegmentID, user: UInt32) -> String {
    "client \(id.number) \(segment.number) \(user)"
  }

  struct Kept: Sendable {
    let index: SharedDescriptor
    let doorbell: SharedDescriptor
    var segments: [(id: SegmentID, descriptor: SharedDescriptor, isOwn: Bool)] = []
    var clients: [Client] = []

    struct Client: Sendable {
      let id: StoreClientID
      let segment: SegmentID
      let user: UInt32
      /// Page, grants and, where the system has them, process.
      let descriptors: [SharedDescriptor]
    }
  }

  /// Asks the keeper; `nil` without one, or when it has nothing.
  static func kept(by keeper: KeeperConnection?) throws(MobulaError) -> Kept? {
    guard let keeper else { return nil }
    let all = try keeper.recover()
    guard let index = all.first(where: { $0.key == indexKey }), index.descriptors.count == 2 else { return nil }
    var kept = Kept(index: index.descriptors[0], doorbell: index.descriptors[1])
    for (key, descriptors) in all {
      let parts = key.split(separator: " ")
      guard parts.count >= 2, let number = UInt64(parts[1]) else { continue }
      switch parts[0] {
      case "segment", "own": kept.segments.append((SegmentID(number), descriptors[0], parts[0] == "own"))
      case "client":
        guard parts.count == 4, let segment = UInt64(parts[2]), let user = UInt32(parts[3]) else { continue }
        kept.clients.append(
          .init(id: StoreClientID(number), segment: SegmentID(segment), user: user, descriptors: descriptors))
      default: break
      }
    }
    return kept
  }

  /// Makes the books of `state` from what was kept.
  ///
  /// - Returns: how many objects are there, and how many clients.
  static func rebuild(
    _ state: inout Store.State, _ kept: Kept, spill: SpillSpace?, keeper: KeeperConnection?
  ) throws(MobulaError) -> (objects: Int, clients: Int) {
    for (id, descriptor, isOwn) in kept.segments {
      var status = stat()
      try systemCall("A segment can't be examined") { fstat(descriptor.rawValue, &status) }
      let size = Int(status.st_size) / pageSize * pageSize
      guard size > 0 else { continue }
      state.segments[id] = try SegmentMemory(id, descriptor, size: size, isOwn: isOwn)
      state.machine.segments[id] = .init(
        size: size, maker: nil, user: status.st_uid, space: VirtualSpace(size: size, granularity: pageSize))
      if isOwn { state.machine.ownSegment = id }
    }
    for client in kept.clients { try restoreClient(client, &state) }
    restoreEntries(&state)
    state.machine.endRestoring()
    // Whatever nobody uses is given back: what was warm is not known any more.
    var used = 0
    for (id, segment) in state.machine.segments {
      for range in segment.space.free.ranges { state.segments[id]!.giveBack(range) }
      used += segment.space.usedBytes
    }
    state.machine.used = used
    try state.index.rebuild()
    try restoreSpilled(&state, spill)
    // The empty segments of clients that are long gone.
    var freed = StoreStateMachine.Freed()
    for id in state.machine.segments.keys { state.machine.closeIfUnneeded(id, &freed) }
    _ = state.settle(freed)
    for id in freed.segments { keeper?.drop(segmentKey(id)) }
    return (state.machine.index.count, state.records.count)
  }

  private static func restoreClient(
    _ client: Kept.Client, _ state: inout Store.State
  ) throws(MobulaError) {
    let (id, segment, user, descriptors) = (client.id, client.segment, client.user, client.descriptors)
    var status = stat()
    try systemCall("A client's page can't be examined") { fstat(descriptors[0].rawValue, &status) }
    guard status.st_size >= ClientPage.size, descriptors.count >= 2 else { return }
    try systemCall("A client's grants can't be examined") { fstat(descriptors[1].rawValue, &status) }
    guard status.st_size >= GrantTable.size else { return }
    let grants = GrantTable(try MemoryMapping(descriptors[1].rawValue, count: GrantTable.size, access: .readWrite))
    let page = ClientPage(try MemoryMapping(descriptors[0].rawValue, count: ClientPage.size, access: .readWrite))
    func word(_ word: ClientPage.HeaderWord) -> UInt64 { page.header(word).pointee.load(ordering: .relaxed) }
    guard let old = state.machine.segments[segment], segment != state.machine.ownSegment else { return }
    state.machine.segments[segment] = .init(size: old.size, maker: id, user: user, space: old.space)
    state.machine.clients[id] = .init(
      name: "client \(id)", process: Int32(truncatingIfNeeded: word(.process)), user: user, segment: segment)
    for slot in 0..<GrantTable.count {
      guard let grant = grants[slot], grant.range.upperBound <= old.size,
        grant.range.lowerBound % pageSize == 0, grant.range.count % pageSize == 0,
        state.machine.segments[segment]!.space.take(grant.range)
      else { continue }
      state.machine.clients[id]!.nextSlot = slot
      state.machine.use(slot, of: id, grant)
    }
    let taken = state.machine.clients[id]!.grants
    let next = (taken.keys.max() ?? -1) + 1
    state.machine.clients[id]!.nextSlot = next
    state.machine.clients[id]!.freeSlots = (0..<next).filter { taken[$0] == nil }
    state.records[id] = .init(
      page: page, grants: grants, process: descriptors.dropFirst(2).first,
      key: clientKey(id, segment, user: user))
    state.shared.pages[id] = page
  }

  private static func restoreEntries(_ state: inout Store.State) {
    for number in 0..<state.index.entryLimit {
      let found = state.index.contents(of: number)
      guard found.state != IndexLayout.State.empty else { continue }
      guard let entry = entry(found, state), take(entry, &state) else {
        state.index.clear(number)
        continue
      }
      // One that was about to be evicted is as good as any.
      if entry.phase == .sealed { state.index.restore(number) }
      state.machine.restoreEntry(number, entry)
      if entry.phase == .doomed { state.machine.restoreDoomed(number) }
    }
  }

  /// The entry that the index tells of, if its segment has it.
  private static func entry(
    _ found: (state: UInt64, object: ObjectID, segment: UInt64, offset: Int, size: Int, shape: UInt64),
    _ state: Store.State
  ) -> StoreStateMachine.Entry? {
    let shape = EntryShape(word: found.shape)
    let id = SegmentID(found.segment)
    guard let memory = state.segments[id], let segment = state.machine.segments[id], 16...26 ~= shape.chunkShift,
      found.size > 0, found.offset >= 0, shape.trailerSize >= ObjectTrailer.fixedSize, shape.trailerSize < 1 << 40,
      found.size <= memory.size, found.offset <= memory.size
    else { return nil }
    let entry = StoreStateMachine.Entry(
      object: found.object, segment: id, offset: found.offset, size: found.size, trailerSize: shape.trailerSize,
      chunkShift: UInt8(shape.chunkShift), phase: found.state == IndexLayout.State.doomed ? .doomed : .sealed,
      isDirect: shape.isDirect, isCache: shape.isCache,
      // Until the processes have said otherwise.
      isHeld: true, maker: segment.maker)
    guard entry.offset + entry.footprint <= memory.size, Store.trailer(of: entry, in: memory) != nil,
      entry.phase == .doomed || state.machine.index[entry.object] == nil
    else { return nil }
    return entry
  }

  /// Marks an entry's region as used.
  private static func take(_ entry: StoreStateMachine.Entry, _ state: inout Store.State) -> Bool {
    let id = entry.segment
    if entry.isDirect {
      let range = entry.offset..<entry.offset + StoreStateMachine.pages(entry.footprint)
      return state.machine.segments[id]!.space.take(range) || settleGrant(of: range, id, &state)
    }
    if let maker = state.machine.segments[id]!.maker,
      let isFree = state.machine.withExtent(
        of: entry.offset, maker, { $0.take(entry.offset..<entry.offset + entry.footprint) })
    {
      return isFree
    }
    // An extent without a maker is looked after page by page.
    let pages = state.machine.pages(of: entry)
    for page in pages where state.machine.segments[id]!.pages[page] == nil {
      guard state.machine.segments[id]!.space.take(page..<page + pageSize) else { return false }
      state.machine.segments[id]!.pages[page] = 0
    }
    for page in pages { state.machine.segments[id]!.pages[page]! += 1 }
    return true
  }

  /// The store died between sealing a big object and ending its maker's grant: does the latter.
  private static func settleGrant(of range: Range<Int>, _ id: SegmentID, _ state: inout Store.State) -> Bool {
    guard let maker = state.machine.segments[id]!.maker,
      let (slot, grant) = state.machine.clients[maker]!.grants.first(where: {
        !$0.value.isExtent && $0.value.range.lowerBound == range.lowerBound && $0.value.range.count >= range.count
      })
    else { return false }
    state.machine.clients[maker]!.grants[slot] = nil
    state.machine.clients[maker]!.freeSlots.append(slot)
    state.records[maker]!.grants[slot] = nil
    if range.upperBound < grant.range.upperBound {
      let rest = range.upperBound..<grant.range.upperBound
      state.machine.segments[id]!.space.freeUnreserved(rest, reserved: [])
    }
    return true
  }

  private static func restoreSpilled(_ state: inout Store.State, _ spill: SpillSpace?) throws(MobulaError) {
    for file in try spill?.recover() ?? [] {
      guard state.machine.index[file.object] == nil, let own = state.machine.ownSegment,
        let header = try? spill!.describe(file)
      else {
        // In memory as well: the store died between the two.
        spill!.remove(file)
        continue
      }
      let number = state.machine.newEntry(
        .init(
          object: file.object, segment: own, offset: 0, size: file.geometry.objectSize,
          trailerSize: ObjectTrailer.size(chunks: file.geometry.count, contained: header.contains.count),
          chunkShift: UInt8(file.geometry.chunkShift), phase: .spilled, isDirect: true, isCache: file.flags & 1 != 0,
          isHeld: true, maker: nil))
      state.machine.segments[own]!.entries -= 1
      state.spilled[number] = file
    }
  }
}

extension StoreStateMachine {
  /// A deleted object that readers still had when the store before this one died.
  mutating func restoreDoomed(_ number: EntryNumber) {
    if index[entries[number]!.object] == number { index[entries[number]!.object] = nil }
    unlist(number)
    doomed.insert(number)
  }
}
