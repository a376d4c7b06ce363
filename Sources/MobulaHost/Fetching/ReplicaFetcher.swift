import Logging
import MobulaCore
import MobulaStore
import MobulaTransfer
import MobulaWire
import Synchronization

/// Brings objects from other hosts into this host's store, each of them once
/// however many processes wait for it.
final class ReplicaFetcher: Sendable {
  struct Fetched: Sendable {
    var digest: ObjectDigest
    /// Bytes that came in, told once; 0 when the object was here.
    var bytesCopied: Int
  }

  private struct State {
    var book = FetchBookStateMachine()
    var tasks: [FetchBookStateMachine.Number: Task<Fetched, any Error>] = [:]
    /// The exchanges with other hosts that have begun.
    var exchanges: [FetchBookStateMachine.Number: ObjectExchange] = [:]
    var unfinished = UnfinishedReplicas()

    func exchange(of object: ObjectID) -> ObjectExchange? { book.current(object).flatMap { exchanges[$0] } }
  }

  private let configuration: HostConfiguration
  private let store: Store
  private let head: PeerLink
  private let reports: HostReports
  private let log: Logger
  private let state = Mutex(State())
  private let own: TransferPeer
  /// Where what is here came from.
  let ledger = FetchLedger()
  private let traffic: TrafficControl
  /// Where small objects are made: making room can mean evicting and unmapping.
  private let placing = PlacingThread()

  /// - Parameters:
  ///   - bulk: where this host serves its chunks.
  ///   - traffic: what this host receives.
  init(
    configuration: HostConfiguration, bulk: Endpoint, store: Store, head: PeerLink, reports: HostReports,
    traffic: TrafficControl, log: Logger
  ) {
    self.traffic = traffic
    own = TransferPeer(host: configuration.host, bulk: bulk)
    self.configuration = configuration
    self.store = store
    self.head = head
    self.reports = reports
    self.log = log
  }

  /// Waits until the object is complete in this host's store. The fetch is given up when nobody waits for it any more.
  ///
  /// - Parameters:
  ///   - priority: what a fetch that is under way already is raised to.
  ///   - patience: how long a spilled object waits for room; as the store's configuration says by default.
  /// - Throws: `MobulaError`: `notFound` when no replica is left anywhere, `full`, `corrupted`, or `cancelled`.
  func ensureLocal(
    _ object: ObjectID, policy: SourcePolicy, priority: TransferPriority = .get, patience: Duration? = nil
  ) async throws -> Fetched {
    var lost: MobulaError?
    while true {
      try Task.checkCancellation()
      if let damage = ledger.damage(of: object) { throw damage }
      do throws(MobulaError) {
        if let here = try await local(object, patience) { return here }
      } catch {
        // What was spilled is damaged or gone, and so is it: elsewhere there may be another replica.
        if error.code == .full || store.isSpilled(object) { throw error }
        log.warning("an object can't be restored", metadata: ["object": "\(object)", "reason": "\(error)"])
        lost = error
      }
      let (number, task, isFirst) = join(object, priority) { number in
        try await self.fetch(object, number, policy: policy)
      }
      do {
        let fetched = try await withTaskCancellationHandler {
          try await task.value
        } onCancel: {
          leave(object, number)
        }
        return Fetched(
          digest: fetched.digest, bytesCopied: isFirst ? fetched.bytesCopied : ledger.takeUnreported(object))
      } catch  where !Task.isCancelled && (error is CancellationError || (error as? MobulaError)?.code == .cancelled) {
        // The last of those before us gave it up as we came: begin again.
        continue
      } catch let error as MobulaError where error.code == .notFound && lost != nil {
        // There is none, and this is why.
        throw MobulaError(.notFound, lost!.message)
      } catch let error as MobulaError where error.code == .alreadyExists && isUnderWay(object, besides: number) {
        // Somebody began to read it from S3 meanwhile: wait for that.
        continue
      }
    }
  }

  private func isUnderWay(_ object: ObjectID, besides number: FetchBookStateMachine.Number) -> Bool {
    state.withLock { state in state.book.current(object).map { $0 != number } ?? false }
      || store.info(of: object) != nil
  }

