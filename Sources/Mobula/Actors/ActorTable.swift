import Distributed
import MobulaCore
import Synchronization

/// The actors that live in this process.
final class ActorTable: Sendable {
  private struct State {
    var actors: [RemoteActorID: any DistributedActor] = [:]
    var endpoint: Endpoint?
    /// What actors were made with that may be made again, for as long as this process lives.
    var kept: [RemoteActorID: [AnyReference]] = [:]
  }

  private let state = Mutex(State())

  /// Where this process listens for calls; set once, when a worker is ready.
  func listens(at endpoint: Endpoint) { state.withLock { $0.endpoint = endpoint } }

  var endpoint: Endpoint? { state.withLock { $0.endpoint } }

  func add(_ actor: any DistributedActor, _ id: RemoteActorID) { state.withLock { $0.actors[id] = actor } }

  func keep(_ references: [AnyReference], of id: RemoteActorID) { state.withLock { $0.kept[id] = references } }

  func letGo(_ id: RemoteActorID) {
    // They end outside of the lock.
    let kept = state.withLock { $0.kept.removeValue(forKey: id) }
    withExtendedLifetime(kept) {}
  }

  func remove(_ id: RemoteActorID) { _ = state.withLock { $0.actors.removeValue(forKey: id) } }

  subscript(id: RemoteActorID) -> (any DistributedActor)? { state.withLock { $0.actors[id] } }
}

/// The actor that is being made, for the address that its init asks for.
final class SpawnContext: Sendable {
  @TaskLocal static var current: SpawnContext?

  private let type: ObjectIdentifier
  private let address: Mutex<ActorAddress?>

  init(_ type: any RemoteActor.Type, _ address: ActorAddress) {
    self.type = ObjectIdentifier(type)
    self.address = Mutex(address)
  }

  /// The address that was decided for it; `nil` for other actors, which its init makes.
  func take(_ type: any DistributedActor.Type) -> ActorAddress? {
    ObjectIdentifier(type) == self.type ? address.withLock { $0.take() } : nil
  }
}
