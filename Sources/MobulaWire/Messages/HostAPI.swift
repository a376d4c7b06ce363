public import MobulaCore

/// What a host answers to the processes on it, over its Unix socket.
///
/// Objects are put and pinned in the store's shared memory, past these calls. What a process holds ends
/// with the process, not with its connection.
public enum HostAPI {
  /// The right to attach to the store.
  public static let welcome = RPCMethod<Empty, WelcomeReply>("host.welcome")
  /// Says which client of the store this connection's process is; before anything else.
  public static let attach = RPCMethod<AttachRequest, Empty>("host.attach")
  /// Says all that the process holds, as it is after `attach` was answered; the second call. What it put
  /// meanwhile may or may not be among it.
  public static let registerHolds = RPCMethod<HoldRegistration, Empty>("host.registerHolds")
  /// The process holds nothing any more.
  public static let leave = RPCMethod<Empty, Empty>("host.leave")

  /// The process drives this job, which ends with it; said again whenever it has attached again.
  public static let drives = RPCMethod<DriverNotice, Empty>("host.drives")

  /// Names an object at the head; this host remembers it for a head that is restarted.
  public static let setName = RPCMethod<NameRequest, Empty>("host.setName")
  /// Takes a name away, at the head and here.
  public static let removeName = RPCMethod<ResolveRequest, Empty>("host.removeName")
  /// What the head knows of an object, for processes that need nothing else of it. Only where `WelcomeReply.resolves`.
  public static let resolve = RPCMethod<ResolveRequest, ObjectListing>("host.resolve")

  /// Answers once every byte of the object is in this host's memory, fetched from elsewhere if need be.
  public static let bring = RPCMethod<BringRequest, BringReply>("host.bring")
  public static let progress = RPCMethod<ObjectRequest, ReplicaProgress>("host.progress")

  /// Answers once the head knows what is held from now on; with `waits` false, at once.
  public static let holdsChanged = RPCMethod<ProcessHoldChanges, Empty>("host.holdsChanged")
  /// Answers once the head knows all that this host was told before.
  public static let confirmHolds = RPCMethod<Empty, Empty>("host.confirmHolds")

  /// How the host is, and its connection to the head; answered without the head.
  public static let state = RPCMethod<Empty, HostState>("host.state")

  /// Makes a named object of something in S3, unless that version is in the cluster already.
  public static let fetch = RPCMethod<FetchRequest, FetchReply>("host.fetch")
  /// What the store holds.
  public static let statistics = RPCMethod<Empty, StoreStatistics>("host.statistics")
  public static let listS3 = RPCMethod<ListS3Request, ListS3Reply>("host.listS3")
  /// From where the bytes of an object came that this host received lately.
  public static let origins = RPCMethod<ObjectRequest, OriginsReply>("host.origins")
}

/// A host as it sees itself.
public struct HostState: Codable, Sendable {
  public var host: HostID
  public var name: String
  /// `nil` before the head was ever reached.
  public var cluster: ClusterID?
  public var head: LinkStatus
  public var objects: Int
  /// News of objects here that the head has still to be told.
  public var queued: Int

  package init(
    host: HostID, name: String, cluster: ClusterID?, head: LinkStatus, objects: Int, queued: Int
  ) {
    self.host = host
    self.name = name
    self.cluster = cluster
    self.head = head
    self.objects = objects
    self.queued = queued
  }
}

public struct DriverNotice: Codable, Sendable {
  public var job: JobID

  public init(job: JobID) { self.job = job }
}

public struct WelcomeReply: Codable, Sendable {
  public var host: HostID
  public var name: String
  public var cluster: ClusterID
  public var head: Endpoint
  /// Where other hosts reach this one.
  public var address: String
  /// The store's socket, and what to show there.
  public var storeSocket: String
  public var ticket: DescriptorTicket
  public var capacity: ByteCount
  /// Whether the host answers `HostAPI.resolve`; `nil` from one that doesn't know it.
  public var resolves: Bool?

  package init(
    host: HostID, name: String, cluster: ClusterID, head: Endpoint, address: String, storeSocket: String,
    ticket: DescriptorTicket, capacity: ByteCount, resolves: Bool? = nil
  ) {
    self.resolves = resolves
    self.host = host
    self.name = name
    self.cluster = cluster
    self.head = head
    self.address = address
    self.storeSocket = storeSocket
    self.ticket = ticket
    self.capacity = capacity
  }
}

public struct AttachRequest: Codable, Sendable {
  public var client: StoreClientID
  public var secret: ClientSecret