  /// Whether the object is complete here.
  func isHere(_ object: ObjectID) -> Bool { store.info(of: object) != nil }

  /// Whether the object is being received, and not from other hosts alone.
  func isFilling(_ object: ObjectID) -> Bool { state.withLock { $0.exchange(of: object) }?.isFilled ?? false }

  /// The object as it is here, brought back from where it was spilled if need be; `nil` when it isn't here.
  ///
  /// - Throws: `MobulaError`: `full` when it has no room; why it can't be brought back now, or never.
  private func local(_ object: ObjectID, _ patience: Duration?) async throws(MobulaError) -> Fetched? {
    guard let info = store.info(of: object) else { return nil }
    if store.isSpilled(object) {
      let store = store
      do {
        try await onThread(named: "restore") { try store.restore(object, patience: patience) }
      } catch {
        throw error as? MobulaError ?? MobulaError(.unavailable, "\(error)")
      }
    }
    return Fetched(digest: info.digest, bytesCopied: ledger.takeUnreported(object))
  }

  /// The fetch of an object, begun by `body` if there is none; and whether its bytes are the caller's to report.
  private func join(
    _ object: ObjectID, _ priority: TransferPriority,
    _ body: @escaping @Sendable (FetchBookStateMachine.Number) async throws -> Fetched
  ) -> (number: FetchBookStateMachine.Number, task: Task<Fetched, any Error>, isFirst: Bool) {
    let (number, task, isFirst, exchange) = state.withLock { state in
      switch state.book.join(object, priority) {
      case .begins(let number):
        // It clears its entry under the same lock, so not before the entry is there.
        let task = Task {
          defer { self.ended(object, number) }
          return try await body(number)
        }
        state.tasks[number] = task
        return (number, task, true, ObjectExchange?.none)
      case .waits(let number, let isAccountable):
        return (number, state.tasks[number]!, isAccountable, state.exchanges[number])
      }
    }
    exchange?.raise(to: priority)
    return (number, task, isFirst)
  }

  private func ended(_ object: ObjectID, _ number: FetchBookStateMachine.Number) {
    state.withLock { state in
      state.book.ended(object, number)
      state.tasks[number] = nil
      state.exchanges[number] = nil
    }
  }

  /// Somebody does not wait any longer.
  private func leave(_ object: ObjectID, _ number: FetchBookStateMachine.Number) {
    state.withLock { state in state.book.leave(object, number) ? state.tasks[number] : nil }?.cancel()
  }

  /// Fills a replica from elsewhere than other hosts, and from these: `ensureLocal` waits for it as for any other.
  /// Nothing happens when the object is here already.
  ///
  /// - Parameters:
  ///   - check: what all bytes are compared with before the object is one.
  ///   - fill: reserves chunks and fills them, until it has nothing more to fill; what is missing then comes
  ///     from other hosts. Cancelled when everything is here.
  /// - Throws: `MobulaError`: `alreadyExists` when it is on its way already, `full`.
  func start(
    _ object: ObjectID, geometry: ChunkGeometry, check: ReplicaCheck,
    fill: @escaping @Sendable (ObjectExchange) async throws -> Void
  ) async throws {
    if isHere(object) { return }
    ledger.begin(object)
    // One that waits at the head for a replica is answered by what is downloaded here.
    let begun = try await begin(object, geometry, check, isOrigin: true)
    let (writer, check) = (begun.writer, begun.check)
    // A head that is started again meanwhile knows by this that what has a name is on its way.
    reports.hold([object], by: Self.filler)
    let exchange = exchange(into: writer, policy: .relay, priority: .get, isFilled: true)
    state.withLock { state in
      let number = state.book.fill(object)
      state.exchanges[number] = exchange
      state.tasks[number] = Task {
        defer { self.ended(object, number) }
        do {
          // Whoever is told of this host finds what it serves there.
          await self.reports.announce(.partial(object: object, geometry: geometry))
          let report = try await self.run(exchange, beside: fill)
          let outcome = try await self.verify(object, check)
          // What is small is here before its caller comes to wait for it.
          if self.state.withLock({ $0.book.setAside(object, number) }) {
            self.ledger.setAside(object, report.bytes + report.filled)
          }
          let digest = try await self.complete(writer, object: object, expected: nil)
          self.ledger.record(object, report, outcome, before: begun.before)
          self.letGo(object)
          return Fetched(digest: digest, bytesCopied: report.bytes + report.filled)
        } catch {
          self.letGo(object)
          let error = self.ledger.damage(of: object) ?? error
          if let error = error as? MobulaError { self.ledger.failed(object, error) }
          // Before the next fetch of it begins.
          self.ledger.forget(object)
          _ = self.ledger.takeUnreported(object)
          if !self.keep(writer, check, after: error) { await self.giveUp(writer, object, error) }
          throw error
        }
      }
    }
  }

