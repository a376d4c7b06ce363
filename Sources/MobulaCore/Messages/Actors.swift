/// What an actor is made of, each time that it is: the head keeps it for as long as the actor lives.
package struct ActorSpec: Codable, Sendable, Hashable {
  /// The most bytes that a configuration may have.
  package static let mostConfiguration = 1 << 20

  /// Mangled name of its type.
  package var type: String
  /// Encoded as the arguments of tasks are.
  package var configuration: ByteString
  /// The most calls that it answers at a time.
  package var limit: Int
  /// How often it is started again when it has ended; `nil` for always.
  package var restarts: Int?
  package var name: String?
  /// Whether it outlives its driver: then it is a job of its own.
  package var isDetached: Bool
  package var demand: Resources
  package var strategy: PlacementStrategy
  package var program: WorkerProgram
  /// For how many seconds it waits for a pod at first; `nil` for as long as it takes.
  package var startLimit: Double?

  package init(
    type: String, configuration: ByteString, limit: Int, restarts: Int?, name: String?, isDetached: Bool,
    demand: Resources, strategy: PlacementStrategy, program: WorkerProgram, startLimit: Double?
  ) {
    self.type = type
    self.configuration = configuration
    self.limit = limit
    self.restarts = restarts
    self.name = name
    self.isDetached = isDetached
    self.demand = demand
    self.strategy = strategy
    self.program = program
    self.startLimit = startLimit
  }

  /// Whether it may be started again, so that two of it must not work at a time.
  package var isRestartable: Bool { restarts != 0 }

  /// The lease that an incarnation lives by. It needs nobody's memory: a head that is started again asks for the one that
  /// the head before it may have been granted.
  package static func lease(of actor: RemoteActorID, _ incarnation: UInt64) -> LeaseID {
    LeaseID(high: actor.high ^ incarnation &* 0x9E37_79B9_7F4A_7C15, low: actor.low &+ incarnation)
  }
}

/// An actor is to be there. May be said again: the actor is the same.
package struct ActorStart: Codable, Sendable {
  /// What happens where another actor has the name.
  package enum Taken: String, Codable, Sendable {
    case fail, use, replace
  }

  package var actor: RemoteActorID
  package var job: JobID
  package var spec: ActorSpec
  package var ifTaken: Taken

  package init(actor: RemoteActorID, job: JobID, spec: ActorSpec, ifTaken: Taken) {
    self.actor = actor
    self.job = job
    self.spec = spec
    self.ifTaken = ifTaken
  }
}

/// How is an actor, or where?
package struct ActorQuestion: Codable, Sendable {
  /// When it is answered.
  package enum Wish: String, Codable, Sendable {
    /// Once the actor lives; with an error when it has ended for good.
    case place
    /// Once it does not live, or another incarnation does than the one that is known.
    case end
    /// Once something has changed.
    case change
    /// At once.
    case now
  }

  package var actor: RemoteActorID?
  /// In place of `actor`.
  package var name: Name?
  /// The incarnation that can't be reached, or that ends; none, when `nil`.
  package var after: UInt64?
  /// The last change that is known, for `change`; none, when `nil`.
  package var seen: UInt64?
  package var wish: Wish

  package init(
    actor: RemoteActorID? = nil, name: Name? = nil, after: UInt64? = nil, seen: UInt64? = nil, wish: Wish
  ) {
    self.actor = actor
    self.name = name
    self.after = after
    self.seen = seen
    self.wish = wish
  }
}

/// An actor is to end.
package struct ActorEnd: Codable, Sendable {
  package var actor: RemoteActorID?
  /// In place of `actor`.
  package var name: Name?
  /// For how many seconds its calls may go on; 0 for not at all.
  package var seconds: Double
  /// Whether it is started again then, be it one that is not otherwise.
  package var restarts: Bool

  package init(actor: RemoteActorID? = nil, name: Name? = nil, seconds: Double, restarts: Bool) {
    self.actor = actor
    self.name = name
    self.seconds = seconds
    self.restarts = restarts
  }
}

/// An actor, as the head knows it.
package struct ActorListing: Codable, Sendable, Hashable {
  package enum State: String, Codable, Sendable {
    case starting, alive, restarting, stopping, dead
  }

  package var actor: RemoteActorID
  package var job: JobID
  package var name: String?
  /// Mangled name of its type.
  package var type: String
  package var isDetached: Bool
  package var state: State
  /// Counts from 1; not all of them need have lived.
  package var incarnation: UInt64
  /// How often it was started again.
  package var restarts: Int
  /// Grows with every change.
  package var revision: UInt64
  /// Where it listens, while it lives.
  package var endpoint: Endpoint?
  package var host: HostID?
  package var hostName: String?
  package var podName: String?
  /// Why the incarnation before this one ended, or this one if it is dead.
  package var reason: String?
  /// SHA-256 of its program.
  package var build: String

  package init(
    actor: RemoteActorID, job: JobID, name: String?, type: String, isDetached: Bool, state: State, incarnation: UInt64,
    restarts: Int, revision: UInt64, build: String
  ) {
    self.actor = actor
    self.job = job
    self.name = name
    self.type = type
    self.isDetached = isDetached
    self.state = state
    self.incarnation = incarnation
    self.restarts = restarts
    self.revision = revision
    self.build = build
  }
}

/// Which page of the actors, in the order of their identifiers.
package struct ActorsRequest: Codable, Sendable {
  package var after: RemoteActorID?

  package init(after: RemoteActorID? = nil) { self.after = after }
}

package struct ActorsReply: Codable, Sendable {
  package var actors: [ActorListing]
  package var hasMore: Bool

  package init(actors: [ActorListing], hasMore: Bool) {
    self.actors = actors
    self.hasMore = hasMore
  }
}

/// A worker is to make an actor. May be said again: the actor is the same.
package struct ActorRun: Codable, Sendable {
  package var actor: RemoteActorID
  package var incarnation: UInt64
  package var lease: LeaseID
  package var spec: ActorSpec

  package init(actor: RemoteActorID, incarnation: UInt64, lease: LeaseID, spec: ActorSpec) {
    self.actor = actor
    self.incarnation = incarnation
    self.lease = lease
    self.spec = spec
  }
}

/// An actor's worker is about to be ended.
package struct ActorEnding: Codable, Sendable {
  package var actor: RemoteActorID
  package var lease: LeaseID
  /// For how many seconds calls that go on may go on.
  package var seconds: Double

  package init(actor: RemoteActorID, lease: LeaseID, seconds: Double) {
    self.actor = actor
    self.lease = lease
    self.seconds = seconds
  }
}

/// When a pod last knew that the head knew of it.
package struct HeadHeard: Codable, Sendable {
  /// Nanoseconds of this machine's clock since it was started, which counts while it sleeps.
  package var nanoseconds: UInt64

  package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
}