  public init(client: StoreClientID, secret: ClientSecret) {
    self.client = client
    self.secret = secret
  }
}

public struct HoldRegistration: Codable, Sendable {
  public var holds: [ObjectID]
  /// Whether another call follows with more of them.
  public var more: Bool?
  /// Whether the answer is to wait for the head. Default: true.
  public var waits: Bool?

  public init(holds: [ObjectID], more: Bool? = nil, waits: Bool? = nil) {
    self.holds = holds
    self.more = more
    self.waits = waits
  }
}

public struct ObjectRequest: Codable, Sendable {
  public var object: ObjectID

  public init(_ object: ObjectID) { self.object = object }
}

public struct BringRequest: Codable, Sendable {
  public var object: ObjectID
  public var policy: SourcePolicy
  /// Whether the process can read it from a spill file, where memory has no room for it.
  public var readsFiles: Bool?

  public init(object: ObjectID, policy: SourcePolicy, readsFiles: Bool? = nil) {
    self.object = object
    self.policy = policy
    self.readsFiles = readsFiles
  }
}

public struct BringReply: Codable, Sendable {
  public var digest: ObjectDigest
  /// Bytes that came into this host's store on behalf of this request; 0 when
  /// the object was here, or on its way here for somebody else.
  public var bytesCopied: Int
  /// Set when it is not in memory, which has no room for it, but in a file that the process can read.
  public var isInFile: Bool?

  package init(digest: ObjectDigest, bytesCopied: Int, isInFile: Bool? = nil) {
    self.digest = digest
    self.bytesCopied = bytesCopied
    self.isInFile = isInFile
  }
}

/// The objects that a process began or ceased to hold.
public struct ProcessHoldChanges: Codable, Sendable {
  public var added: [ObjectID]
  public var removed: [ObjectID]
  /// Of the removed those of which nobody but the process ever knew.
  public var unshared: [ObjectID]
  /// Of which others may ask the head from now on.
  public var shared: [ObjectID]
  /// Whether the answer is to wait until the head knows of `added`. Default: true.
  public var waits: Bool?

  public init(
    added: [ObjectID], removed: [ObjectID], unshared: [ObjectID], shared: [ObjectID], waits: Bool? = nil
  ) {
    self.waits = waits
    self.shared = shared
    self.added = added
    self.removed = removed
    self.unshared = unshared
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
  public var name: Name
  /// Bytes of the S3 object.
  public var size: ByteCount

  package init(object: ObjectID, name: Name, size: ByteCount) {
    self.object = object
    self.name = name
    self.size = size
  }
}

/// From where the bytes of a replica came.
public struct ObjectOrigins: Codable, Hashable, Sendable {
  /// Bytes that this host read from S3.
  public var fromS3: Int
  /// Bytes that other hosts sent.
  public var fromHosts: [HostID: Int]
  /// Why bytes were read from S3 that other hosts had; `nil` when none were.
  public var reason: String?
  /// The algorithm of S3's checksum that this host found the bytes to have: `crc64nvme`.
  public var checksum: String?
  /// Why they were not compared with one; `nil`, too, for what did not come from S3.
  public var unverified: String?

  package init(
    fromS3: Int, fromHosts: [HostID: Int], reason: String? = nil, checksum: String? = nil, unverified: String? = nil
  ) {
    self.fromS3 = fromS3
    self.fromHosts = fromHosts
    self.reason = reason
    self.checksum = checksum
    self.unverified = unverified
  }
}

public struct OriginsReply: Codable, Sendable {
  /// `nil` for what was made here, or came long ago.
  public var origins: ObjectOrigins?

  package init(origins: ObjectOrigins?) {
    self.origins = origins
  }
}

public struct ListS3Request: Codable, Sendable {
  /// `s3://bucket/prefix`.
  public var url: String
  public var endpoint: String?
  /// What the page before said in `next`; `nil` for the first.
  public var after: String?

  public init(url: String, endpoint: String? = nil, after: String? = nil) {
    self.url = url
    self.endpoint = endpoint
    self.after = after
  }
}

public struct ListS3Reply: Codable, Sendable {
  public struct Entry: Codable, Sendable {
    public var url: Name
    public var size: ByteCount

    package init(url: Name, size: ByteCount) {
      self.url = url
      self.size = size
    }
  }

  public var entries: [Entry]
  /// Where the next page begins; `nil` on the last.
  public var next: String?

  package init(entries: [Entry], next: String? = nil) {
    self.entries = entries
    self.next = next
  }
}
