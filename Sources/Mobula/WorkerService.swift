import Distributed
import MobulaCore
import MobulaWire
import Synchronization

/// What a worker does for the drivers that call it.
final class WorkerService: Sendable {
  private struct State {
    var next: UInt64 = 1
    /// References in results, kept until the caller has registered them.
    var replies: [UInt64: (connection: UInt64, references: [AnyReference])] = [:]
  }

  private let cluster: Cluster
  private let lanes: WorkLanes
  private let place: WorkPlace
  private let state = Mutex(State())

  /// - Parameter lend: tells the pod that a lease is lent, or is not any more.
  init(
    context: TaskContext, worker: WorkerID, lend: @escaping @Sendable (LeaseID, Bool) async -> Void
  ) {
    cluster = context.cluster
    let runner = WorkRunner(context, worker: worker)
    lanes = WorkLanes(runner, lend: lend)
    place = runner.place
  }

  func router() -> RPCRouter {
    var router = RPCRouter()
    lanes.add(to: &router)
    router.on(WorkerAPI.spawn) { call, _ in try await self.spawn(call) }
    router.on(WorkerAPI.stop) { address, _ in
      self.cluster.actors.remove(address.actor)
      return Empty()
    }
    router.on(WorkerAPI.call) { call, connection in try await self.call(call, connection) }
    router.on(WorkerAPI.received) { received, _ in
      _ = self.state.withLock { $0.replies.removeValue(forKey: received.reply) }
      return Empty()
    }
    return router
  }

  /// Forgets what a caller that is gone never took.
  func disconnected(_ connection: RPCConnection) {
    state.withLock { state in state.replies = state.replies.filter { $0.value.connection != connection.id } }
    lanes.disconnected(connection)
  }

  // MARK: - Actors

  private func spawn(_ call: SpawnCall) async throws -> ActorAddress {
    guard let type = _typeByName(call.type) as? any RemoteActor.Type else {
      throw MobulaError(
        .mismatch,
        "The actor \(readableName(ofType: call.type)) is not in this worker's program: run the same build everywhere.")
    }
    return try await spawn(type, call)
  }

  private func spawn<Act: RemoteActor>(_ type: Act.Type, _ call: SpawnCall) async throws -> ActorAddress {
    let reader = ValueReader(cluster: cluster)
    let configuration = try ArgumentCoding.decode(Act.Configuration.self, from: call.configuration, reader: reader)
    if !reader.references.isEmpty { try await cluster.store.holds.flush() }
    do {
      return try await SpawnContext.$lease.withValue(call.lease) {
        try await Act(configuration: configuration, actorSystem: cluster).id
      }
    } catch {
      throw MobulaError(spawning: error, "\(type)")
    }
  }

  private func call(_ call: ActorCall, _ connection: RPCConnection) async throws -> WorkReply {
    guard let actor = cluster.actors[call.actor] else {
      throw MobulaError(.notFound, "The actor \(call.actor.short) has ended: spawn it again.")
    }
    let reader = ValueReader(cluster: cluster)
    let handler = CallResultHandler()
    do {
      try await execute(call, on: actor, reader: reader, handler: handler)
    } catch let error as WorkError {
      return WorkReply(error: ByteString(try CBOREncoder().encode(error)))
    }
    let result = handler.taken
    guard !result.references.isEmpty else { return WorkReply(value: result.bytes) }
    try await cluster.store.holds.flush()
    let number = state.withLock { state in
      defer { state.next += 1 }
      state.replies[state.next] = (connection.id, result.references)
      return state.next
    }
    return WorkReply(value: result.bytes, reply: number)
  }

  private func execute(
    _ call: ActorCall, on actor: any DistributedActor, reader: ValueReader, handler: CallResultHandler
  ) async throws {
    var decoder = CallDecoder(arguments: call.arguments, substitutions: call.substitutions, reader: reader)
    do {
      try await cluster.executeDistributedTarget(
        on: actor, target: RemoteCallTarget(call.target), invocationDecoder: &decoder, handler: handler)
    } catch is ExecuteDistributedTargetError {
      throw MobulaError(
        .mismatch,
        "The function \(Self.readable(call.target)) is not in this worker's program, or takes other arguments: run the same build everywhere."
      )
    } catch is CancellationError where Task.isCancelled {
      throw CancellationError()
    } catch {
      throw WorkError(error, of: Self.readable(call.target), in: place, attempt: 1)
    }
    if !reader.references.isEmpty { try await cluster.store.holds.flush() }
  }

  /// `app.Model.load(_:)`, of what the compiler calls it.
  static func readable(_ target: String) -> String {
    let text = RemoteCallTarget(target).description
    return text == target ? "\"\(String(target.prefix(60)).printable)\"" : text.printable
  }
}

extension MobulaError {
  /// What the `init` of an actor threw.
  fileprivate init(spawning error: any Error, _ type: String) {
    self = error as? MobulaError ?? MobulaError(.workFailed, "\(type) failed: \(error)")
  }
}
