public import Logging
import MobulaCore
import MobulaStore
import MobulaTransfer
import MobulaWire

/// A host: the store that every process on it maps, the server that other hosts
/// take chunks from, and the fetches that bring objects in.
public final class Host: Sendable {
  public let configuration: HostConfiguration
  private let store: Store
  private let transfer: TransferServer
  private let fetcher: ReplicaFetcher
  private let s3: S3Fetcher
  private let reporter: HoldReporter
  private let head: HeadLink
  private let clients = ClientTable()
  private let notes: ObjectNotes
  private let log: Logger

  /// Opens the store and the bulk port; nobody is served before `run()`.
  ///
  /// - Throws: `MobulaError` when the capacity, the address or the directory can't be used.
  public init(_ configuration: HostConfiguration, log: Logger) throws {
    self.configuration = configuration
    self.log = log
    let store = try Store(
      capacity: configuration.capacity, socket: HostConfiguration.descriptorSocket(in: configuration.directory),
      name: configuration.name)
    self.store = store
    var hello = Hello(role: .host, name: configuration.name)
    hello.host = configuration.host
    hello.incarnation = configuration.incarnation
    let transfer = try TransferServer(
      endpoint: .tcp(host: configuration.address, port: 0), token: configuration.token, hello: hello,
      source: { store.source($0) })
    self.transfer = transfer
    var router = RPCRouter()
    let notes = ObjectNotes()
    self.notes = notes
    router.on(HostControlAPI.drop) { request, _ in
      notes.dropped(request.objects)
      for object in request.objects { store.delete(object) }
      return Empty()
    }
    // The reporter and the link need each other: the link is reached through a box that is filled once.
    let box = LinkBox()
    let reporter = HoldReporter { batch, isCurrent in
      let head = box.link
      do {
        if !batch.changes.isEmpty {
          _ = try await head.call(
            HeadAPI.replicasChanged, ReplicaChanges(host: configuration.host, changes: batch.changes))
        }
        let connection = try await head.connection()
        // Differences are against what the head was told. A registration tells it everything anew, and
        // makes older differences wrong; so they are sent on no later connection than they are for.
        guard !batch.holds.isEmpty, isCurrent() else { return }
        let holds = HoldChanges(host: configuration.host, added: batch.holds.added, removed: batch.holds.removed)
        _ = try await connection.call(HeadAPI.holdsChanged, holds)
      } catch let error as MobulaError where error.code == .connectionClosed {
        // The registration that follows says it all.
      } catch {
        // The head knows less than it was to: a registration puts it right.
        try? await head.connection().close()
        throw error
      }
    }
    self.reporter = reporter
    let head = HeadLink(
      head: configuration.head, token: configuration.token, hello: hello, router: router, log: log
    ) { connection in
      let inventory = store.inventory()
      let registration = HostRegistration(
        host: configuration.host, name: configuration.name, incarnation: configuration.incarnation,
        bulk: transfer.endpoint, capacity: configuration.capacity,
        replicas: inventory.map {
          ReplicaReport(
            object: $0.object, geometry: $0.geometry, digest: $0.digest, contains: notes.contents(of: $0.object))
        }, holds: reporter.takeRegistration(), names: notes.names(of: inventory.map(\.object)))
      _ = try await connection.call(HeadAPI.registerHost, registration)
    }
    box.fill(head)
    self.head = head
    fetcher = ReplicaFetcher(
      configuration: configuration, hello: hello, store: store, head: head, reporter: reporter, log: log)
    s3 = S3Fetcher(host: configuration.host, head: head, fetcher: fetcher, notes: notes, log: log)
  }

