/// A complete replica, as its host reports it.
public struct ReplicaReport: Codable, Sendable, Hashable {
  public var object: ObjectID
  public var geometry: ChunkGeometry
  public var digest: ObjectDigest
  /// The objects whose references lie inside this one; it holds them.
  public var contains: [ObjectID]
  /// Whether it was made here and has no other, so that it is not evicted; `nil` from a host that doesn't say.
  public var isPrimary: Bool?

  public init(
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
public enum ReplicaChange: Codable, Sendable {
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

public struct ReplicaChanges: Codable, Sendable {
  public var host: HostID
  public var changes: [ReplicaChange]

  public init(host: HostID, changes: [ReplicaChange]) {
    self.host = host
    self.changes = changes
  }
}

/// The objects that began or ceased to be held by any process of a host.
public struct HoldChanges: Codable, Sendable {
  public var host: HostID
  public var added: [ObjectID]
  public var removed: [ObjectID]

  public init(host: HostID, added: [ObjectID], removed: [ObjectID]) {
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
public struct LocateRequest: Codable, Sendable {
  public var host: HostID
  public var object: ObjectID
  /// Hosts that failed it in this transfer.
  public var excluding: [HostID]
  /// Hosts that it takes chunks from already.
  public var known: [HostID]
  public var policy: SourcePolicy
  /// Whether to wait for an absent host that alone has it, instead of hearing which one it is.
  public var waits: Bool?

  public init(
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
public struct TransferPeer: Codable, Sendable, Hashable {
  public var host: HostID
  /// Where it serves its chunks: TCP.
  public var bulk: Endpoint

  public init(host: HostID, bulk: Endpoint) {
    self.host = host
    self.bulk = bulk
  }
}

public struct LocateReply: Codable, Sendable {
  /// The asking host has the object itself.
  public var isLocal: Bool
  public var sources: [TransferPeer]
  public var geometry: ChunkGeometry
  /// Known once the maker has sealed it.
  public var digest: ObjectDigest?
  /// What the bytes are compared with, where no host has compared them yet.
  public var checksum: ExpectedChecksum?

  public init(
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
public struct TransferEnded: Codable, Sendable {
  public var receiver: HostID
  public var object: ObjectID

  public init(receiver: HostID, object: ObjectID) {
    self.receiver = receiver
    self.object = object
  }
}
