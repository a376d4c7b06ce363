import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaWire

/// One value of each message, with every field, compared with the bytes in `docs/Wire.md`: a property that is renamed
/// changes the wire. Those were read by another decoder before they were written down (`Scripts/wire-document.py`).
@Suite struct WireDocumentTests {
  private static let object = ObjectID(high: 0x0000_0007_0102_0304, low: 0x1112_1314_1516_1718)
  private static let host = HostID(high: 1, low: 2)
  private static let pod = PodID(high: 3, low: 4)
  private static let lease = LeaseID(high: 5, low: 6)
  private static let job = JobID(7)
  private static let name = Name("models/a")
  private static let endpoint = Endpoint.tcp(host: "10.0.0.1", port: 7600)
  private static let geometry = try! ChunkGeometry(objectSize: 300_000, chunkSize: 262_144)
  private static let digest = ObjectDigest(geometry: geometry, checksums: [1, 2])
  private static let checksum = ExpectedChecksum(
    source: "s3://b/k", algorithm: "crc32c", bytes: [1, 2, 3, 4], headerSize: 64)
  private static let report = ReplicaReport(
    object: object, geometry: geometry, digest: digest, contains: [object], isPrimary: true)
  private static let known: [Name: KnownName] = [name: KnownName(object, .url(claim: 9))]
  private static let secret = JobSecret(high: 7, low: 8)
  private static let nonce = ProcessNonce(high: 9, low: 10)
  private static let program = WorkerProgram(executable: "/bin/app", build: "ab", environment: ["A": "b"])
  private static let request: LeaseRequest = {
    var request = LeaseRequest(
      lease: lease, job: job, demand: ["CPU": 1.5], strategy: .host(host), program: program)
    (request.waits, request.isForActor) = (true, true)
    return request
  }()
  private static let grant = LeaseGrant(
    lease: lease, host: host, pod: pod, podName: "p", worker: WorkerID(high: 11, low: 12), endpoint: endpoint)
  private static let returned = LeaseReturn(lease: lease, workerIsReusable: true)
  private static let lent: LeaseRecord = {
    var record = LeaseRecord(lease: lease, job: job, demand: ["CPU": 1])
    record.isLent = true
    return record
  }()
  private static let lost = LeaseLost(lease: lease, reason: "It ended.")
  private static let order = BringOrder(object: object, host: host, priority: .prefetch)
  private static var progress: ReplicaProgress {
    var progress = ReplicaProgress(host: host, verified: ByteCount(5), total: ByteCount(300_000))
    progress.waiting = "S3 is away."
    return progress
  }
  private static let question = ProgressQuestion(object: object, hosts: [host])
  private static let empty = Empty()
  private static let actor = RemoteActorID(high: 19, low: 20)
  private static let spec = ActorSpec(
    type: "A", configuration: ByteString([1, 2]), limit: 1000, restarts: 2, name: "n", isDetached: true,
    demand: ["CPU": 1.5], strategy: .spread, program: program, startLimit: 60)
  private static var actorListing: ActorListing {
    var listing = ActorListing(
      actor: actor, job: job, name: "n", type: "A", isDetached: true, state: .alive, incarnation: 3, restarts: 1,
      revision: 5, build: "ab")
    (listing.endpoint, listing.host, listing.hostName) = (endpoint, host, "h")
    (listing.podName, listing.reason) = ("p", "It ended.")
    return listing
  }

  private static var listing: ObjectListing {
    var listing = ObjectListing(
      object: object, names: [name], size: ByteCount(300_000), digest: digest, hosts: [host], receiving: [host],
      holders: 1)
    (listing.furtherNames, listing.absent) = (2, [host])
    return listing
  }

  private static var registration: HostRegistration {
    var registration = HostRegistration(
      host: host, name: "h", incarnation: 1, bulk: endpoint, capacity: ByteCount(1000), replicas: [report],
      holds: [object], names: known, labels: [Name("zone"): Name("eu")])
    (registration.nonce, registration.epoch, registration.beganAnew, registration.more) = (nonce, 2, true, true)
    registration.folder = FolderID(high: 15, low: 16)
    registration.awaitsProcesses = true
    return registration
  }

  private static var part: RegistrationPart {
    var part = RegistrationPart(host: host)
    (part.replicas, part.holds, part.names, part.more) = ([report], [object], known, true)
    return part
  }

  private static var podRegistration: PodRegistration {
    var registration = PodRegistration(
      pod: pod, name: "p", host: host, incarnation: 1, resources: ["CPU": 2],
      leases: [lent])
    (registration.nonce, registration.epoch, registration.session) = (nonce, 2, 3)
    registration.folder = FolderID(high: 15, low: 16)
    return registration
  }

