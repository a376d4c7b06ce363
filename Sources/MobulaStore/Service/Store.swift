internal import CMobula
internal import Glibc
public import MobulaCore
internal import Synchronization

/// What a store is started with.
public struct StoreConfiguration: Sendable {
  /// The most bytes that segments may take; at least 1 MiB. Memory is reserved as objects come.
  public var capacity: ByteCount
  /// Where the store's socket is to be, in a folder that is there; at most 107 bytes.
  public var socket: String
  /// Folders for objects that have no room in memory; none, and a full store is an error.
  public var spillDirectories: [String]
  /// For objects that have no room in the folders either.
  public var spillPlace: (any SpillPlace)?
  /// The share of the capacity in which free memory is kept warm for the next objects, from 0 to 1.
  public var warmShare: Double
  /// The share of the capacity that is reserved ahead of those who put, from 0 to 1.
  public var spareShare: Double
  /// How long a put waits for room.
  public var roomDeadline: Duration
  /// How much longer it waits for what is being written to `spillPlace`.
  public var spillDeadline = Duration.seconds(40)
  /// Keeps the descriptors for a store that is started again; none, and all is lost with the process.
  public var keeper: KeeperConnection?

  public init(
    capacity: ByteCount, socket: String, spillDirectories: [String] = [], warmShare: Double = 0.5,
    spareShare: Double = 0.02, roomDeadline: Duration = .seconds(10), keeper: KeeperConnection? = nil
  ) {
    self.capacity = capacity
    self.socket = socket
    self.spillDirectories = spillDirectories
    self.warmShare = warmShare
    self.spareShare = spareShare
    self.roomDeadline = roomDeadline
    self.keeper = keeper
  }
}

/// What a store tells its host. Called on the store's threads, which wait for it.
public struct StoreEvents: Sendable {
  /// Objects were sealed by their makers, in this order.
  public var sealed: @Sendable ([SealedObject]) -> Void = { _ in }
  /// Objects had to make room, or were lost with a damaged copy on disk or elsewhere.
  public var gone: @Sendable ([ObjectID]) -> Void = { _ in }
  /// There is no room but what others have to give: whoever keeps what it need not keep lets go of it now. From a thread
  /// that waits for the room.
  public var pressed: @Sendable () -> Void = {}
  /// A client's process has ended.
  public var clientGone: @Sendable (StoreClientID) -> Void = { _ in }

  public init() {}
}

/// An object that its maker has sealed.
public struct SealedObject: Sendable, Hashable {
  public let object: ObjectID
  public let geometry: ChunkGeometry
  /// The objects whose references lie inside.
  public let contains: [ObjectID]
  public let maker: StoreClientID
  /// Whether the maker holds it.
  public let isHeld: Bool
}

/// A host's object store: immutable objects in shared memory, of which every process of the host maps
/// the same bytes.
///
/// Clients look objects up, pin them and announce new ones in shared memory, without a call
/// (<doc:ReadProtocol>); they call, over a Unix socket, to attach, for more memory, and for what is rare.
/// All of the store's memory survives this process where a keeper has the descriptors.
public final class Store: Sendable {
  struct ClientRecord: Sendable {
    let page: ClientPage
    let grants: GrantTable
    /// Readable once the process has ended; `nil` where the system can't tell, and then its socket does.
    var process: SharedDescriptor?
    /// Regions that did not fit into the ring of its page.
    var unreturned: [Int] = []
    /// Why announcements were refused, the latest of them.
    var refusals: [(object: ObjectID, error: MobulaError)] = []
    /// Connections of this client.
    var connections = 0
    /// What its descriptors are kept as.
    let key: String
    /// How many threads reserve memory for it: it can't go before they are done.
    var reservations = 0
    /// Its process is gone.
    var hasEnded = false
  }

  struct State: Sendable {
    var machine: StoreStateMachine
    let shared: SharedSide
    var records: [StoreClientID: ClientRecord] = [:]
    var segments: [SegmentID: SegmentMemory] = [:]
    /// Of arriving objects.
    var replicas: [Int: Replica] = [:]
    var spilled: [Int: SpilledCopy] = [:]
    var tickets = TicketBook()
    /// The own segment's warm memory may have gaps: reserving failed.
    var distrustsWarm = false
  }

  public let configuration: StoreConfiguration
  /// Told what goes wrong of which nobody is told by a call.
  let trouble: @Sendable (MobulaError) -> Void
  private let listener = Mutex(StoreEvents())
  let state: Mutex<State>
  let draining = Mutex(())
  let spill: SpillSpace?
  /// Rung by clients that announce something while the store's thread sleeps.
  let doorbell: SharedDescriptor
  let server: StoreServer
  let pump: StorePump
  /// How many objects and clients a restart found; `nil` for a store that began empty.
  public let recovered: (objects: Int, clients: Int)?

