internal import MobulaCore

// How clients come and go, what they may write, and what they pin by call.
extension StoreStateMachine {
  /// A process has come: it writes into a segment of its own, an empty one that is warm if there is one of its user.
  ///
  /// - Returns: the segment, and whether it is there already.
  mutating func attach(
    _ id: StoreClientID, name: String, process: Int32, user: UInt32, newSegment: SegmentID
  ) -> (segment: SegmentID, isNew: Bool) {
    let spare = spares.firstIndex { segments[$0]!.user == user }
    let segment = spare.map { spares.remove(at: $0) } ?? newSegment
    if spare == nil {
      segments[segment] = Segment(
        size: segmentSize, maker: id, user: user, space: VirtualSpace(size: segmentSize, granularity: pageSize))
    } else {
      segments[segment]!.maker = id
    }
    clients[id] = Client(name: name, process: process, user: user, segment: segment)
    return (segment, spare == nil)
  }

  struct Detachment: Hashable, Sendable {
    /// The objects that were not sealed, and never will be.
    var aborted: [ObjectID] = []
    var freed = Freed()
  }

  /// A process is gone, and with it its pins, grants and unsealed objects; what it made stays.
  /// What it announced must have been taken before, and its page is looked at no more.
  mutating func detach(_ id: StoreClientID, retire: Retire) -> Detachment {
    guard let client = clients.removeValue(forKey: id) else { return Detachment() }
    var result = Detachment()
    // Big regions of which a store that died knew what they were for.
    let claimed = Set(client.creating.values.map { entries[$0].offset })
    for grant in client.grants.values where !grant.isExtent && !claimed.contains(grant.range.lowerBound) {
      release(grant.range, of: client.segment, &result.freed)
    }
    for (object, number) in client.creating {
      result.aborted.append(object)
      free(number, &result.freed)
    }
    result.aborted.sort()
    for (number, count) in client.pins where entries.find(number) != nil { entries[number].pins -= count }
    segments[client.segment]!.maker = nil
    // Big regions that are being written went with their entries.
    dissolve(client.extents.map(\.range), of: client.segment, &result.freed)
    closeIfUnneeded(client.segment, &result.freed)
    if segments[client.segment] != nil, !spares.contains(client.segment) {
      trim(client.segment, by: Int.max / 2, &result.freed)
    }
    result.freed += reap(retire: retire)
    return result
  }

  /// More memory for a client's small objects.
  ///
  /// - Parameter bytes: of the extent, as its allocator wants it.
  /// - Returns: `nil` when there is no room: `makeRoom`.
  mutating func grow(_ id: StoreClientID, bytes: Int) throws(MobulaError) -> (grant: Grant, slot: Int)? {
    let client = try client(id)
    guard bytes > 0, bytes <= maximumExtent, bytes % ExtentAllocator.spanSize == 0 else {
      throw MobulaError(
        .protocolViolation, "An extent of \(bytes) bytes was asked for: use the same mobula on both sides.")
    }
    let slot = try nextSlot(client)
    guard let grant = take(bytes, of: client.segment, alignment: ExtentAllocator.spanSize) else { return nil }
    use(slot, of: id, GrantTable.Grant(range: grant.range, isExtent: true))
    return (grant, slot)
  }

  func nextSlot(_ client: Client) throws(MobulaError) -> Int {
    if let free = client.freeSlots.last { return free }
    guard client.nextSlot < GrantTable.count else {
      throw MobulaError(
        .full, "A process can have \(GrantTable.count) regions that it writes: use more processes, or let some go."
      )
    }
    return client.nextSlot
  }

  mutating func use(_ slot: Int, of id: StoreClientID, _ grant: GrantTable.Grant) {
    clients[id]!.grants[slot] = grant
    if clients[id]!.freeSlots.last == slot { clients[id]!.freeSlots.removeLast() } else { clients[id]!.nextSlot += 1 }
    if grant.isExtent {
      let at = clients[id]!.extents.firstIndex { $0.range.lowerBound > grant.range.lowerBound }
      clients[id]!.extents.insert(Extent(range: grant.range), at: at ?? clients[id]!.extents.count)
    }
  }

