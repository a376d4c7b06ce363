internal import Glibc
public import MobulaCore
internal import Synchronization

// The shell's half of the events: ask under the lock, do what takes time outside of it.

/// What the store shares with its clients. Apart from the decisions, which ask it about pins.
///
/// `@unchecked Sendable`: used under the store's lock alone.
final class SharedSide: @unchecked Sendable {
  let index: IndexWriter
  var pages: [StoreClientID: ClientPage] = [:]

  init(_ index: IndexWriter) { self.index = index }

  /// Takes entries out of the index unless a client pins them (see <doc:ReadProtocol>).
  func retire(_ numbers: [Int], _ dooms: Bool) -> [Bool] {
    let published = numbers.filter { index.isPublished($0) }
    if published.isEmpty { return numbers.map { _ in false } }
    index.beginRetiring(published)
    var pinned: Set<Int> = []
    for page in pages.values { page.forEachPin { pinned.insert($0) } }
    for number in published {
      if !pinned.contains(number) {
        index.retire(number)
      } else if dooms {
        index.doom(number)
      } else {
        index.restore(number)
      }
    }
    return numbers.map { pinned.contains($0) && index.isPublished($0) }
  }

  /// Which entries clients pin now, and who.
  func pins() -> [StoreClientID: Set<Int>] {
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    return pages.mapValues { page in
      var pinned: Set<Int> = []
      page.forEachPin { pinned.insert($0) }
      return pinned
    }
  }
}

extension Store.State {
  var index: IndexWriter { shared.index }

  /// Puts a sealed entry into the index.
  func publish(_ number: Int) {
    let entry = machine.entries[number]
    index.publish(
      number, entry.object, segment: entry.segment.number, offset: entry.offset, size: entry.size,
      shape: EntryShape(entry).word)
  }

  /// Tells living clients what is free again, and takes what is over out of the tables.
  mutating func apply(_ freed: StoreStateMachine.Freed) -> Store.Dropped {
    var dropped = Store.Dropped()
    // Most are of one client.
    var last: (client: StoreClientID, page: ClientPage)?
    for region in freed.regions {
      if last?.client != region.client {
        // What waits for room in a ring goes before.
        last = records[region.client].flatMap { $0.unreturned.isEmpty ? (region.client, $0.page) : nil }
      }
      if last?.page.giveBack(region.offset) != true {
        last = nil
        giveBack(region.offset, to: region.client)
      }
    }
    for grant in freed.grants { records[grant.client]?.grants[grant.slot] = nil }
    for number in freed.entries {
      if !replicas.isEmpty { replicas[number] = nil }
      if !spilled.isEmpty, let file = spilled.removeValue(forKey: number) { dropped.files.append(file) }
    }
    for pages in freed.pages {
      if let memory = segments[pages.segment] { dropped.pages.append((pages, memory)) }
    }
    for id in freed.segments {
      if let memory = segments.removeValue(forKey: id) { dropped.segments.append(memory) }
    }
    return dropped
  }

  mutating func giveBack(_ offset: Int, to client: StoreClientID) {
    guard let page = records[client]?.page else { return }
    if records[client]!.unreturned.isEmpty, page.giveBack(offset) { return }
    // No client has so many regions: one that announces and takes nothing back leaks its own memory, not ours.
    if records[client]!.unreturned.count < 1 << 22 { records[client]!.unreturned.append(offset) }
  }
}

/// What an entry's seventh word says, for a store that is started again.
struct EntryShape {
  let chunkShift: Int
  let isCache: Bool
  let isDirect: Bool
  let trailerSize: Int

  init(_ entry: StoreStateMachine.Entry) {
    chunkShift = Int(entry.chunkShift)
    isCache = entry.isCache
    isDirect = entry.isDirect
    trailerSize = entry.trailerSize
  }

  init(word: UInt64) {
    chunkShift = Int(word & 0xFF)
    isCache = word & 0x100 != 0
    isDirect = word & 0x200 != 0
    trailerSize = Int(word >> 16)
  }

