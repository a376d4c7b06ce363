import MobulaCore

/// Where the receivers of an object may take it from.
enum SourcePlan: Hashable, Sendable {
  /// Every host that has chunks sends them on to one other: n receivers take about as long as one.
  case relay
  /// Only the first host that had the whole object sends, to as many as ask.
  case origin
}

/// Which hosts have chunks of one object, and which of them feeds which.
///
/// Every receiver has at most one source, and following the sources upwards
/// never comes back: a host is made a source only if its own chain ends at a
/// host that needs nobody (a *root*) without passing the receiver.
struct SourceGraph: Hashable, Sendable {
  /// Hosts with every chunk, in the order in which they had them; the first is the origin.
  private(set) var complete: [HostID] = []
  /// Hosts with some chunks, able to serve them.
  private(set) var partial: Set<HostID> = []
  /// The source of each receiver. A receiver that is not yet in `partial` has been
  /// answered, but has not said yet that it can serve.
  private(set) var sources: [HostID: HostID] = [:]
  /// When each of those that have not said so yet must have.
  private(set) var deadlines: [HostID: Duration] = [:]
  /// The host that fills its replica from outside the cluster, from S3; a root while it does.
  private(set) var filler: HostID?

  enum Choice: Hashable, Sendable {
    case source(HostID)
    /// A host that was just given a source will be one itself in a moment.
    case wait
    /// Nobody is left that could send.
    case none
  }

  var isEmpty: Bool { complete.isEmpty && partial.isEmpty }
  var hasRoot: Bool { !complete.isEmpty || filler != nil }
  /// Every host with a replica, whole or not, in the order of their identifiers.
  var replicas: [HostID] { (complete + partial).sorted() }

  mutating func completed(_ host: HostID) {
    partial.remove(host)
    detach(host)
    if filler == host { filler = nil }
    if !complete.contains(host) { complete.append(host) }
  }

  mutating func started(_ host: HostID) {
    if !complete.contains(host) { partial.insert(host) }
    deadlines[host] = nil
  }

  /// `host` has no replica any more; its receivers have no source until they ask again.
  mutating func removeReplica(of host: HostID) {
    complete.removeAll { $0 == host }
    partial.remove(host)
    for (receiver, source) in sources where source == host { detach(receiver) }
  }

  /// `host` is no longer fed, by `source` or by whomever.
  mutating func detach(_ host: HostID, from source: HostID? = nil) {
    guard source == nil || sources[host] == source else { return }
    sources[host] = nil
    deadlines[host] = nil
  }

  /// `receiver` takes the object from `source`.
  ///
  /// - Parameter deadline: when it must have begun to, unless it has chunks already.
  mutating func attach(_ receiver: HostID, to source: HostID, until deadline: Duration) {
    precondition(chain(above: source)?.contains(receiver) == false, "a source must not depend on its receiver")
    sources[receiver] = source
    deadlines[receiver] = isReady(receiver) ? nil : deadline
  }

  mutating func fill(by host: HostID?) {
    filler = host
    if let host { detach(host) }
  }

  /// `host` and the hosts above it, up to a root; `nil` when they end at a host that gets nothing.
  func chain(above host: HostID) -> [HostID]? {
    var chain = [host]
    while let last = chain.last, !isRoot(last) {
      guard let next = sources[last] else { return nil }
      precondition(chain.count <= sources.count, "the sources of a replica go round in a circle")
      chain.append(next)
    }
    return chain
  }

  /// The source that `receiver` shall use.
  ///
  /// Relaying, that is the idle host closest to a root, so that a few receivers form a
  /// chain in the order in which they ask; when none is idle, the one with the fewest receivers.
  func choose(for receiver: HostID, excluding excluded: Set<HostID>, plan: SourcePlan) -> Choice {
    if plan == .origin || receiver == filler { return chooseRoot(for: receiver, excluding: excluded) }
    let load = sources.values.reduce(into: [HostID: Int]()) { $0[$1, default: 0] += 1 }
    var best: (host: HostID, rank: [Int])?
    var mayWait = false
    for host in Set(complete).union(partial).union(sources.keys).union(filler.map { [$0] } ?? []).sorted()
    where host != receiver && !excluded.contains(host) {
      guard let chain = chain(above: host), !chain.contains(receiver) else { continue }
      guard isReady(host) else {
        mayWait = true
        continue
      }
      let rank = [load[host] ?? 0, chain.count, complete.firstIndex(of: host) ?? 0]
      if best == nil || rank.lexicographicallyPrecedes(best!.rank) { best = (host, rank) }
    }
    guard let best else { return mayWait ? .wait : .none }
    return mayWait && best.rank[0] > 0 ? .wait : .source(best.host)
  }

  private func chooseRoot(for receiver: HostID, excluding excluded: Set<HostID>) -> Choice {
    if let origin = complete.first(where: { $0 != receiver && !excluded.contains($0) }) { return .source(origin) }
    guard let filler, !excluded.contains(filler) else { return .none }
    return filler != receiver && isReady(filler) ? .source(filler) : .wait
  }

  private func isRoot(_ host: HostID) -> Bool { host == filler || complete.contains(host) }
  private func isReady(_ host: HostID) -> Bool { partial.contains(host) || complete.contains(host) }
}
