import MobulaCore
import MobulaWire
import Synchronization

/// Calls of actors that this process has made and that have not ended.
///
/// All that are made to one worker are sent in the order in which they were made, and so are all to one actor, but for
/// those that were on their way when it was lost.
final class ActorCalls: Sendable {
  struct Numbers: Codable, Sendable {
    var calls: [UInt64]
  }

  /// What came of a call; with what holds its object, if it is one.
  typealias Reply = (outcome: EndedTask.Outcome, held: AnyReference?)

  fileprivate enum Waiter {
    case continuation(CheckedContinuation<Reply, any Error>)
    case record(TaskRecord)
  }

  fileprivate struct Pending {
    var waiter: Waiter
    let actor: RemoteActorID
    let object: ObjectID
    /// In its arguments.
    let references: [AnyReference]
    let bytes: Int
    /// That over which it was sent.
    var connection: RPCConnection?
    var held: AnyReference?
  }

  fileprivate struct Waiting {
    var number: UInt64
    var actor: RemoteActorID
    var call: ByteString
  }

  fileprivate struct Peer {
    var connection: RPCConnection?
    /// Calls that wait for a connection.
    var queue: [Waiting] = []
  }

  fileprivate struct State {
    var pending: [UInt64: Pending] = [:]
    var peers: [Endpoint: Peer] = [:]
    /// Where actors are, as far as is known here: of what an address says and the head has said, the later.
    var places: [RemoteActorID: ActorAddress] = [:]
    /// Actors whose place is asked for before the next call; with the incarnation that is over, if one is.
    var doubted: [RemoteActorID: UInt64?] = [:]
    /// Calls of actors that the head is being asked for.
    var sought: [RemoteActorID: [Waiting]] = [:]
    var last: UInt64 = 0
    var bytes = 0
    weak var cluster: Cluster?
  }

  private let workers: WorkerConnections
  private let holds: ProcessHolds
  private let most: Int
  private let state = Mutex(State())

  /// How often an actor is sought anew that its head says to live where it can't be reached.
  private static let attempts = 3

  /// - Parameter most: the most bytes that calls may have which have not ended.
  init(_ workers: WorkerConnections, holds: ProcessHolds, most: Int) {
    self.workers = workers
    self.holds = holds
    self.most = most
    workers.listen(
      .init(
        returned: { [weak self] returned, connection in try self?.took(returned, connection) },
        storing: { [weak self] call, connection in try await self?.willStore(call, connection) ?? false }))
  }

  /// Whether no call goes on.
  var isIdle: Bool { state.withLock { $0.pending.isEmpty } }

  var cluster: Cluster? {
    get { state.withLock { $0.cluster } }
    set { state.withLock { $0.cluster = newValue } }
  }

  /// Before an actor is called again the head is asked where it is.
  ///
  /// - Parameter isOver: whether it is not where it was.
  func doubt(_ actor: RemoteActorID, isOver: Bool) {
    state.withLock { state in state.doubted[actor] = .some(isOver ? state.places[actor]?.incarnation : nil) }
  }

  /// Nobody calls an actor from here any more.
  func forget(_ actor: RemoteActorID) { state.withLock { $0.places[actor] = nil } }

  /// Where an actor is.
  func know(_ address: ActorAddress) { state.withLock { _ = $0.place(of: address) } }

  // MARK: Calling

