import Logging
import MobulaCore
import MobulaS3
import MobulaTransfer
import MobulaWire
import Synchronization

/// Brings objects of S3 into the cluster. All hosts that want a version read it together: the head gives each a part at
/// a time, and they exchange what they have read.
final class S3Fetcher: Sendable {
  let host: HostID
  let head: PeerLink
  let fetcher: ReplicaFetcher
  private let notes: ObjectNotes
  let traffic: TrafficControl
  private let log: Logger
  /// One for all clients, so that credentials are got and renewed once a host.
  private let credentials: S3CredentialsChain
  /// Small objects that are being brought, by version: whoever wants one waits for that.
  let small = Mutex<[Name: Task<SmallOutcomes, Never>]>([:])
  /// Objects that are being read at once, which other hosts may ask for already.
  let reading = Mutex<Set<ObjectID>>([])
  /// Where small objects come from that other hosts read.
  let sources: SmallObjectSources
  /// Buckets that keep versions, which a listing does not tell, with their endpoints.
  let versioned = Mutex<Set<Name>>([])
  /// One client for each way in which S3 is spoken to, with its connections.
  private let clients = Mutex<[Name: S3Client]>([:])

  /// - Parameter traffic: what this host receives.
  init(
    _ configuration: HostConfiguration, head: PeerLink, fetcher: ReplicaFetcher, notes: ObjectNotes,
    traffic: TrafficControl, credentials: S3CredentialsChain, log: Logger
  ) {
    self.credentials = credentials
    self.traffic = traffic
    host = configuration.host
    self.head = head
    sources = SmallObjectSources(configuration, traffic: traffic)
    self.fetcher = fetcher
    self.notes = notes
    self.log = log
  }

  func close() async {
    sources.close()
    let open = clients.withLock { clients in
      defer { clients.removeAll() }
      return Array(clients.values)
    }
    for client in open { await client.shutdown() }
  }

  func client(_ access: S3Access) async throws -> S3Client {
    let server = Name("\(access.isUnsigned) \(access.paysForRequests) \(access.endpoint ?? "")")
    if let client = clients.withLock({ $0[server] }) { return client }
    let client = try await S3Client.fromEnvironment(access, credentials: credentials)
    let (kept, spare) = clients.withLock { clients -> (S3Client, S3Client?) in
      if let other = clients[server] { return (other, client) }
      clients[server] = client
      return (client, nil)
    }
    if let spare { Task { await spare.shutdown() } }
    return kept
  }

  func list(_ request: ListS3Request) async throws -> ListS3Reply {
    let url = try S3URL(request.url)
    let client = try await client(request.access)
    var (objects, next): ([S3ListedObject], String?)
    do {
      // So many as fit into a frame, however long their keys.
      (objects, next) = try await client.objects(at: url, after: request.after, least: 2000)
    } catch let refusal as S3Error {
      // Whoever may not list a bucket may be allowed to read an object of it, that is named exactly.
      let isDenied = [401, 403, 405, 501].contains(refusal.httpStatus) && !url.key.isEmpty && !url.key.hasSuffix("/")
      // Some services have objects that they don't list, as those whose keys end in a slash.
      let isEmpty = refusal.code == S3Error.emptyPrefix && !url.key.isEmpty
      guard isDenied || isEmpty else { throw refusal.mobulaError }
      let found: Found
      do { found = try await find(url, client) } catch let error as MobulaError
        where isEmpty && url.namedVersion == nil && error.code == .notFound
      { throw refusal.mobulaError }
      return ListS3Reply(entries: [.init(url: url.name, size: ByteCount(found.info.size))])
    }
    // An object's own name means that object, and not those whose names go on.
    if let exact = objects.first(where: { $0.key == Name(url.key) }) { (objects, next) = ([exact], nil) }
    for object in objects {
      try Self.checkSize(object.size, of: S3URL(bucket: url.bucket, key: object.key.text).description)
    }
    return ListS3Reply(
      entries: objects.map {
        // One that is no ETag, or a weak one, names no version.
        let isStrong = $0.etag.utf8.count > 2 && $0.etag.hasPrefix("\"") && $0.etag.hasSuffix("\"")
        return .init(
          url: S3URL(bucket: url.bucket, key: $0.key.text).name, size: ByteCount($0.size),
          etag: isStrong ? $0.etag : nil)
      },
      next: next)
  }

