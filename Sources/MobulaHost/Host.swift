import FoundationEssentials
public import Logging
import MobulaCore
import MobulaS3
import MobulaStore
import MobulaTransfer
import MobulaWire

/// A host: the store that every process on it maps, the server that other hosts
/// take chunks from, and the fetches that bring objects in.
///
/// Made in the order in which its parts need each other; what calls back is given to `run`.
public final class Host: Sendable {
  public let configuration: HostConfiguration
  private let store: Store
  private let transfer: TransferServer
  private let fetcher: ReplicaFetcher
  private let s3: S3Fetcher
  private let spillPlace: S3SpillPlace?
  private let reports: HostReports
  private let processes: HostProcesses
  private let objects: HostObjects
  private let head: PeerLink
  private let registrar: HostRegistrar
  private let log: Logger

  /// Opens the store and the bulk port; nobody is served before `run()`. Blocks as `Store.init` does.
  ///
  /// - Throws: `MobulaError` when the capacity, the address or the directory can't be used.
  public init(_ configuration: HostConfiguration, log: Logger) throws {
    self.configuration = configuration
    self.log = log
    let receiving = TrafficControl(limit: configuration.receiveLimit)
    let credentials = S3CredentialsChain()
    let notes = ObjectNotes()
    spillPlace = try configuration.spillURL.map {
      try S3SpillPlace(
        $0, host: configuration.host, endpoint: configuration.spillEndpoint, credentials: credentials,
        traffic: receiving)
    }
    store = try Self.openStore(configuration, spillPlace, log: log)
    transfer = try TransferServer(
      endpoint: .tcp(host: configuration.listen ?? configuration.address, port: 0), token: configuration.token,
      tls: configuration.tls, hello: configuration.hello, traffic: TrafficControl(limit: configuration.sendLimit))
    // What others are told: they can't reach an address such as 0.0.0.0.
    let bulk =
      if case .tcp(_, let port) = transfer.endpoint { Endpoint.tcp(host: configuration.address, port: port) } else {
        transfer.endpoint
      }
    head = PeerLink(
      "head", at: configuration.head, token: configuration.token, tls: configuration.tls, hello: configuration.hello,
      log: log)
    reports = HostReports(configuration.host, store: store, head: head)
    processes = HostProcesses(configuration, store: store, notes: notes, reports: reports, head: head)
    registrar = HostRegistrar(
      configuration, bulk: bulk, store: store, notes: notes, reports: reports, processes: processes, log: log)
    fetcher = ReplicaFetcher(
      configuration: configuration, bulk: bulk, store: store, head: head, reports: reports, traffic: receiving,
      log: log)
    s3 = S3Fetcher(
      configuration, head: head, fetcher: fetcher, notes: notes, traffic: receiving, credentials: credentials, log: log)
    objects = HostObjects(
      configuration, store: store, notes: notes, reports: reports, processes: processes, fetcher: fetcher, s3: s3,
      head: head)
  }

  private static func openStore(
    _ configuration: HostConfiguration, _ spillPlace: S3SpillPlace?, log: Logger
  ) throws -> Store {
    var started = StoreConfiguration(
      capacity: configuration.capacity, socket: HostPaths.store(in: configuration.directory))
    started.spillDirectories = configuration.spillDirectories
    started.spillPlace = spillPlace
    started.warmShare = configuration.warmShare
    started.spareShare = configuration.spareShare
    started.keeper = configuration.keeper
    let store = try Store(started) { log.warning("\($0)") }
    if let (objects, found) = store.recovered {
      log.notice("the store's memory was kept", metadata: ["objects": "\(objects)", "processes": "\(found)"])
    }
    return store
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
    var events = StoreEvents()
    events.sealed = { [objects] in objects.sealed($0) }
    events.gone = { [objects] in objects.gone($0) }
    events.clientGone = { [processes] in processes.gone($0) }
    events.pressed = { [fetcher] in fetcher.dropUnfinished() }
    try store.start(events)
    transfer.start(
      source: { [store] in store.source($0) }, asked: { [fetcher] in fetcher.asked($0, by: $1) },
      isComing: { [s3] in s3.isReading($0) })
    let result: Result<Void, any Error>
    do {
      result = .success(try await serve(isReady))
    } catch {
      result = .failure(error)
    }
    if configuration.keeper == nil || isFinal() {
      await registrar.leave()
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
      var hello = configuration.hello
      hello.cluster = cluster
      let server = try await RPCServer.bind(
        to: .unix(path: HostPaths.host(in: configuration.directory)), token: configuration.token,
        hello: hello, router: router(cluster: cluster), onDisconnect: { self.processes.disconnected($0.id) })
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
    var router = RPCRouter()
    router.on(MemberControlAPI.alive) { _, _ in Empty() }
    router.takeTokens(configuration.token)
    objects.addControl(to: &router)
    do {
      try await head.run(router: router, patience: configuration.isFirstStart ? .seconds(15) : nil) { connection in
        try await self.registrar.register(on: connection)
      }
    } catch let error as MobulaError where !configuration.isFirstStart || head.hadConnection {
      log.error(
        "the head refuses this host, whose objects stay here until it is stopped", metadata: ["error": "\(error)"])
      while !Task.isCancelled { try await Task.sleep(for: .seconds(3600)) }
    }
  }

  /// The cluster, once the head was reached for the first time. A host that is started again knows it: the processes
  /// that have its memory mapped need it before they need the head.
  private func reachedCluster() async throws -> ClusterID? {
    let file = HostPaths.cluster(in: configuration.directory)
    if store.recovered != nil, let known = ClusterID(contentsOf: file) { return known }
    let cluster = try await head.connection().peer.cluster
    cluster?.write(to: file)
    return cluster
  }

  /// What the processes of this host may ask.
  private func router(cluster: ClusterID?) -> RPCRouter {
    let configuration = configuration
    var router = RPCRouter()
    router.on(HostAPI.welcome) { _, _ in
      WelcomeReply(
        host: configuration.host, name: configuration.name, cluster: cluster ?? ClusterID(high: 0, low: 0),
        head: configuration.head, address: configuration.address,
        storeSocket: HostPaths.store(in: configuration.directory), ticket: self.store.ticket(),
        capacity: configuration.capacity, resolves: true)
    }
    router.on(HostAPI.state) { _, _ in
      HostState(
        host: configuration.host, name: configuration.name, cluster: cluster, head: self.head.status,
        objects: self.store.objectCount, queued: self.reports.queuedChanges)
    }
    router.on(HostAPI.statistics) { _, _ in self.store.statistics }
    processes.add(to: &router)
    objects.add(to: &router)
    return router
  }
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