  /// Calls an actor, and waits for what comes of it.
  func call(
    _ address: ActorAddress, _ target: String, _ invocation: CallEncoder, result: ObjectID, within limit: Duration?
  ) async throws -> Reply {
    let number = state.withLock { state in
      state.last += 1
      return state.last
    }
    let timer = Mutex<Task<Void, any Error>?>(nil)
    defer { timer.withLock { $0?.cancel() } }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let call = ActorCall(
          number: number, actor: address.actor, target: target, result: result,
          substitutions: invocation.substitutions, arguments: invocation.arguments)
        if Task.isCancelled { return continuation.resume(throwing: CancellationError()) }
        send(call, to: address, .continuation(continuation), invocation.references)
        if Task.isCancelled { giveUp(number, CancellationError()) }
        // Not before it is there to be given up.
        guard let limit else { return }
        let task = Task {
          try await Task.sleep(for: limit)
          var late = MobulaError(
            .deadlineExceeded,
            "\(WorkerService.readable(target)) did not end within \(limit): give it more time, or less to do.")
          late.mayHaveRun = true
          self.giveUp(number, late)
        }
        timer.withLock { $0 = task }
      }
    } onCancel: {
      giveUp(number, CancellationError())
    }
  }

  /// Calls an actor, whose answer the record is told. Never waits.
  func submit(
    _ address: ActorAddress, _ target: String, _ invocation: CallEncoder, _ record: TaskRecord
  ) throws {
    let number = try state.withLock { state in
      guard state.bytes <= most else {
        throw MobulaError(
          .full, "\(ByteCount(state.bytes)) of calls wait already: wait for some of them before you make more.")
      }
      state.last += 1
      return state.last
    }
    record.task = number
    let call = ActorCall(
      number: number, actor: address.actor, target: target, result: record.object,
      substitutions: invocation.substitutions, arguments: invocation.arguments)
    send(call, to: address, .record(record), invocation.references)
  }

  /// A call is to end; its record says when it has.
  func cancel(_ record: TaskRecord) {
    guard let number = record.task, record.outcome == nil else { return }
    let isSent = state.withLock { $0.pending[number].map { $0.connection != nil } ?? true }
    if isSent {
      tellCancelled(number)
    } else {
      end(number, .failure(MobulaError(.cancelled, "The call was cancelled.")))
    }
  }

  private func send(_ call: ActorCall, to address: ActorAddress, _ waiter: Waiter, _ references: [AnyReference]) {
    let bytes = WorkCoding.encode(call)
    let size = bytes.bytes.count + 400
    let next = state.withLock { state -> Next in
      state.pending[call.number] = Pending(
        waiter: waiter, actor: call.actor, object: call.result, references: references, bytes: size)
      state.bytes += size
      let place = state.place(of: address)
      return state.send(Waiting(number: call.number, actor: call.actor, call: bytes), to: place)
    }
    follow(next)
  }

  /// What is to be done outside of the lock about a call that was to be sent.
  fileprivate enum Next {
    case nothing
    case connect(ActorAddress)
    case seek(RemoteActorID, after: UInt64?)
    case fail(UInt64, MobulaError)
  }

  private func follow(_ next: Next) {
    switch next {
    case .nothing: break
    case .fail(let number, let error): end(number, .failure(error))
    // With nothing of what the caller's code has in its task.
    case .connect(let address): Task.detached { await self.connect(address) }
    case .seek(let actor, let after): Task.detached { await self.seek(actor, after: after) }
    }
  }

  private func connect(_ address: ActorAddress) async {
    let endpoint = address.endpoint
    do {
      let connection = try await workers.connection(to: endpoint, of: foreign(address.job))
      let failed = state.withLock { state in
        let queue = state.peers[endpoint]?.queue ?? []
        state.peers[endpoint] = Peer(connection: connection)
        return queue.compactMap { waiting -> (UInt64, MobulaError)? in
          if case .fail(let number, let error) = state.tell(waiting, connection) { (number, error) } else { nil }
        }
      }
      for (number, error) in failed { end(number, .failure(error)) }
      await connection.waitUntilClosed()
      await closed(connection, endpoint)
    } catch {
      let error = MobulaError(describing: error)
      // It may be somewhere else by now.
      let isGone = [.unavailable, .connectionClosed, .deadlineExceeded].contains(error.code)
      let (waiting, sought) = state.withLock { state in
        let queue = state.peers.removeValue(forKey: endpoint)?.queue ?? []
        guard isGone else { return (queue, [RemoteActorID]()) }
        var sought: [RemoteActorID] = []
        for call in queue {
          if state.sought[call.actor] == nil {
            state.sought[call.actor] = []
            sought.append(call.actor)
          }
          state.sought[call.actor]?.append(call)
        }
        return ([], sought)
      }
      for call in waiting { end(call.number, .failure(error)) }
      for actor in sought {
        let known = state.withLock { $0.places[actor]?.incarnation }
        Task.detached { await self.seek(actor, after: known) }
      }
    }
  }

  /// Whose workers take another token than those of this process's own.
  private func foreign(_ job: JobID) -> JobID? { job == cluster?.job ? nil : job }

  /// Asks the head where an actor is that is not where it was, and sends what waits for it there.
  private func seek(_ actor: RemoteActorID, after: UInt64?) async {
    var after = after
    do {
      guard let cluster else { throw MobulaError(.unavailable, "This process is shutting down.") }
      for attempt in 1... {
        let listing = try await cluster.head.call(
          HeadAPI.actor, ActorQuestion(actor: actor, after: after, wish: .place), deadline: .untilItComes)
        after = listing.incarnation
        guard let endpoint = listing.endpoint else {
          throw MobulaError(.protocolViolation, "The head says that the actor \(actor.short) lives, and not where.")
        }
        let place = ActorAddress(
          actor: actor, endpoint: endpoint, incarnation: listing.incarnation, job: listing.job)
        do {
          _ = try await workers.connection(to: endpoint, of: foreign(place.job))
        } catch let error as MobulaError where error.code != .denied && error.code != .unauthenticated {
          guard attempt < Self.attempts else {
            throw MobulaError(
              .actorUnavailable,
              "The actor \(place) can't be reached from here (\(error.message)), and lives: check the network between the hosts."
            )
          }
          continue
        }
        let next = state.withLock { state -> [Next] in
          state.places[actor] = place
          return (state.sought.removeValue(forKey: actor) ?? []).map { state.send($0, to: place) }
        }
        for next in next { follow(next) }
        return
      }
    } catch {
      let error = MobulaError(describing: error)
      let waiting = state.withLock { state in state.sought.removeValue(forKey: actor) ?? [] }
      for call in waiting { end(call.number, .failure(error)) }
    }
  }

  /// What had been sent over a connection that is gone may have run.
  private func closed(_ connection: RPCConnection, _ endpoint: Endpoint) async {
    let lost = state.withLock { state in
      if state.peers[endpoint]?.connection === connection { state.peers[endpoint] = nil }
      return state.pending.filter { $0.value.connection === connection }.map { ($0.key, $0.value.actor) }
    }
    var reasons: [RemoteActorID: MobulaError] = [:]
    for (number, actor) in lost.sorted(by: { $0.0 < $1.0 }) {
      if reasons[actor] == nil { reasons[actor] = await reason(actor) }
      end(number, .failure(reasons[actor]!))
    }
  }

  /// Why an actor's worker is gone, as the head hears it some time after the connection's end.
  private func reason(_ actor: RemoteActorID) async -> MobulaError {
    let place = state.withLock { $0.places[actor] }
    let listing = try? await cluster?.head.call(
      HeadAPI.actor, ActorQuestion(actor: actor, after: place?.incarnation, wish: .end), deadline: .seconds(6))
    var error: MobulaError
    switch listing?.state {
    case .dead?:
      error = MobulaError(
        .actorDied,
        "The actor \(Self.title(listing!)) has ended: \(listing!.reason ?? "nobody knows why.") What it was asked for may have been done."
      )
    case .some where listing?.state == .restarting || listing?.incarnation != place?.incarnation:
      error = MobulaError(
        .actorUnavailable,
        "The actor \(Self.title(listing!)) was lost, and is started again: \(listing!.reason ?? "nobody knows why.") What it was asked for may have been done."
      )
    default:
      error = MobulaError(
        .actorUnavailable,
        "The connection to the actor \(place.map { "\($0)" } ?? actor.short) is gone: what it was asked for may have been done."
      )
    }
    error.mayHaveRun = true
    return error
  }

  private static func title(_ listing: ActorListing) -> String {
    listing.name.map { Name($0).text.printable } ?? listing.actor.short
  }

  // MARK: Ends

  private func took(_ returned: ActorReturns, _ connection: RPCConnection) throws {
    for ended in try WorkCoding.ends(returned.ends) {
      guard state.withLock({ $0.pending[ended.task]?.connection }) === connection else { continue }
      end(ended.task, .success(ended.outcome))
    }
  }

  private func end(_ number: UInt64, _ result: Result<EndedTask.Outcome, any Error>) {
    let ended = state.withLock { state in
      let ended = state.pending.removeValue(forKey: number)
      state.bytes -= ended?.bytes ?? 0
      return ended
    }
    // References in its arguments end here, outside of the lock.
    guard let ended else { return }
    switch ended.waiter {
    case .continuation(let continuation):
      continuation.resume(with: result.map { ($0, ended.held) })
    case .record(let record):
      let outcome =
        switch result {
        case .success(let outcome): outcome
        case .failure(let error): TaskRecord.Outcome.failed(WorkRunner.failure(error))
        }
      record.finish(outcome, holds: holds) { [cluster] object, bytes in await cluster?.make(object, bytes) }
    }
  }

  /// Nobody waits for a call any more: what has begun is told so.
  private func giveUp(_ number: UInt64, _ error: any Error) {
    tellCancelled(number)
    end(number, .failure(error))
  }

  private func tellCancelled(_ number: UInt64) {
    state.withLock { state in
      try? state.pending[number]?.connection?.tell(WorkerAPI.cancelCalls, Numbers(calls: [number]))
    }
  }

  /// A worker is about to make an object of a result, which is held here before it is there.
  private func willStore(_ call: Numbers, _ connection: RPCConnection) async throws -> Bool {
    guard let number = call.calls.first, let cluster,
      let pending = state.withLock({ $0.pending[number] }), pending.connection === connection
    else { return false }
    switch pending.waiter {
    case .record(let record): guard record.holdStored(holds) else { return false }
    case .continuation:
      let held = cluster.reference(to: pending.object)
      state.withLock { $0.pending[number]?.held = held }
    }
    try await holds.flush()
    return true
  }
}

