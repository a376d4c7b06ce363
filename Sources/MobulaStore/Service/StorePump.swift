internal import CMobula
internal import Glibc
internal import MobulaCore
internal import Synchronization

/// The store's thread that takes what clients announce, and notices their end.
///
/// While announcements come it looks for more without a system call; it sleeps once there were none for
/// a moment, after it has said so in the index: who announces something then rings the doorbell.
final class StorePump: Sendable {
  /// How long it looks before it sleeps. Longer than a wake-up takes.
  private static let patience = Duration.microseconds(60)
  /// How long it takes announcements before it looks for processes that ended.
  private static let longestDrain = Duration.milliseconds(20)

  private struct State {
    var poller: SharedDescriptor?
    var isRunning = false
    var isStopping = false
  }

  private let doorbell: SharedDescriptor
  private let state = Monitor(State())

  init(doorbell: SharedDescriptor) { self.doorbell = doorbell }

  /// - Throws: `MobulaError` (`inputOutput`).
  func start(_ store: Store) throws(MobulaError) {
    let poller = SharedDescriptor(
      OwnedDescriptor(owning: try systemCall("An epoll descriptor can't be made") { mobula_watcher() }))
    state.update {
      $0.poller = poller
      $0.isRunning = true
    }
    watch(doorbell.rawValue, 0)
    for (client, process) in store.processes() { watch(process.rawValue, client.number) }
    let (state, doorbell) = (state, doorbell)
    detachThread(named: "store") { [weak store] in
      Self.run(poller: poller, doorbell: doorbell, isStopping: { state.read { $0.isStopping } }) { store }
      state.update { $0.isRunning = false }
    }
  }

  /// Notices the end of a client's process from now on; false when the system can't.
  @discardableResult
  func watch(_ descriptor: CInt, _ client: UInt64) -> Bool {
    // What is not watched yet is when the thread starts.
    guard let poller = state.read({ $0.poller }) else { return true }
    return mobula_watch(poller.rawValue, descriptor, client) == 0
  }

  func unwatch(_ descriptor: CInt) {
    guard let poller = state.read({ $0.poller }) else { return }
    mobula_unwatch(poller.rawValue, descriptor)
  }

  func ring() {
    var one: UInt64 = 1
    _ = write(doorbell.rawValue, &one, 8)
  }

  /// Waits for the thread to end.
  func close() {
    state.update { $0.isStopping = true }
    ring()
    let end = ContinuousClock.now + .seconds(10)
    _ = try? state.wait(until: end) { $0.isRunning ? nil : () }
  }

  private static func run(
    poller: SharedDescriptor, doorbell: SharedDescriptor, isStopping: () -> Bool, _ store: () -> Store?
  ) {
    var tags = [UInt64](repeating: 0, count: 64)
    var timeout: CInt = 0
    /// Waits for the doorbell, or for the end of a process. False when the store is gone.
    func look(_ timeout: CInt, _ woken: (Store) -> Void) -> Store? {
      let count = mobula_wait(poller.rawValue, &tags, CInt(tags.count), timeout)
      guard let store = store() else { return nil }
      woken(store)
      for client in tags.prefix(Int(max(count, 0))) {
        if client == 0 { mobula_take_bell(doorbell.rawValue) } else { store.clientEnded(StoreClientID(client)) }
      }
      return store
    }
    while !isStopping() {
      guard let store = look(timeout, { $0.setAsleep(false) }) else { return }
      var quietSince = ContinuousClock.now
      var looked = quietSince
      while true {
        let count = store.drain(limit: 256)
        let now = ContinuousClock.now
        if count > 0 {
          quietSince = now
        } else if quietSince.duration(to: now) > patience {
          break
        }
        // Who announces without a pause must not hide the end of others.
        if looked.duration(to: now) > longestDrain {
          looked = now
          guard !isStopping(), look(0, { _ in }) != nil else { return }
          _ = store.hasLeftovers()
        }
      }
      store.setAsleep(true)
      // Awake again as soon as something is found: telling the host takes time, in which nobody has to ring.
      if store.drain(limit: 256, found: { store.setAsleep(false) }) > 0 {
        timeout = 0
        continue
      }
      // What is deleted and pinned, and what found no room in a ring, is looked at again soon; and all of it now and
      // then, since any process that has the doorbell can take what another one rang.
      timeout = store.hasLeftovers() ? 20 : 500
    }
  }
}

