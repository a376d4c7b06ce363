internal import Logging
internal import MobulaCore
internal import MobulaWire

extension HeadState {
  mutating func register(
    _ registration: HostRegistration, on connection: RPCConnection, at now: Duration
  ) throws(MobulaError) -> RegistrationReply {
    let host = registration.host
    let description = HostDescription(
      name: registration.name, bulk: registration.bulk, capacity: registration.capacity, labels: registration.labels)
    // One that was here before knew no other head.
    let isKnown = membership.hosts[host] != nil
    let actions = try membership.hostRegistered(
      host, description, incarnation: registration.incarnation, on: ConnectionID(connection.id))
    hostNames.joined(host, registration.name)
    directory.zones[host] = registration.labels[HostLabel.zoneKey]
    watch(connection)
    apply(actions, at: now, restarted: host)
    let inventory = HostInventory(registration)
    if !inventory.isEmpty, !isKnown { beginSettling(at: now) }
    apply(directory.registered(host, inventory))
    heard(of: Set((inventory.sealed.map(\.object) + inventory.holds).map(\.job)), at: now)
    return RegistrationReply(cluster: configuration.cluster, epoch: configuration.epoch)
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
    let description = PodDescription(
      name: registration.name, host: registration.host, resources: registration.resources)
    let isKnown = membership.pods[registration.pod] != nil
    let actions = try membership.podRegistered(
      registration.pod, description, incarnation: registration.incarnation, on: ConnectionID(connection.id))
    podNames.joined(registration.pod, registration.name)
    watch(connection)
    apply(actions, at: now)
    if !registration.leases.isEmpty, !isKnown { beginSettling(at: now) }
    apply(
      scheduler.podRegistered(
        registration.pod, host: registration.host, total: registration.resources,
        leases: registration.leases.map { BookedLease(lease: $0.lease, job: $0.job, resources: $0.demand) }, at: now))
    heard(of: Set(registration.leases.map(\.job)), at: now)
    return RegistrationReply(cluster: configuration.cluster, epoch: configuration.epoch)
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

  /// - Throws: `MobulaError` (`full`) when the cluster has used up all numbers.
  mutating func startJob(on connection: RPCConnection) throws(MobulaError) -> JobReply {
    guard let next = lastJob.next else {
      throw MobulaError(.full, "This cluster has given out every number that a job can have: start another cluster.")
    }
    lastJob = next
    jobs[lastJob] = ConnectionID(connection.id)
    watch(connection)
    return JobReply(job: lastJob)
  }

  /// - Parameter restarted: a host that registers now, perhaps a newer incarnation of it. Its memory may have
  ///   outlived the older one: what it says that it has and holds replaces what was known, and nothing is lost before.
  mutating func apply(_ actions: [MembershipAction], at now: Duration, restarted: HostID? = nil) {
    // Lost together, so that none of them is made the source of another's object.
    var lostHosts: Set<HostID> = []
    for action in actions {
      switch action {
      case .hostJoined(let host): act(.log(.info, "host \(hostName(host)) has joined"))
      case .hostReturned(let host): act(.log(.info, "host \(hostName(host)) is back"))
      case .hostSuspected(let host): act(.log(.notice, "host \(hostName(host)) is away"))
      case .hostLost(let host) where host == restarted:
        act(.log(.notice, "host \(hostName(host)) was started again"))
        apply(directory.hostRestarted(host))
      case .hostLost(let host):
        act(.log(.warning, "host \(hostName(host)) is lost"))
        lostHosts.insert(host)
        // Unless a newer incarnation is there at once.
        if membership.hosts[host] == nil {
          hostNames.left(host)
          directory.zones[host] = nil
        }
      case .podJoined(let pod): act(.log(.info, "pod \(podName(pod)) has joined"))
      case .podReturned(let pod): act(.log(.info, "pod \(podName(pod)) is back"))
      case .podSuspected(let pod): act(.log(.notice, "pod \(podName(pod)) is away"))
      case .podLost(let pod):
        act(.log(.warning, "pod \(podName(pod)) is lost"))
        if membership.pods[pod] == nil { podNames.left(pod) }
        apply(scheduler.podLost(pod, at: now))
      case .close(let connection): if let connection = connections[connection] { act(.close(connection)) }
      case .wakeAt(let instant): act(.wakeAt(instant))
      }
    }
    if !lostHosts.isEmpty { apply(directory.hostsLost(lostHosts)) }
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
    let hosts = Page(membership.hosts.members, after: page.afterHost) { _, member in
      160 + member.description.name.utf8.count
        + member.description.labels.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count + 6 }
    }
    let pods = Page(scheduler.pods, after: page.afterPod) { _, book in
      160 + 2 * book.total.amounts.keys.reduce(0) { $0 + $1.utf8.count + 12 }
    }
    let jobs = Page(jobs, after: page.afterJob) { _, _ in 9 }
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
      objects: directory.records.values.count { !$0.planner.isEmpty }, waiting: scheduler.queue.count)
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
