import Logging
import MobulaCore
import MobulaStore
import MobulaWire

/// Registers a host at its head, on each new connection, with all that it has and holds.
final class HostRegistrar: Sendable {
  private let configuration: HostConfiguration
  private let bulk: Endpoint
  private let store: Store
  private let notes: ObjectNotes
  private let reports: HostReports
  private let processes: HostProcesses
  private let identity = MemberIdentity()
  private let log: Logger

  init(
    _ configuration: HostConfiguration, bulk: Endpoint, store: Store, notes: ObjectNotes, reports: HostReports,
    processes: HostProcesses, log: Logger
  ) {
    self.configuration = configuration
    self.bulk = bulk
    self.store = store
    self.notes = notes
    self.reports = reports
    self.processes = processes
    self.log = log
  }

  /// - Throws: `MobulaError`: `mismatch` when another process has taken this one's place; others, after which it is
  ///   worth another try.
  func register(on connection: RPCConnection) async throws {
    try identity.check(connection.peer)
    if try await isMember(connection) { return }
    log.warning("the cluster has given this host up while it was away: what its processes have ends")
    await giveUp()
    guard try await isMember(connection) else {
      throw MobulaError(.unavailable, "The head gave this host up again as it registered: it is tried again.")
    }
  }

  /// Registers.
  ///
  /// - Returns: false when the cluster has given up what is here.
  private func isMember(_ connection: RPCConnection) async throws -> Bool {
    let me = identity.values
    let isEarly = processes.isAnyoneAbsent()
    let all = store.inventory()
    // What contains one of these, or holds it, may be made known only after the registration, and what held it before
    // may have let go of it by then: all are held until that has been told, too.
    reports.hold(all.map(\.object), by: Self.holder)
    defer { reports.holderGone(Self.holder) }
    var registration = HostRegistration(
      host: configuration.host, name: configuration.name, incarnation: me.incarnation, bulk: bulk,
      capacity: configuration.capacity,
      replicas: all.map {
        ReplicaReport(
          object: $0.object, geometry: $0.geometry, digest: $0.digest, contains: notes.contents(of: $0.object),
          isPrimary: store.isPrimary($0.object))
      }, holds: reports.takeRegistration(), names: notes.names(of: all.map(\.object)), labels: configuration.labels)
    registration.nonce = me.nonce
    registration.epoch = me.epoch
    registration.beganAnew = me.beganAnew
    registration.folder = configuration.folder
    if isEarly { registration.awaitsProcesses = true }
    // In parts that each fit into a frame; it counts with the last.
    let (first, rest) = registration.parts()
    var reply = try await connection.call(HeadAPI.registerHost, first)
    for part in rest { reply = try await connection.call(HeadAPI.registerMore, part) }
    if reply.isRetired == true { return false }
    identity.registered(reply)
    try await tellArriving(on: connection)
    if isEarly, !processes.isAnyoneAbsent() {
      throw MobulaError(.connectionClosed, "All processes are back since this began: they are registered with it anew.")
    }
    return true
  }

  /// What is on its way here a head that was started meanwhile hears of before it is asked for parts of it: it would say
  /// that there are none.
  private func tellArriving(on connection: RPCConnection) async throws {
    let changes = store.arriving.map { ReplicaChange.partial(object: $0.object, geometry: $0.geometry) }
    for some in pages(of: changes, size: \.wireSize) {
      _ = try await connection.call(
        HeadAPI.replicasChanged, ReplicaChanges(host: configuration.host, changes: some))
    }
  }

  /// Tells the head that nothing is left here, if it can be reached at once.
  func leave() async {
    let notice = HostLeave(host: configuration.host, nonce: identity.values.nonce)
    let (head, token, tls) = (configuration.head, configuration.token, configuration.tls)
    let hello = configuration.hello
    // The task that ends the host is cancelled.
    await Task {
      guard
        let connection = try? await RPCConnection.connect(
          to: head, token: token, hello: hello, router: RPCRouter(), tls: tls, deadline: .seconds(2))
      else { return }
      _ = try? await connection.call(HeadAPI.leave, notice, deadline: .seconds(2))
      await connection.close()
    }.value
  }

  /// Who holds what a registration lists; no client of the store has this number.
  private static let holder = UInt64.max

  /// Ends what the processes here have of the cluster first, then drops it: nothing goes that somebody goes on with.
  private func giveUp() async {
    await processes.endAll()
    let objects = store.objects
    notes.dropped(objects)
    store.delete(objects)
    identity.beginAnew()
  }
}
