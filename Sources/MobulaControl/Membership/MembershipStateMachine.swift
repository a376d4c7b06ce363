import MobulaCore

struct HostDescription: Hashable, Sendable {
  var name: String
  /// Where other hosts get chunks from it.
  var bulk: Endpoint
  /// What its store may use.
  var capacity: ByteCount
  /// What people tell hosts apart by.
  var labels: [Name: Name] = [:]
  /// Which folder its identity is kept in, where it says so.
  var folder: FolderID?
}

struct PodDescription: Hashable, Sendable {
  var name: String
  var host: HostID
  var resources: Resources
}

enum MembershipAction: Hashable, Sendable {
  case hostJoined(HostID)
  /// Back with what it had, however long it was away.
  case hostReturned(HostID)
  /// Another process of the host has registered: what it says that it has and holds is what is there.
  case hostReplaced(HostID)
  case hostSuspected(HostID)
  /// Nobody waits for it any more, and what it has and holds still counts.
  case hostAbsent(HostID)
  /// What it had and held is gone.
  case hostRetired(HostID)
  case podJoined(PodID)
  /// Back with what it had, within the time.
  case podReturned(PodID)
  case podSuspected(PodID)
  /// Its leases are over: when it comes back, it has to end what it has of them.
  case podLost(PodID)
  /// A connection that a member no longer uses.
  case close(ConnectionID)
  /// Call `tick` at this instant, if nothing else is said until then.
  case wakeAt(Duration)
}

/// Which hosts and pods belong to the cluster, and which of them are there.
///
/// A member whose connection is lost is suspected; it is absent when it has not come back within `hostTimeout`. An
/// absent host is a member still; it is retired after `retirement`, or when somebody says so. An absent host's pods
/// are lost. Instants are durations since the head's start.
struct MembershipStateMachine: Sendable {
  private(set) var hosts = MemberTable<HostID, HostDescription>()
  private(set) var pods = MemberTable<PodID, PodDescription>()
  let hostTimeout: Duration
  let retirement: Duration

  /// - Parameters:
  ///   - hostTimeout: how long a member may be away before nobody waits for it; 10 s unless told otherwise.
  ///   - retirement: how long an absent host's objects and holds count; an hour unless told otherwise.
  init(hostTimeout: Duration = .seconds(10), retirement: Duration = .seconds(3600)) {
    self.hostTimeout = hostTimeout
    self.retirement = retirement
  }

  /// A host registers, on the connection that it will be called on.
  ///
  /// - Throws: `MobulaError`: `mismatch` when another process has taken its place, `invalidArgument`.
  mutating func hostRegistered(
    _ host: HostID, _ description: HostDescription, _ process: ProcessIdentity, on connection: ConnectionID
  ) throws(MobulaError) -> [MembershipAction] {
    let what = "host \(description.name)"
    try Self.check(process, what)
    switch hosts.register(host, description, process, on: connection) {
    case .joined: return [.hostJoined(host)]
    case .returned(let former): return close(former) + [.hostReturned(host)]
    case .replaced(let former): return close(former) + [.hostReplaced(host)]
    case .outdated(let known): throw Self.outdated(what, process.incarnation, known)
    }
  }

  /// A pod registers; its host may follow.
  ///
  /// - Parameter session: the one that the pod was last told; `nil` when it was told none.
  /// - Throws: `MobulaError`: `mismatch` when another process has taken its place, `invalidArgument`.
  mutating func podRegistered(
    _ pod: PodID, _ description: PodDescription, _ process: ProcessIdentity, session: UInt64? = nil,
    on connection: ConnectionID
  ) throws(MobulaError) -> [MembershipAction] {
    let what = "pod \(description.name)"
    try Self.check(process, what, session: session)
    switch pods.register(pod, description, process, on: connection, session: session) {
    case .joined: return [.podJoined(pod)]
    case .returned(let former): return close(former) + [.podReturned(pod)]
    case .replaced(let former):
      pods.beginSession(pod)
      return close(former) + [.podLost(pod), .podJoined(pod)]
    case .outdated(let known): throw Self.outdated(what, process.incarnation, known)
    }
  }

