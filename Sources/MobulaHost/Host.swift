import FoundationEssentials
public import Logging
import MobulaCore
import MobulaS3
import MobulaStore
import MobulaTransfer
import MobulaWire
import Synchronization

/// A host: the store that every process on it maps, the server that other hosts
/// take chunks from, and the fetches that bring objects in.
public final class Host: Sendable {
  public let configuration: HostConfiguration
  private let store: Store
  private let transfer: TransferServer
  private let fetcher: ReplicaFetcher
  private let s3: S3Fetcher
  private let spillPlace: S3SpillPlace?
  private let reporter: HoldReporter
  private let head: PeerLink
  private let registrar: HostRegistrar
  private let clients = ClientTable()
  private let notes: ObjectNotes
  private let log: Logger

  /// Opens the store and the bulk port; nobody is served before `run()`. Blocks as `Store.init` does.
  ///
  /// - Throws: `MobulaError` when the capacity, the address or the directory can't be used.
  public init(_ configuration: HostConfiguration, log: Logger) throws {
    self.configuration = configuration
    self.log = log
    let clients = clients
    let notes = ObjectNotes()
    self.notes = notes
    let reporterBox = Once<HoldReporter>("the reporter")
    let receiving = TrafficControl(limit: configuration.receiveLimit)
    let credentials = S3CredentialsChain()
    spillPlace = try configuration.spillURL.map {
      try S3SpillPlace(
        $0, host: configuration.host, endpoint: configuration.spillEndpoint, credentials: credentials,
        traffic: receiving)
    }
    // The store, the reporter and the link need each other: the link is reached through a box that is filled once.
    let box = Once<PeerLink>("the link to the head")
    let store = try Self.openStore(
      configuration, spillPlace, reporterBox, notes, clients,
      driverEnded: { job in
        let notice = DriverEnded(host: configuration.host, job: job)
        Task { _ = try? await box.filled?.call(HeadAPI.driverEnded, notice, deadline: .seconds(600)) }
      }, log: log)
    self.store = store
    var hello = Hello(role: .host, name: configuration.name)
    hello.host = configuration.host
    let fetcherBox = Once<ReplicaFetcher>("the fetcher")
    let transfer = try TransferServer(
      endpoint: .tcp(host: configuration.listen ?? configuration.address, port: 0), token: configuration.token,
      tls: configuration.tls,
      hello: hello, traffic: TrafficControl(limit: configuration.sendLimit), source: { store.source($0) },
      asked: { fetcherBox.filled?.asked($0, by: $1) })
    self.transfer = transfer
    // What others are told: they can't reach an address such as 0.0.0.0.
    let bulk =
      if case .tcp(_, let port) = transfer.endpoint { Endpoint.tcp(host: configuration.address, port: port) } else {
        transfer.endpoint
      }
    var router = RPCRouter()
    router.on(HostControlAPI.drop) { request, _ in
      for (object, damage) in request.damages {
        fetcherBox.filled?.ledger.condemn(object, MobulaError(.corrupted, damage))
      }
      notes.dropped(request.objects)
      reporterBox.filled?.wasShared(request.objects)
      for object in request.objects { store.delete(object) }
      return Empty()
    }
    router.on(HostControlAPI.keep) { request, _ in
      store.keep(request.objects)
      return Empty()
    }
    router.on(HostControlAPI.names) { news, _ in
      for name in news.taken { notes.unname(name) }
      for (name, known) in news.given { notes.name(name, known) }
      return Empty()
    }
    router.on(MemberControlAPI.alive) { _, _ in Empty() }
    router.on(HostControlAPI.bring) { order, _ in
      guard let fetcher = fetcherBox.filled else {
        throw MobulaError(.unavailable, "Host \(configuration.name) is just being started: try again.")
      }
      let fetched = try await fetcher.ensureLocal(order.object, policy: .relay, priority: order.priority)
      return BringOutcome(bytesCopied: fetched.bytesCopied)
    }
    router.on(HostControlAPI.progress) { question, _ in
      ReplicaProgress(question.object, at: configuration.host, in: store)
    }
    // What a process puts and lets go of again within that time, the head never hears of.
    let reporter = HoldReporter(
      linger: .milliseconds(20),
      ready: { limit in
        guard let head = box.filled else {
          try await Task.sleep(for: .milliseconds(1))
          return false
        }
        do {
          _ = try await head.connection(until: .now + limit)
          return true
        } catch let error as MobulaError where error.code == .unavailable && !head.isOver { return false }
      }
    ) { batch, isCurrent in
      let head = box.value
      let connection = try await head.connection(until: .now + HoldReporter.patience)
      do {
        let changes = Self.changes(batch.changes, store)
        for some in pages(of: changes, size: \.wireSize) {
          let report = ReplicaChanges(host: configuration.host, changes: some)
          _ = try await connection.call(HeadAPI.replicasChanged, report)
        }
        // Differences are against what the head was told. A registration tells it everything anew, and
        // makes older differences wrong; so they are sent on no later connection than they are for.
        guard !batch.holds.isEmpty, isCurrent() else { return nil }
        // All in one message where they fit, as they nearly always do; what is added is never told after what ends.
        for holds in HoldChanges.parts(configuration.host, added: batch.holds.added, removed: batch.holds.removed) {
          _ = try await connection.call(HeadAPI.holdsChanged, holds)
        }
      } catch let error as MobulaError where error.code == .connectionClosed {
        // The registration that follows says what is here and held; who waits for this waits for that. What else
        // the report said is said again.
        try await head.waitForRegistration(within: HoldReporter.patience, isCurrent)
        for some in pages(of: Self.changes(batch.changes, store), size: \.wireSize) {
          _ = try await head.call(HeadAPI.replicasChanged, ReplicaChanges(host: configuration.host, changes: some))
        }
      } catch {
        // The head knows less than it was to: a registration puts it right.
        await connection.close()
        throw error
      }
      return nil
    }
    self.reporter = reporter
    reporterBox.fill(reporter)
    // The head drops what nobody holds: until the processes that were here before have said what they hold, all is held.
    if !clients.areAllBack {
      reporter.hold(store.objects, by: ClientTable.absent)
      // The last of them may have ended while this was written down.
      if clients.areAllBack { Self.letGo(ClientTable.absent, reporter, store) }
    }
    let registrar = HostRegistrar(
      configuration, bulk: bulk, store: store, notes: notes, reporter: reporter, clients: clients, log: log
    )
    self.registrar = registrar
    let head = PeerLink(
      "head", at: configuration.head, token: configuration.token, tls: configuration.tls, hello: hello, router: router,
      log: log
    ) { connection in
      try await registrar.register(on: connection)
    }
    box.fill(head)
    self.head = head
    fetcher = ReplicaFetcher(
      configuration: configuration, bulk: bulk, hello: hello, store: store, head: head, reporter: reporter,
      traffic: receiving, log: log)
    fetcherBox.fill(fetcher)
    s3 = S3Fetcher(
      host: configuration.host, head: head, fetcher: fetcher, notes: notes, traffic: receiving,
      credentials: credentials, log: log)
  }

