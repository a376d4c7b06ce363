import MobulaCore

/// Where the receivers of an object may take it from.
package enum SourcePlan: Hashable, Sendable {
  /// Every host that has chunks sends them on: n receivers take about as long as one.
  case relay
  /// Only the first host that had the whole object sends, to as many as ask.
  case origin
}

/// Which hosts have chunks of one object, and whom to give to a receiver as sources.
///
/// A receiver gets a few sources, complete or partial, and a source a few receivers. Since hosts that
/// exchange an object find each other at both ends, that makes a random graph of bounded degree over all of them,
/// whose depth grows with the logarithm of their number; what goes along which edge, they agree on among themselves.
struct SourcePlanner: Sendable {
  /// Receivers that a source is given to at a time, at most.
  static let receiversPerSource = 8
  /// Sources that a receiver is given at once, at most.
  static let sourcesAtOnce = 4

  /// All there is to know, as one element, where that is more than `only`. An array, since that is copied when it is
  /// shared and changed.
  private var table: [SourceTable] = []
  /// The only host with chunks: it has all of them, and nobody takes any. So it is with most objects.
  private var only: HostID?

  /// Hosts with every chunk, in the order in which they had them; the first is the origin.
  var complete: [HostID] { table.isEmpty ? only.map { [$0] } ?? [] : table[0].complete }
  var firstComplete: HostID? { table.isEmpty ? only : table[0].complete.first }
  var hasComplete: Bool { firstComplete != nil }
  /// Hosts with some chunks, able to serve them.
  var partial: Set<HostID> { table.isEmpty ? [] : table[0].partial }
  /// Hosts that fill their replicas from outside the cluster, from S3, each with a part of it: together they have all.
  var fillers: Set<HostID> { table.isEmpty ? [] : table[0].fillers }
  /// The sources of each receiver that is not complete.
  var given: [HostID: Set<HostID>] { table.isEmpty ? [:] : table[0].given }
  /// For each source, how many receivers it was given to.
  var load: [HostID: Int] { table.isEmpty ? [:] : table[0].load }
  /// Receivers that the ready hosts have room for, together.
  var room: Int { table.isEmpty ? (only == nil ? 0 : Self.receiversPerSource) : table[0].room }
  var isEmpty: Bool { table.isEmpty ? only == nil : table[0].isEmpty }
  /// Whether there is one host that has every chunk, or some that get them from outside.
  var hasRoot: Bool { table.isEmpty ? only != nil : table[0].hasRoot }
  /// Every host with a replica, whole or not, in the order of their identifiers.
  var replicas: [HostID] { table.isEmpty ? complete : table[0].replicas }

  func isReady(_ host: HostID) -> Bool { table.isEmpty ? only == host : table[0].isReady(host) }
  func isComplete(_ host: HostID) -> Bool { table.isEmpty ? only == host : table[0].complete.contains(host) }
  func isOnlyComplete(_ host: HostID) -> Bool { table.isEmpty ? only == host : table[0].complete == [host] }

  mutating func completed(_ host: HostID) {
    if table.isEmpty, only ?? host == host { only = host } else { change { $0.completed(host) } }
  }

  mutating func started(_ host: HostID) { if !isComplete(host) { change { $0.started(host) } } }

  /// `host` has no replica any more, and gets none.
  mutating func removeReplica(of host: HostID) {
    if !table.isEmpty { change { $0.removeReplica(of: host) } } else if only == host { only = nil }
  }

  /// `receiver` takes the object from nobody any more.
  mutating func forget(_ receiver: HostID) { if !table.isEmpty { change { $0.forget(receiver) } } }

  /// `host` fills its replica from outside, too; or doesn't any more.
  mutating func setFills(_ host: HostID, _ fills: Bool) {
    if fills || !table.isEmpty { change { $0.setFills(host, fills) } }
  }

  /// Hosts that `receiver` shall take chunks from besides those that it knows; none when it has to wait.
  ///
  /// - Parameters:
  ///   - excluded: hosts that it knows, or that failed it.
  ///   - count: how many, at most.
  ///   - isNear: whether a host is in the receiver's zone. Of the sources of a receiver about half are near, where
  ///     there are as many; the first is not, so that chunks flow into every zone.
  mutating func choose(
    for receiver: HostID, excluding excluded: Set<HostID>, plan: SourcePlan, count: Int = sourcesAtOnce,
    isNear: (HostID) -> Bool = { _ in false }
  ) -> [HostID] {
    change { $0.choose(for: receiver, excluding: excluded, plan: plan, count: count, isNear: isNear) }
  }

  /// Whether any host is left that could be a source, busy or not.
  func hasSource(for receiver: HostID, excluding excluded: Set<HostID>) -> Bool {
    if !table.isEmpty { return table[0].hasSource(for: receiver, excluding: excluded) }
    return only.map { $0 != receiver && !excluded.contains($0) } ?? false
  }

  private mutating func change<Result>(_ body: (inout SourceTable) -> Result) -> Result {
    if table.isEmpty {
      var all = SourceTable()
      if let only { all.completed(only) }
      table = [all]
      only = nil
    }
    let result = body(&table[0])
    if table[0].isPlain {
      only = table[0].complete.first
      table = []
    }
    return result
  }
}
