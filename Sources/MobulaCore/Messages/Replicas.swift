/// A complete replica, as its host reports it.
package struct ReplicaReport: Codable, Sendable, Hashable {
  package var object: ObjectID
  package var geometry: ChunkGeometry
  package var digest: ObjectDigest
  /// The objects whose references lie inside this one; it holds them.
  package var contains: [ObjectID]
  /// Whether it was made here and has no other, so that it is not evicted; `nil` from a host that doesn't say.
  package var isPrimary: Bool?

  package init(
    object: ObjectID, geometry: ChunkGeometry, digest: ObjectDigest, contains: [ObjectID] = [], isPrimary: Bool? = nil
  ) {
    self.isPrimary = isPrimary
    self.object = object
    self.geometry = geometry
    self.digest = digest
    self.contains = contains
  }
}

/// What changed in a host's store, in the order in which it happened.
package enum ReplicaChange: Codable, Sendable {
  /// Complete; `held` when a process of this host holds it already.
  case sealed(ReplicaReport, held: Bool)
  /// Being received: its verified chunks may be asked for.
  case partial(object: ObjectID, geometry: ChunkGeometry)
  /// Evicted, dropped, or given up while it was being received.
  case gone(object: ObjectID)
}

extension ReplicaChange {
  /// About as many bytes as it takes on the wire.
  package var wireSize: Int {
    if case .sealed(let report, _) = self { 128 + 17 * report.contains.count } else { 96 }
  }
}

package struct ReplicaChanges: Codable, Sendable {
  package var host: HostID
  package var changes: [ReplicaChange]

  package init(host: HostID, changes: [ReplicaChange]) {
    self.host = host
    self.changes = changes
  }
}

/// The objects that began or ceased to be held by any process of a host.
package struct HoldChanges: Codable, Sendable {
  package var host: HostID
  package var added: [ObjectID]
  package var removed: [ObjectID]

  package init(host: HostID, added: [ObjectID], removed: [ObjectID]) {
    self.host = host
    self.added = added
    self.removed = removed
  }
}

extension HoldChanges {
  /// As many messages as these take; one, if they fit.
  package static func parts(_ host: HostID, added: [ObjectID], removed: [ObjectID]) -> [HoldChanges] {
    guard 17 * (added.count + removed.count) > PageBudget.bytes else {
      return [HoldChanges(host: host, added: added, removed: removed)]
    }
    return pages(of: added) { _ in 17 }.map { HoldChanges(host: host, added: $0, removed: []) }
      + pages(of: removed) { _ in 17 }.map { HoldChanges(host: host, added: [], removed: $0) }
  }
}

/// A host asks where to take an object from. Waits at the head until there is a replica, or another one than
/// those that are known.
package struct LocateRequest: Codable, Sendable {
  package var host: HostID
  package var object: ObjectID
  /// Hosts that failed it in this transfer.
  package var excluding: [HostID]
  /// Hosts that it takes chunks from already.
  package var known: [HostID]
  package var policy: SourcePolicy
  /// Whether to wait for an absent host that alone has it, instead of hearing which one it is.
  package var waits: Bool?

  package init(
    host: HostID, object: ObjectID, excluding: [HostID] = [], known: [HostID] = [], policy: SourcePolicy = .relay
  ) {
    self.host = host
    self.object = object
    self.excluding = excluding
    self.known = known
    self.policy = policy
  }
}

/// A host that has chunks of an object, or wants some.
package struct TransferPeer: Codable, Sendable, Hashable {
  package var host: HostID
  /// Where it serves its chunks: TCP.
  package var bulk: Endpoint

  package init(host: HostID, bulk: Endpoint) {
    self.host = host
    self.bulk = bulk
  }
}

package struct LocateReply: Codable, Sendable {
  /// The asking host has the object itself.
  package var isLocal: Bool
  package var sources: [TransferPeer]
  package var geometry: ChunkGeometry
  /// Known once the maker has sealed it.
  package var digest: ObjectDigest?
  /// What the bytes are compared with, where no host has compared them yet.
  package var checksum: ExpectedChecksum?

  package init(
    isLocal: Bool, sources: [TransferPeer], geometry: ChunkGeometry, digest: ObjectDigest?,
    checksum: ExpectedChecksum? = nil
  ) {
    self.checksum = checksum
    self.isLocal = isLocal
    self.sources = sources
    self.geometry = geometry
    self.digest = digest
  }
}

/// A receiver takes no chunks of an object from anybody any more, because it has them all or because it gave up.
package struct TransferEnded: Codable, Sendable {
  package var receiver: HostID
  package var object: ObjectID

  package init(receiver: HostID, object: ObjectID) {
    self.receiver = receiver
    self.object = object
  }
}