  /// S3 may name any size; what is made of it is added to and multiplied.
  private static func checkSize(_ size: Int, of name: String) throws(MobulaError) {
    guard 0...1 << 50 ~= size else {
      throw MobulaError(
        .invalidArgument,
        "S3 says that \(name) has \(size) bytes, which no object can have: check the endpoint, or upload it again.")
    }
  }

  /// What a URL names in S3.
  struct Found {
    /// Without a version.
    var object: S3URL
    var info: S3ObjectInfo

    /// This version's name in the cluster, whatever URL names it.
    ///
    /// - Parameter endpoint: whose S3 it is: two servers may have the same bucket.
    func version(at endpoint: S3Endpoint) -> Name {
      Name("\(ReservedNames.version)\(object.name.text)")
        + "#\(info.etag)\(info.versionID.map { "#\($0)" } ?? "")@\(endpoint)"
    }

    /// For people.
    func source(at endpoint: S3Endpoint) -> String {
      "\(object)\(info.versionID.map { "?versionId=\($0)" } ?? "") at \(endpoint)"
    }
  }

  /// Asks S3 for what a URL names: the key that is written so, or else the version of one that it ends with.
  private func find(_ url: S3URL, _ client: S3Client) async throws -> Found {
    let begin = ContinuousClock.now
    let found = try await S3Error.asMobulaError {
      do {
        while true {
          do {
            return Found(object: url, info: try await client.head(bucket: url.bucket, key: url.key))
          } catch let error as S3Error where error.isNoAnswer && client.hasAnswered {
            // It was there a moment ago, for others of the prefix perhaps, and is waited for as in the middle of one.
            guard .now - begin < client.configuration.retry.patience else { throw error }
            try await Task.sleep(for: .seconds(1))
          }
        }
      } catch let error as S3Error where [403, 404].contains(error.httpStatus) {
        // Whoever may not list a bucket is denied what is not there.
        guard let (object, versionID) = url.namedVersion else { throw error }
        let info = try await client.head(bucket: object.bucket, key: object.key, versionID: versionID)
        return Found(object: object, info: info)
      }
    }
    try Self.checkSize(found.info.size, of: "\(url)")
    return found
  }

  /// Names the object that this version of the S3 object is, and starts to download it if nobody has.
  ///
  /// Returns while the bytes are still arriving: a pin waits for them.
  func fetch(_ request: FetchRequest) async throws -> FetchReply {
    let url = try S3URL(request.url)
    let client = try await client(request.access)
    for _ in 0..<3 {
      let found = try await find(url, client)
      let (layout, header) = ValueLayout.blob(size: found.info.size)
      let geometry = try ChunkGeometry(objectSize: layout.size)
      let version = found.version(at: client.configuration.baseEndpoint)
      // The caller may go; a claim that nobody follows would keep all others waiting.
      let reply = try await Task {
        let reply = try await self.fetch(
          url, version, client: client, found: found, header: header, geometry: geometry)
        if let reply { self.note(reply.object, request, version) }
        return reply
      }.value
      if let reply { return reply }
    }
    throw MobulaError(.unavailable, "\(url) changed again and again while it was fetched: fetch it once more.")
  }

