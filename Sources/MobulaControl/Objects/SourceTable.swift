import MobulaCore

/// The hosts that have chunks of one object, and who takes them from whom.
struct SourceTable: Sendable {
  /// Among how many hosts the least busy are looked for.
  private static let sample = 24

  /// Hosts with every chunk, in the order in which they had them; the first is the origin.
  private(set) var complete: [HostID] = []
  /// Hosts with some chunks, able to serve them.
  private(set) var partial: Set<HostID> = []
  /// Hosts that fill their replicas from outside the cluster, from S3, each with a part of it: together they have all.
  private(set) var fillers: Set<HostID> = []
  /// The sources of each receiver that is not complete.
  private(set) var given: [HostID: Set<HostID>] = [:]
  /// For each source, how many receivers it was given to.
  private(set) var load: [HostID: Int] = [:]
  /// Every host that can serve; their order means nothing.
  private var ready: [HostID] = []
  private var places: [HostID: Int] = [:]
  /// Receivers that the ready hosts have room for, together.
  private(set) var room = 0
  /// The same events give the same choices.
  private var generator = SeededGenerator(seed: 0)
  /// Whether a choice was made: others follow from it.
  private var hasChosen = false

  var isEmpty: Bool { ready.isEmpty }
  /// Whether there is one host that has every chunk, or some that get them from outside.
  var hasRoot: Bool { !complete.isEmpty || !fillers.isEmpty }
  /// Every host with a replica, whole or not, in the order of their identifiers.
  var replicas: [HostID] { ready.sorted() }

  func isReady(_ host: HostID) -> Bool { places[host] != nil }

  /// Whether at most one complete replica is all that there is to know.
  var isPlain: Bool {
    ready.count == complete.count && complete.count <= 1 && fillers.isEmpty && given.isEmpty && load.isEmpty
      && !hasChosen
  }

  mutating func completed(_ host: HostID) {
    partial.remove(host)
    forget(host)
    fillers.remove(host)
    if !complete.contains(host) { complete.append(host) }
    add(host)
  }

  mutating func started(_ host: HostID) {
    if !complete.contains(host) { partial.insert(host) }
    add(host)
  }

  /// `host` has no replica any more, and gets none.
  mutating func removeReplica(of host: HostID) {
    complete.removeAll { $0 == host }
    partial.remove(host)
    forget(host)
    guard let place = places.removeValue(forKey: host) else { return }
    room -= max(0, SourcePlanner.receiversPerSource - (load[host] ?? 0))
    load[host] = nil
    for receiver in given.keys where given[receiver]!.contains(host) { given[receiver]!.remove(host) }
    let last = ready.removeLast()
    if last != host {
      ready[place] = last
      places[last] = place
    }
  }

  /// `receiver` takes the object from nobody any more.
  mutating func forget(_ receiver: HostID) {
    for source in given.removeValue(forKey: receiver) ?? [] { change(source, by: -1) }
  }

  /// `host` fills its replica from outside, too; or doesn't any more.
  mutating func setFills(_ host: HostID, _ fills: Bool) {
    if fills { fillers.insert(host) } else { fillers.remove(host) }
  }

  /// Hosts that `receiver` shall take chunks from besides those that it knows; none when it has to wait.
  mutating func choose(
    for receiver: HostID, excluding excluded: Set<HostID>, plan: SourcePlan, count: Int,
    isNear: (HostID) -> Bool
  ) -> [HostID] {
    var chosen: [HostID] = []
    hasChosen = true
    if plan == .origin {
      chosen = (complete + fillers.sorted()).filter { isSource($0, for: receiver, excluded) }
      chosen = Array(chosen.prefix(1))
    } else if ready.count <= Self.sample {
      let free = ready.filter { hasRoom($0) && isSource($0, for: receiver, excluded) }
      chosen = mixed(leastBusy(free, free.count), count, for: receiver, isNear)
    } else {
      var sampled: Set<HostID> = []
      // Where every chunk is, or comes from, there is most to be had.
      if let root = complete.first ?? fillers.min() { sampled.insert(root) }
      for _ in 0..<Self.sample { sampled.insert(ready.randomElement(using: &generator)!) }
      let free = sampled.filter { hasRoom($0) && isSource($0, for: receiver, excluded) }.sorted()
      chosen = mixed(leastBusy(free, free.count), count, for: receiver, isNear)
    }
    for source in chosen where given[receiver, default: []].insert(source).inserted { change(source, by: 1) }
    return chosen
  }

  /// Whether any host is left that could be a source, busy or not.
  func hasSource(for receiver: HostID, excluding excluded: Set<HostID>) -> Bool {
    ready.contains { isSource($0, for: receiver, excluded) }
      || fillers.contains { $0 != receiver && !excluded.contains($0) }
  }

  private func isSource(_ host: HostID, for receiver: HostID, _ excluded: Set<HostID>) -> Bool {
    host != receiver && places[host] != nil && !excluded.contains(host)
  }

  private func hasRoom(_ host: HostID) -> Bool { (load[host] ?? 0) < SourcePlanner.receiversPerSource }

  /// The first of `ranked`, so mixed that half of all that the receiver has been given are near.
  private func mixed(
    _ ranked: [HostID], _ count: Int, for receiver: HostID, _ isNear: (HostID) -> Bool
  ) -> [HostID] {
    let near = ranked.filter(isNear)
    let far = ranked.filter { !isNear($0) }
    let before = given[receiver] ?? []
    // What one kind lacks the other makes up for.
    let wanted = max((before.count + count) / 2 - before.count(where: isNear), count - far.count)
    let fromNear = max(0, min(wanted, count, near.count))
    return Array(near.prefix(fromNear) + far.prefix(count - fromNear))
  }

  private mutating func leastBusy(_ hosts: [HostID], _ count: Int) -> [HostID] {
    let ranked = hosts.map { (load: load[$0] ?? 0, tie: generator.next(), host: $0) }
    return ranked.sorted { ($0.load, $0.tie) < ($1.load, $1.tie) }.prefix(count).map(\.host)
  }

  private mutating func add(_ host: HostID) {
    guard places[host] == nil else { return }
    places[host] = ready.count
    ready.append(host)
    room += max(0, SourcePlanner.receiversPerSource - (load[host] ?? 0))
  }

  private mutating func change(_ source: HostID, by difference: Int) {
    let before = load[source] ?? 0
    load[source] = before + difference > 0 ? before + difference : nil
    guard places[source] != nil else { return }
    room +=
      max(0, SourcePlanner.receiversPerSource - before - difference) - max(0, SourcePlanner.receiversPerSource - before)
  }
}
