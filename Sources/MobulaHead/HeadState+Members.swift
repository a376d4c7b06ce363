internal import Logging
internal import MobulaCore
internal import MobulaWire

extension HeadState {
  mutating func register(
    _ registration: HostRegistration, on connection: RPCConnection, _ answer: @escaping Answer<RegistrationReply>
  ) throws(MobulaError) {
    let host = registration.host
    let description = HostDescription(
      name: registration.name, bulk: registration.bulk, capacity: registration.capacity, labels: registration.labels)
    let inventory = HostInventory(registration)
    let reply = RegistrationReply(cluster: configuration.cluster, epoch: configuration.epoch)
    if membership.isRetired(host), registration.nonce != nil, registration.beganAnew != true, !inventory.isEmpty {
      // It can't go on with what the cluster has given up: names and holds of it are gone.
      act(.log(.notice, "host \(registration.name) is back after it was given up: it begins anew"))
      var retired = reply
      retired.isRetired = true
      return answer(&self, .success(retired))
    }
    let process = ProcessIdentity(nonce: registration.nonce, incarnation: registration.incarnation)
    // What is decided is written down first, if there is anything new in it.
    let records = try membership.news(of: host, registration.name, process).map { [JournalRecord.host($0)] } ?? []
    guard records.isEmpty || registering.insert(host).inserted else {
      throw MobulaError(.unavailable, "Host \(registration.name) is being registered: try again.")
    }
    propose(records) { state, failure in
      state.registering.remove(host)
      if let failure { return answer(&state, .failure(failure)) }
      do throws(MobulaError) {
        try state.join(registration, description, process, inventory, on: connection)
        var reply = reply
        reply.incarnation = state.membership.hosts[host]?.process.incarnation
        answer(&state, .success(reply))
      } catch {
        answer(&state, .failure(error))
      }
    }
  }

  private mutating func join(
    _ registration: HostRegistration, _ description: HostDescription, _ process: ProcessIdentity,
    _ inventory: HostInventory, on connection: RPCConnection
  ) throws(MobulaError) {
    let host = registration.host
    // One that was here before knew no other head.
    let isKnown = membership.hosts[host]?.isHeard == true
    let actions = try membership.hostRegistered(host, description, process, on: ConnectionID(connection.id))
    hostNames.joined(host, registration.name)
    directory.zones[host] = registration.labels[HostLabel.zoneKey]
    watch(connection)
    apply(actions, at: now)
    if !inventory.isEmpty, !isKnown { beginSettling(at: now) }
    apply(directory.registered(host, inventory, learns: mayLearn))
    heard(of: Set((inventory.sealed.map(\.object) + inventory.holds).map(\.job)), at: now)
    endSettlingEarly(at: now)
  }

  mutating func register(
    _ registration: PodRegistration, on connection: RPCConnection, at now: Duration
  ) throws(MobulaError) -> RegistrationReply {
    guard registration.resources.arePlausible else {
      throw MobulaError(
        .invalidArgument,
        "Pod \(registration.name) can't have \(registration.resources): amounts are positive, and at most 25 TB of memory."
      )
    }
    let pod = registration.pod
    let description = PodDescription(
      name: registration.name, host: registration.host, resources: registration.resources)
    let known = membership.pods[pod]
    let recorded = membership.record(of: pod)
    let actions = try membership.podRegistered(
      pod, description, ProcessIdentity(nonce: registration.nonce, incarnation: registration.incarnation),
      session: registration.session, on: ConnectionID(connection.id))
    podNames.joined(pod, registration.name)
    watch(connection)
    apply(actions, at: now)
    if !registration.leases.isEmpty, known?.isHeard != true { beginSettling(at: now) }
    if let record = membership.record(of: pod), record != recorded { save([.pod(record)]) }
    let session = membership.pods[pod]?.session ?? 1
    // Leases of a session that is over were revoked, and so were those that this head knows nothing of.
    let areCurrent =
      registration.session.map { $0 == session }
      ?? (known == nil || known?.isPresent == true && known?.session == session)
    let confirms = registration.nonce != nil
    let (changes, end) = scheduler.podRegistered(
      pod, host: registration.host, total: registration.resources,
      leases: registration.leases.map { BookedLease(lease: $0.lease, job: $0.job, resources: $0.demand) },
      areCurrent: areCurrent, confirms: confirms, at: now)
    apply(changes)
    heard(of: Set(registration.leases.map(\.job)), at: now)
    endSettlingEarly(at: now)
    var reply = RegistrationReply(cluster: configuration.cluster, epoch: configuration.epoch)
    reply.incarnation = membership.pods[pod]?.process.incarnation
    reply.session = session
    if confirms { reply.end = end }
    return reply
  }