  private static func openStore(
    _ configuration: HostConfiguration, _ spillPlace: S3SpillPlace?, _ reporter: Once<HoldReporter>,
    _ notes: ObjectNotes, _ clients: ClientTable, driverEnded: @escaping @Sendable (JobID) -> Void, log: Logger
  ) throws -> Store {
    var events = StoreEvents()
    events.sealed = { objects in
      for sealed in objects {
        notes.contain(sealed.object, sealed.contains)
        reporter.value.made(
          sealed.object, contains: sealed.contains, holder: sealed.isHeld ? sealed.maker.number : nil)
      }
    }
    events.gone = { objects in
      for object in objects { reporter.value.gone(object) }
    }
    events.trouble = { log.warning("\($0)") }
    let storeBox = Once<WeakStore>("the store")
    events.clientGone = { client in
      if let job = clients.takeJob(of: client) { driverEnded(job) }
      clients.forget(client)
      Self.letGo(client.number, reporter.value, storeBox.filled?.store)
      if clients.isBack(client) { Self.letGo(ClientTable.absent, reporter.value, storeBox.filled?.store) }
    }
    var started = StoreConfiguration(
      capacity: configuration.capacity, socket: HostSockets.store(in: configuration.directory))
    started.spillDirectories = configuration.spillDirectories
    started.spillPlace = spillPlace
    started.warmShare = configuration.warmShare
    started.spareShare = configuration.spareShare
    started.keeper = configuration.keeper
    let store = try Store(started, events: events)
    storeBox.fill(WeakStore(store))
    if let (objects, found) = store.recovered {
      log.notice("the store's memory was kept", metadata: ["objects": "\(objects)", "processes": "\(found)"])
      for object in store.objects { notes.contain(object, store.contents(of: object)) }
      clients.expect { store.clients }
    }
    return store
  }