  /// Whence a small object came at once.
  enum SmallSource: Sendable {
    case s3(ReplicaCheck.Outcome)
    case host(HostID)
  }

  /// Makes a replica of what is in memory already, all of it: a small object.
  ///
  /// - Throws: `MobulaError`: `alreadyExists` when it is on its way already, `full`.
  func place(_ object: ObjectID, geometry: ChunkGeometry, bytes: [UInt8], from source: SmallSource) async throws {
    try await placing.run { try self.placeNow(object, geometry: geometry, bytes: bytes, from: source) }
  }

  /// As `place`, on the calling thread, which may have to wait for room.
  func placeNow(_ object: ObjectID, geometry: ChunkGeometry, bytes all: [UInt8], from source: SmallSource) throws {
    precondition(all.count == geometry.objectSize, "a layout's prefix and buffer make up the object")
    ledger.begin(object)
    let isOrigin = if case .s3 = source { true } else { false }
    let digest = try placing.unlessFull { [store] in
      let writer = try store.receive(object, geometry: geometry, isOrigin: isOrigin)
      try all.withUnsafeBytes { all in
        for chunk in 0..<geometry.count {
          guard writer.claim(chunk) else { throw MobulaError(.alreadyExists, "Object \(object) is being received.") }
          let range = geometry.range(of: chunk)
          let checksum = copyWithChecksum(
            UnsafeRawBufferPointer(rebasing: all[range]), to: writer.memory(of: chunk), continuing: 0)
          writer.commit(chunk, checksum: checksum)
        }
      }
      return try writer.complete()
    }
    switch source {
    case .s3(let outcome): ledger.record(object, fromS3: all.count, outcome)
    case .host(let host): ledger.record(object, from: host, all.count)
    }
    reports.note(
      .sealed(ReplicaReport(object: object, geometry: geometry, digest: digest, isPrimary: false), held: false))
  }

  /// Until it is named, an object that is read from S3 is held.
  func hold(_ object: ObjectID) { reports.hold([object], by: Self.filler) }

  /// Those of them that are held are named, or did not come.
  func unhold(_ objects: [ObjectID]) { _ = reports.release(objects, unshared: [], by: Self.filler) }

  /// Returns when the head knows of what came, or does not answer.
  func flushReports() async { await reports.flush(within: .seconds(2)) }

  /// What was to be read here is for other hosts to read.
  func giveUpParts(of object: ObjectID) async {
    let failed = TransferEnded(receiver: own.host, object: object)
    await cleanUp {
      _ = try? await self.head.call(HeadAPI.partsFailed, failed)
      await self.reports.announce(.gone(object: object))
    }
  }

  /// Who holds what is filled from elsewhere than other hosts; no client of the store has this number.
  private static let filler = HostReports.Holder.max - 1

  private func letGo(_ object: ObjectID) { _ = reports.release([object], unshared: [], by: Self.filler) }

  /// Runs an exchange and what fills it, until everything is here and neither writes any more.
  ///
  /// - Throws: what `fill` threw, if the rest did not come from other hosts either.
  private func run(
    _ exchange: ObjectExchange, beside fill: @escaping @Sendable (ObjectExchange) async throws -> Void
  ) async throws -> TransferReport {
    let filling = Task {
      do {
        try await fill(exchange)
        exchange.fillEnded()
      } catch {
        exchange.fillEnded(error as? MobulaError ?? MobulaError(.unavailable, "\(error)"))
        throw error
      }
    }
    let result: Result<TransferReport, any Error>
    do {
      result = .success(try await exchange.run(from: []))
    } catch {
      result = .failure(error)
    }
    filling.cancel()
    let filled = await filling.result
    switch (result, filled) {
    case (.failure, .failure(let error)) where !(error is CancellationError): throw error
    default: return try result.get()
    }
  }

