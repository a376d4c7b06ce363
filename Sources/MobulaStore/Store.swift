public import MobulaCore
internal import Synchronization

/// A host's object store: immutable objects in shared memory, of which every
/// process of the host maps the same bytes.
///
/// Clients write small objects into arenas and big ones into segments of their
/// own; what comes from other hosts or from S3 lies in segments that only the
/// store writes. Readers get read-only descriptors, through a Unix socket, for
/// the ticket in a `Placement`.
public final class Store: Sendable {
  struct State: Sendable {
    var machine: StoreStateMachine
    var segments: [SegmentID: SegmentMemory] = [:]
    /// Of sealed and arriving entries.
    var replicas: [EntryID: Replica] = [:]
    var tickets = TicketBook()
  }

  let name: String
  /// The most bytes that its segments take.
  public let capacity: ByteCount
  let onEvict: @Sendable ([ObjectID]) -> Void
  let state: Mutex<State>
  private let server: DescriptorServer

  /// An empty store; `start` makes it reachable.
  ///
  /// - Parameters:
  ///   - capacity: the most bytes that segments may take, at least 1 MiB. Memory is reserved as objects come.
  ///   - path: where the descriptor socket is to be, in a folder that is there; at most 107 bytes.
  ///   - name: shows in `/proc/PID/maps`.
  ///   - onEvict: told which objects had to make room, on the thread that needed it.
  /// - Throws: `MobulaError` (`invalidArgument`).
  public init(
    capacity: ByteCount, socket path: String, name: String = "mobula",
    onEvict: @escaping @Sendable ([ObjectID]) -> Void = { _ in }
  ) throws(MobulaError) {
    let machine = try StoreStateMachine(capacity: capacity.bytes, epoch: UInt32.random(in: 1...UInt32.max))
    self.server = try DescriptorServer(path: path)
    self.name = name
    self.capacity = capacity
    self.onEvict = onEvict
    self.state = Mutex(State(machine: machine))
  }

  /// Serves the descriptor socket from now until `close`, on a thread of its own.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when another store serves that socket, else `inputOutput`.
  public func start() throws(MobulaError) {
    try server.start { [weak self] ticket in self?.redeem(ticket) }
  }

  /// Ends serving and removes the socket. What clients have mapped stays mapped.
  public func close() { server.close() }

  // MARK: Clients

  /// A client has connected.
  public func attach() -> StoreClientID {
    state.withLock { $0.machine.attach() }
  }

  /// A client is gone: its pins are released, and its unsealed objects, which are returned, are aborted.
  @discardableResult
  public func detach(_ client: StoreClientID) -> [ObjectID] {
    change { state in
      let detachment = state.machine.detach(client)
      return (detachment.aborted, detachment.freed)
    }
  }

  /// Memory for a new object of `size` bytes, for `client` to write. Blocks while
  /// a new segment's pages are reserved: about a second for 1 GB.
  ///
  /// - Throws: `MobulaError`: `alreadyExists`; `invalidArgument` for an empty object; `full`, with
  ///   the numbers, when nothing more can be evicted; `unavailable` for a client that isn't attached.
  public func create(_ object: ObjectID, size: Int, client: StoreClientID) throws(MobulaError) -> Placement {
    try allocate(.arena) { machine throws(MobulaError) in
      try machine.create(object, size: size, client: client)
    } install: { state, allocation, _ in
      state.placement(allocation.region, size: allocation.segmentSize, writable: true)
    }
  }

  /// Makes an object immutable that `client` has written, and computes its digest.
  ///
  /// - Throws: `MobulaError`: `notFound`, `denied` when another made it, `alreadyExists` when
  ///   it was sealed before, `cancelled` when it was deleted meanwhile.
  public func seal(_ object: ObjectID, client: StoreClientID) async throws -> ReplicaInfo {
    let (sealing, memory) = try state.withLock { state throws(MobulaError) in
      let sealing = try state.machine.beginSeal(object, client: client)
      return (sealing, state.segments[sealing.region.segment]!)
    }
    let geometry: ChunkGeometry
    let replica: Replica
    do {
      geometry = try ChunkGeometry(objectSize: sealing.region.size)
      let checksums = try await chunkChecksums(in: memory, at: sealing.region.offset, geometry: geometry)
      replica = Replica(
        object, geometry: geometry, memory: memory, offset: sealing.region.offset, checksums: checksums)
    } catch {
      abort(object, client: client)
      unpin(sealing.entry)
      throw error
    }
    let isSealed = change { state in
      switch state.machine.finishSeal(sealing) {
      case .sealed(let freed):
        state.replicas[sealing.entry] = replica
        return (true, freed)
      case .aborted(let freed): return (false, freed)
      }
    }
    guard isSealed else {
      throw MobulaError(.cancelled, "Object \(object) was deleted while it was sealed: put it again if it is wanted.")
    }
    return ReplicaInfo(object: object, geometry: geometry, digest: replica.digest!)
  }

