import MobulaCore

struct HostDescription: Hashable, Sendable {
  var name: String
  /// Where other hosts get chunks from it.
  var bulk: Endpoint
  /// What its store may use.
  var capacity: ByteCount
  /// What people tell hosts apart by.
  var labels: [Name: Name] = [:]
}

struct PodDescription: Hashable, Sendable {
  var name: String
  var host: HostID
  var resources: Resources
}

enum MembershipAction: Hashable, Sendable {
  case hostJoined(HostID)
  /// Back with what it had, within the time.
  case hostReturned(HostID)
  case hostSuspected(HostID)
  case hostLost(HostID)
  case podJoined(PodID)
  case podReturned(PodID)
  case podSuspected(PodID)
  case podLost(PodID)
  /// A connection that a member no longer uses.
  case close(ConnectionID)
  /// Call `tick` at this instant, if nothing else is said until then.
  case wakeAt(Duration)
}

/// Which hosts and pods belong to the cluster, and which of them are there.
///
/// A member whose connection is lost is suspected; it counts as lost when it has not come
/// back within `hostTimeout`, or at once when a newer incarnation of it registers. A host
/// takes its pods with it. Instants are durations since the head's start.
struct MembershipStateMachine: Sendable {
  private(set) var hosts = MemberTable<HostID, HostDescription>()
  private(set) var pods = MemberTable<PodID, PodDescription>()
  let hostTimeout: Duration

  /// - Parameter hostTimeout: how long a member may be away; 10 s unless told otherwise.
  init(hostTimeout: Duration = .seconds(10)) { self.hostTimeout = hostTimeout }

  /// A host registers, on the connection that it will be called on.
  ///
  /// - Throws: `MobulaError` (`mismatch`) when a newer incarnation of it is known.
  mutating func hostRegistered(
    _ host: HostID, _ description: HostDescription, incarnation: UInt64, on connection: ConnectionID
  ) throws(MobulaError) -> [MembershipAction] {
    switch hosts.register(host, description, incarnation: incarnation, on: connection) {
    case .joined: return [.hostJoined(host)]
    case .returned(let former): return close(former) + [.hostReturned(host)]
    case .replaced(let former):
      // Its pods hold leases of workers that used the store which is gone.
      return close(former) + [.hostLost(host), .hostJoined(host)]
    case .outdated(let known):
      throw Self.outdated("host \(description.name)", incarnation, known)
    }
  }

  /// A pod registers; its host may follow.
  ///
  /// - Throws: `MobulaError` (`mismatch`) when a newer incarnation of it is known.
  mutating func podRegistered(
    _ pod: PodID, _ description: PodDescription, incarnation: UInt64, on connection: ConnectionID
  ) throws(MobulaError) -> [MembershipAction] {
    switch pods.register(pod, description, incarnation: incarnation, on: connection) {
    case .joined: return [.podJoined(pod)]
    case .returned(let former): return close(former) + [.podReturned(pod)]
    case .replaced(let former): return close(former) + [.podLost(pod), .podJoined(pod)]
    case .outdated(let known): throw Self.outdated("pod \(description.name)", incarnation, known)
    }
  }

  /// A connection is gone, whoever was on it.
  mutating func connectionLost(_ connection: ConnectionID, at now: Duration) -> [MembershipAction] {
    let deadline = now + hostTimeout
    let lostHosts = hosts.disconnected(connection, until: deadline)
    let lostPods = pods.disconnected(connection, until: deadline)
    return lostHosts.map { .hostSuspected($0) } + lostPods.map { .podSuspected($0) } + wakeUp()
  }

  /// Time has passed: who has not come back is lost.
  mutating func tick(_ now: Duration) -> [MembershipAction] {
    var actions: [MembershipAction] = []
    for host in hosts.overdue(at: now) {
      _ = hosts.remove(host)
      actions.append(.hostLost(host))
      for pod in pods.members.filter({ $0.value.description.host == host }).map(\.key).sorted() {
        if let connection = pods.remove(pod)?.connection { actions.append(.close(connection)) }
        actions.append(.podLost(pod))
      }
    }
    for pod in pods.overdue(at: now) {
      _ = pods.remove(pod)
      actions.append(.podLost(pod))
    }
    return actions + wakeUp()
  }

  /// Whether `connection` is the one that the host registered on: what comes on another is outdated.
  func isCurrent(_ host: HostID, on connection: ConnectionID) -> Bool { hosts[host]?.connection == connection }

  func isCurrent(_ pod: PodID, on connection: ConnectionID) -> Bool { pods[pod]?.connection == connection }

  private func wakeUp() -> [MembershipAction] {
    [hosts.nextDeadline, pods.nextDeadline].compactMap { $0 }.min().map { [.wakeAt($0)] } ?? []
  }

  private func close(_ connection: ConnectionID?) -> [MembershipAction] { connection.map { [.close($0)] } ?? [] }

  private static func outdated(_ what: String, _ incarnation: UInt64, _ known: UInt64) -> MobulaError {
    MobulaError(
      .mismatch,
      "Incarnation \(incarnation) of \(what) is outdated, since \(known) has registered: stop the older process.")
  }
}