  /// - Parameter isFilled: chunks come from elsewhere than other hosts, too.
  private func exchange(
    into sink: any ReplicaWriter, policy: SourcePolicy, priority: TransferPriority, isFilled: Bool = false
  ) -> ObjectExchange {
    ObjectExchange(
      into: sink, own: own, token: configuration.token, tls: configuration.tls, hello: configuration.hello,
      traffic: traffic,
      priority: priority, isFilled: isFilled
    ) { [weak self] known, failed in
      guard let self else { throw CancellationError() }
      // Whoever takes it from the origin alone takes it from one host at a time.
      if policy == .origin, !known.isEmpty { return [] }
      return try await self.locate(sink.object, policy: policy, known: known, failed: failed).sources
    }
  }

  /// What a fetch writes into, and compares its bytes with.
  private struct Begun {
    var writer: any ReplicaWriter
    var check: ReplicaCheck?
    /// Bytes that are there.
    var before = 0
  }

  /// Goes on with what a fetch has left that failed, or begins.
  private func begin(
    _ object: ObjectID, _ geometry: ChunkGeometry, _ check: ReplicaCheck?, isOrigin: Bool = false
  ) async throws -> Begun {
    if let left = state.withLock({ $0.unfinished.take(object) }), left.writer.geometry == geometry, left.isThere {
      return Begun(writer: left.writer, check: left.check, before: left.bytes)
    }
    let writer = try await reserve(object, geometry, isOrigin: isOrigin)
    return Begun(writer: check?.watching(writer) ?? writer, check: check)
  }

  /// Keeps what has come for the next fetch, where S3 was away: for some minutes, and as long as nobody needs the room.
  ///
  /// - Returns: false where there is nothing worth it.
  private func keep(_ writer: any ReplicaWriter, _ check: ReplicaCheck?, after error: any Error) -> Bool {
    guard let code = (error as? MobulaError)?.code,
      [.unavailable, .deadlineExceeded, .connectionClosed].contains(code)
    else { return false }
    let left = UnfinishedReplicas.Replica(writer: writer, check: check)
    guard left.bytes > 0, left.isThere else { return false }
    let (object, number) = (writer.object, state.withLock { $0.unfinished.keep(left) })
    Task { [weak self] in
      try await Task.sleep(for: UnfinishedReplicas.patience)
      guard let self, let left = state.withLock({ $0.unfinished.take(object, number) }) else { return }
      drop([left])
    }
    return true
  }

  /// Nobody will go on with what was left: of all objects by default.
  func dropUnfinished(_ objects: [ObjectID]? = nil) {
    let left = state.withLock { state in
      objects.map { $0.compactMap { state.unfinished.take($0) } } ?? state.unfinished.takeAll()
    }
    if !left.isEmpty { drop(left) }
  }

  private func drop(_ replicas: [UnfinishedReplicas.Replica]) {
    for replica in replicas {
      // Before it can begin anew.
      reports.note(.gone(object: replica.writer.object))
      replica.writer.abandonReplica(
        MobulaError(.unavailable, "What had come of object \(replica.writer.object) was given up: fetch it again."))
    }
  }

  /// Making room can mean evicting and unmapping: off the threads that serve calls.
  private func reserve(
    _ object: ObjectID, _ geometry: ChunkGeometry, isOrigin: Bool = false
  ) async throws -> any ReplicaWriter {
    let store = store
    return try await onThread(named: "reserve") {
      try store.receive(object, geometry: geometry, isOrigin: isOrigin)
    }
  }

  private func giveUp(_ writer: any ReplicaWriter, _ object: ObjectID, _ error: any Error) async {
    writer.abandonReplica(
      error as? MobulaError
        ?? MobulaError(.unavailable, "Host \(configuration.name) gave up receiving object \(object)."))
    await cleanUp { await self.reports.announce(.gone(object: object)) }
  }

  /// Another host asks this one for an object: where this one lacks chunks of it, it may get some there.
  func asked(_ object: ObjectID, by peer: TransferPeer) {
    state.withLock { $0.exchange(of: object) }?.offer(peer)
  }