  /// Gives up an object that `client` has not sealed; nothing when it has none by that name.
  public func abort(_ object: ObjectID, client: StoreClientID) {
    change { state in ((), state.machine.abort(object, client: client)) }
  }

  /// Where a sealed object is; it stays there until `client` has unpinned it as often as it pinned it.
  ///
  /// - Throws: `MobulaError`: `notFound`; `unavailable` while it isn't sealed, or for a client that isn't attached.
  public func pin(_ object: ObjectID, client: StoreClientID) throws(MobulaError) -> Placement {
    try state.withLock { state throws(MobulaError) in
      let region = try state.machine.pin(object, client: client)
      return state.placement(region, size: state.segments[region.segment]!.mapping.bytes.count, writable: false)
    }
  }

  /// Lets one of the client's pins go; nothing when it has none.
  public func unpin(_ object: ObjectID, client: StoreClientID) {
    change { state in ((), state.machine.unpin(object, client: client)) }
  }

  // MARK: Objects

  /// Removes an object in whatever state it is; its memory goes when nobody pins it any more.
  /// Whoever waits for a chunk that had not arrived gets `notFound`. False when it wasn't here.
  @discardableResult
  public func delete(_ object: ObjectID) -> Bool {
    let (found, replica) = change { state in
      guard let deletion = state.machine.delete(object) else { return ((false, Replica?.none), .init()) }
      return ((true, state.replicas[deletion.entry]), deletion.freed)
    }
    replica?.abandon(MobulaError(.notFound, "Object \(object) was deleted while it was arriving."))
    return found
  }

  /// Whether the object may be removed to make room while nobody pins it; at first it may not.
  public func setEvictable(_ object: ObjectID, _ evictable: Bool) {
    state.withLock { $0.machine.setEvictable(object, evictable) }
  }

  /// A replica for the store's process to fill. Blocks while its pages are reserved: about a second for 1 GB.
  ///
  /// - Throws: `MobulaError`: `alreadyExists`, `full`.
  public func receive(_ object: ObjectID, geometry: ChunkGeometry) throws(MobulaError) -> any ReplicaWriter {
    let (entry, replica) = try allocate(.filled) { machine throws(MobulaError) in
      try machine.receive(object, size: geometry.objectSize)
    } install: { state, allocation, memory in
      let replica = Replica(object, geometry: geometry, memory: memory, offset: allocation.region.offset)
      state.replicas[allocation.entry] = replica
      return (allocation.entry, replica)
    }
    return StoreReplicaWriter(replica, entry: entry, store: self)
  }

  /// A sealed or arriving object to send from, pinned as long as the source lives; `nil` when it isn't here.
  public func source(_ object: ObjectID) -> (any ChunkSource)? {
    let pinned = state.withLock { state in
      state.machine.pinSource(object).map { ($0, state.replicas[$0]!) }
    }
    return pinned.map { StoreSource($0.1, pinned: $0.0, store: self) }
  }

  /// How much of an object is here; `nil` for nothing, or while its maker writes.
  public func contains(_ object: ObjectID) -> ReplicaState? {
    guard let (isSealed, replica) = replica(of: object) else { return nil }
    if isSealed { return .sealed }
    let map = replica.chunkMap
    return .partial(verified: map.verifiedCount, of: map.count)
  }

  func replica(of object: ObjectID) -> (isSealed: Bool, replica: Replica)? {
    state.withLock { state in
      state.machine.index[object].flatMap { entry in
        state.replicas[entry].map { (state.machine.entries[entry]!.phase == .sealed, $0) }
      }
    }
  }

  /// All sealed objects, by identifier.
  public func inventory() -> [ReplicaInfo] {
    let sealed = state.withLock { state in
      state.replicas.filter { state.machine.entries[$0.key]?.phase == .sealed }.map(\.value)
    }
    return sealed.map { ReplicaInfo(object: $0.object, geometry: $0.geometry, digest: $0.digest!) }
      .sorted { $0.object < $1.object }
  }

  public var statistics: StoreStatistics {
    state.withLock { state in
      StoreStatistics(
        capacity: state.machine.capacity, used: state.machine.used, objects: state.machine.index.count,
        pinned: state.machine.pinnedBytes, segments: state.machine.segments.count)
    }
  }
}