  /// What a head before this one has written down: who was a member is expected back, from the start of this head on.
  mutating func load(hosts records: [HostRecord], pods podRecords: [PodRecord]) {
    for record in records {
      let description = HostDescription(
        name: record.name, bulk: .tcp(host: "0.0.0.0", port: 1), capacity: ByteCount(0))
      hosts.load(
        record.host,
        .init(
          description: description, process: ProcessIdentity(nonce: record.nonce, incarnation: record.incarnation),
          session: record.session, presence: loaded(record.state), isHeard: false))
    }
    for record in podRecords {
      pods.load(
        record.pod,
        .init(
          description: PodDescription(name: record.name, host: record.host, resources: [:]),
          process: ProcessIdentity(nonce: record.nonce, incarnation: record.incarnation), session: record.session,
          presence: loaded(record.state), isHeard: false))
    }
  }

  private func loaded<ID, Description>(_ state: HostRecord.State) -> MemberTable<ID, Description>.Presence {
    switch state {
    case .member: .suspected(until: hostTimeout)
    case .absent: .absent(since: .zero)
    case .retired: .retired
    }
  }

  /// What is to be written down before a process registers as a host; `nil` where it is known.
  ///
  /// - Throws: as `hostRegistered`.
  func news(of host: HostID, _ name: String, _ process: ProcessIdentity) throws(MobulaError) -> HostRecord? {
    try Self.check(process, "host \(name)")
    guard let (incarnation, session) = hosts.outcome(of: process, as: host) else {
      throw Self.outdated("host \(name)", process.incarnation, hosts[host]?.process.incarnation ?? 0)
    }
    guard let nonce = process.nonce else { return nil }
    let record = HostRecord(host: host, nonce: nonce, incarnation: incarnation, session: session, name: name)
    return record == self.record(of: host) ? nil : record
  }

  /// What is to be written down before a process registers as a pod; `nil` where it is known.
  ///
  /// - Throws: as `podRegistered`.
  func news(
    of pod: PodID, _ description: PodDescription, _ process: ProcessIdentity, session said: UInt64?
  ) throws(MobulaError) -> PodRecord? {
    let what = "pod \(description.name)"
    try Self.check(process, what, session: said)
    guard let (incarnation, session) = pods.outcome(of: process, as: pod, session: said) else {
      throw Self.outdated(what, process.incarnation, pods[pod]?.process.incarnation ?? 0)
    }
    guard let nonce = process.nonce else { return nil }
    let isAnother = pods[pod].map { $0.presence != .retired && $0.process.incarnation != incarnation } ?? false
    let record = PodRecord(
      pod: pod, host: description.host, nonce: nonce, incarnation: incarnation,
      session: isAnother ? session + 1 : session, name: description.name)
    return record == self.record(of: pod) ? nil : record
  }

  /// What is to be written down of a host; `nil` for one whose process has no nonce.
  func record(of host: HostID) -> HostRecord? {
    guard let member = hosts[host], let nonce = member.process.nonce else { return nil }
    return HostRecord(
      host: host, nonce: nonce, incarnation: member.process.incarnation, session: member.session,
      state: member.presence.state, name: member.description.name)
  }

  func record(of pod: PodID) -> PodRecord? {
    guard let member = pods[pod], let nonce = member.process.nonce else { return nil }
    return PodRecord(
      pod: pod, host: member.description.host, nonce: nonce, incarnation: member.process.incarnation,
      session: member.session, state: member.presence.state, name: member.description.name)
  }

  /// A connection is gone, whoever was on it.
  mutating func connectionLost(_ connection: ConnectionID, at now: Duration) -> [MembershipAction] {
    let deadline = now + hostTimeout
    let lostHosts = hosts.disconnected(connection, until: deadline)
    let lostPods = pods.disconnected(connection, until: deadline)
    return lostHosts.map { .hostSuspected($0) } + lostPods.map { .podSuspected($0) } + wakeUp()
  }

  /// Time has passed: who has not come back is absent, who has been absent for long is retired.
  mutating func tick(_ now: Duration) -> [MembershipAction] {
    var actions: [MembershipAction] = []
    for host in hosts.overdue(at: now) {
      actions += close(hosts.setAbsent(host, since: now)) + [.hostAbsent(host)]
      for pod in podIDs(of: host) { actions += lose(pod, at: now) }
    }
    for pod in pods.overdue(at: now) { actions += lose(pod, at: now) }
    for host in hosts.absent(for: retirement, at: now) { actions += retire(host) }
    for pod in pods.absent(for: retirement, at: now) { pods.retire(pod) }
    return actions + wakeUp()
  }

