package import MobulaCore

extension ClusterState {
  /// One page of the cluster as `mobula status` shows it.
  package func status(at endpoint: Endpoint, _ page: StatusRequest) -> ClusterStatus {
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
        capacity: member.description.capacity, objects: directory.usage[host].objects,
        bytes: directory.usage[host].bytes, connected: member.connection != nil,
        labels: member.description.labels, draining: directory.draining.contains(host) ? true : nil)
    }
    let podsShown = pods.elements.map { pod, book in
      ClusterStatus.Pod(
        pod: pod, name: podNames[pod] ?? pod.short, host: book.host, resources: book.total, leased: book.leased,
        leases: book.leases.count)
    }
    var status = ClusterStatus(
      cluster: settings.cluster, head: endpoint, hosts: hostsShown, pods: podsShown,
      jobs: jobs.elements.map(\.key),
      objects: directory.usage.available, waiting: scheduler.queue.count, absent: absent)
    status.epoch = settings.epoch
    status.demands = demands
    if isSettling { status.settling = true }
    if hosts.hasMore || pods.hasMore || jobs.hasMore { status.more = true }
    return status
  }

  // MARK: Lists

  /// The first objects behind one, in the order of their identifiers: `count` of them, or fewer where there are no more.
  package func objects(after object: ObjectID?, count: Int) -> [ObjectID] {
    directory.objects(after: object, count: count)
  }

  /// Those of the objects that are to be listed.
  ///
  /// - Parameter name: only names behind this one are listed.
  package func listed(_ objects: [ObjectID], after name: Name? = nil) -> [ObjectListing] {
    directory.listed(objects).map { ObjectListing($0, after: name) }
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