  private static var reply: RegistrationReply {
    var reply = RegistrationReply(cluster: ClusterID(high: 13, low: 14), epoch: 2)
    (reply.incarnation, reply.isRetired, reply.session, reply.end) = (1, true, 3, [lease])
    return reply
  }

  private static var status: ClusterStatus {
    var status = ClusterStatus(
      cluster: ClusterID(high: 13, low: 14), head: endpoint,
      hosts: [
        .init(
          host: host, name: "h", bulk: endpoint, capacity: ByteCount(1000), objects: 1, bytes: ByteCount(300_000),
          connected: true, labels: [Name("zone"): Name("eu")], draining: true)
      ],
      pods: [.init(pod: pod, name: "p", host: host, resources: ["CPU": 2], leased: ["CPU": 1], leases: 1)],
      jobs: [job], objects: 1, waiting: 2, absent: [.init(host: host, name: "h", seconds: 60)])
    status.more = true
    (status.epoch, status.settling) = (2, true)
    status.demands = [.init(resources: ["CPU": 1], requests: 2, seconds: 3, reason: "It is full.")]
    return status
  }

  private static var locate: LocateRequest {
    var request = LocateRequest(host: host, object: object, excluding: [host], known: [host], policy: .origin)
    request.waits = true
    return request
  }

  private static var statistics: StoreStatistics {
    StoreStatistics(
      capacity: 1, used: 2, warm: 3, inMemory: 4, objects: 5, spilled: 6, spilledBytes: 7, spilledElsewhere: 8,
      spilledElsewhereBytes: 9, pinned: 10, pinnedBytes: 11, held: 12, heldBytes: 13, doomed: 14,
      segments: [
        .init(
          segment: SegmentID(15), maker: StoreClientID(16), isOwn: true, objects: 17, inMemory: 18, used: 19, warm: 20)
      ],
      clients: [.init(client: StoreClientID(16), name: "c", process: 21, pinned: 22, pinnedBytes: 23)],
      jobs: [.init(job: job, objects: 24, bytes: 25)], overhead: 26)
  }

