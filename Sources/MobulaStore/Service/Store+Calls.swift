internal import CMobula
internal import Glibc
public import MobulaCore
internal import Synchronization

// What clients call for, at the store's socket.
extension Store {
  /// Makes a client: its page, its segment.
  func attach(
    _ ticket: DescriptorTicket, name: String, process: SharedDescriptor?, socket: CInt
  ) throws(MobulaError) -> StoreProtocol.Answer {
    guard state.withLock({ $0.tickets.redeem(ticket, now: .now) }) else {
      throw MobulaError(
        .denied, "The store refused the ticket, which was used before or is too old: connect to the host again.")
    }
    var pid: CInt = 0
    var user: UInt32 = 0
    try systemCall("The client's process can't be examined") { mobula_peer(socket, &pid, &user) }
    let process = Self.process(pid, socket: socket, sent: process)
    let descriptor = SharedDescriptor(try MemoryFile.create(name: "mobula-page", size: ClientPage.size))
    let page = ClientPage(try MemoryMapping(descriptor.rawValue, count: ClientPage.size, access: .readWrite))
    let table = SharedDescriptor(try MemoryFile.create(name: "mobula-grants", size: GrantTable.size))
    let grants = GrantTable(try MemoryMapping(table.rawValue, count: GrantTable.size, access: .readWrite))
    let (id, segment, spare): (StoreClientID, SegmentID, SegmentMemory?) = state.withLock { state in
      let id = StoreClientID(state.index.takeNumber(.nextClient))
      let (segment, isNew) = state.machine.attach(
        id, name: name, process: pid, user: user, newSegment: SegmentID(state.index.takeNumber(.nextSegment)))
      return (id, segment, isNew ? nil : state.segments[segment]!)
    }
    let size = state.withLock { $0.machine.segmentSize }
    let key = Recovery.clientKey(id, segment, user: user)
    do throws(MobulaError) {
      let memory = if let spare { spare } else { try SegmentMemory(segment, size: size, isOwn: false) }
      var generator = SystemRandomNumberGenerator()
      func set(_ word: ClientPage.HeaderWord, _ value: UInt64) {
        page.header(word).pointee.store(value, ordering: .relaxed)
      }
      set(.client, id.number)
      set(.secretHigh, generator.next())
      set(.secretLow, generator.next())
      set(.process, UInt64(max(pid, 0)))
      page.header(.magic).pointee.store(ClientPage.magic, ordering: .releasing)
      // Before the client knows of them: what it writes must be found again.
      if let keeper = configuration.keeper {
        try keeper.keep(Recovery.segmentKey(segment), [memory.writable.rawValue])
        try keeper.keep(key, [descriptor.rawValue, table.rawValue] + (process.map { [$0.rawValue] } ?? []))
      }
      state.withLock { state in
        state.segments[segment] = memory
        state.records[id] = ClientRecord(page: page, grants: grants, process: process, connections: 1, key: key)
        state.shared.pages[id] = page
      }
      if let process, !pump.watch(process.rawValue, id.number) {
        // Nobody would hear of its end: it comes with its connections then.
        state.withLock { $0.records[id]?.process = nil }
      }
      let index = state.withLock { $0.index.readOnly }
      return .init(
        words: [
          id.number, segment.number, UInt64(memory.size),
          UInt64(StoreStateMachine.maximumExtent(capacity: configuration.capacity.bytes)),
        ], descriptors: [index, descriptor, memory.writable, doorbell])
    } catch {
      change { state in ((), state.machine.detach(id, retire: state.shared.retire).freed) }
      throw error
    }
  }

  /// What becomes readable at the end of the process that connected this socket; `nil` where nothing can be had that
  /// does: then the client ends with its connections.
  ///
  /// - Parameter sent: what the process said is its own descriptor. Believed only where it is one: with any other it
  ///   would never end, and keep its memory for ever.
  private static func process(_ pid: CInt, socket: CInt, sent: SharedDescriptor?) -> SharedDescriptor? {
    let known = mobula_peer_process(socket)
    if known >= 0 { return SharedDescriptor(OwnedDescriptor(owning: known)) }
    if let sent, processNumber(of: sent) == Int(max(pid, 0)) { return sent }
    let raw = pid > 0 ? mobula_open_process(pid) : -1
    return raw >= 0 ? SharedDescriptor(OwnedDescriptor(owning: raw)) : nil
  }