  /// A store: what its keeper has of one that died, else an empty one. `start` makes it reachable.
  ///
  /// - Parameter trouble: told what goes wrong of which nobody is told by a call.
  ///
  /// Blocks while it looks for what such a one has spilled to a place: on a thread of its own.
  /// - Throws: `MobulaError`: `invalidArgument`, `inputOutput`, `mismatch` when what was kept is another version's.
  public init(
    _ configuration: StoreConfiguration, trouble: @escaping @Sendable (MobulaError) -> Void = { _ in }
  ) throws(MobulaError) {
    self.configuration = configuration
    self.trouble = trouble
    server = try StoreServer(path: configuration.socket)
    let kept = try Recovery.kept(by: configuration.keeper)
    let machine = try StoreStateMachine(
      capacity: configuration.capacity.bytes,
      warmLimit: Int(Double(configuration.capacity.bytes) * min(max(configuration.warmShare, 0), 1)))
    var state: State
    if let kept {
      doorbell = kept.doorbell
      let index = try IndexWriter.takeOver(kept.index)
      spill = Self.spillSpace(configuration, index, trouble)
      state = State(machine: machine, shared: SharedSide(index))
      recovered = try Recovery.rebuild(&state, kept, spill: spill, keeper: configuration.keeper)
    } else {
      var random = SystemRandomNumberGenerator()
      let index = try IndexWriter.make(instance: (random.next(), random.next()))
      spill = Self.spillSpace(configuration, index, trouble)
      doorbell = SharedDescriptor(
        OwnedDescriptor(owning: try systemCall("An event descriptor can't be made") { mobula_bell() }))
      try configuration.keeper?.keep(Recovery.indexKey, [index.descriptor.rawValue, doorbell.rawValue])
      state = State(machine: machine, shared: SharedSide(index))
      recovered = nil
    }
    if state.machine.ownSegment == nil {
      let id = SegmentID(state.index.takeNumber(.nextSegment))
      let size = state.machine.segmentSize
      let memory = try SegmentMemory(id, size: size, isOwn: true)
      try configuration.keeper?.keep(Recovery.ownKey(id), [memory.writable.rawValue])
      state.machine.ownSegment = id
      state.machine.segments[id] = .init(
        size: size, maker: nil, user: getuid(), space: VirtualSpace(size: size, granularity: pageSize))
      state.segments[id] = memory
    }
    self.state = Mutex(state)
    pump = StorePump(doorbell: doorbell)
  }

  private static func spillSpace(
    _ configuration: StoreConfiguration, _ index: IndexWriter, _ trouble: @escaping @Sendable (MobulaError) -> Void
  ) -> SpillSpace? {
    let instance = SpillInstance(high: index.instance.high, low: index.instance.low)
    let remote = configuration.spillPlace.map { RemoteSpill($0, instance: instance, trouble: trouble) }
    return SpillSpace(paths: configuration.spillDirectories, remote: remote, instance: instance)
  }

  /// Whom the store tells of what happens.
  var events: StoreEvents { listener.withLock { $0 } }

  /// Serves clients from now until `close`, on threads of its own.
  ///
  /// - Parameter events: told of what happens from now on; nothing has happened before.
  /// - Throws: `MobulaError`: `alreadyExists` when another store serves the socket, else `inputOutput`.
  public func start(_ events: StoreEvents = StoreEvents()) throws(MobulaError) {
    listener.withLock { $0 = events }
    try pump.start(self)
    do throws(MobulaError) {
      try server.start(self)
    } catch {
      pump.close()
      throw error
    }
    for problem in spill?.problems ?? [] { trouble(problem) }
    // Now that no other store serves the socket, none has anything there.
    spill?.clean()
  }

  /// Ends the store in order: its socket, what it spilled and kept descriptors are gone. What clients
  /// have mapped stays mapped. Blocks, with a spill place on a thread of its own.
  public func close() {
    // The supervisor kills this process 5 s after it told it to end.
    let start = ContinuousClock.now
    spill?.end()
    server.close(until: start + .seconds(2))
    pump.close()
    spill?.removeAll(until: start + .seconds(4))
    // Who listens has the store, mostly.
    listener.withLock { $0 = StoreEvents() }
    let (segments, clients) = state.withLock { state in
      (Array(state.segments.keys), state.records.values.map(\.key))
    }
    guard let keeper = configuration.keeper else { return }
    for id in segments {
      keeper.drop(Recovery.segmentKey(id))
      keeper.drop(Recovery.ownKey(id))
    }
    for key in clients { keeper.drop(key) }
    keeper.drop(Recovery.indexKey)
  }

