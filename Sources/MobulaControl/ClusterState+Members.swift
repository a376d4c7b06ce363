package import MobulaCore

extension ClusterState {
  /// All of a host's registration is there.
  mutating func registered(
    _ id: RequestID, _ registration: HostRegistration, on connection: ConnectionID
  ) throws(MobulaError) {
    let host = registration.host
    if membership.isRetired(host), registration.nonce != nil, registration.beganAnew != true,
      !HostInventory(registration).isEmpty
    {
      // It can't go on with what the cluster has given up: names and holds of it are gone.
      act(.log(.notice, "host \(registration.name) is back after it was given up: it begins anew"))
      var retired = RegistrationReply(cluster: settings.cluster, epoch: settings.epoch)
      retired.isRetired = true
      return answer(id, .registration(retired))
    }
    guard !registering.contains(host) else {
      throw MobulaError(.unavailable, "Host \(registration.name) is being registered: try again.")
    }
    try propose(id, registration, on: connection)
  }

  /// What the process will be is written down first, if there is anything new in it.
  private mutating func propose(
    _ id: RequestID, _ registration: HostRegistration, on connection: ConnectionID
  ) throws(MobulaError) {
    try check(registration)
    let news = try membership.news(of: registration.host, registration.name, registration.process)
    if news != nil { registering.insert(registration.host) }
    propose(news.map { [.host($0)] } ?? [], .registration(id, registration, news, on: connection))
  }

  /// A process that no head has numbered may be the host, started again, or a copy of it: one in another folder waits until
  /// the host is absent, whether or not its process is there at this moment.
  private func check(_ registration: HostRegistration) throws(MobulaError) {
    guard registration.incarnation == 0,
      let name = membership.rival(of: registration.folder, as: registration.host)
    else { return }
    throw MobulaError(
      .alreadyExists,
      "Host \(name) runs in another folder, or did until just now: stop it, or give a copy of its directory another identity (remove identity.json in its state folder)."
    )
  }

  /// It is written down: the process becomes the host, unless it would be another one by now.
  mutating func written(
    _ id: RequestID, _ registration: HostRegistration, _ news: HostRecord?, on connection: ConnectionID
  ) throws(MobulaError) {
    guard try membership.news(of: registration.host, registration.name, registration.process) == news else {
      // It may have been given up meanwhile.
      return try registered(id, registration, on: connection)
    }
    try join(id, registration, on: connection)
  }

  private mutating func join(
    _ id: RequestID, _ registration: HostRegistration, on connection: ConnectionID
  ) throws(MobulaError) {
    let host = registration.host
    let inventory = HostInventory(registration)
    let description = HostDescription(
      name: registration.name, bulk: registration.bulk, capacity: registration.capacity, labels: registration.labels,
      folder: registration.folder)
    // One that was here before knew no other head.
    let isKnown = membership.hosts[host]?.isHeard == true
    let actions = try membership.hostRegistered(host, description, registration.process, on: connection)
    hostNames.joined(host, registration.name)
    directory.zones[host] = registration.labels[HostLabel.zoneKey]
    watch(connection)
    apply(actions)
    if !inventory.isEmpty, !isKnown { beginSettling() }
    apply(
      directory.registered(
        host, inventory, learns: mayLearn, isComplete: registration.awaitsProcesses != true))
    heard(of: Set((inventory.sealed.map(\.object) + inventory.holds).map(\.job)))
    endSettlingEarly()
    var reply = RegistrationReply(cluster: settings.cluster, epoch: settings.epoch)
    reply.incarnation = membership.hosts[host]?.process.incarnation
    answer(id, .registration(reply))
  }

  /// A pod registers, with the leases in its books.
  package mutating func register(_ id: RequestID, _ registration: PodRegistration, on connection: ConnectionID) {
    decide(id) { state throws(MobulaError) in
      guard registration.resources.arePlausible else {
        throw MobulaError(
          .invalidArgument,
          "Pod \(registration.name) can't have \(registration.resources): amounts are positive, and at most 25 TB of memory."
        )
      }
      guard !state.registeringPods.contains(registration.pod) else {
        throw MobulaError(.unavailable, "Pod \(registration.name) is being registered: try again.")
      }
      try state.propose(id, registration, on: connection)
    }
  }

