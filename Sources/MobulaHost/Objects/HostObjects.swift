import MobulaCore
import MobulaStore
import MobulaWire

/// The objects of this host, as its processes and the head ask for them.
final class HostObjects: Sendable {
  private let configuration: HostConfiguration
  private let store: Store
  private let notes: ObjectNotes
  private let reports: HostReports
  private let processes: HostProcesses
  private let fetcher: ReplicaFetcher
  private let s3: S3Fetcher
  private let head: PeerLink

  init(
    _ configuration: HostConfiguration, store: Store, notes: ObjectNotes, reports: HostReports,
    processes: HostProcesses, fetcher: ReplicaFetcher, s3: S3Fetcher, head: PeerLink
  ) {
    self.configuration = configuration
    self.store = store
    self.notes = notes
    self.reports = reports
    self.processes = processes
    self.fetcher = fetcher
    self.s3 = s3
    self.head = head
    for object in store.recovered == nil ? [] : store.objects { notes.contain(object, store.contents(of: object)) }
  }

  // MARK: What happens

  /// Processes have made these.
  func sealed(_ objects: [SealedObject]) {
    for sealed in objects {
      notes.contain(sealed.object, sealed.contains)
      reports.made(sealed.object, contains: sealed.contains, holder: sealed.isHeld ? sealed.maker.number : nil)
    }
  }

  func gone(_ objects: [ObjectID]) {
    for object in objects { reports.gone(object) }
  }

  // MARK: What the head asks

  func addControl(to router: inout RPCRouter) {
    router.on(HostControlAPI.drop) { request, _ in
      for (object, damage) in request.damages {
        self.fetcher.ledger.condemn(object, MobulaError(.corrupted, damage))
      }
      self.notes.dropped(request.objects)
      self.reports.wasShared(request.objects)
      self.fetcher.dropUnfinished(request.objects)
      self.store.delete(request.objects)
      return Empty()
    }
    router.on(HostControlAPI.keep) { request, _ in
      self.store.keep(request.objects)
      return Empty()
    }
    router.on(HostControlAPI.names) { news, _ in
      for name in news.taken { self.notes.unname(name) }
      for (name, known) in news.given { self.notes.name(name, known) }
      return Empty()
    }
    router.on(HostControlAPI.bring) { order, _ in
      let fetched = try await self.fetcher.ensureLocal(order.object, policy: .relay, priority: order.priority)
      return BringOutcome(bytesCopied: fetched.bytesCopied)
    }
    router.on(HostControlAPI.progress) { question, _ in self.progress(of: question.object) }
  }

  // MARK: What processes ask

  func add(to router: inout RPCRouter) {
    router.on(HostAPI.setName) { request, connection in
      try await self.setName(request, connection)
      return Empty()
    }
    router.on(HostAPI.removeName) { request, connection in
      if connection.authority?.job != nil {
        try connection.check(try await self.head.call(HeadAPI.resolve, request).object)
      }
      self.notes.unname(request.nameOrID)
      _ = try await self.head.call(HeadAPI.removeName, request)
      return Empty()
    }
    router.on(HostAPI.resolve) { request, connection in
      // Without a head that is just being started again, who asks hears so soon.
      let patience: Duration = self.head.status.state == .connected ? .seconds(10) : .seconds(2)
      let listing = try await self.head.call(HeadAPI.resolve, request, deadline: patience)
      return connection.shown(listing, askedBy: request.nameOrID)
    }
    router.on(HostAPI.bring) { request, connection in try await self.bring(request, connection) }
    router.on(HostAPI.progress) { request, _ in self.progress(of: request.object) }
    router.on(HostAPI.fetch) { request, _ in try await self.s3.fetch(request) }
    router.on(HostAPI.fetchSmall) { request, _ in try await self.s3.fetchSmall(request) }
    router.on(HostAPI.sources) { request, _ in
      SourcesReply(self.fetcher.ledger.sources(of: request.object))
    }
    router.on(HostAPI.listS3) { request, _ in try await self.s3.list(request) }
  }

  private func setName(_ request: NameRequest, _ connection: RPCConnection) async throws {
    let isHold = request.name == Name("\(ReservedNames.held)\(request.object)")
    if !isHold, let objection = ReservedNames.objection(to: request.name.text) {
      throw MobulaError(.invalidArgument, "The name \"\(request.name)\" can't be given: \(objection).")
    }
    store.takeAnnouncements(of: try processes.client(connection))
    reports.wasShared([request.object])
    try await reports.flush()
    // Claims are numbered for what this host fetches itself.
    _ = try await head.call(HeadAPI.setName, NameRequest(name: request.name, object: request.object))
    notes.name(request.name, KnownName(request.object, .given))
  }

  private func bring(_ request: BringRequest, _ connection: RPCConnection) async throws -> BringReply {
    // If it put the object itself, and was refused, this is where it hears of it.
    try store.confirm(request.object, client: processes.client(connection))
    let readsFiles = request.readsFiles == true
    let start = ContinuousClock.now
    do {
      let fetched = try await fetcher.ensureLocal(
        request.object, policy: request.policy, patience: readsFiles ? Store.shortPatience : nil)
      return BringReply(digest: fetched.digest, bytesCopied: fetched.bytesCopied)
    } catch let error as MobulaError
      where readsFiles && error.code != .corrupted && store.isInFile(request.object)
    {
      guard let info = store.info(of: request.object) else { throw error }
      return BringReply(digest: info.digest, bytesCopied: 0, isInFile: true)
    } catch let error as MobulaError where [.notFound, .unavailable].contains(error.code) {
      // S3 was waited for already.
      if let failure = fetcher.ledger.failure(of: request.object, since: start) { throw failure }
      // Evicted everywhere: what came from S3 can come again.
      guard let before = notes.fetched(request.object), try await s3.fetchAgain(request.object, before)
      else { throw fetcher.ledger.failure(of: request.object) ?? error }
      let fetched = try await fetcher.ensureLocal(request.object, policy: request.policy)
      return BringReply(digest: fetched.digest, bytesCopied: fetched.bytesCopied)
    }
  }

  private func progress(of object: ObjectID) -> ReplicaProgress {
    let progress = store.progress(of: object)
    var reply = ReplicaProgress(
      host: configuration.host, verified: ByteCount(progress?.verified ?? 0),
      total: progress.map { ByteCount($0.total) })
    reply.waiting = fetcher.ledger.wait(for: object)
    return reply
  }
}
