import Distributed
import MobulaCore
import MobulaWire

/// What a worker does for the drivers that call it.
final class WorkerService: Sendable {
  private let cluster: Cluster
  private let lanes: WorkLanes
  private let mailboxes: ActorMailboxes

  /// - Parameter lend: tells the pod that a lease is lent, or is not any more.
  init(
    context: TaskContext, worker: WorkerID, lend: @escaping @Sendable (LeaseID, Bool) async -> Bool
  ) {
    cluster = context.cluster
    let runner = WorkRunner(context, worker: worker)
    lanes = WorkLanes(runner, lend: lend)
    mailboxes = ActorMailboxes(context.cluster, runner.place)
  }

  func router() -> RPCRouter {
    var router = RPCRouter()
    lanes.add(to: &router)
    router.on(WorkerAPI.spawn) { call, _ in try await self.spawn(call) }
    router.on(WorkerAPI.stop) { address, _ in
      self.cluster.actors.remove(address.actor)
      self.mailboxes.forget(address.actor)
      return Empty()
    }
    mailboxes.add(to: &router)
    return router
  }

  /// Forgets what a caller that is gone never took.
  func disconnected(_ connection: RPCConnection) {
    mailboxes.disconnected(connection)
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
      let address = try await SpawnContext.$lease.withValue(call.lease) {
        try await Act(configuration: configuration, actorSystem: cluster).id
      }
      mailboxes.limit(address.actor, to: call.limit)
      return address
    } catch {
      throw MobulaError(spawning: error, "\(type)")
    }
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