  private mutating func propose(
    _ id: RequestID, _ registration: PodRegistration, on connection: ConnectionID
  ) throws(MobulaError) {
    let news = try self.news(of: registration)
    if news != nil { registeringPods.insert(registration.pod) }
    propose(news.map { [.pod($0)] } ?? [], .podRegistration(id, registration, news, on: connection))
  }

  /// - Throws: `MobulaError`: `unavailable` for a pod in a copy of its host's folder: what its workers make would be in a
  ///   store that is none of the cluster's.
  private func news(of registration: PodRegistration) throws(MobulaError) -> PodRecord? {
    if let host = membership.rival(of: registration.folder, as: registration.host) {
      throw MobulaError(
        .unavailable,
        "Pod \(registration.name) is in another folder than host \(host): it is tried again; give a copy of a host's directory another identity (remove identity.json in its state folder)."
      )
    }
    return try podNews(of: registration)
  }

  private func podNews(of registration: PodRegistration) throws(MobulaError) -> PodRecord? {
    try membership.news(
      of: registration.pod, registration.description, registration.process, session: registration.session)
  }

  /// It is written down: the process becomes the pod, unless it would be another one, or in another session, by now.
  mutating func written(
    _ id: RequestID, _ registration: PodRegistration, _ news: PodRecord?, on connection: ConnectionID
  ) throws(MobulaError) {
    guard try self.news(of: registration) == news else { return try propose(id, registration, on: connection) }
    try join(id, registration, on: connection)
  }

  private mutating func join(
    _ id: RequestID, _ registration: PodRegistration, on connection: ConnectionID
  ) throws(MobulaError) {
    let pod = registration.pod
    let known = membership.pods[pod]
    let actions = try membership.podRegistered(
      pod, registration.description, registration.process, session: registration.session, on: connection)
    podNames.joined(pod, registration.name)
    watch(connection)
    apply(actions)
    if !registration.leases.isEmpty, known?.isHeard != true { beginSettling() }
    let session = membership.pods[pod]?.session ?? 1
    // Leases of a session that is over were revoked, and so were those that this head knows nothing of.
    let areCurrent =
      registration.session.map { $0 == session }
      ?? (known == nil || known?.isPresent == true && known?.session == session)
    let confirms = registration.nonce != nil
    let news = registration.leases.filter { !scheduler.hasPlace($0.lease) }
    let (changes, end) = scheduler.podRegistered(
      pod, host: registration.host, total: registration.resources,
      leases: registration.leases.map {
        BookedLease(lease: $0.lease, job: $0.job, resources: $0.demand, isLent: $0.isLent == true)
      },
      areCurrent: areCurrent, confirms: confirms, at: now)
    apply(changes)
    heard(of: Set(registration.leases.map(\.job)))
    decideClaims(on: news)
    actorsFound(at: pod, end: end)
    endSettlingEarly()
    var reply = RegistrationReply(cluster: settings.cluster, epoch: settings.epoch)
    reply.incarnation = membership.pods[pod]?.process.incarnation
    reply.session = session
    if confirms { reply.end = end }
    answer(id, .registration(reply))
  }

  /// A pod has ended what it was told to end.
  package mutating func confirmed(
    _ confirmation: PodConfirmation, on connection: ConnectionID
  ) throws(MobulaError) {
    guard membership.isCurrent(confirmation.pod, on: connection),
      membership.pods[confirmation.pod]?.session == confirmation.session
    else {
      throw MobulaError(
        .unavailable, "Pod \(podName(confirmation.pod)) was declared lost meanwhile: register it again.")
    }
    apply(scheduler.podConfirmed(confirmation.pod, at: now))
    actorsEnded(at: confirmation.pod)
  }

  /// The connection of a process that is registered as who another one wants to register as.
  package func rival(of registration: HostRegistration) -> ConnectionID? {
    membership.rival(of: registration.process, as: registration.host)
  }

  package func rival(of registration: PodRegistration) -> ConnectionID? {
    membership.rival(of: registration.process, as: registration.pod)
  }

  /// Somebody says that a host, by its name or identifier, is not coming back.
  package mutating func forget(_ nameOrID: Name) throws(MobulaError) {
    decided(try membership.forgotten(try host(called: nameOrID)))
  }

