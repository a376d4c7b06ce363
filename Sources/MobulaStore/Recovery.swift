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
      state.machine.restoreSegment(id, size: size, user: status.st_uid, isOwn: isOwn)
    }
    for client in kept.clients { try restoreClient(client, &state) }
    restoreEntries(&state)
    for (id, ranges) in state.machine.endRestoring() {
      for range in ranges { state.segments[id]!.giveBack(range) }
    }
    try state.index.rebuild()
    try restoreSpilled(&state, spill)
    // The empty segments of clients that are long gone.
    var freed = StoreStateMachine.Freed()
    for id in state.machine.segments.keys { state.machine.closeIfUnneeded(id, &freed) }
    _ = state.apply(freed)
    for id in freed.segments { keeper?.drop(segmentKey(id)) }
    return (state.machine.entries.count, state.records.count)
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
    let isRestored = state.machine.restoreClient(
      id, segment: segment, user: user, process: Int32(truncatingIfNeeded: word(.process)),
      grants: (0..<GrantTable.count).lazy.compactMap { slot in grants[slot].map { (slot, $0) } })
    guard isRestored else { return }
    state.records[id] = .init(
      page: page, grants: grants, process: descriptors.dropFirst(2).first,
      key: clientKey(id, segment, user: user))
    state.shared.pages[id] = page
  }

  private static func restoreEntries(_ state: inout Store.State) {
    for number in 0..<state.index.entryLimit {
      let found = state.index.contents(of: number)
      guard found.state != IndexLayout.State.empty else { continue }
      guard let entry = entry(found, state) else {
        state.index.clear(number)
        continue
      }
      switch state.machine.restoreRegion(of: entry) {
      case .taken: break
      case .ended(let slot, let maker): state.records[maker]?.grants[slot] = nil
      case .refused:
        state.index.clear(number)
        continue
      }
      // One that was about to be evicted is as good as any.
      if entry.phase == .sealed { state.index.restore(number) }
      state.machine.restoreEntry(number, entry)
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
      entry.phase == .doomed || state.machine.entries.number(of: entry.object) == nil
    else { return nil }
    return entry
  }

  private static func restoreSpilled(_ state: inout Store.State, _ spill: SpillSpace?) throws(MobulaError) {
    for file in try spill?.recover() ?? [] {
      guard let header = try? spill!.describe(file),
        let number = state.machine.restoreSpilled(
          file.object, geometry: file.geometry, contained: header.contains.count, isCache: file.flags & 1 != 0)
      else {
        // In memory as well: the store died between the two.
        spill!.remove(file)
        continue
      }
      state.spilled[number] = file
    }
  }
}