  /// Grows with every start on the same memory, from 1.
  public var incarnation: UInt64 { state.withLock { $0.index.incarnation } }

  // MARK: Clients

  /// The right to attach, once and soon: for a process that is known to have the cluster's token.
  package func ticket() -> DescriptorTicket {
    var generator = SystemRandomNumberGenerator()
    return state.withLock { $0.tickets.issue(now: .now, using: &generator) }
  }

  /// The clients whose processes live.
  public var clients: [StoreClientID] { state.withLock { Array($0.records.keys) } }

  /// Whether this client is attached with this secret, which is in its page.
  package func isAttached(_ client: StoreClientID, secret: ClientSecret) -> Bool {
    state.withLock { $0.records[client].map { $0.page.secret == secret } ?? false }
  }

  // MARK: Objects

  /// Waits until everything that a client announced before was taken in; nothing happens for one that is gone.
  public func takeAnnouncements(of client: StoreClientID) {
    let isTaken = draining.withLock { _ in state.withLock { $0.records[client]?.page.isTaken ?? true } }
    // A whole ring is all that can have been announced by now; a client that goes on and on is not waited for.
    if !isTaken { drain(limit: ClientPage.ringCount) }
  }

  /// Whether something holds the object: held ones are evicted after all others.
  public func setHeld(_ objects: [ObjectID], _ isHeld: Bool) {
    state.withLock { state in
      for object in objects { state.machine.setHeld(object, isHeld) }
    }
  }

  /// These replicas are not evicted from now on, since no other is known to stay.
  public func keep(_ objects: [ObjectID]) {
    state.withLock { state in
      for object in objects { state.machine.setCache(object, false) }
    }
  }

  /// Whether the object is here, and not evicted while something holds it.
  public func isPrimary(_ object: ObjectID) -> Bool {
    state.withLock { $0.machine.entries.find(object).map { !$0.entry.isCache } ?? false }
  }

  /// Nobody holds these objects, and nobody else was told of them, so that nobody can ask for them any more. They stay
  /// until somebody deletes them, or until their room is wanted.
  public func setUnwanted(_ objects: [ObjectID]) {
    state.withLock { state in
      for object in objects { state.machine.setUnwanted(object) }
    }
  }

  /// Removes an object in whatever state it is; its memory goes when nobody pins it any more.
  /// Whoever waits for a chunk that had not arrived gets `notFound`. False when it wasn't here.
  @discardableResult
  public func delete(_ object: ObjectID) -> Bool { delete(CollectionOfOne(object)) > 0 }

  /// As of one object, for many, some of them at a time.
  ///
  /// - Returns: how many were here.
  @discardableResult
  public func delete(_ objects: some Collection<ObjectID>) -> Int {
    var count = 0
    var rest = objects[...]
    while !rest.isEmpty {
      // So few that nobody waits long for the lock.
      let batch = rest.prefix(256)
      rest = rest.dropFirst(256)
      let (found, arriving): (Int, [(ObjectID, Replica)]) = change { state in
        // A replica is known by its entry, which may be gone when its object is.
        let arriving =
          state.replicas.isEmpty
          ? []
          : batch.compactMap { object in
            state.machine.entries.number(of: object).flatMap { state.replicas[$0] }.map { (object, $0) }
          }
        let (deleted, freed) = state.machine.delete(batch, retire: state.shared.retire)
        return ((deleted.count, arriving), freed)
      }
      for (object, replica) in arriving {
        replica.abandon(MobulaError(.notFound, "Object \(object) was deleted while it was arriving."))
      }
      count += found
    }
    return count
  }

  /// A replica for the store's process to fill. Blocks for room at most as long as the configuration says.
  ///
  /// - Parameters:
  ///   - isCache: whether there is another replica, so that this one may be evicted.
  ///   - isOrigin: whether it is filled from elsewhere than another host.
  /// - Throws: `MobulaError`: `alreadyExists`, `full`.
  package func receive(
    _ object: ObjectID, geometry: ChunkGeometry, isCache: Bool = true, isOrigin: Bool = false
  ) throws(MobulaError) -> any ReplicaWriter {
    let (filling, memory) = try place { machine throws(MobulaError) in
      try machine.receive(object, geometry: geometry, isCache: isCache)
    }
    var reservation: Reservation?
    if let grant = filling.grant, !grant.toReserve.isEmpty {
      reservation = Reservation(reserved: 0)
      reservation!.start(grant.range, grant.toReserve, in: memory) { [weak self] _ in
        self?.state.withLock { $0.distrustsWarm = true }
      }
    }
    let replica = Replica(
      object, geometry: geometry, memory: memory, offset: filling.offset, reservation: reservation,
      isOrigin: isOrigin)
    state.withLock { $0.replicas[filling.entry] = replica }
    return StoreReplicaWriter(replica, entry: filling.entry, store: self)
  }

