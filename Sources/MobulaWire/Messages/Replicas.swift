public import MobulaCore

/// A complete replica, as its host reports it.
public struct ReplicaReport: Codable, Sendable, Hashable {
  public var object: ObjectID
  public var geometry: ChunkGeometry
  public var digest: ObjectDigest
  /// The objects whose references lie inside this one; it holds them.
  public var contains: [ObjectID]

  public init(object: ObjectID, geometry: ChunkGeometry, digest: ObjectDigest, contains: [ObjectID] = []) {
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

/// A host asks where to take an object from. Waits at the head until there is a replica.
public struct LocateRequest: Codable, Sendable {
  public var host: HostID
  public var object: ObjectID
  /// Hosts that failed it in this transfer.
  public var excluding: [HostID]
  public var policy: SourcePolicy

  public init(host: HostID, object: ObjectID, excluding: [HostID] = [], policy: SourcePolicy = .relay) {
    self.host = host
    self.object = object
    self.excluding = excluding
    self.policy = policy
  }
}

public struct LocateReply: Codable, Sendable {
  /// The host to ask for chunks; the asking host itself when it has the object.
  public var source: HostID
  /// Where the source's chunks are served.
  public var bulk: Endpoint
  public var geometry: ChunkGeometry
  /// Known once the maker has sealed it.
  public var digest: ObjectDigest?

  public init(source: HostID, bulk: Endpoint, geometry: ChunkGeometry, digest: ObjectDigest?) {
    self.source = source
    self.bulk = bulk
    self.geometry = geometry
    self.digest = digest
  }
}

/// A receiver no longer takes chunks from a source, because it has them all or because it failed.
public struct TransferEnded: Codable, Sendable {
  public var receiver: HostID
  public var source: HostID
  public var object: ObjectID

  public init(receiver: HostID, source: HostID, object: ObjectID) {
    self.receiver = receiver
    self.source = source
    self.object = object
  }
}
