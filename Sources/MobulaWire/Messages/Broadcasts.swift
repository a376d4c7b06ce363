public import MobulaCore

/// A host is to have an object, although no process of it asks for it.
public struct BringOrder: Codable, Sendable {
  public var object: ObjectID
  public var host: HostID
  public var priority: TransferPriority

  public init(object: ObjectID, host: HostID, priority: TransferPriority) {
    self.object = object
    self.host = host
    self.priority = priority
  }
}

public struct BringOutcome: Codable, Sendable {
  /// Bytes that came into the host's store for this order; 0 when the object was there, or on its way.
  public var bytesCopied: Int

  public init(bytesCopied: Int) { self.bytesCopied = bytesCopied }
}

/// How much of an object these hosts have.
public struct ProgressQuestion: Codable, Sendable {
  public var object: ObjectID
  public var hosts: [HostID]

  public init(object: ObjectID, hosts: [HostID]) {
    self.object = object
    self.hosts = hosts
  }
}

/// How much of an object one host has.
public struct ReplicaProgress: Codable, Sendable {
  public var host: HostID
  /// Bytes in verified chunks.
  public var verified: ByteCount
  /// `nil` while nothing of the object is there.
  public var total: ByteCount?

  public init(host: HostID, verified: ByteCount, total: ByteCount?) {
    self.host = host
    self.verified = verified
    self.total = total
  }
}