  private static var heads: [GoldenMessage] {
    var list: [GoldenMessage] = []
    list += GoldenMessage.of(HeadAPI.registerHost, registration, reply)
    list += GoldenMessage.of(HeadAPI.registerMore, part, reply)
    list += GoldenMessage.of(HeadAPI.registerPod, podRegistration, reply)
    list += GoldenMessage.of(HeadAPI.confirmPod, PodConfirmation(pod: pod, session: 3), empty)
    list += GoldenMessage.of(HeadAPI.leave, HostLeave(host: host, nonce: nonce), empty)
    list += GoldenMessage.of(HeadAPI.forgetHost, ResolveRequest(name), empty)
    list += GoldenMessage.of(
      HeadAPI.drainHost, DrainRequest(nameOrID: name, cancels: true), DrainReply(host: host, name: "h"))
    let changes: [ReplicaChange] = [
      .sealed(report, held: true), .partial(object: object, geometry: geometry), .gone(object: object),
    ]
    list += GoldenMessage.of(HeadAPI.replicasChanged, ReplicaChanges(host: host, changes: changes), empty)
    list += GoldenMessage.of(
      HeadAPI.holdsChanged, HoldChanges(host: host, added: [object], removed: [object]), empty)
    list += GoldenMessage.of(
      HeadAPI.locate, locate,
      LocateReply(
        isLocal: false, sources: [TransferPeer(host: host, bulk: endpoint)], geometry: geometry, digest: digest,
        checksum: checksum))
    list += GoldenMessage.of(HeadAPI.transferEnded, TransferEnded(receiver: host, object: object), empty)
    list += GoldenMessage.of(
      HeadAPI.claim, ClaimRequest(host: host, name: name, geometry: geometry, checksum: checksum, takesPart: true),
      ClaimReply(
        object: object, fills: true, number: 9, part: 0..<1, source: TransferPeer(host: host, bulk: endpoint)))
    list += GoldenMessage.of(
      HeadAPI.claimAll,
      ClaimsRequest(claims: [ClaimRequest(host: host, name: name, geometry: geometry, takesPart: true)]),
      ClaimsReply(answers: [.init(ClaimReply(object: object, fills: false, number: 9)), .init(nil)]))
    list += GoldenMessage.of(
      HeadAPI.takePart,
      PartRequest(host: host, object: object, geometry: geometry, finished: 0..<1, wantsMore: true),
      PartReply(chunks: 1..<2))
    list += GoldenMessage.of(HeadAPI.partsFailed, TransferEnded(receiver: host, object: object), empty)
    list += GoldenMessage.of(HeadAPI.damaged, DamagedObject(host: host, object: object, message: "Wrong."), empty)
    list += GoldenMessage.of(
      HeadAPI.setName, NameRequest(name: name, object: object, claim: 9), NameReply(isNamed: true))
    list += GoldenMessage.of(
      HeadAPI.setNames, NamesRequest(names: [NameRequest(name: name, object: object, claim: 9)]),
      NamesReply(answers: [.init(NameReply(isNamed: true)), .init(nil)]))
    list += GoldenMessage.of(HeadAPI.removeName, ResolveRequest(name), empty)
    list += GoldenMessage.of(HeadAPI.resolve, ResolveRequest(name), listing)
    list += GoldenMessage.of(HeadAPI.list, ListRequest(after: object, afterName: name, limit: 5), [listing])
    list += GoldenMessage.of(HeadAPI.remove, ResolveRequest(name), listing)
    list += GoldenMessage.of(
      HeadAPI.waitForObjects, WaitRequest(objects: [object], count: 1, timeout: 1.5), WaitReply(ready: [object]))
    list += GoldenMessage.of(HeadAPI.bring, order, BringOutcome(bytesCopied: 5))
    list += GoldenMessage.of(HeadAPI.progress, question, [progress])
    list += GoldenMessage.of(HeadAPI.startJob, JobStart(resumes: true), JobReply(job: job, secret: secret))
    list += GoldenMessage.of(HeadAPI.resumeJob, JobResumption(job: job, secret: secret, leases: [lease]), empty)
    list += GoldenMessage.of(HeadAPI.claimLeases, LeaseClaims(job: job, leases: [lease]), empty)
    list += GoldenMessage.of(HeadAPI.endJob, JobEnd(job: job, secret: secret), empty)
    list += GoldenMessage.of(HeadAPI.driverEnded, DriverEnded(host: host, job: job), empty)
    list += GoldenMessage.of(HeadAPI.requestLease, request, grant)
    list += GoldenMessage.of(HeadAPI.returnLease, returned, empty)
    list += GoldenMessage.of(HeadAPI.leaseLost, lost, empty)
    list += GoldenMessage.of(
      HeadAPI.explainLease, LeaseQuestion(lease: lease), LeaseExplanation(reason: "It is full.", isInfeasible: false))
    let output = OutputReport(job: job, pod: "p", lines: [.init(worker: "1b674f39", text: "hello")], dropped: 3)
    list.append(.of(HeadAPI.output.name, "request", output))
    list.append(.of(DriverControlAPI.output.name, "request", output))
    list += GoldenMessage.of(HeadAPI.leaseLent, LeaseLent(lease: lease, isLent: true), empty)
    list += GoldenMessage.of(
      HeadAPI.startActor, ActorStart(actor: actor, job: job, spec: spec, ifTaken: .use), actorListing)
    list += GoldenMessage.of(
      HeadAPI.actor, ActorQuestion(actor: actor, name: name, after: 2, seen: 5, wish: .place), actorListing)
    list += GoldenMessage.of(
      HeadAPI.stopActor, ActorEnd(actor: actor, name: name, seconds: 30, restarts: true), empty)
    list += GoldenMessage.of(
      HeadAPI.actors, ActorsRequest(after: actor), ActorsReply(actors: [actorListing], hasMore: true))
    list += GoldenMessage.of(HeadAPI.hears, empty, empty)
    list += GoldenMessage.of(
      HeadAPI.jobToken, JobTokenRequest(job: job), JobTokenReply(sealed: ByteString([1, 2, 3])))
    list += GoldenMessage.of(
      HeadAPI.rotateToken, TokenNews(sealed: ByteString([1, 2, 3])),
      TokenReply(taken: ["h"], failed: [Name("i"): "It is away."]))
    list += GoldenMessage.of(HeadAPI.status, StatusRequest(afterHost: host, afterPod: pod, afterJob: job), status)
    return list
  }

