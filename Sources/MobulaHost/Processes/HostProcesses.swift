import MobulaCore
import MobulaStore
import MobulaWire
import Synchronization

/// The processes of this host: who is attached to its store, and what they hold.
final class HostProcesses: Sendable {
  private struct State {
    var table = ProcessTable()
    var connections: [ProcessTable.Connection: RPCConnection] = [:]
    /// Whether the head was last told what is held before all of them had said it.
    var hasRegisteredEarly = false
  }

  /// Who holds everything in the stead of processes that are coming back; no client of the store has this number.
  private static let absent: HostReports.Holder = 0

  private let configuration: HostConfiguration
  private let store: Store
  private let notes: ObjectNotes
  private let reports: HostReports
  private let head: PeerLink
  private let state = Mutex(State())

  /// - Parameter store: not started yet. What it has recovered is held until those who were here before have said what
  ///   they hold: the head drops what nobody holds.
  init(_ configuration: HostConfiguration, store: Store, notes: ObjectNotes, reports: HostReports, head: PeerLink) {
    self.configuration = configuration
    self.store = store
    self.notes = notes
    self.reports = reports
    self.head = head
    guard store.recovered != nil else { return }
    state.withLock { state in
      state.table.expect(store.clients)
      if state.table.isAnyoneAbsent { reports.hold(store.objects, by: Self.absent) }
    }
  }

  // MARK: What happens

  /// A process has ended.
  func gone(_ client: StoreClientID) {
    let (job, isLast) = state.withLock { ($0.table.gone(client), $0.table.isBack(client)) }
    if let job {
      let notice = DriverEnded(host: configuration.host, job: job)
      Task { [head] in _ = try? await head.call(HeadAPI.driverEnded, notice, deadline: .seconds(600)) }
    }
    letGo(client.number)
    if isLast { allAreBack() }
  }

  /// Those who were here before have all said what they hold, or ended.
  private func allAreBack() {
    letGo(Self.absent)
    let isLate = state.withLock { state in
      defer { state.hasRegisteredEarly = false }
      return state.hasRegisteredEarly
    }
    // The head keeps what this host may hold until a registration says all of it.
    if isLate { head.renew() }
  }

  /// Whether somebody is coming back who has not said what it holds: a registration that begins now leaves it out.
  func isAnyoneAbsent() -> Bool {
    state.withLock { state in
      state.hasRegisteredEarly = state.table.isAnyoneAbsent
      return state.table.isAnyoneAbsent
    }
  }

  func disconnected(_ connection: ProcessTable.Connection) {
    state.withLock { state in
      state.connections[connection] = nil
      state.table.disconnected(connection)
    }
  }

  /// Ends what all processes have of the store: the cluster has given it up. None of them can go on.
  func endAll() async {
    let clients = store.clients
    let connections = state.withLock { state in
      state.table.end(clients)
      state.hasRegisteredEarly = false
      defer { state.connections = [:] }
      return Array(state.connections.values)
    }
    for connection in connections { await connection.close() }
    for holder in clients.map(\.number) + [Self.absent] { reports.holderGone(holder) }
  }

  /// Somebody holds nothing any more.
  private func letGo(_ holder: HostReports.Holder) {
    let held = reports.held(by: holder)
    reports.holderGone(holder)
    unhold(held)
    // The head says that they may go, when it is there; their room is not to wait for it.
    store.setUnwanted(reports.unwanted(among: held))
  }

  private func unhold(_ objects: some Sequence<ObjectID> & Sendable) {
    store.setHeld(reports.unheld(among: objects), false)
  }

  // MARK: What they ask

  /// The client of the store that a connection's process is.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) before it is attached and once it is gone.
  func client(_ connection: RPCConnection) throws(MobulaError) -> StoreClientID {
    try Result { () throws(MobulaError) in
      try state.withLock { state throws(MobulaError) in try state.table.client(of: connection.id) }
    }.get()
  }

  func add(to router: inout RPCRouter) {
    router.on(HostAPI.attach) { request, connection in
      try self.attach(request, connection)
      return Empty()
    }
    router.on(HostAPI.registerHolds) { request, connection in
      let holdsAny = try self.register(request, connection)
      // Whoever waits for what is held to be known waits for this answer, or asks for it.
      if request.waits ?? true, holdsAny { try await self.reports.flush() }
      return Empty()
    }
    router.on(HostAPI.drives) { request, connection in
      let client = try self.client(connection)
      self.state.withLock { $0.table.drives(client, request.job) }
      return Empty()
    }
    router.on(HostAPI.leave) { _, connection in
      let client = try self.client(connection)
      self.store.takeAnnouncements(of: client)
      self.letGo(client.number)
      return Empty()
    }
    router.on(HostAPI.holdsChanged) { request, connection in
      try self.changeHolds(request, connection)
      if request.waits ?? true, !request.added.isEmpty { try await self.reports.flush() }
      return Empty()
    }
    router.on(HostAPI.confirmHolds) { _, _ in
      try await self.reports.flush()
      return Empty()
    }
  }

  private func attach(_ request: AttachRequest, _ connection: RPCConnection) throws {
    guard store.isAttached(request.client, secret: request.secret) else {
      throw MobulaError(
        .mismatch,
        "The host was stopped and started anew, and has nothing of this process any more: repeat what you did.")
    }
    store.takeAnnouncements(of: request.client)
    let known = reports.held(by: request.client.number)
    try state.withLock { state in
      try state.table.attach(connection.id, request.client, known: known)
      state.connections[connection.id] = connection
    }
  }

  /// - Returns: whether the process holds anything, of which the head is not told yet.
  private func register(_ request: HoldRegistration, _ connection: RPCConnection) throws -> Bool {
    if request.more == true {
      try state.withLock { try $0.table.hold(request.holds, coming: connection.id) }
      return false
    }
    let (who, isLast) = try state.withLock { state in
      let who = try state.table.register(connection.id, holding: request.holds)
      return (who, state.table.isBack(who.client))
    }
    reports.setHolds(who.holds, known: who.known, by: who.client.number)
    store.setHeld(who.holds, true)
    unhold(who.known)
    if isLast { allAreBack() }
    guard store.clients.contains(who.client) else {
      // It has ended meanwhile, before anybody knew that it holds something.
      gone(who.client)
      throw MobulaError(.connectionClosed, "The process that asked has ended.")
    }
    return !who.holds.isEmpty
  }

  private func changeHolds(_ request: ProcessHoldChanges, _ connection: RPCConnection) throws {
    let client = try client(connection)
    // What it put before is known before its hold is over.
    store.takeAnnouncements(of: client)
    if !request.added.isEmpty {
      // Under the lock in which it is forgotten: holds of a process that has ended already would never end.
      try state.withLock { state in
        _ = try state.table.client(of: connection.id)
        reports.hold(request.added, by: client.number)
        store.setHeld(request.added, true)
      }
    }
    release(request, by: client)
    if !request.shared.isEmpty {
      reports.wasShared(request.shared)
      reports.hurry()
    }
  }

  private func release(_ change: ProcessHoldChanges, by client: StoreClientID) {
    // What nobody but this process ever knew of is gone without a word to the head, if it wasn't told yet.
    let forgotten = reports.release(change.removed, unshared: change.unshared, by: client.number)
    notes.forget(forgotten)
    store.delete(forgotten)
    if forgotten.count < change.removed.count {
      unhold(change.removed)
      store.setUnwanted(reports.unwanted(among: change.unshared))
    }
  }
}
