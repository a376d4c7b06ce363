package import MobulaCore

/// What a host answers to the processes on it, over its Unix socket.
///
/// Objects are put and pinned in the store's shared memory, past these calls. What a process holds ends
/// with the process, not with its connection.
package enum HostAPI {
  /// The right to attach to the store.
  package static let welcome = RPCMethod<Empty, WelcomeReply>("host.welcome")
  /// Says which client of the store this connection's process is; before anything else.
  package static let attach = RPCMethod<AttachRequest, Empty>("host.attach")
  /// Says all that the process holds, as it is after `attach` was answered; the second call. What it put
  /// meanwhile may or may not be among it.
  package static let registerHolds = RPCMethod<HoldRegistration, Empty>("host.registerHolds")
  /// The process holds nothing any more.
  package static let leave = RPCMethod<Empty, Empty>("host.leave")

  /// The process drives this job, which ends with it; said again whenever it has attached again.
  package static let drives = RPCMethod<DriverNotice, Empty>("host.drives")

  /// Names an object at the head; this host remembers it for a head that is restarted.
  package static let setName = RPCMethod<NameRequest, Empty>("host.setName")
  /// Takes a name away, at the head and here.
  package static let removeName = RPCMethod<ResolveRequest, Empty>("host.removeName")
  /// What the head knows of an object, for processes that need nothing else of it. Only where `WelcomeReply.resolves`.
  package static let resolve = RPCMethod<ResolveRequest, ObjectListing>("host.resolve")

  /// Answers once every byte of the object is in this host's memory, fetched from elsewhere if need be.
  package static let bring = RPCMethod<BringRequest, BringReply>("host.bring")
  package static let progress = RPCMethod<ObjectRequest, ReplicaProgress>("host.progress")

  /// Answers once the head knows what is held from now on; with `waits` false, at once.
  package static let holdsChanged = RPCMethod<ProcessHoldChanges, Empty>("host.holdsChanged")
  /// Answers once the head knows all that this host was told before.
  package static let confirmHolds = RPCMethod<Empty, Empty>("host.confirmHolds")

  /// How the host is, and its connection to the head; answered without the head.
  package static let state = RPCMethod<Empty, HostState>("host.state")

  /// Makes a named object of something in S3, unless that version is in the cluster already.
  package static let fetch = RPCMethod<FetchRequest, FetchReply>("host.fetch")
  /// Makes named objects of small ones in S3, each by one GET: answers when all are here for which that suffices.
  package static let fetchSmall = RPCMethod<FetchSmallRequest, FetchSmallReply>("host.fetchSmall")
  /// What the store holds.
  package static let statistics = RPCMethod<Empty, StoreStatistics>("host.statistics")
  package static let listS3 = RPCMethod<ListS3Request, ListS3Reply>("host.listS3")
  /// From where the bytes of an object came that this host received lately.
  package static let sources = RPCMethod<ObjectRequest, SourcesReply>("host.origins")
}