  private static var members: [GoldenMessage] {
    var list: [GoldenMessage] = []
    list += GoldenMessage.of(
      HostControlAPI.drop, DropRequest(objects: [object], damages: [object: "Wrong."]), empty)
    list += GoldenMessage.of(HostControlAPI.keep, KeepRequest(objects: [object]), empty)
    list += GoldenMessage.of(HostControlAPI.names, NameNews(given: known, taken: [name]), empty)
    list += GoldenMessage.of(HostControlAPI.bring, order, BringOutcome(bytesCopied: 5))
    list += GoldenMessage.of(HostControlAPI.progress, question, progress)
    list += GoldenMessage.of(HostControlAPI.rotateToken, TokenNews(sealed: ByteString([1, 2, 3])), empty)
    list += GoldenMessage.of(MemberControlAPI.alive, empty, empty)
    list += GoldenMessage.of(PodControlAPI.grantLease, request, grant)
    list += GoldenMessage.of(PodControlAPI.releaseLease, returned, empty)
    let run = ActorRun(actor: actor, incarnation: 3, lease: lease, spec: spec)
    let ending = ActorEnding(actor: actor, lease: lease, seconds: 30)
    list += GoldenMessage.of(PodControlAPI.runActor, run, endpoint)
    list += GoldenMessage.of(PodControlAPI.endActor, ending, empty)
    list += GoldenMessage.of(PodAPI.runActor, run, endpoint)
    list += GoldenMessage.of(PodAPI.endActor, ending, empty)
    list.append(.of(PodAPI.headHeard.name, "request", HeadHeard(nanoseconds: 1_000_000_007)))
    list += GoldenMessage.of(DriverControlAPI.leaseRevoked, lost, empty)
    list += GoldenMessage.of(
      PodAPI.workerReady, WorkerReady(worker: WorkerID(high: 11, low: 12), endpoint: endpoint), empty)
    list += GoldenMessage.of(PodAPI.leaseLent, LeaseLent(lease: lease, isLent: false), true)
    list += GoldenMessage.of(PodAPI.mayEnd, empty, true)
    return list
  }

  private static var hosts: [GoldenMessage] {
    var list: [GoldenMessage] = []
    list += GoldenMessage.of(
      HostAPI.welcome, empty,
      WelcomeReply(
        host: host, name: "h", cluster: ClusterID(high: 13, low: 14), head: endpoint, address: "10.0.0.1",
        storeSocket: "/run/store.sock", ticket: DescriptorTicket(high: 15, low: 16), capacity: ByteCount(1000),
        resolves: true))
    list += GoldenMessage.of(
      HostAPI.attach, AttachRequest(client: StoreClientID(16), secret: ClientSecret(high: 17, low: 18)), empty)
    list += GoldenMessage.of(
      HostAPI.registerHolds, HoldRegistration(holds: [object], more: true, waits: false), empty)
    list += GoldenMessage.of(HostAPI.leave, empty, empty)
    list += GoldenMessage.of(HostAPI.drives, DriverNotice(job: job), empty)
    list += GoldenMessage.of(HostAPI.setName, NameRequest(name: name, object: object, claim: 9), empty)
    list += GoldenMessage.of(HostAPI.removeName, ResolveRequest(name), empty)
    list += GoldenMessage.of(HostAPI.resolve, ResolveRequest(name), listing)
    list += GoldenMessage.of(
      HostAPI.bring, BringRequest(object: object, policy: .relay, readsFiles: true),
      BringReply(digest: digest, bytesCopied: 5, isInFile: true))
    list += GoldenMessage.of(HostAPI.progress, ObjectRequest(object), progress)
    list += GoldenMessage.of(
      HostAPI.holdsChanged,
      ProcessHoldChanges(added: [object], removed: [object], unshared: [object], shared: [object], waits: false), empty)
    list += GoldenMessage.of(HostAPI.confirmHolds, empty, empty)
    list += GoldenMessage.of(
      HostAPI.state, empty,
      HostState(
        host: host, name: "h", cluster: ClusterID(high: 13, low: 14),
        head: LinkStatus(endpoint: endpoint, state: .away, problem: "Nobody.", seconds: 1.5), objects: 1, queued: 2))
    let access = S3Access(endpoint: "http://s3:1", isUnsigned: true, paysForRequests: true)
    list += GoldenMessage.of(
      HostAPI.fetch, FetchRequest(url: "s3://b/k", access: access),
      FetchReply(object: object, name: name, size: ByteCount(300_000)))
    list += GoldenMessage.of(HostAPI.statistics, empty, statistics)
    list += GoldenMessage.of(
      HostAPI.listS3, ListS3Request(url: "s3://b/k", access: access, after: "k"),
      ListS3Reply(entries: [.init(url: Name("s3://b/k"), size: ByteCount(5), etag: "\"e\"")], next: "l"))
    list += GoldenMessage.of(
      HostAPI.fetchSmall,
      FetchSmallRequest(
        entries: [.init(url: Name("s3://b/k"), size: ByteCount(5), etag: "\"e\"")], access: access),
      FetchSmallReply(outcomes: [.init(object: object, bytesCopied: 5)]))
    list += GoldenMessage.of(
      HostAPI.sources, ObjectRequest(object),
      SourcesReply(
        ObjectSources(
          fromS3: 1, fromHosts: [host: 2], reason: "slow", checksum: "crc32c", unverified: "parts")))
    return list
  }