  private func locate(
    _ object: ObjectID, policy: SourcePolicy, known: Set<HostID> = [], failed: Set<HostID> = []
  ) async throws -> LocateReply {
    try await head.call(
      HeadAPI.locate,
      LocateRequest(
        host: own.host, object: object, excluding: failed.sorted(), known: known.sorted(), policy: policy),
      deadline: .seconds(3600))
  }

  private func fetch(
    _ object: ObjectID, _ number: FetchBookStateMachine.Number, policy: SourcePolicy
  ) async throws -> Fetched {
    var located = try await locate(object, policy: policy)
    let end = ContinuousClock.now + Self.patienceWithNews
    while located.isLocal {
      // Sealed here while the head was asked; or gone, and the head has still to hear of it.
      if let info = store.info(of: object) {
        return Fetched(digest: info.digest, bytesCopied: ledger.takeUnreported(object))
      }
      guard ContinuousClock.now < end else {
        throw MobulaError(
          .notFound, "The head says that object \(object) is on this host, but it is not: fetch it again.")
      }
      try await reports.flush()
      try await Task.sleep(for: .milliseconds(50))
      located = try await locate(object, policy: policy)
    }
    var writer: (any ReplicaWriter)?
    do {
      let expected = located.checksum.flatMap { ReplicaCheck($0, size: located.geometry.objectSize) }
      // Of an object that was evicted since.
      _ = ledger.takeUnreported(object)
      let begun = try await begin(object, located.geometry, expected)
      let (sink, check) = (begun.writer, begun.check)
      writer = sink
      await reports.announce(.partial(object: object, geometry: located.geometry))
      let exchange = exchange(into: sink, policy: policy, priority: .background)
      let priority = state.withLock { state in
        state.exchanges[number] = exchange
        return state.book.priority(of: object)
      }
      // Before it has connected to anybody.
      exchange.raise(to: priority)
      let report: TransferReport
      do {
        report = try await exchange.run(from: located.sources)
      } catch {
        try sink.checkNotAbandoned()
        throw error
      }
      let outcome = try await verify(object, check)
      let digest = try await complete(sink, object: object, expected: located.digest)
      ledger.record(object, report, outcome, before: begun.before)
      return Fetched(digest: digest, bytesCopied: report.bytes)
    } catch {
      let error = ledger.damage(of: object) ?? error
      if let writer { await giveUp(writer, object, error) }
      // Otherwise another exchange of this host's is alive.
      if (error as? MobulaError)?.code != .alreadyExists {
        let ended = TransferEnded(receiver: own.host, object: object)
        await cleanUp { _ = try? await self.head.call(HeadAPI.transferEnded, ended) }
      }
      if Task.isCancelled {
        throw MobulaError(.cancelled, "Receiving object \(object) was cancelled: nobody waits for it any more.")
      }
      throw error
    }
  }

  /// How long the head may believe that something is here that is not any more.
  private static let patienceWithNews = Duration.seconds(5)

  /// Compares what was received with what it should be. If it is something else, the object goes everywhere, and
  /// whoever asks for it hears why.
  private func verify(_ object: ObjectID, _ check: ReplicaCheck?) async throws -> ReplicaCheck.Outcome? {
    guard let check else { return nil }
    do {
      return try await check.outcome()
    } catch let error as MobulaError where error.code == .corrupted {
      ledger.condemn(object, error)
      let damage = DamagedObject(host: own.host, object: object, message: error.message)
      await cleanUp { _ = try? await self.head.call(HeadAPI.damaged, damage, deadline: .seconds(600)) }
      throw error
    }
  }

  /// Seals what was received, once its digest is the maker's.
  private func complete(_ sink: any ReplicaWriter, object: ObjectID, expected: ObjectDigest?) async throws
    -> ObjectDigest
  {
    let digest = try sink.complete()
    if let expected, expected != digest {
      store.delete(object)
      throw MobulaError(.corrupted, "Object \(object) arrived with digest \(digest), not \(expected): fetch it again.")
    }
    await reports.announce(
      .sealed(ReplicaReport(object: object, geometry: sink.geometry, digest: digest, isPrimary: false), held: false))
    return digest
  }
}