  /// Of a process descriptor the number that its process has here, 0 when it has none; `nil` of any other descriptor.
  static func processNumber(of descriptor: SharedDescriptor) -> Int? {
    guard let file = fopen("/proc/self/fdinfo/\(descriptor.rawValue)", "re") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, CInt(line.count), file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if text.hasPrefix("Pid:") { return Int(text.dropFirst(4).filter { !$0.isWhitespace }) }
    }
    return nil
  }

  func resume(_ client: StoreClientID, secret: ClientSecret) throws(MobulaError) -> UInt64 {
    let incarnation = state.withLock { state -> UInt64? in
      guard state.records[client]?.page.secret == secret else { return nil }
      state.records[client]!.connections += 1
      return state.index.incarnation
    }
    guard let incarnation else {
      throw MobulaError(
        .unauthenticated,
        "The host was stopped and started anew, and has nothing of this process (client \(client)) any more: repeat what you did."
      )
    }
    return incarnation
  }

  /// A connection is gone; so is the client, where the system can't tell of its end in another way.
  func disconnected(_ client: StoreClientID) {
    let isEnd = state.withLock { state in
      guard let record = state.records[client] else { return false }
      state.records[client]!.connections -= 1
      return record.process == nil && record.connections == 1
    }
    if isEnd { clientEnded(client) }
  }

  func segment(_ id: SegmentID) throws(MobulaError) -> StoreProtocol.Answer {
    guard let memory = state.withLock({ $0.segments[id] }) else {
      throw MobulaError(.notFound, "Segment \(id) is gone: its objects are, too.")
    }
    return .init(words: [UInt64(memory.size)], descriptors: [try memory.readOnly()])
  }

  private func deadline(_ milliseconds: UInt64) -> ContinuousClock.Instant {
    min(roomDeadline, .now + .milliseconds(Int64(min(milliseconds, 86_400_000))))
  }

  /// `nil` when the client's own extents have room again.
  func grow(_ client: StoreClientID, _ bytes: Int, within milliseconds: UInt64) throws(MobulaError) -> Range<Int>? {
    struct Growth: Sendable {
      let grant: StoreStateMachine.Grant
      let slot: Int
      let memory: SegmentMemory
    }
    let growth = try withRoom(deadline: deadline(milliseconds), for: client) {
      state throws(MobulaError) -> RoomAttempt<Growth> in
      try state.checkAlive(client)
      guard let (grant, slot) = try state.machine.grow(client, bytes: bytes) else { return .missing(bytes) }
      state.records[client]!.reservations += 1
      return .done(Growth(grant: grant, slot: slot, memory: state.segments[grant.segment]!))
    }
    guard let growth else { return nil }
    defer { endReservation(client) }
    do throws(MobulaError) {
      for range in growth.grant.toReserve { try growth.memory.reserve(range) }
    } catch {
      for range in growth.grant.toReserve { growth.memory.giveBack(range) }
      change { state in ((), state.machine.notGrown(client, growth.grant, slot: growth.slot, reserved: [])) }
      throw error
    }
    state.withLock { state in
      state.records[client]?.grants[growth.slot] = .init(range: growth.grant.range, isExtent: true)
    }
    prefault(client)
    return growth.grant.range
  }

  /// Room for a big object, `footprint` bytes with its trailer, which `client` writes.
  func create(
    _ object: ObjectID, footprint: Int, client: StoreClientID, within milliseconds: UInt64
  ) throws(MobulaError) -> Int {
    struct Made: Sendable {
      let creation: StoreStateMachine.Creation
      let memory: SegmentMemory
    }
    let deadline = deadline(milliseconds)
    var made: Made?
    while made == nil {
      // What it announced may have been let go meanwhile, and be what there is no room for.
      takeAnnouncements(of: client)
      made = try withRoom(deadline: deadline, for: client) { state throws(MobulaError) -> RoomAttempt<Made> in
        try state.checkAlive(client)
        guard let creation = try state.machine.create(object, footprint: footprint, client: client) else {
          return .missing(StoreStateMachine.pages(footprint))
        }
        state.records[client]!.reservations += 1
        return .done(Made(creation: creation, memory: state.segments[creation.grant.segment]!))
      }
    }
    let (creation, memory) = (made!.creation, made!.memory)
    defer { endReservation(client) }
    do throws(MobulaError) {
      for range in creation.grant.toReserve { try memory.reserve(range) }
    } catch {
      for range in creation.grant.toReserve { memory.giveBack(range) }
      change { state in ((), state.machine.notCreated(creation, client: client, reserved: [])) }
      throw error
    }
    state.withLock { state in
      state.records[client]?.grants[creation.slot] = .init(range: creation.grant.range, isExtent: false)
    }
    prefault(client)
    return creation.grant.range.lowerBound
  }

  /// Memory for the client was reserved, or not. If its process ended meanwhile, so does the client.
  private func endReservation(_ client: StoreClientID) {
    let isEnd = state.withLock { state in
      guard state.records[client] != nil else { return false }
      state.records[client]!.reservations -= 1
      return state.records[client]!.hasEnded && state.records[client]!.reservations == 0
    }
    if isEnd { clientEnded(client) }
  }

  func abort(_ object: ObjectID, offset: Int, client: StoreClientID) {
    change { state in ((), state.machine.abort(object, client: client, offset: offset)) }
  }

  /// Takes the client's announcements in, this object's among them.
  ///
  /// - Throws: why it was refused.
  public func confirm(_ object: ObjectID, client: StoreClientID) throws(MobulaError) {
    takeAnnouncements(of: client)
    let refusal = state.withLock { state -> MobulaError? in
      guard let at = state.records[client]?.refusals.lastIndex(where: { $0.object == object }) else { return nil }
      return state.records[client]!.refusals.remove(at: at).error
    }
    if let refusal { throw refusal }
  }

  /// Pins an object for a client that can't by itself; takes everybody's announcements in before.
  func pin(_ object: ObjectID, client: StoreClientID) throws(MobulaError) -> StoreProtocol.Answer {
    drain(limit: ClientPage.ringCount)
    let (number, entry) = try state.withLock { state throws(MobulaError) in
      let number = try state.machine.pin(object, client: client)
      return (number, state.machine.entries[number])
    }
    return .init(words: [UInt64(number), entry.segment.number, UInt64(entry.offset), UInt64(entry.size)])
  }

  /// Reserves memory ahead of a client that puts, in the background and once at a time.
  private func prefault(_ client: StoreClientID) {
    let share =
      Int(Double(configuration.capacity.bytes) * min(max(configuration.spareShare, 0), 1)) / pageSize * pageSize
    let work = state.withLock { state -> (SegmentID, [Range<Int>], SegmentMemory)? in
      guard let id = state.machine.clients[client]?.segment, let memory = state.segments[id] else { return nil }
      let ranges = state.machine.prefault(id, upTo: share)
      return ranges.isEmpty ? nil : (id, ranges, memory)
    }
    guard let (id, ranges, memory) = work else { return }
    detachThread(named: "prefault") { [weak self] in
      for range in ranges {
        let isThere = (try? memory.reserve(range)) != nil
        self?.change { state in ((), state.machine.prefaulted(range, of: id, isThere: isThere)) }
      }
    }
  }
}