  /// A process holds nothing any more.
  private static func letGo(_ holder: UInt64, _ reporter: HoldReporter, _ store: Store?) {
    let held = reporter.held(by: holder)
    reporter.holderGone(holder)
    store?.setHeld(held.filter { !reporter.isHeld($0) }, false)
    // The head says that they may go, when it is there; their room is not to wait for it.
    store?.setUnwanted(reporter.unwanted(among: held))
  }

  /// What the head is told: of objects that were made here all that it has to know, if they are still there.
  private static func changes(_ changes: [HoldReporter.Change], _ store: Store) -> [ReplicaChange] {
    changes.compactMap { change in
      switch change {
      case .replica(let change): change
      case .made(let object, let contains, let held):
        store.info(of: object).map {
          .sealed(
            ReplicaReport(
              object: object, geometry: $0.geometry, digest: $0.digest, contains: contains,
              isPrimary: store.isPrimary(object)), held: held)
        }
      }
    }
  }

  /// Serves until cancelled; then the sockets are gone.
  ///
  /// - Parameters:
  ///   - isReady: called once the processes of this host can connect.
  ///   - isFinal: asked at the end: whether the memory is given back, and what was spilled removed. Otherwise all stays
  ///     as it is when this process is killed: a host that is started with the same keeper goes on with it.
  /// - Throws: `MobulaError` when the socket can't be bound; at a first start, when the head refuses this host.
  public func run(
    isReady: @Sendable () -> Void = {}, isFinal: @Sendable () -> Bool = { true }
  ) async throws {
    try store.start()
    let result: Result<Void, any Error>
    do {
      result = .success(try await serve(isReady))
    } catch {
      result = .failure(error)
    }
    if configuration.keeper == nil || isFinal() {
      var hello = Hello(role: .host, name: configuration.name)
      hello.host = configuration.host
      await registrar.leave(hello)
      // Removing what was spilled may take its time.
      let store = store
      _ = try? await onThread(named: "store end") { store.close() }
    }
    transfer.close()
    await spillPlace?.close()
    try result.get()
  }

