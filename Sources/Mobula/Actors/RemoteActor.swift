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
///
/// Two of them are equal when they are the same actor's.
public struct ActorAddress: Hashable, Sendable, Codable, CustomStringConvertible {
  /// Which actor it is.
  public let actor: RemoteActorID
  /// The worker it lives in.
  public let endpoint: Endpoint
  /// The lease it lives by; ends with it.
  let lease: LeaseID?

  public var description: String { "\(actor.short)@\(endpoint)" }

  public static func == (a: Self, b: Self) -> Bool { a.actor == b.actor }
  public func hash(into hasher: inout Hasher) { hasher.combine(actor) }

  /// Where an actor "listens" that was made in a driver.
  static let driver = Endpoint.unix(path: "driver")

  init(actor: RemoteActorID, endpoint: Endpoint, lease: LeaseID?) {
    (self.actor, self.endpoint, self.lease) = (actor, endpoint, lease)
  }

  private enum CodingKeys: String, CodingKey { case actor, endpoint, lease }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    actor = try container.decode(RemoteActorID.self, forKey: .actor)
    endpoint = try container.decode(Endpoint.self, forKey: .endpoint)
    lease = try container.decodeIfPresent(LeaseID.self, forKey: .lease)
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for an actor that was made in a driver: nobody else could call it.
  public func encode(to encoder: any Encoder) throws {
    guard endpoint != Self.driver else {
      throw MobulaError(
        .invalidArgument,
        "An actor that was made in a driver can't be passed on, since nobody could call it: start it with Cluster.spawn."
      )
    }
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(actor, forKey: .actor)
    try container.encode(endpoint, forKey: .endpoint)
    try container.encodeIfPresent(lease, forKey: .lease)
  }
}
