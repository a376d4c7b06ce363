import MobulaCore
import MobulaWire
import Synchronization

/// Calls of actors that this process has made and that have not ended.
///
/// All that are made to one worker are sent in the order in which they were made.
final class ActorCalls: Sendable {
  struct Numbers: Codable, Sendable {
    var calls: [UInt64]
  }

  /// What came of a call; with what holds its object, if it is one.
  typealias Reply = (outcome: EndedTask.Outcome, held: AnyReference?)

  private enum Waiter {
    case continuation(CheckedContinuation<Reply, any Error>)
    case record(TaskRecord)
  }

  private struct Pending {
    var waiter: Waiter
    var address: ActorAddress
    let object: ObjectID
    /// In its arguments.
    let references: [AnyReference]
    let bytes: Int
    /// That over which it was sent.
    var connection: UInt64?
    var held: AnyReference?
  }

  private struct Peer {
    var connection: RPCConnection?
    /// Calls that wait for a connection.
    var queue: [(number: UInt64, call: ByteString)] = []
  }

  private struct State {
    var pending: [UInt64: Pending] = [:]
    var peers: [Endpoint: Peer] = [:]
    var last: UInt64 = 0
    var bytes = 0
    weak var cluster: Cluster?
  }

  private let workers: WorkerConnections
  private let holds: ProcessHolds
  private let most: Int
  private let state = Mutex(State())

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
    enum Next { case connect, fail(any Error), nothing }
    let next = state.withLock { state -> Next in
      state.pending[call.number] = Pending(
        waiter: waiter, address: address, object: call.result, references: references, bytes: size)
      state.bytes += size
      if let connection = state.peers[address.endpoint]?.connection {
        // Under the lock, so that they go in the order of their numbers.
        do throws(MobulaError) {
          state.pending[call.number]?.connection = connection.id
          try connection.tell(WorkerAPI.call, ActorCalling(call: bytes))
          return .nothing
        } catch {
          // Of a connection that has just gone the end of it says so.
          return error.code == .connectionClosed ? .nothing : .fail(error)
        }
      }
      defer { state.peers[address.endpoint, default: Peer()].queue.append((call.number, bytes)) }
      return state.peers[address.endpoint] == nil ? .connect : .nothing
    }
    switch next {
    case .nothing: break
    case .fail(let error): end(call.number, .failure(error))
    // With nothing of what the caller's code has in its task.
    case .connect: Task.detached { await self.connect(address) }
    }
  }

  private func connect(_ address: ActorAddress) async {
    let endpoint = address.endpoint
    do {
      let connection = try await workers.connection(to: endpoint)
      let failed = state.withLock { state in
        let queue = state.peers[endpoint]?.queue ?? []
        state.peers[endpoint] = Peer(connection: connection)
        var failed: [(number: UInt64, error: MobulaError)] = []
        for (number, call) in queue where state.pending[number] != nil {
          state.pending[number]?.connection = connection.id
          do throws(MobulaError) { try connection.tell(WorkerAPI.call, ActorCalling(call: call)) } catch {
            if error.code != .connectionClosed { failed.append((number, error)) }
          }
        }
        return failed
      }
      for (number, error) in failed { end(number, .failure(error)) }
      await connection.waitUntilClosed()
      await closed(connection, endpoint)
    } catch {
      let waiting = state.withLock { state in state.peers.removeValue(forKey: endpoint)?.queue ?? [] }
      var error = MobulaError(describing: error)
      if error.code == .unavailable {
        error = MobulaError(
          .unavailable, "The actor \(address) is gone, or its host can't be reached: spawn it again.")
      }
      for (number, _) in waiting { end(number, .failure(error)) }
    }
  }

  /// What had been sent over a connection that is gone may have run.
  private func closed(_ connection: RPCConnection, _ endpoint: Endpoint) async {
    let lost = state.withLock { state in
      if state.peers[endpoint]?.connection === connection { state.peers[endpoint] = nil }
      return state.pending.filter { $0.value.connection == connection.id }.map { ($0.key, $0.value.address) }
    }
    var reasons: [LeaseID?: MobulaError] = [:]
    for (number, address) in lost.sorted(by: { $0.0 < $1.0 }) {
      if reasons[address.lease] == nil {
        var error = MobulaError(
          .connectionClosed, "The worker of the actor \(address) is gone: what it was asked for may have been done.")
        if let lease = address.lease, let reason = await workers.loss(of: lease) {
          error = MobulaError(.connectionClosed, reason)
        }
        error.mayHaveRun = true
        reasons[address.lease] = error
      }
      end(number, .failure(reasons[address.lease]!))
    }
  }

  // MARK: Ends

  private func took(_ returned: ActorReturns, _ connection: RPCConnection) throws {
    for ended in try WorkCoding.ends(returned.ends) {
      guard state.withLock({ $0.pending[ended.task]?.connection }) == connection.id else { continue }
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
      guard let pending = state.pending[number] else { return }
      let connection = state.peers[pending.address.endpoint]?.connection
      guard let connection, connection.id == pending.connection else { return }
      try? connection.tell(WorkerAPI.cancelCalls, Numbers(calls: [number]))
    }
  }

  /// A worker is about to make an object of a result, which is held here before it is there.
  private func willStore(_ call: Numbers, _ connection: RPCConnection) async throws -> Bool {
    guard let number = call.calls.first, let cluster,
      let pending = state.withLock({ $0.pending[number] }), pending.connection == connection.id
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
