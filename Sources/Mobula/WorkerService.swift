import Distributed
import MobulaCore
import MobulaWire
import Synchronization

/// What a worker does for the drivers that call it.
final class WorkerService: Sendable {
  private let cluster: Cluster
  private let lanes: WorkLanes
  private let mailboxes: ActorMailboxes
  /// Actors that are being made, or were, by their leases.
  private let made = Mutex<[LeaseID: Task<Endpoint, any Error>]>([:])

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
    mailboxes.add(to: &router)
    return router
  }

  /// Forgets what a caller that is gone never took.
  func disconnected(_ connection: RPCConnection) {
    mailboxes.disconnected(connection)
    lanes.disconnected(connection)
  }

  // MARK: - Actors

  /// What it answers to its pod.
  func answerPod(_ router: inout RPCRouter) {
    router.on(PodAPI.headHeard) { heard, _ in self.mailboxes.headHeard(heard.nanoseconds) }
    router.on(PodAPI.runActor) { run, _ in
      // A head that was started again asks again.
      let making = self.made.withLock { made in
        let making = made[run.lease] ?? Task { try await self.make(run) }
        made[run.lease] = making
        return making
      }
      return try await making.value
    }
    router.on(PodAPI.endActor) { ending, _ in
      await self.mailboxes.end(ending.actor, within: .seconds(ending.seconds))
      if let actor = self.cluster.actors[ending.actor] as? any RemoteActor { await Self.stop(actor) }
      // Where nobody ends this process then, as when the head ended meanwhile, it goes on.
      Task {
        try await Task.sleep(for: .seconds(60))
        self.mailboxes.goOn(ending.actor)
      }
      return Empty()
    }
  }

  private static func stop<Act: RemoteActor>(_ actor: Act) async {
    _ = await actor.whenLocal { await $0.willStop() }
  }

  private func make(_ run: ActorRun) async throws -> Endpoint {
    guard let type = _typeByName(run.spec.type) as? any RemoteActor.Type else {
      throw MobulaError(
        .mismatch,
        "The actor \(readableName(ofType: run.spec.type)) is not in this worker's program: run the same build everywhere."
      )
    }
    guard let endpoint = cluster.actors.endpoint else {
      throw MobulaError(.unavailable, "The worker does not listen yet: try again.")
    }
    try await make(type, run, at: endpoint)
    return endpoint
  }

  private func make<Act: RemoteActor>(_ type: Act.Type, _ run: ActorRun, at endpoint: Endpoint) async throws {
    let reader = ValueReader(cluster: cluster)
    let configuration = try ArgumentCoding.decode(
      Act.Configuration.self, from: run.spec.configuration, reader: reader)
    if !reader.references.isEmpty { try await cluster.store.holds.flush() }
    let address = ActorAddress(
      actor: run.actor, endpoint: endpoint, incarnation: run.incarnation, job: cluster.job)
    mailboxes.limit(run.actor, to: run.spec.limit)
    do {
      let made = try await SpawnContext.$current.withValue(SpawnContext(type, address)) {
        try await Act(configuration: configuration, actorSystem: cluster)
      }
      guard made.id == address else {
        throw MobulaError(
          .workFailed, "The init of \(type) has made another actor of its type, or none: it makes one.")
      }
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
