import Distributed
import MobulaCore
import Synchronization

/// The actors that live in this process.
final class ActorTable: Sendable {
  private struct State {
    var actors: [RemoteActorID: any DistributedActor] = [:]
    var endpoint: Endpoint?
  }

  private let state = Mutex(State())

  /// Where this process listens for calls; set once, when a worker is ready.
  func listens(at endpoint: Endpoint) { state.withLock { $0.endpoint = endpoint } }

  var endpoint: Endpoint? { state.withLock { $0.endpoint } }

  func add(_ actor: any DistributedActor, _ id: RemoteActorID) { state.withLock { $0.actors[id] = actor } }

  func remove(_ id: RemoteActorID) { _ = state.withLock { $0.actors.removeValue(forKey: id) } }

  subscript(id: RemoteActorID) -> (any DistributedActor)? { state.withLock { $0.actors[id] } }
}

/// The lease under which an actor is being spawned, for the address that its init asks for.
enum SpawnContext {
  @TaskLocal static var lease: LeaseID?
}