  var word: UInt64 {
    UInt64(chunkShift) | (isCache ? 0x100 : 0) | (isDirect ? 0x200 : 0) | UInt64(trailerSize) << 16
  }
}

extension Store {
  /// What takes time, for after the lock.
  struct Dropped: Sendable {
    var pages: [(StoreStateMachine.Freed.Pages, SegmentMemory)] = []
    var segments: [SegmentMemory] = []
    var files: [SpilledCopy] = []
  }

  /// Lets an event happen, and does after the lock what it freed.
  @discardableResult
  func change<Result: Sendable>(_ body: (inout State) -> (Result, StoreStateMachine.Freed)) -> Result {
    let (result, dropped) = state.withLock { state in
      let (result, freed) = body(&state)
      return (result, state.apply(freed))
    }
    drop(dropped)
    return result
  }

  func drop(_ dropped: Dropped) {
    for file in dropped.files { spill?.remove(file) }
    guard !dropped.pages.isEmpty || !dropped.segments.isEmpty else { return }
    for (pages, memory) in dropped.pages { memory.giveBack(pages.range) }
    for memory in dropped.segments { configuration.keeper?.drop(Recovery.segmentKey(memory.id)) }
    change { state in ((), state.machine.gaveBack(dropped.pages.map(\.0))) }
  }

  func unpin(_ entry: Int) {
    change { state in
      var freed = state.machine.unpin(entry, retire: state.shared.retire)
      if state.distrustsWarm, let own = state.machine.ownSegment {
        state.machine.trim(own, by: Int.max / 2, &freed)
        state.distrustsWarm = false
      }
      return ((), freed)
    }
  }

  func completeReceive(_ entry: Int, _ replica: Replica) throws(MobulaError) -> Bool {
    replica.writeTrailer()
    return try state.withLock { state throws(MobulaError) in
      try state.index.ensureRoom(for: entry)
      guard state.replicas[entry] === replica, state.machine.completeReceive(entry) else { return false }
      state.publish(entry)
      state.replicas[entry] = nil
      return true
    }
  }

  /// Nothing happens for a replica that was deleted: its entry may be another's by now.
  func abandonReceive(_ entry: Int, _ replica: Replica) {
    change { state in
      if state.replicas[entry] === replica { state.machine.abandonReceive(entry) }
      return ((), .init())
    }
  }

  // MARK: Room

  /// Tries until there is room, making some in between, at most until the deadline.
  ///
  /// - Parameter attempt: gives a result, or how many bytes are missing.
  func withRoom<Result: Sendable>(
    deadline: ContinuousClock.Instant, for client: StoreClientID? = nil,
    _ attempt: (inout State) throws(MobulaError) -> RoomAttempt<Result>
  ) throws(MobulaError) -> Result? {
    var isPressed = false
    while true {
      let step = try state.withLock { state throws(MobulaError) -> RoomStep<Result> in
        let missing: Int
        switch try attempt(&state) {
        case .done(let result): return .done(result)
        case .missing(let bytes): missing = bytes
        }
        for record in state.records.values { record.page.takeUses { state.machine.entries.touch($0) } }
        let pins = state.shared.pins()
        switch state.machine.makeRoom(
          missing, spills: spill != nil, isPinned: { number in pins.values.contains { $0.contains(number) } },
          retire: state.shared.retire)
        {
        case .freed(let freed, let evicted):
          let ownsMore = client.map { client in freed.regions.contains { $0.client == client } } ?? false
          return .retry(state.apply(freed), evicted: evicted, lacking: missing, ownsMore: ownsMore)
        case .spill(let number):
          let entry = state.machine.entries[number]
          return .spill(number, entry, state.segments[entry.segment]!)
        case .wait: return .wait(missing)
        }
      }
      switch step {
      case .spill where !isPressed, .wait where !isPressed:
        isPressed = true
        events.pressed()
      default: break
      }
      switch step {
      case .done(let result): return result
      case .retry(let dropped, let evicted, let lacking, let ownsMore):
        let isIdle = dropped.pages.isEmpty && dropped.segments.isEmpty && evicted.isEmpty
        drop(dropped)
        if !evicted.isEmpty { events.gone(evicted) }
        if ownsMore { return nil }
        if isIdle {
          // What is missing is being given back by another thread, or there is room, but not in one piece.
          guard ContinuousClock.now < deadline else { throw full(lacking) }
          usleep(200)
        }
      case .spill(let number, let entry, let memory):
        let limit = deadline + configuration.spillDeadline
        if let client, try spillOut(number, entry, memory, for: client, until: limit) { return nil }
        if client == nil { _ = try spillOut(number, entry, memory, for: nil, until: limit) }
      case .wait(let bytes):
        guard ContinuousClock.now < deadline else { throw full(bytes) }
        // Readers let go in shared memory, without a word to anybody.
        usleep(2000)
        drain(limit: 1024)
      }
    }
  }