  /// Downloads an object again that every host has lost or evicted.
  ///
  /// - Returns: false when S3 has another version of it by now.
  func fetchAgain(_ object: ObjectID, _ fetched: ObjectNotes.Fetched) async throws -> Bool {
    let url = try S3URL(fetched.request.url)
    let client = try await client(fetched.request.access)
    let found = try await find(url, client)
    guard fetched.version == found.version(at: client.configuration.baseEndpoint) else { return false }
    let (layout, header) = ValueLayout.blob(size: found.info.size)
    let geometry = try ChunkGeometry(objectSize: layout.size)
    return try await Task {
      let claimed = try await self.claim(
        fetched.version, client: client, found: found, header: header, geometry: geometry)
      return claimed.object == object
    }.value
  }

  /// - Returns: `nil` when another host has found a newer version there meanwhile.
  private func fetch(
    _ url: S3URL, _ version: Name, client: S3Client, found: Found, header: [UInt8], geometry: ChunkGeometry
  ) async throws -> FetchReply? {
    let claim = try await claim(version, client: client, found: found, header: header, geometry: geometry)
    do {
      guard try await name(claim, url, version) else { return nil }
    } catch {
      // Reading it may have failed before it had a name.
      throw fetcher.ledger.failure(of: claim.object) ?? error
    }
    return FetchReply(
      object: claim.object, name: url.name, size: ByteCount(found.info.size))
  }

  /// Gives what was claimed the name of its URL.
  ///
  /// - Returns: false when another host has found a newer version there meanwhile.
  func name(_ claim: ClaimReply, _ url: S3URL, _ version: Name) async throws -> Bool {
    let request = NameRequest(name: url.name, object: claim.object, claim: claim.number)
    guard try await head.call(HeadAPI.setName, request).isNamed else { return false }
    isNamed(claim, url, version)
    return true
  }

  func isNamed(_ claim: ClaimReply, _ url: S3URL, _ version: Name) {
    notes.name(url.name, KnownName(claim.object, .url(claim: claim.number)))
    notes.name(version, KnownName(claim.object, .version))
  }

  /// Where the object can be had again.
  func note(_ object: ObjectID, _ request: FetchRequest, _ version: Name) {
    notes.comesFrom(object, request, version: version)
  }

  /// Claims a version, and begins to fetch it, from S3 and from the hosts that fetch it too.
  private func claim(
    _ version: Name, client: S3Client, found: Found, header: [UInt8], geometry: ChunkGeometry
  ) async throws -> ClaimReply {
    let (url, info) = (found.object, found.info)
    let source = found.source(at: client.configuration.baseEndpoint)
    _ = await small.withLock { $0[version] }?.value
    let claim = try await head.call(
      HeadAPI.claim,
      ClaimRequest(
        host: host, name: version, geometry: geometry,
        checksum: info.checksum.flatMap { ExpectedChecksum($0, source: source, headerSize: header.count) }))
    if fetcher.isHere(claim.object) { return claim }
    let reader = S3PartReader(
      host: host, head: head, client: client, url: url, info: info, header: header, traffic: traffic,
      ledger: fetcher.ledger, takesParts: claim.fills, log: log)
    do {
      let check = try await S3Error.asMobulaError {
        try await ReplicaCheck(url, info, source: source, headerSize: header.count, client: client)
      }
      try await fetcher.start(claim.object, geometry: geometry, check: check) { try await reader.fill($0) }
      log.info(
        "fetching from S3", metadata: ["url": "\(url)", "size": "\(ByteCount(info.size))", "reads": "\(claim.fills)"])
    } catch let error as MobulaError where error.code == .alreadyExists {
      // Another call of this host's was as fast, and has begun. If that takes it from other hosts alone, this host
      // reads nothing, and must not be waited for.
      if claim.fills, !fetcher.isFilling(claim.object) {
        let failed = TransferEnded(receiver: host, object: claim.object)
        _ = try? await head.call(HeadAPI.partsFailed, failed)
      }
    } catch {
      // Another host may have more room: what this one was to read is for the others.
      let gone = ReplicaChanges(host: host, changes: [.gone(object: claim.object)])
      _ = try? await head.call(HeadAPI.replicasChanged, gone)
      throw error
    }
    return claim
  }
}