extension Store.State {
  /// - Throws: `MobulaError` (`unavailable`) when the client's process has ended.
  func checkAlive(_ client: StoreClientID) throws(MobulaError) {
    guard records[client]?.hasEnded == false else {
      throw MobulaError(.unavailable, "Client \(client) is not attached to the store: connect to the host again.")
    }
  }
}

extension StoreStateMachine {
  /// Ranges to reserve ahead in a segment, so that `share` bytes are; none while others wait for memory.
  mutating func prefault(_ id: SegmentID, upTo share: Int) -> [Range<Int>] {
    guard let space = segments[id]?.space, space.pendingBytes == 0 else { return [] }
    let wanted = min(share - space.warmBytes, capacity - used)
    guard wanted >= 65_536 else { return [] }
    let ranges = segments[id]!.space.warmUp(wanted)
    used += ranges.reduce(0) { $0 + $1.count }
    return ranges
  }

  mutating func prefaulted(_ range: Range<Int>, of id: SegmentID, isThere: Bool) -> Freed {
    var freed = Freed()
    guard segments[id] != nil else {
      used -= range.count
      return freed
    }
    if isThere {
      segments[id]!.space.didWarm(range)
    } else {
      segments[id]!.space.warmFailed(range)
      used -= range.count
    }
    // Its client may have ended meanwhile: nobody is going to put anything there.
    if segments[id]!.maker == nil, id != ownSegment, !spares.contains(id) {
      trim(id, by: range.count, &freed)
      closeIfUnneeded(id, &freed)
    }
    return freed
  }
}