  private func serve(_ isReady: @Sendable () -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.keepHead() }
      let cluster = try await reachedCluster()
      var hello = Hello(role: .host, name: configuration.name)
      hello.host = configuration.host
      hello.cluster = cluster
      let server = try await RPCServer.bind(
        to: .unix(path: HostSockets.host(in: configuration.directory)), token: configuration.token,
        hello: hello, router: router(cluster: cluster), onDisconnect: { self.clients.remove($0.id) })
      log.notice(
        "host ready",
        metadata: [
          "host": "\(configuration.name)", "bulk": "\(transfer.endpoint)", "capacity": "\(configuration.capacity)",
        ])
      isReady()
      do {
        try await group.waitForAll()
      } catch {
        await server.close()
        await s3.close()
        throw error
      }
      await server.close()
      await s3.close()
    }
  }

  /// Keeps the connection to the head until cancelled.
  ///
  /// The store stays whatever the head says: what processes on this host have in it is theirs.
  private func keepHead() async throws {
    do {
      try await head.run(patience: configuration.isFirstStart ? .seconds(15) : nil)
    } catch let error as MobulaError where !configuration.isFirstStart || head.hadConnection {
      log.error(
        "the head refuses this host, whose objects stay here until it is stopped", metadata: ["error": "\(error)"])
      while !Task.isCancelled { try await Task.sleep(for: .seconds(3600)) }
    }
  }

  /// The cluster, once the head was reached for the first time. A host that is started again knows it: the processes
  /// that have its memory mapped need it before they need the head.
  private func reachedCluster() async throws -> ClusterID? {
    let file = HostSockets.cluster(in: configuration.directory)
    if store.recovered != nil, let known = ClusterID(contentsOf: file) { return known }
    let cluster = try await head.connection().peer.cluster
    cluster?.write(to: file)
    return cluster
  }

  /// Holds of a process that has ended already would never end.
  private func hold(_ objects: [ObjectID], by connection: RPCConnection) throws(MobulaError) {
    try clients.whileAttached(connection.id) { client in
      reporter.hold(objects, by: client.number)
      store.setHeld(objects, true)
    }
  }

  private func release(_ change: ProcessHoldChanges, by client: StoreClientID) {
    // What nobody but this process ever knew of is gone without a word to the head, if it wasn't told yet.
    let forgotten = reporter.release(change.removed, unshared: change.unshared, by: client.number)
    notes.forget(forgotten)
    for object in forgotten { store.delete(object) }
    if forgotten.count < change.removed.count {
      store.setHeld(change.removed.filter { !reporter.isHeld($0) }, false)
      store.setUnwanted(reporter.unwanted(among: change.unshared))
    }
  }

  private func client(_ connection: RPCConnection) throws(MobulaError) -> StoreClientID {
    try clients.client(of: connection.id)
  }

  private func router(cluster: ClusterID?) -> RPCRouter {
    let configuration = configuration
    var router = RPCRouter()
    router.on(HostAPI.welcome) { _, _ in
      WelcomeReply(
        host: configuration.host, name: configuration.name, cluster: cluster ?? ClusterID(high: 0, low: 0),
        head: configuration.head, address: configuration.address,
        storeSocket: HostSockets.store(in: configuration.directory), ticket: self.store.ticket(),
        capacity: configuration.capacity)
    }
    router.on(HostAPI.attach) { request, connection in
      guard self.store.isAttached(request.client, secret: request.secret) else {
        throw MobulaError(
          .mismatch, "The host's store was started anew, and knows nothing of this process: connect to it again.")
      }
      self.store.takeAnnouncements(of: request.client)
      try self.clients.attach(connection, request.client, known: self.reporter.held(by: request.client.number))
      return Empty()
    }
    router.on(HostAPI.registerHolds) { request, connection in
      if request.more == true {
        self.clients.hold(request.holds, coming: connection.id)
        return Empty()
      }
      guard let coming = self.clients.takeComing(connection.id) else {
        throw MobulaError(
          .protocolViolation,
          "A process told what it holds before it told who it is: use the same mobula on both sides.")
      }
      let (client, known, holds) = (coming.client, coming.known, coming.holds + request.holds)
      self.reporter.setHolds(holds, known: known, by: client.number)
      self.store.setHeld(holds, true)
      self.store.setHeld(known.filter { !self.reporter.isHeld($0) }, false)
      self.clients.registered(connection.id, client)
      if self.clients.isBack(client) { Self.letGo(ClientTable.absent, self.reporter, self.store) }
      guard self.store.clients.contains(client) else {
        // It has ended meanwhile, before anybody knew that it holds something.
        self.clients.forget(client)
        Self.letGo(client.number, self.reporter, self.store)
        throw MobulaError(.connectionClosed, "The process that asked has ended.")
      }
      // Whoever waits for what is held to be known waits for this answer, or asks for it.
      if request.waits ?? true, !holds.isEmpty { try await self.reporter.flush() }
      return Empty()
    }
    router.on(HostAPI.drives) { request, connection in
      self.clients.drives(try self.client(connection), request.job)
      return Empty()
    }
    router.on(HostAPI.leave) { _, connection in
      let client = try self.client(connection)
      self.store.takeAnnouncements(of: client)
      Self.letGo(client.number, self.reporter, self.store)
      return Empty()
    }
    router.on(HostAPI.setName) { request, connection in
      self.store.takeAnnouncements(of: try self.client(connection))
      self.reporter.wasShared([request.object])
      try await self.reporter.flush()
      // Claims are numbered for what this host fetches itself.
      _ = try await self.head.call(HeadAPI.setName, NameRequest(name: request.name, object: request.object))
      self.notes.name(request.name, KnownName(request.object, .given))
      return Empty()
    }
    router.on(HostAPI.removeName) { request, _ in
      self.notes.unname(request.nameOrID)
      _ = try await self.head.call(HeadAPI.removeName, request)
      return Empty()
    }
    router.on(HostAPI.bring) { request, connection in
      // If it put the object itself, and was refused, this is where it hears of it.
      try self.store.confirm(request.object, client: self.client(connection))
      let readsFiles = request.readsFiles == true
      do {
        let fetched = try await self.fetcher.ensureLocal(
          request.object, policy: request.policy, patience: readsFiles ? Store.shortPatience : nil)
        return BringReply(digest: fetched.digest, bytesCopied: fetched.bytesCopied)
      } catch let error as MobulaError
        where readsFiles && error.code != .corrupted && self.store.isInFile(request.object)
      {
        guard let info = self.store.info(of: request.object) else { throw error }
        return BringReply(digest: info.digest, bytesCopied: 0, isInFile: true)
      } catch let error as MobulaError where [.notFound, .unavailable].contains(error.code) {
        // Evicted everywhere: what came from S3 can come again.
        guard let origin = self.notes.origin(of: request.object),
          try await self.s3.fetchAgain(request.object, origin)
        else { throw self.fetcher.ledger.failure(of: request.object) ?? error }
        let fetched = try await self.fetcher.ensureLocal(request.object, policy: request.policy)
        return BringReply(digest: fetched.digest, bytesCopied: fetched.bytesCopied)
      }
    }
    router.on(HostAPI.progress) { request, _ in
      ReplicaProgress(request.object, at: configuration.host, in: self.store)
    }
    router.on(HostAPI.holdsChanged) { request, connection in
      let client = try self.client(connection)
      // What it put before is known before its hold is over.
      self.store.takeAnnouncements(of: client)
      try self.hold(request.added, by: connection)
      self.release(request, by: client)
      if !request.shared.isEmpty {
        self.reporter.wasShared(request.shared)
        self.reporter.hurry()
      }
      if request.waits ?? true, !request.added.isEmpty { try await self.reporter.flush() }
      return Empty()
    }
    router.on(HostAPI.confirmHolds) { _, _ in
      try await self.reporter.flush()
      return Empty()
    }
    router.on(HostAPI.state) { _, _ in
      HostState(
        host: configuration.host, name: configuration.name, cluster: cluster, head: self.head.status,
        objects: self.store.statistics.objects, queued: self.reporter.queuedChanges)
    }
    router.on(HostAPI.fetch) { request, _ in try await self.s3.fetch(request) }
    router.on(HostAPI.statistics) { _, _ in self.store.statistics }
    router.on(HostAPI.origins) { request, _ in
      OriginsReply(origins: self.fetcher.ledger.origins(of: request.object))
    }
    router.on(HostAPI.listS3) { request, _ in try await self.s3.list(request) }
    return router
  }
}

extension ReplicaProgress {
  fileprivate init(_ object: ObjectID, at host: HostID, in store: Store) {
    let progress = store.progress(of: object)
    self.init(
      host: host, verified: ByteCount(progress?.verified ?? 0), total: progress.map { ByteCount($0.total) })
  }
}

/// For the store's own events, which it must not be kept by.
private struct WeakStore: Sendable {
  weak let store: Store?

  init(_ store: Store) { self.store = store }
}

extension ClusterID {
  /// `nil` when the file isn't there, or is something else.
  fileprivate init?(contentsOf file: String) {
    guard let text = try? String(decoding: Data(contentsOf: URL(filePath: file)), as: UTF8.self) else { return nil }
    self.init(text.filter { !$0.isWhitespace })
  }

  /// Best effort: without it a host that is started again waits for its head.
  fileprivate func write(to file: String) {
    try? Data("\(self)\n".utf8).write(to: URL(filePath: file), options: .atomic)
  }
}
