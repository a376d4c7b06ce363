public import MobulaCore
public import MobulaStore
public import MobulaWire

/// What a host answers to the processes on it, over its Unix socket.
///
/// Everything that a process pins, holds or has not sealed yet ends with its connection.
public enum HostAPI {
  public static let attach = RPCMethod<Empty, AttachReply>("host.attach")

  public static let create = RPCMethod<CreateRequest, Placement>("host.create")
  public static let seal = RPCMethod<SealRequest, ReplicaReport>("host.seal")
  /// Names an object at the head; this host remembers it for a head that is restarted.
  public static let setName = RPCMethod<NameRequest, Empty>("host.setName")
  public static let abort = RPCMethod<ObjectRequest, Empty>("host.abort")

  /// Answers once every byte of the object is in this host's store, fetched from elsewhere if need be.
  public static let pin = RPCMethod<PinRequest, PinReply>("host.pin")
  public static let unpin = RPCMethod<ObjectRequest, Empty>("host.unpin")
  public static let progress = RPCMethod<ObjectRequest, ReplicaProgress>("host.progress")

  /// Answers once the head knows what is held from now on.
  public static let holdsChanged = RPCMethod<ProcessHoldChanges, Empty>("host.holdsChanged")

  /// Makes a named object of something in S3, unless that version is in the cluster already.
  public static let fetch = RPCMethod<FetchRequest, FetchReply>("host.fetch")
  public static let listS3 = RPCMethod<ListS3Request, ListS3Reply>("host.listS3")
}

public struct AttachReply: Codable, Sendable {
  public var host: HostID
  public var name: String
  public var cluster: ClusterID
  public var head: Endpoint
  /// Where other hosts reach this one.
  public var address: String
  /// The Unix socket that hands out descriptors.
  public var descriptorSocket: String
  public var capacity: ByteCount
}

public struct ObjectRequest: Codable, Sendable {
  public var object: ObjectID

  public init(_ object: ObjectID) { self.object = object }
}

public struct CreateRequest: Codable, Sendable {
  public var object: ObjectID
  /// Bytes; at least one.
  public var size: Int
  /// Whether the caller holds the object from now on.
  public var holds: Bool

  public init(object: ObjectID, size: Int, holds: Bool) {
    self.object = object
    self.size = size
    self.holds = holds
  }
}

public struct SealRequest: Codable, Sendable {
  public var object: ObjectID
  public var contains: [ObjectID]

  public init(object: ObjectID, contains: [ObjectID]) {
    self.object = object
    self.contains = contains
  }
}

public struct PinRequest: Codable, Sendable {
  public var object: ObjectID
  public var policy: SourcePolicy

  public init(object: ObjectID, policy: SourcePolicy) {
    self.object = object
    self.policy = policy
  }
}

public struct PinReply: Codable, Sendable {
  public var placement: Placement
  public var digest: ObjectDigest
  /// Bytes that came into this host's store on behalf of this request; 0 when
  /// the object was here, or on its way here for somebody else.
  public var bytesCopied: Int
}

public struct ReplicaProgress: Codable, Sendable {
  /// Bytes in verified chunks.
  public var verified: ByteCount
  /// `nil` while nothing of the object is here.
  public var total: ByteCount?
}

/// The objects that a process began or ceased to hold.
public struct ProcessHoldChanges: Codable, Sendable {
  public var added: [ObjectID]
  public var removed: [ObjectID]

  public init(added: [ObjectID], removed: [ObjectID]) {
    self.added = added
    self.removed = removed
  }
}

public struct FetchRequest: Codable, Sendable {
  /// `s3://bucket/key`.
  public var url: String
  /// `http://HOST:PORT` of another S3 than the one in the host's environment.
  public var endpoint: String?

  public init(url: String, endpoint: String? = nil) {
    self.url = url
    self.endpoint = endpoint
  }
}

public struct FetchReply: Codable, Sendable {
  public var object: ObjectID
  public var name: String
  /// Bytes of the S3 object.
  public var size: ByteCount
  /// Bytes that left S3 for this request.
  public var bytesFromS3: Int
}

public struct ListS3Request: Codable, Sendable {
  /// `s3://bucket/prefix`.
  public var url: String
  public var endpoint: String?

  public init(url: String, endpoint: String? = nil) {
    self.url = url
    self.endpoint = endpoint
  }
}

public struct ListS3Reply: Codable, Sendable {
  public struct Entry: Codable, Sendable {
    public var url: String
    public var size: ByteCount
  }

  public var entries: [Entry]
}