  /// A sealed or arriving object to send from, pinned as long as the source lives; `nil` when it isn't
  /// here, or its trailer is not whole. Blocks while a spilled one is restored.
  package func source(_ object: ObjectID) -> (any ChunkSource)? {
    do throws(MobulaError) {
      try restore(object, patience: Self.shortPatience)
    } catch {
      // There is no room for it, and none is needed to send it.
      if let file = spilledSource(object) { return file }
    }
    let pinned = state.withLock { state in
      state.machine.setWanted(object)
      return state.machine.pinSource(object).map { ($0, state.machine.entries[$0], state.replicas[$0]) }
    }
    guard let (number, entry, arriving) = pinned else { return nil }
    if let arriving { return StoreSource(arriving, pinned: number, store: self) }
    guard let memory = state.withLock({ $0.segments[entry.segment] }), let trailer = Self.trailer(of: entry, in: memory)
    else {
      unpin(number)
      return nil
    }
    let replica = Replica(
      object, geometry: trailer.geometry, memory: memory, offset: entry.offset, checksums: trailer.checksums,
      isOrigin: !entry.isCache)
    return StoreSource(replica, pinned: number, store: self)
  }

  static func trailer(of entry: StoreStateMachine.Entry, in memory: SegmentMemory) -> ObjectTrailer? {
    ObjectTrailer.read(
      entry.object, size: entry.size, from: memory.bytes(of: entry.offset..<entry.offset + entry.footprint))
  }

  /// A sealed object's digest and chunks, wherever it is; `nil` when it isn't here, not complete, or damaged.
  public func info(of object: ObjectID) -> ReplicaInfo? {
    trailer(of: object).map { ReplicaInfo(object: object, geometry: $0.geometry, digest: $0.digest) }
  }

  /// The objects whose references lie inside a sealed one.
  public func contents(of object: ObjectID) -> [ObjectID] { trailer(of: object)?.contains ?? [] }

  /// What is kept with a sealed object, in memory or on disk.
  private func trailer(of object: ObjectID) -> ObjectTrailer? {
    let found = state.withLock { state -> (Int, StoreStateMachine.Entry, SegmentMemory?, SpilledCopy?)? in
      guard let (number, entry) = state.machine.entries.find(object) else { return nil }
      if entry.phase == .sealed { _ = state.machine.pinSource(object, isUse: false) }
      return (number, entry, state.segments[entry.segment], state.spilled[number])
    }
    guard let (number, entry, memory, spilled) = found else { return nil }
    switch entry.phase {
    case .sealed:
      defer { unpin(number) }
      return memory.flatMap { Self.trailer(of: entry, in: $0) }
    case .spilled, .restoring:
      guard let spilled, let description = try? spill?.describe(spilled) else { return nil }
      return ObjectTrailer(
        object: object, geometry: spilled.geometry, checksums: description.checksums, contains: description.contains)
    case .writing, .receiving, .doomed: return nil
    }
  }

  /// Bytes of the object in verified chunks, and in all; `nil` when nothing of it is here.
  public func progress(of object: ObjectID) -> (verified: Int, total: Int)? {
    let found = state.withLock { state in
      state.machine.entries.find(object).map { ($0.entry, state.replicas[$0.number]) }
    }
    guard let (entry, replica) = found, entry.phase != .writing else { return nil }
    guard entry.phase == .receiving, let replica else { return (entry.size, entry.size) }
    return (min(entry.size, replica.chunkMap.verifiedCount * replica.geometry.chunkSize), entry.size)
  }

  /// How many objects are here, in whatever state.
  public var objectCount: Int { state.withLock { $0.machine.entries.count } }

  /// All sealed objects, by identifier.
  public var objects: [ObjectID] {
    state.withLock { state in
      state.machine.entries.all.filter { $0.entry.phase == .sealed || $0.entry.phase == .spilled }.map(\.entry.object)
        .sorted()
    }
  }

  /// What all of them are; reads every one's trailer. Of each that was announced here `events` has been told before.
  public func inventory() -> [ReplicaInfo] { draining.withLock { _ in objects }.compactMap { info(of: $0) } }

  /// Objects that are on their way here, by identifier.
  package var arriving: [(object: ObjectID, geometry: ChunkGeometry)] {
    state.withLock { state in
      state.replicas.filter { state.machine.entries.find($0.key)?.phase == .receiving }
        .map { ($0.value.object, $0.value.geometry) }
    }.sorted { $0.0 < $1.0 }
  }

  /// The objects of a job that are here.
  public func objects(of job: JobID) -> [ObjectID] {
    state.withLock { $0.machine.entries.objects.filter { $0.job == job } }.sorted()
  }
}