  /// A host is about to go, or is not after all.
  package mutating func drain(_ id: RequestID, _ request: DrainRequest) {
    decide(id) { state throws(MobulaError) in
      let host = try state.host(called: request.nameOrID)
      let isDraining = request.cancels != true
      state.propose([.draining(host, isDraining)], .drain(id, host, isDraining))
    }
  }

  mutating func setDraining(_ host: HostID, _ isDraining: Bool) {
    guard directory.draining.contains(host) != isDraining else { return }
    act(.log(.notice, "host \(hostName(host)) is \(isDraining ? "being drained" : "drained no longer")"))
    apply(scheduler.setDraining(host, isDraining, at: now))
    apply(directory.setDraining(host, isDraining))
  }

  /// - Throws: `MobulaError`: `notFound` when no member is called so, `invalidArgument` when several are.
  private func host(called nameOrID: Name) throws(MobulaError) -> HostID {
    // By the beginning of an identifier, as `mobula status` shows it, too.
    let isBeginning = nameOrID.text.utf8.count >= 4
    let named = membership.hosts.members.filter {
      $0.value.presence != .retired
        && (Name($0.value.description.name) == nameOrID
          || isBeginning && $0.key.description.utf8.starts(with: nameOrID.text.utf8))
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
    return host
  }

  /// Refuses what a host says on a connection that it did not register on, or no longer uses.
  func check(_ host: HostID, on connection: ConnectionID) throws(MobulaError) {
    guard membership.isCurrent(host, on: connection) else {
      throw MobulaError(
        .mismatch, "Host \(hostName(host)) is not registered on this connection: register it again before other calls.")
    }
  }

  /// The connection that a host is called on.
  ///
  /// - Throws: `MobulaError` (`connectionClosed`) while there is none.
  package func control(of host: HostID) throws(MobulaError) -> ConnectionID {
    guard let connection = membership.hosts[host]?.connection, connections.contains(connection) else {
      throw MobulaError(
        .connectionClosed, "Host \(hostName(host)) is not connected to the head: see `mobula status`, and try again.")
    }
    return connection
  }

  /// A host was stopped: nothing of it is waited for.
  package mutating func leave(_ leave: HostLeave) { decided(membership.left(leave.host, leave.nonce)) }

  /// Who is absent or retired from now on is written down, before anything follows from it.
  mutating func tickMembers() { decided(membership.tick(now)) }

  private mutating func decided(_ actions: [MembershipAction]) {
    let records = actions.flatMap { action -> [JournalRecord] in
      switch action {
      case .hostAbsent(let host): membership.record(of: host).map { [.host($0)] } ?? []
      // One that comes back begins anew, also in this.
      case .hostRetired(let host):
        (membership.record(of: host).map { [.host($0)] } ?? [])
          + (directory.draining.contains(host) ? [.draining(host, false)] : [])
      case .podLost(let pod): membership.record(of: pod).map { [.pod($0)] } ?? []
      default: []
      }
    }
    propose(records, .members(actions))
  }

  mutating func apply(_ actions: [MembershipAction]) {
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
        setDraining(host, false)
        hostNames.left(host)
        directory.zones[host] = nil
      case .podJoined(let pod): act(.log(.info, "pod \(podName(pod)) has joined"))
      case .podReturned(let pod): act(.log(.info, "pod \(podName(pod)) is back"))
      case .podSuspected(let pod): act(.log(.notice, "pod \(podName(pod)) is away"))
      case .podLost(let pod):
        act(.log(.warning, "pod \(podName(pod)) is lost"))
        if membership.pods[pod]?.isPresent != true { podNames.left(pod) }
        apply(scheduler.podLost(pod, at: now))
        actorsLost(at: pod)
      case .close(let connection): if connections.contains(connection) { act(.close(connection)) }
      case .wakeAt(let instant): act(.wakeAt(instant))
      }
    }
    if !absent.isEmpty { apply(directory.hostsAbsent(absent)) }
    if !retired.isEmpty { apply(directory.hostsLost(retired)) }
  }
}

extension HostRegistration {
  var process: ProcessIdentity { ProcessIdentity(nonce: nonce, incarnation: incarnation) }
}

extension PodRegistration {
  fileprivate var description: PodDescription { PodDescription(name: name, host: host, resources: resources) }
  var process: ProcessIdentity { ProcessIdentity(nonce: nonce, incarnation: incarnation) }
}