extension Store {
  /// The ends of the clients' processes.
  func processes() -> [(StoreClientID, SharedDescriptor)] {
    state.withLock { $0.records.compactMap { id, record in record.process.map { (id, $0) } } }
  }

  /// Who announces something must know whether anybody looks: our word before our look, as there the
  /// announcement before the look at the word.
  func setAsleep(_ isAsleep: Bool) {
    let word = state.withLock { $0.index.header(.isAsleep) }
    word.pointee.store(isAsleep ? 1 : 0, ordering: .relaxed)
    atomicMemoryFence(ordering: .sequentiallyConsistent)
  }

  /// Whether there is something to do that nobody announces.
  func hasLeftovers() -> Bool {
    let dropped = state.withLock { state -> Dropped in
      for (id, record) in state.records where !record.unreturned.isEmpty {
        var rest = record.unreturned[...]
        while let offset = rest.first, record.page.giveBack(offset) { rest.removeFirst() }
        state.records[id]!.unreturned = Array(rest)
      }
      let freed = state.machine.doomed.isEmpty ? .init() : state.machine.reap(retire: state.shared.retire)
      return state.apply(freed)
    }
    drop(dropped)
    return state.withLock { state in
      !state.machine.doomed.isEmpty || state.records.values.contains { !$0.unreturned.isEmpty }
    }
  }

  /// Takes announcements of all clients, so many of each, and returns how many there were.
  @discardableResult
  func drain(limit: Int, found: () -> Void = {}) -> Int {
    // One at a time: whoever finds everything taken must know that the host was told, too.
    draining.withLock { _ in drainAlone(limit: limit, found: found) }
  }

  private func drainAlone(limit: Int, found: () -> Void) -> Int {
    var sealed: [SealedObject] = []
    var count = 0
    let (result, dropped): (Int, Dropped) = state.withLock { state in
      var freed = StoreStateMachine.Freed()
      for (id, record) in state.records where !record.page.isTaken {
        count += record.page.takeAnnouncements(limit: limit) { announcement in
          if let announcement { state.take(announcement, of: id, &freed, &sealed) }
        }
      }
      return (count, state.apply(freed))
    }
    if count > 0 { found() }
    drop(dropped)
    if !sealed.isEmpty { events.sealed(sealed) }
    return result
  }

  /// A client's process has ended: what it announced is taken, then it is forgotten.
  func clientEnded(_ client: StoreClientID) {
    takeAnnouncements(of: client)
    dropBroken(of: client)
    let (record, isOver): (ClientRecord?, Bool) = change { state in
      guard let record = state.records[client] else { return ((nil, false), .init()) }
      // What is being reserved for it may not be given to others yet: who reserves comes back here.
      guard record.reservations == 0 else {
        state.records[client]!.hasEnded = true
        return ((record, false), .init())
      }
      state.records[client] = nil
      state.shared.pages[client] = nil
      return ((record, true), state.machine.detach(client, retire: state.shared.retire).freed)
    }
    if let process = record?.process { pump.unwatch(process.rawValue) }
    guard let record, isOver else { return }
    configuration.keeper?.drop(record.key)
    events.clientGone(client)
  }
}