  /// Why there is no room, with who pins what.
  private func full(_ bytes: Int) -> MobulaError {
    state.withLock { state in
      let pinned = state.shared.pins().map { client, numbers in
        (
          client,
          numbers.reduce(0) {
            $0 + (state.machine.entries.find($1)?.footprint ?? 0)
          }
        )
      }
      return state.machine.full(bytes, spills: spill != nil, pinned: pinned.filter { $0.1 > 0 })
    }
  }

  private enum RoomStep<Result: Sendable>: Sendable {
    case done(Result)
    case retry(Dropped, evicted: [ObjectID], lacking: Int, ownsMore: Bool)
    case spill(Int, StoreStateMachine.Entry, SegmentMemory)
    case wait(Int)
  }

  enum RoomAttempt<Result: Sendable>: Sendable {
    case done(Result)
    case missing(Int)
  }

  var roomDeadline: ContinuousClock.Instant { .now + configuration.roomDeadline }

  /// Writes an entry, which is pinned for it, to disk or elsewhere. True when a region of `client` became free by it.
  private func spillOut(
    _ number: Int, _ entry: StoreStateMachine.Entry, _ memory: SegmentMemory, for client: StoreClientID?,
    until deadline: ContinuousClock.Instant
  ) throws(MobulaError) -> Bool {
    guard let trailer = Self.trailer(of: entry, in: memory) else {
      // Its maker broke it: it can be kept as it is, but never vouched for. No reason to refuse others.
      change { state in ((), state.machine.notSpilled(number, isDamaged: true, retire: state.shared.retire)) }
      return false
    }
    let file: SpilledCopy
    do throws(MobulaError) {
      let header = SpillHeader(
        object: entry.object, geometry: trailer.geometry, flags: (entry.isCache ? 1 : 0) | (entry.isHeld ? 2 : 0),
        checksums: trailer.checksums, contains: trailer.contains)
      file = try spill!.write(
        header, bytes: memory.bytes(of: entry.offset..<entry.offset + entry.size), until: deadline)
    } catch {
      change { state in ((), state.machine.notSpilled(number, retire: state.shared.retire)) }
      throw error
    }
    let (left, isOwn): (Bool, Bool) = change { state in
      let (left, freed) = state.machine.spilled(number, retire: state.shared.retire)
      if left { state.spilled[number] = file }
      return ((left, client.map { client in freed.regions.contains { $0.client == client } } ?? false), freed)
    }
    if !left { spill!.remove(file) }
    return isOwn
  }

  /// Finds a place for something that the store fills, growing and making room as it takes.
  ///
  /// - Parameter limit: when it gives up; as the configuration says by default.
  func place(
    until limit: ContinuousClock.Instant? = nil,
    _ event: (inout StoreStateMachine) throws(MobulaError) -> StoreStateMachine.Place
  ) throws(MobulaError) -> (StoreStateMachine.Filling, SegmentMemory) {
    let deadline = limit ?? roomDeadline
    while true {
      enum Step: Sendable {
        case place(StoreStateMachine.Filling, SegmentMemory)
        case grow(StoreStateMachine.Grant, SegmentMemory)
      }
      let step = try withRoom(deadline: deadline) { state throws(MobulaError) -> RoomAttempt<Step> in
        let own = state.segments[state.machine.ownSegment!]!
        switch try event(&state.machine) {
        case .filling(let filling): return .done(.place(filling, own))
        case .noRoom(let bytes): return .missing(bytes)
        case .needsExtent(let bytes):
          guard let grant = state.machine.growOwn(bytes) else { return .missing(bytes) }
          return .done(.grow(grant, own))
        }
      }
      switch step! {
      case .place(let filling, let memory): return (filling, memory)
      case .grow(let grant, let memory):
        do throws(MobulaError) {
          for range in grant.toReserve { try memory.reserve(range) }
        } catch {
          state.withLock { $0.machine.notReserved(grant, reserved: []) }
          throw error
        }
        state.withLock { $0.machine.ownGrown(grant) }
      }
    }
  }