  mutating func leave(_ slot: Int, of id: StoreClientID, _ freed: inout Freed) {
    guard let grant = clients[id]!.grants.removeValue(forKey: slot) else { return }
    clients[id]!.freeSlots.append(slot)
    if grant.isExtent { clients[id]!.extents.removeAll { $0.range == grant.range } }
    freed.grants.append(.init(client: id, slot: slot))
  }

  func slot(of range: Range<Int>, isExtent: Bool, client: Client) -> Int? {
    client.grants.first { $0.value.isExtent == isExtent && $0.value.range == range }?.key
  }

  /// The system had no memory for what `grow` promised.
  mutating func notGrown(_ id: StoreClientID, _ grant: Grant, slot: Int, reserved: [Range<Int>]) -> Freed {
    var freed = Freed()
    // The client may have given it back before it was told of it.
    guard clients[id]?.grants[slot] == GrantTable.Grant(range: grant.range, isExtent: true) else { return freed }
    notReserved(grant, reserved: reserved)
    leave(slot, of: id, &freed)
    return freed
  }

  /// A client has no use for an extent: `offset` is its first byte. Nothing happens while objects lie in it.
  mutating func giveBack(_ id: StoreClientID, offset: Int, size: Int) -> Freed {
    var freed = Freed()
    guard let client = clients[id], size > 0,
      let slot = slot(of: offset..<offset + size, isExtent: true, client: client),
      let extent = client.extent(of: offset), client.extents[extent].entries == 0
    else { return freed }
    leave(slot, of: id, &freed)
    release(offset..<offset + size, of: client.segment, &freed)
    return freed
  }

  // MARK: Pins by call

  /// A client that has no pin word left, or can't find an object in the index, pins it by call.
  mutating func pin(_ object: ObjectID, client id: StoreClientID) throws(MobulaError) -> EntryNumber {
    _ = try client(id)
    guard let (number, entry) = entries.find(object) else { throw Self.notFound(object) }
    switch entry.phase {
    case .sealed: break
    case .writing:
      throw MobulaError(.unavailable, "Object \(object) is not sealed yet: get it once its maker's put has returned.")
    case .receiving:
      throw MobulaError(.unavailable, "Object \(object) is still arriving: wait until it is complete.")
    case .spilled, .restoring:
      throw MobulaError(.unavailable, "Object \(object) is on disk: wait until it is restored.")
    case .doomed: preconditionFailure("a doomed entry is never in the index")
    }
    clients[id]!.pins[number, default: 0] += 1
    entries[number].pins += 1
    entries.touch(number)
    return number
  }

  /// Lets one of the client's pins by call go; nothing when it has none.
  mutating func unpin(_ number: EntryNumber, client id: StoreClientID, retire: Retire) -> Freed {
    guard let count = clients[id]?.pins[number], count > 0 else { return Freed() }
    clients[id]!.pins[number] = count > 1 ? count - 1 : nil
    return unpin(number, retire: retire)
  }

  /// The store itself reads a sealed or arriving object, to send it on.
  ///
  /// - Parameter isUse: whether that counts as a use, for the choice of what to evict.
  mutating func pinSource(_ object: ObjectID, isUse: Bool = true) -> EntryNumber? {
    guard let (number, entry) = entries.find(object), entry.phase == .sealed || entry.phase == .receiving
    else { return nil }
    entries[number].pins += 1
    if isUse { entries.touch(number) }
    return number
  }

  /// A source, or the writer of an arriving object, is gone.
  mutating func unpin(_ number: EntryNumber, retire: Retire) -> Freed {
    precondition(entries.find(number)?.pins ?? 0 > 0, "an entry is unpinned as often as it was pinned")
    entries[number].pins -= 1
    return entries[number].phase == .doomed ? reap(retire: retire) : Freed()
  }
}
