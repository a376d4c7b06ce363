public import Distributed
public import MobulaCore

/// A distributed actor that can be spawned on a worker.
public protocol RemoteActor: DistributedActor where ActorSystem == Cluster {
  /// What an actor is made with.
  associatedtype Configuration: Codable & Sendable
  /// What actors of this type need, where nothing else is said. Default: nothing that others could lack.
  static var options: ActorOptions { get }
  /// Makes the actor in its worker; what it throws, `Cluster.spawn` throws.
  init(configuration: Configuration, actorSystem: Cluster) async throws
}

extension RemoteActor {
  /// The defaults.
  public static var options: ActorOptions { ActorOptions() }
}

/// Who an actor is and where it listens; enough to call it from anywhere in the cluster.
public struct ActorAddress: Hashable, Sendable, Codable, CustomStringConvertible {
  /// Which actor it is.
  public let actor: RemoteActorID
  /// The worker it lives in.
  public let endpoint: Endpoint
  /// The lease it lives by; ends with it.
  let lease: LeaseID?

  public var description: String { "\(actor.short)@\(endpoint)" }
}