  /// Somebody says that a host is not coming back.
  ///
  /// - Throws: `MobulaError`: `notFound` for one that is no member, `unavailable` for one that is there.
  mutating func forgotten(_ host: HostID) throws(MobulaError) -> [MembershipAction] {
    guard let member = hosts[host], member.presence != .retired else {
      throw MobulaError(.notFound, "No host of this cluster is called so: `mobula status` lists those that are.")
    }
    guard member.connection == nil else {
      throw MobulaError(
        .unavailable, "Host \(member.description.name) is connected: stop it first, with `mobula stop` there.")
    }
    return retire(host) + wakeUp()
  }

  /// A host's process says that it ends in order, with all that it had; of another process than the one that is known
  /// it means nothing.
  mutating func left(_ host: HostID, _ nonce: ProcessNonce) -> [MembershipAction] {
    guard let member = hosts[host], member.presence != .retired, member.process.nonce == nonce else { return [] }
    return close(member.connection) + retire(host) + wakeUp()
  }

  /// Whether `connection` is the one that the host registered on: what comes on another is outdated.
  func isCurrent(_ host: HostID, on connection: ConnectionID) -> Bool { hosts[host]?.connection == connection }

  func isCurrent(_ pod: PodID, on connection: ConnectionID) -> Bool { pods[pod]?.connection == connection }

  func isRetired(_ host: HostID) -> Bool { hosts[host]?.presence == .retired }

  /// Since when a host has been absent; `nil` for one that is not.
  func absentSince(_ host: HostID) -> Duration? {
    if case .absent(let since)? = hosts[host]?.presence { since } else { nil }
  }

  /// The connection of the process that another one, which no head has numbered, would take the place of: whether it
  /// is there still has to be asked.
  func rival(of process: ProcessIdentity, as host: HostID) -> ConnectionID? {
    guard let known = hosts[host], process.nonce != nil, process.incarnation == 0, known.process.nonce != process.nonce
    else { return nil }
    return known.connection
  }

  func rival(of process: ProcessIdentity, as pod: PodID) -> ConnectionID? {
    guard let known = pods[pod], process.nonce != nil, process.incarnation == 0, known.process.nonce != process.nonce
    else { return nil }
    return known.connection
  }

  /// The host's name, where it is there, or is waited for, in another folder than this one.
  func rival(of folder: FolderID?, as host: HostID) -> String? {
    guard let folder, let known = hosts[host], known.isPresent, let other = known.description.folder, other != folder
    else { return nil }
    return known.description.name
  }

  private func podIDs(of host: HostID) -> [PodID] {
    pods.members.filter { $0.value.description.host == host }.map(\.key).sorted()
  }

  private mutating func lose(_ pod: PodID, at now: Duration) -> [MembershipAction] {
    guard pods[pod]?.isPresent == true else { return [] }
    return close(pods.setAbsent(pod, since: now)) + [.podLost(pod)]
  }

  private mutating func retire(_ host: HostID) -> [MembershipAction] {
    var actions: [MembershipAction] = []
    for pod in podIDs(of: host) {
      if pods[pod]?.isPresent == true { actions += close(pods[pod]?.connection) + [.podLost(pod)] }
      pods.retire(pod)
    }
    hosts.retire(host)
    return actions + [.hostRetired(host)]
  }

  private func wakeUp() -> [MembershipAction] {
    [hosts.nextDeadline(retiringAfter: retirement), pods.nextDeadline(retiringAfter: retirement)].compactMap { $0 }
      .min()
      .map { [.wakeAt($0)] } ?? []
  }

  private func close(_ connection: ConnectionID?) -> [MembershipAction] { connection.map { [.close($0)] } ?? [] }

  private static func check(_ process: ProcessIdentity, _ what: String, session: UInt64? = nil) throws(MobulaError) {
    guard session ?? 0 <= ProcessIdentity.highest else {
      throw MobulaError(.invalidArgument, "The session \(session ?? 0) of \(what) is none that a head gave out.")
    }
    guard process.incarnation <= ProcessIdentity.highest else {
      throw MobulaError(
        .invalidArgument, "\(process.incarnation) is no incarnation of \(what): no process was started so often.")
    }
  }

  private static func outdated(_ what: String, _ incarnation: UInt64, _ known: UInt64) -> MobulaError {
    MobulaError(
      .mismatch,
      "Another process of \(what) has taken the place of this one (incarnation \(known) that of \(incarnation)): stop this one, and give a copy of a host's directory another directory."
    )
  }
}

extension MemberTable.Presence {
  /// As it is written down.
  fileprivate var state: HostRecord.State {
    switch self {
    case .connected, .suspected: .member
    case .absent: .absent
    case .retired: .retired
    }
  }
}