// Under the lock, so that calls go in the order of their numbers.
extension ActorCalls.State {
  /// Where an actor is, of what is known and what an address says.
  fileprivate mutating func place(of address: ActorAddress) -> ActorAddress {
    if let known = places[address.actor], known.incarnation >= address.incarnation { return known }
    places[address.actor] = address
    return address
  }

  fileprivate mutating func send(_ call: ActorCalls.Waiting, to place: ActorAddress) -> ActorCalls.Next {
    guard pending[call.number] != nil else { return .nothing }
    if sought[call.actor] != nil {
      sought[call.actor]?.append(call)
      return .nothing
    }
    if let after = doubted.removeValue(forKey: call.actor) {
      sought[call.actor] = [call]
      return .seek(call.actor, after: after)
    }
    if let connection = peers[place.endpoint]?.connection { return tell(call, connection) }
    defer { peers[place.endpoint, default: ActorCalls.Peer()].queue.append(call) }
    return peers[place.endpoint] == nil ? .connect(place) : .nothing
  }

  fileprivate mutating func tell(_ call: ActorCalls.Waiting, _ connection: RPCConnection) -> ActorCalls.Next {
    guard pending[call.number] != nil else { return .nothing }
    pending[call.number]?.connection = connection
    do throws(MobulaError) {
      try connection.tell(WorkerAPI.call, ActorCalling(call: call.call))
      return .nothing
    } catch {
      // Of a connection that has just gone the end of it says so.
      return error.code == .connectionClosed ? .nothing : .fail(call.number, error)
    }
  }
}