  // MARK: Spilled objects

  /// Brings a spilled object back into memory; nothing happens to any other. Blocks.
  ///
  /// - Throws: `MobulaError`: `full`; `corrupted`, `notFound` or `inputOutput` when its file is no good: it is
  ///   no longer here then. It still is when it can't be reached where it is, which is any other error.
  /// - Parameter patience: how long it waits for room; as the configuration says by default.
  public func restore(_ object: ObjectID, patience: Duration? = nil) throws(MobulaError) {
    let deadline = min(roomDeadline, .now + (patience ?? configuration.roomDeadline))
    while true {
      let found = state.withLock { state -> (Int, StoreStateMachine.Phase, SpilledCopy?)? in
        state.machine.entries.find(object).map { ($0.number, $0.entry.phase, state.spilled[$0.number]) }
      }
      guard let (number, phase, spilled) = found else { return }
      switch phase {
      case .restoring:
        guard ContinuousClock.now < deadline + .seconds(300) else {
          throw MobulaError(.deadlineExceeded, "Object \(object) was not restored in time: try again.")
        }
        usleep(1000)
        continue
      case .spilled: break
      default: return
      }
      guard let spilled else { return }
      var isOthers = false
      let filling: StoreStateMachine.Filling
      let memory: SegmentMemory
      do throws(MobulaError) {
        (filling, memory) = try place(until: deadline) { machine throws(MobulaError) in
          guard machine.entries.number(of: object) == number, machine.entries[number].phase == .spilled else {
            isOthers = true
            throw StoreStateMachine.notFound(object)
          }
          return machine.beginRestore(number)
        }
      } catch {
        // Another thread was faster, or it was deleted.
        if isOthers { continue }
        throw error
      }
      let entry = state.withLock { $0.machine.entries[filling.entry] }
      do throws(MobulaError) {
        for range in filling.grant?.toReserve ?? [] { try memory.reserve(range) }
        let target = memory.writableBytes(of: filling.offset..<filling.offset + entry.footprint)
        let description = try spill!.read(
          spilled, into: UnsafeMutableRawBufferPointer(rebasing: target[..<entry.size]))
        ObjectTrailer.write(
          object, spilled.geometry, checksums: description.checksums, contains: description.contains, to: target)
        try state.withLock { state throws(MobulaError) in try state.index.ensureRoom(for: number) }
      } catch {
        change { state in
          if error.code == .full { state.distrustsWarm = true }
          return ((), state.machine.abandonRestore(number, retire: state.shared.retire))
        }
        if [.corrupted, .notFound, .inputOutput].contains(error.code) {
          delete(object)
          events.gone([object])
        }
        throw error
      }
      let file: SpilledCopy? = change { state in
        let isWanted = state.machine.completeRestore(number)
        if isWanted { state.publish(number) }
        let file = isWanted ? state.spilled.removeValue(forKey: number) : nil
        return (file, isWanted ? .init() : state.machine.reap(retire: state.shared.retire))
      }
      if let file { spill!.remove(file) }
      return
    }
  }

  /// Whether the object's bytes are on disk, or elsewhere, and not in memory.
  public func isSpilled(_ object: ObjectID) -> Bool {
    state.withLock { state in
      guard let phase = state.machine.entries.find(object)?.entry.phase else {
        return false
      }
      return phase == .spilled || phase == .restoring
    }
  }
}