  /// A pod has ended what it was told to end.
  mutating func confirmed(
    _ confirmation: PodConfirmation, on connection: RPCConnection, at now: Duration
  ) throws(MobulaError) {
    guard membership.isCurrent(confirmation.pod, on: ConnectionID(connection.id)),
      membership.pods[confirmation.pod]?.session == confirmation.session
    else {
      throw MobulaError(
        .unavailable, "Pod \(podName(confirmation.pod)) was declared lost meanwhile: register it again.")
    }
    apply(scheduler.podConfirmed(confirmation.pod, at: now))
  }

  /// The connection of a process that is registered as who another one wants to register as.
  func rival(of registration: HostRegistration) -> RPCConnection? {
    membership.rival(
      of: ProcessIdentity(nonce: registration.nonce, incarnation: registration.incarnation), as: registration.host
    ).flatMap { connections[$0] }
  }

  func rival(of registration: PodRegistration) -> RPCConnection? {
    membership.rival(
      of: ProcessIdentity(nonce: registration.nonce, incarnation: registration.incarnation), as: registration.pod
    ).flatMap { connections[$0] }
  }

  /// Somebody says that a host, by its name or identifier, is not coming back.
  mutating func forget(_ nameOrID: Name) throws(MobulaError) {
    let named = membership.hosts.members.filter {
      $0.value.presence != .retired
        && (Name($0.value.description.name) == nameOrID || $0.key.description == nameOrID.text)
    }.keys.sorted()
    guard named.count < 2 else {
      throw MobulaError(
        .invalidArgument,
        "Several hosts are called \(nameOrID): say which by its identifier, one of \(named.map(\.description).joined(separator: ", "))."
      )
    }
    guard let host = named.first else {
      throw MobulaError(.notFound, "No host is called \(nameOrID): `mobula status` lists those that there are.")
    }
    decided(try membership.forgotten(host))
  }

  /// Refuses what a host says on a connection that it did not register on, or no longer uses.
  func check(_ host: HostID, on connection: RPCConnection) throws(MobulaError) {
    guard membership.isCurrent(host, on: ConnectionID(connection.id)) else {
      throw MobulaError(
        .mismatch, "Host \(hostName(host)) is not registered on this connection: register it again before other calls.")
    }
  }

  /// The connection that a host is called on.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) while there is none.
  func control(of host: HostID) throws(MobulaError) -> RPCConnection {
    guard let connection = membership.hosts[host]?.connection.flatMap({ connections[$0] }) else {
      throw MobulaError(
        .connectionClosed, "Host \(hostName(host)) is not connected to the head: see `mobula status`, and try again.")
    }
    return connection
  }

  /// A host was stopped: nothing of it is waited for.
  mutating func leave(_ leave: HostLeave) { decided(membership.left(leave.host, leave.nonce)) }

  /// Who is absent or retired from now on is written down, before anything follows from it.
  mutating func tickMembers(_ now: Duration) {
    decided(membership.tick(now))
  }

  private mutating func decided(_ actions: [MembershipAction]) {
    let records = actions.compactMap { action -> JournalRecord? in
      switch action {
      case .hostAbsent(let host), .hostRetired(let host): membership.record(of: host).map { .host($0) }
      case .podLost(let pod): membership.record(of: pod).map { .pod($0) }
      default: nil
      }
    }
    propose(records) { state, failure in
      if failure != nil { state.save(later: records) }
      state.apply(actions, at: state.now)
    }
  }

