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
  /// Is called before the actor's worker is ended, when its calls have ended; not when it is lost, or stopped at once.
  /// Default: nothing.
  func willStop() async
}

extension RemoteActor {
  /// The defaults.
  public static var options: ActorOptions { ActorOptions() }
  /// Nothing.
  public func willStop() async {}
}

/// Who an actor is, and where it was last; enough to call it from anywhere in the cluster, wherever it is by then.
///
/// Two of them are equal when they are the same actor's.
public struct ActorAddress: Hashable, Sendable, Codable, CustomStringConvertible {
  /// Which actor it is.
  public let actor: RemoteActorID
  /// The worker it lived in when this was made; a hint, that spares a question.
  public let endpoint: Endpoint
  /// Which start of it this was, in the order of starts: what an actor writes elsewhere can be told apart by its own. 0 for
  /// one that was not spawned.
  public let incarnation: UInt64
  /// The job that it ends with.
  let job: JobID

  public var description: String { "\(actor.short)@\(endpoint)" }

  public static func == (a: Self, b: Self) -> Bool { a.actor == b.actor }
  public func hash(into hasher: inout Hasher) { hasher.combine(actor) }

  /// Where an actor "listens" that was made in a driver.
  static let driver = Endpoint.unix(path: "driver")

  init(actor: RemoteActorID, endpoint: Endpoint, incarnation: UInt64, job: JobID) {
    (self.actor, self.endpoint, self.incarnation, self.job) = (actor, endpoint, incarnation, job)
  }

  private enum CodingKeys: String, CodingKey { case actor, endpoint, incarnation, job }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    actor = try container.decode(RemoteActorID.self, forKey: .actor)
    endpoint = try container.decode(Endpoint.self, forKey: .endpoint)
    incarnation = try container.decode(UInt64.self, forKey: .incarnation)
    job = try container.decode(JobID.self, forKey: .job)
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
    try container.encode(incarnation, forKey: .incarnation)
    try container.encode(job, forKey: .job)
  }
}