/// A host as it sees itself.
package struct HostState: Codable, Sendable {
  package var host: HostID
  package var name: String
  /// `nil` before the head was ever reached.
  package var cluster: ClusterID?
  package var head: LinkStatus
  package var objects: Int
  /// News of objects here that the head has still to be told.
  package var queued: Int

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

package struct DriverNotice: Codable, Sendable {
  package var job: JobID

  package init(job: JobID) { self.job = job }
}

package struct WelcomeReply: Codable, Sendable {
  package var host: HostID
  package var name: String
  package var cluster: ClusterID
  package var head: Endpoint
  /// Where other hosts reach this one.
  package var address: String
  /// The store's socket, and what to show there.
  package var storeSocket: String
  package var ticket: DescriptorTicket
  package var capacity: ByteCount
  /// Whether the host answers `HostAPI.resolve`; `nil` from one that doesn't know it.
  package var resolves: Bool?

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

package struct AttachRequest: Codable, Sendable {
  package var client: StoreClientID
  package var secret: ClientSecret

  package init(client: StoreClientID, secret: ClientSecret) {
    self.client = client
    self.secret = secret
  }
}

package struct HoldRegistration: Codable, Sendable {
  package var holds: [ObjectID]
  /// Whether another call follows with more of them.
  package var more: Bool?
  /// Whether the answer is to wait for the head. Default: true.
  package var waits: Bool?

  package init(holds: [ObjectID], more: Bool? = nil, waits: Bool? = nil) {
    self.holds = holds
    self.more = more
    self.waits = waits
  }
}

package struct ObjectRequest: Codable, Sendable {
  package var object: ObjectID

  package init(_ object: ObjectID) { self.object = object }
}

package struct BringRequest: Codable, Sendable {
  package var object: ObjectID
  package var policy: SourcePolicy
  /// Whether the process can read it from a spill file, where memory has no room for it.
  package var readsFiles: Bool?

  package init(object: ObjectID, policy: SourcePolicy, readsFiles: Bool? = nil) {
    self.object = object
    self.policy = policy
    self.readsFiles = readsFiles
  }
}

package struct BringReply: Codable, Sendable {
  package var digest: ObjectDigest
  /// Bytes that came into this host's store on behalf of this request; 0 when
  /// the object was here, or on its way here for somebody else.
  package var bytesCopied: Int
  /// Set when it is not in memory, which has no room for it, but in a file that the process can read.
  package var isInFile: Bool?

  package init(digest: ObjectDigest, bytesCopied: Int, isInFile: Bool? = nil) {
    self.digest = digest
    self.bytesCopied = bytesCopied
    self.isInFile = isInFile
  }
}

/// The objects that a process began or ceased to hold.
package struct ProcessHoldChanges: Codable, Sendable {
  package var added: [ObjectID]
  package var removed: [ObjectID]
  /// Of the removed those of which nobody but the process ever knew.
  package var unshared: [ObjectID]
  /// Of which others may ask the head from now on.
  package var shared: [ObjectID]
  /// Whether the answer is to wait until the head knows of `added`. Default: true.
  package var waits: Bool?

  package init(
    added: [ObjectID], removed: [ObjectID], unshared: [ObjectID], shared: [ObjectID], waits: Bool? = nil
  ) {
    self.waits = waits
    self.shared = shared
    self.added = added
    self.removed = removed
    self.unshared = unshared
  }
}

package struct FetchRequest: Codable, Sendable {
  /// `s3://bucket/key`.
  package var url: String
  /// `http://HOST:PORT` of another S3 than the one in the host's environment.
  package var endpoint: String?

  /// Whether requests carry no credentials. Default: false.
  package var unsigned: Bool?
  /// Whether the asking side pays for the requests. Default: false.
  package var payer: Bool?

  package var access: S3Access { S3Access(endpoint: endpoint, isUnsigned: unsigned, paysForRequests: payer) }

  package init(url: String, access: S3Access) {
    self.url = url
    endpoint = access.endpoint
    unsigned = access.isUnsigned ? true : nil
    payer = access.paysForRequests ? true : nil
  }
}

package struct FetchReply: Codable, Sendable {
  package var object: ObjectID
  package var name: Name
  /// Bytes of the S3 object.
  package var size: ByteCount

  package init(object: ObjectID, name: Name, size: ByteCount) {
    self.object = object
    self.name = name
    self.size = size
  }
}

package struct FetchSmallRequest: Codable, Sendable {
  /// Up to this size one GET takes hardly longer than the requests about it.
  package static let largest = 262_144
  /// Entries of one request, at most.
  package static let mostEntries = ClaimsRequest.most

  /// With their ETags; each has at most `largest` bytes.
  package var entries: [ListS3Reply.Entry]
  /// `http://HOST:PORT` of another S3 than the one in the host's environment.
  package var endpoint: String?

  /// Whether requests carry no credentials. Default: false.
  package var unsigned: Bool?
  /// Whether the asking side pays for the requests. Default: false.
  package var payer: Bool?

  package var access: S3Access { S3Access(endpoint: endpoint, isUnsigned: unsigned, paysForRequests: payer) }

  package init(entries: [ListS3Reply.Entry], access: S3Access) {
    self.entries = entries
    endpoint = access.endpoint
    unsigned = access.isUnsigned ? true : nil
    payer = access.paysForRequests ? true : nil
  }
}

package struct FetchSmallReply: Codable, Sendable {
  package struct Outcome: Codable, Sendable {
    /// `nil` for one that has to be fetched by itself: another host reads it, it has changed, or something failed.
    package var object: ObjectID?
    /// Bytes that came into this host's store for this call.
    package var bytesCopied: Int

    package init(object: ObjectID? = nil, bytesCopied: Int = 0) {
      self.object = object
      self.bytesCopied = bytesCopied
    }
  }

  /// In the order of the request's entries.
  package var outcomes: [Outcome]

  package init(outcomes: [Outcome]) { self.outcomes = outcomes }
}

/// From where the bytes of a replica came.
package struct ObjectSources: Codable, Hashable, Sendable {
  /// Bytes that this host read from S3.
  package var fromS3: Int
  /// Bytes that other hosts sent.
  package var fromHosts: [HostID: Int]
  /// Why bytes were read from S3 that other hosts had; `nil` when none were.
  package var reason: String?
  /// The algorithm of S3's checksum that this host found the bytes to have: `crc64nvme`.
  package var checksum: String?
  /// Why they were not compared with one; `nil`, too, for what did not come from S3.
  package var unverified: String?

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

package struct SourcesReply: Codable, Sendable {
  /// `nil` for what was made here, or came long ago.
  package var origins: ObjectSources?

  package init(_ sources: ObjectSources?) {
    origins = sources
  }
}

package struct ListS3Request: Codable, Sendable {
  /// `s3://bucket/prefix`.
  package var url: String
  package var endpoint: String?
  /// What the page before said in `next`; `nil` for the first.
  package var after: String?

  /// Whether requests carry no credentials. Default: false.
  package var unsigned: Bool?
  /// Whether the asking side pays for the requests. Default: false.
  package var payer: Bool?

  package var access: S3Access { S3Access(endpoint: endpoint, isUnsigned: unsigned, paysForRequests: payer) }

  package init(url: String, access: S3Access, after: String? = nil) {
    self.url = url
    self.after = after
    endpoint = access.endpoint
    unsigned = access.isUnsigned ? true : nil
    payer = access.paysForRequests ? true : nil
  }
}

package struct ListS3Reply: Codable, Sendable {
  package struct Entry: Codable, Sendable {
    package var url: Name
    package var size: ByteCount
    /// With its quotes; `nil` where the listing has none that identifies a version, and from hosts that don't know
    /// `HostAPI.fetchSmall`.
    package var etag: String?

    /// Whether `HostAPI.fetchSmall` may bring it.
    package var isSmall: Bool { etag != nil && size.bytes <= FetchSmallRequest.largest }

    package init(url: Name, size: ByteCount, etag: String? = nil) {
      self.url = url
      self.size = size
      self.etag = etag
    }
  }

  package var entries: [Entry]
  /// Where the next page begins; `nil` on the last.
  package var next: String?

  package init(entries: [Entry], next: String? = nil) {
    self.entries = entries
    self.next = next
  }
}