  mutating func apply(_ actions: [MembershipAction], at now: Duration) {
    // Together, so that none of them is made the source of another's object.
    var absent: Set<HostID> = []
    var retired: Set<HostID> = []
    for action in actions {
      switch action {
      case .hostJoined(let host): act(.log(.info, "host \(hostName(host)) has joined"))
      case .hostReturned(let host): act(.log(.info, "host \(hostName(host)) is back"))
      case .hostSuspected(let host): act(.log(.notice, "host \(hostName(host)) is away"))
      case .hostReplaced(let host):
        // Its memory may have outlived the process: what it says that it has and holds replaces what was known, and
        // nothing is lost before.
        act(.log(.notice, "host \(hostName(host)) was started again"))
        apply(directory.hostRestarted(host))
      case .hostAbsent(let host):
        act(.log(.warning, "host \(hostName(host)) is absent: what it has and holds is kept until it is back"))
        absent.insert(host)
      case .hostRetired(let host):
        act(.log(.warning, "host \(hostName(host)) is given up, with what it had and held"))
        retired.insert(host)
        hostNames.left(host)
        directory.zones[host] = nil
      case .podJoined(let pod): act(.log(.info, "pod \(podName(pod)) has joined"))
      case .podReturned(let pod): act(.log(.info, "pod \(podName(pod)) is back"))
      case .podSuspected(let pod): act(.log(.notice, "pod \(podName(pod)) is away"))
      case .podLost(let pod):
        act(.log(.warning, "pod \(podName(pod)) is lost"))
        if membership.pods[pod]?.isPresent != true { podNames.left(pod) }
        apply(scheduler.podLost(pod, at: now))
      case .close(let connection): if let connection = connections[connection] { act(.close(connection)) }
      case .wakeAt(let instant): act(.wakeAt(instant))
      }
    }
    if !absent.isEmpty { apply(directory.hostsAbsent(absent)) }
    if !retired.isEmpty { apply(directory.hostsLost(retired)) }
  }

  /// One page of the cluster as `mobula status` shows it.
  func status(at endpoint: Endpoint, _ page: StatusRequest) -> ClusterStatus {
    var objects: [HostID: (count: Int, bytes: ByteCount)] = [:]
    for record in directory.records.values {
      for host in record.planner.complete {
        objects[host, default: (0, ByteCount(0))].count += 1
        objects[host]?.bytes += ByteCount(record.geometry?.objectSize ?? 0)
      }
    }
    let absent = membership.hosts.members.sorted { $0.key < $1.key }.compactMap { host, member in
      let unheard: Duration? = member.isPresent && !member.isHeard ? .zero : nil
      return (membership.absentSince(host) ?? unheard).map { since in
        ClusterStatus.AbsentHost(
          host: host, name: member.description.name, seconds: Int(max(.zero, now - since) / .seconds(1)))
      }
    }
    let hosts = Page(membership.hosts.members.filter { $0.value.isPresent && $0.value.isHeard }, after: page.afterHost)
    { _, member in
      160 + member.description.name.utf8.count
        + member.description.labels.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count + 6 }
    }
    let pods = Page(scheduler.pods, after: page.afterPod) { _, book in
      160 + 2 * book.total.amounts.keys.reduce(0) { $0 + $1.utf8.count + 12 }
    }
    let jobs = Page(jobs.jobs, after: page.afterJob) { _, _ in 9 }
    let hostsShown = hosts.elements.map { host, member in
      ClusterStatus.Host(
        host: host, name: member.description.name, bulk: member.description.bulk,
        capacity: member.description.capacity, objects: objects[host]?.count ?? 0,
        bytes: min(objects[host]?.bytes ?? ByteCount(0), .largest), connected: member.connection != nil,
        labels: member.description.labels)
    }
    let podsShown = pods.elements.map { pod, book in
      ClusterStatus.Pod(
        pod: pod, name: podNames[pod] ?? pod.short, host: book.host, resources: book.total, leased: book.leased,
        leases: book.leases.count)
    }
    var status = ClusterStatus(
      cluster: configuration.cluster, head: endpoint, hosts: hostsShown, pods: podsShown,
      jobs: jobs.elements.map(\.key),
      objects: directory.records.values.count { !$0.planner.isEmpty }, waiting: scheduler.queue.count, absent: absent)
    if hosts.hasMore || pods.hasMore || jobs.hasMore { status.more = true }
    return status
  }
}

/// What fits into a page of what lies behind a key, in the order of keys.
private struct Page<Key: Hashable & Comparable, Value> {
  let elements: [(key: Key, value: Value)]
  let hasMore: Bool

  /// - Parameter size: about how many bytes an element takes.
  init(_ all: [Key: Value], after key: Key?, size: (Key, Value) -> Int) {
    let behind = all.filter { key == nil || $0.key > key! }.sorted { $0.key < $1.key }
    var budget = PageBudget()
    elements = Array(behind.prefix { budget.take(size($0.key, $0.value)) }).map { ($0.key, $0.value) }
    hasMore = elements.count < behind.count
  }
}