  /// The frames of a handshake, and an error.
  private static var handshake: [GoldenMessage] {
    var hello = Hello(
      role: .driver, name: "ada", cluster: ClusterID(high: 13, low: 14), host: host, incarnation: 1, epoch: 2,
      process: 21, build: "ab")
    hello.notices = [DriverControlAPI.output.name]
    hello.claims = [ByteString(Handshake.encode(TokenClaims(role: .viewer, expires: 1_798_761_600, name: "ci")))]
    let nonce = [UInt8](0..<32)
    var failure = MobulaError(.denied, "No.", file: "F.swift", line: 3)
    failure.mayHaveRun = true
    return [
      .of("ClientOpening", "bytes", Handshake.ClientOpening(magic: Handshake.magic, hello: hello, nonce: nonce)),
      .of(
        "ServerReply", "bytes",
        Handshake.ServerReply(
          hello: Hello(role: .head, name: "bob", process: 22), nonce: nonce, proof: nonce, error: failure,
          tokens: [ByteString([1, 2])])),
      .of("ClientProof", "bytes", Handshake.ClientProof(proof: nonce)),
      .of("TokenClaims", "bytes", TokenClaims(role: .worker, job: job, expires: 1_798_761_600, name: "ci")),
      .of("MobulaError", "bytes", failure),
    ]
  }

  static var all: [GoldenMessage] { handshake + heads + members + hosts }

  @Test func everyMessageIsAsTheDocumentSays() throws {
    try WireDocument.export(Self.all)
    let document = try WireDocument()
    for message in Self.all {
      let problem = document.problem(of: message)
      #expect(problem == nil, "\(problem ?? "")")
    }
  }

  @Test func everyMethodIsInTheDocument() throws {
    let document = try WireDocument()
    #expect(try RightsTests.methods().subtracting(document.methods) == [])
  }

  /// Every method but those of other targets, whose tests have theirs, has its messages here.
  @Test func everyMethodHasItsBytes() throws {
    let own = try RightsTests.methods().filter { !$0.hasPrefix("worker.") && !$0.hasPrefix("bench.") }
    #expect(own.subtracting(Self.all.map(\.method)) == [])
    for message in Self.all { #expect(!message.bytes.isEmpty, "\(message.method)") }
  }

  /// What a peer of another build adds, and this one does not know, is passed over.
  @Test func unknownFieldsAreIgnored() throws {
    for message in Self.all where message.method != "TokenClaims" {
      guard case .map(var fields) = try CBORValue(decoding: message.bytes) else { continue }
      fields.append(.init(.text(Name("fromTheFuture")), .array([.unsigned(1), .null])))
      let bytes = CBORValue.map(fields).encoded()
      #expect(try Self.readsBack(message, bytes), "\(message.method) \(message.side)")
    }
  }

  private static func readsBack(_ message: GoldenMessage, _ bytes: [UInt8]) throws -> Bool {
    switch "\(message.method) \(message.side)" {
    case "ClientOpening bytes": try same(Handshake.ClientOpening.self, message, bytes)
    case "head.registerHost request": try same(HostRegistration.self, message, bytes)
    case "head.registerHost response": try same(RegistrationReply.self, message, bytes)
    case "head.registerPod request": try same(PodRegistration.self, message, bytes)
    case "head.locate request": try same(LocateRequest.self, message, bytes)
    case "head.locate response": try same(LocateReply.self, message, bytes)
    case "head.requestLease request": try same(LeaseRequest.self, message, bytes)
    case "head.status response": try same(ClusterStatus.self, message, bytes)
    case "host.welcome response": try same(WelcomeReply.self, message, bytes)
    case "host.statistics response": try same(StoreStatistics.self, message, bytes)
    default: true
    }
  }

  private static func same<Value: Codable>(
    _ type: Value.Type, _ message: GoldenMessage, _ bytes: [UInt8]
  ) throws -> Bool {
    try CBOREncoder().encode(CBORDecoder().decode(type, from: bytes)) == message.bytes
  }
}