  /// Serves until cancelled; then the sockets are gone and the memory is given back.
  ///
  /// - Throws: `MobulaError` when the head refuses this host, or the socket can't be bound.
  public func run() async throws {
    try store.start()
    defer {
      store.close()
      transfer.close()
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.head.run() }
      // Clients wait for the head anyway; binding after it was reached tells the supervisor that the host is ready.
      let connection = try await head.connection()
      var hello = Hello(role: .host, name: configuration.name)
      hello.host = configuration.host
      hello.incarnation = configuration.incarnation
      hello.cluster = connection.peer.cluster
      let server = try await RPCServer.bind(
        to: .unix(path: HostConfiguration.socket(in: configuration.directory)), token: configuration.token,
        hello: hello, router: router(cluster: connection.peer.cluster),
        onDisconnect: { self.disconnected($0) })
      log.notice(
        "host ready",
        metadata: [
          "host": "\(configuration.name)", "bulk": "\(transfer.endpoint)", "capacity": "\(configuration.capacity)",
        ])
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

  private func disconnected(_ connection: RPCConnection) {
    guard let client = clients.remove(connection.id) else { return }
    let aborted = store.detach(client)
    reporter.holderGone(connection.id)
    if !aborted.isEmpty {
      log.info("a process ended before it sealed what it was making", metadata: ["objects": "\(aborted.count)"])
    }
  }

  /// Holds of a process that has ended already would never end.
  private func hold(_ objects: [ObjectID], by connection: RPCConnection) throws(MobulaError) {
    try clients.whileAttached(connection.id) { reporter.hold(objects, by: connection.id) }
  }

  private func client(_ connection: RPCConnection) throws(MobulaError) -> StoreClientID {
    try clients.client(of: connection.id)
  }

  private func router(cluster: ClusterID?) -> RPCRouter {
    let configuration = configuration
    var router = RPCRouter()
    router.on(HostAPI.attach) { _, connection in
      self.clients.attach(connection.id) { self.store.attach() }
      return AttachReply(
        host: configuration.host, name: configuration.name, cluster: cluster ?? ClusterID(high: 0, low: 0),
        head: configuration.head, address: configuration.address,
        descriptorSocket: HostConfiguration.descriptorSocket(in: configuration.directory),
        capacity: configuration.capacity)
    }
    router.on(HostAPI.create) { request, connection in
      let client = try self.client(connection)
      let placement = try await onThread(named: "reserve") {
        try self.store.create(request.object, size: request.size, client: client)
      }
      // Told to the head with the seal.
      if request.holds { try self.hold([request.object], by: connection) }
      return placement
    }
    router.on(HostAPI.seal) { request, connection in
      let info = try await self.store.seal(request.object, client: self.client(connection))
      let report = ReplicaReport(
        object: info.object, geometry: info.geometry, digest: info.digest, contains: request.contains)
      self.notes.contain(report.object, report.contains)
      try await self.reporter.report(.sealed(report, held: false))
      return report
    }
    router.on(HostAPI.setName) { request, _ in
      _ = try await self.head.call(HeadAPI.setName, request)
      self.notes.name(request.name, request.object)
      return Empty()
    }
    router.on(HostAPI.abort) { request, connection in
      try self.store.abort(request.object, client: self.client(connection))
      self.reporter.release([request.object], by: connection.id)
      return Empty()
    }
    router.on(HostAPI.pin) { request, connection in
      let fetched = try await self.fetcher.ensureLocal(request.object, policy: request.policy)
      let client = try self.client(connection)
      let placement = try self.store.pin(request.object, client: client)
      if Task.isCancelled {
        // Nobody takes the answer, so nobody would give the pin back.
        self.store.unpin(request.object, client: client)
        throw CancellationError()
      }
      return PinReply(placement: placement, digest: fetched.digest, bytesCopied: fetched.bytesCopied)
    }
    router.on(HostAPI.unpin) { request, connection in
      try self.store.unpin(request.object, client: self.client(connection))
      return Empty()
    }
    router.on(HostAPI.progress) { request, _ in
      guard let progress = self.store.progress(of: request.object) else {
        return ReplicaProgress(verified: ByteCount(0), total: nil)
      }
      return ReplicaProgress(verified: ByteCount(progress.verified), total: ByteCount(progress.total))
    }
    router.on(HostAPI.holdsChanged) { request, connection in
      try self.hold(request.added, by: connection)
      self.reporter.release(request.removed, by: connection.id)
      if !request.added.isEmpty { try await self.reporter.flush() }
      return Empty()
    }
    router.on(HostAPI.fetch) { request, _ in try await self.s3.fetch(request) }
    router.on(HostAPI.listS3) { request, _ in try await self.s3.list(request) }
    return router
  }
}