extension Store {
  /// What a maker broke after it announced it can't be vouched for, moved nor told of: it goes when its maker does.
  private func dropBroken(of client: StoreClientID) {
    let made = state.withLock { state -> [Int] in
      guard let segment = state.machine.clients[client]?.segment, state.machine.segments[segment]?.entries != 0 else {
        return []
      }
      return state.machine.entries.all.filter { $0.entry.maker == client }.map(\.number)
    }
    var broken: [ObjectID] = []
    // By the batch, so that nobody waits long for the lock, under which alone the memory stays what it is.
    for batch in stride(from: 0, to: made.count, by: 1024) {
      broken += state.withLock { state in
        made[batch..<min(made.count, batch + 1024)].compactMap { state.brokenObject($0, of: client) }
      }
    }
    delete(broken)
    if !broken.isEmpty { events.gone(broken) }
  }
}

extension Store.State {
  /// The object of an entry that this client made, if its trailer is not what it was.
  fileprivate func brokenObject(_ number: Int, of client: StoreClientID) -> ObjectID? {
    guard let entry = machine.entries.find(number), entry.maker == client, entry.phase == .sealed,
      let memory = segments[entry.segment]
    else { return nil }
    let start = entry.offset + ObjectTrailer.offset(objectSize: entry.size)
    let isWhole = ObjectTrailer.isWhole(
      entry.object, size: entry.size, chunkShift: Int(entry.chunkShift),
      memory.bytes(of: start..<entry.offset + entry.footprint))
    return isWhole ? nil : entry.object
  }

  /// Takes one announcement in.
  mutating func take(
    _ announcement: ClientPage.Announcement, of id: StoreClientID, _ freed: inout StoreStateMachine.Freed,
    _ sealed: inout [SealedObject]
  ) {
    switch announcement.kind {
    case .giveBack:
      freed += machine.giveBack(id, offset: announcement.offset, size: announcement.size)
    case .unpin:
      freed += machine.unpin(announcement.offset, client: id, retire: shared.retire)
    case .put:
      do throws(MobulaError) {
        try index.ensureRoom(for: machine.entries.next)
      } catch {
        return refuse(announcement.object, error, id)
      }
      var contains: [ObjectID] = []
      let segments = segments
      let announced = machine.announce(announcement, client: id) { segment, announcement in
        guard let memory = segments[segment] else { return false }
        return Self.isWhole(announcement, in: memory, contains: &contains)
      }
      switch announced {
      case .known: return
      case .refused(let error, let given):
        freed += given
        refuse(announcement.object, error, id)
      case .sealed(let number, let given):
        freed += given
        publish(number)
        let entry = machine.entries[number]
        guard let geometry = try? ChunkGeometry(objectSize: entry.size, chunkSize: 1 << Int(entry.chunkShift)) else {
          return
        }
        sealed.append(
          SealedObject(
            object: entry.object, geometry: geometry, contains: contains, maker: id, isHeld: announcement.holds))
      }
    }
  }

  /// Whether the trailer of an announced object is its own and whole; with what the object contains.
  ///
  /// - Precondition: the object lies in memory that its maker was given: a look at other addresses would make pages.
  private static func isWhole(
    _ announcement: ClientPage.Announcement, in memory: SegmentMemory, contains: inout [ObjectID]
  ) -> Bool {
    let (size, shift) = (announcement.size, announcement.chunkShift)
    let start = ObjectTrailer.offset(objectSize: size)
    let end = announcement.offset + start + announcement.trailerSize
    guard end <= memory.size else { return false }
    let chunks = (size + (1 << shift) - 1) >> shift
    if announcement.trailerSize == ObjectTrailer.size(chunks: chunks, contained: 0) {
      return ObjectTrailer.isWhole(
        announcement.object, size: size, chunkShift: shift, memory.bytes(of: announcement.offset + start..<end))
    }
    let trailer = ObjectTrailer.read(
      announcement.object, size: size, from: memory.bytes(of: announcement.offset..<end))
    guard let trailer, trailer.geometry.chunkShift == shift else { return false }
    contains = trailer.contains
    return true
  }

  private mutating func refuse(_ object: ObjectID, _ error: MobulaError, _ id: StoreClientID) {
    guard records[id] != nil else { return }
    records[id]!.refusals.append((object, error))
    if records[id]!.refusals.count > 64 { records[id]!.refusals.removeFirst() }
  }
}
