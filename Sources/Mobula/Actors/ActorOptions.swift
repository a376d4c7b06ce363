public import MobulaCore

/// What an actor needs, where it may go, and for how long it lives.
///
/// A type of actor has its own (`RemoteActor.options`), and a call may say otherwise.
public struct ActorOptions: Sendable {
  /// What is its own as long as it lives. Default: nothing, so that a pod may have many that mostly wait.
  public var resources: Resources = [:]
  /// Which of the pods that have it is taken. Default: the one with the fewest leases.
  public var placement = PlacementStrategy.spread
  /// How many of its calls run at a time. Default: a thousand, as Swift's actors do, of which one runs and the others wait.
  public var concurrency = Concurrency.reentrant(limit: 1_000)
  /// Whether it is started again when its worker, pod or host is lost. Default: never.
  public var restarts = RestartPolicy.never
  /// What others find it by. Default: nothing.
  public var name: ActorName?
  /// When it ends, if nobody stops it. Default: with the job that started it.
  public var lifetime = Lifetime.job
  /// How long `spawn` waits for a pod that has it. Default: `ClusterOptions.leaseDeadline`.
  public var startLimit: Duration?
  /// Variables of its worker's environment, beside `ClusterOptions.workerEnvironment`. Default: none.
  public var environment: [String: String] = [:]

  /// The defaults.
  public init() {}

  /// Resources by name, e.g. `["worker_pod_b": 1]`.
  ///
  /// - Parameters:
  ///   - custom: resources of one's own.
  ///   - cpu: CPUs; none unless told otherwise.
  ///   - gpu: GPUs: whole ones, or a part of one; none unless told otherwise. `Worker.gpus` says which they are.
  ///   - memory: memory of the pod, for its books; none unless told otherwise.
  ///   - placement: which of the pods that have it is taken.
  public static func resources(
    _ custom: Resources = [:], cpu: ResourceAmount = 0, gpu: ResourceAmount = .zero, memory: ByteCount? = nil,
    placement: PlacementStrategy = .spread
  ) -> ActorOptions {
    var options = ActorOptions()
    options.resources = Resources(custom, cpu: cpu, gpu: gpu, memory: memory)
    options.placement = placement
    return options
  }

  /// An actor that others find by this name, until it is stopped.
  ///
  /// - Parameter name: it; or with what happens where another has it.
  public static func named(_ name: ActorName) -> ActorOptions {
    var options = ActorOptions()
    options.name = name
    return options
  }

  /// These options, and it is started again so often.
  public func restarting(_ restarts: RestartPolicy) -> ActorOptions {
    var options = self
    options.restarts = restarts
    return options
  }

  /// These options, and it outlives the job that starts it.
  public var detached: ActorOptions {
    var options = self
    options.lifetime = .detached
    return options
  }
}

/// How often an actor is started again when its worker, pod or host is lost.
///
/// It begins anew, by its `init` and with what it was made with: nothing that it had is there, and no call is made twice
/// unless its caller says so (`Call.with(.retries(3))`). Who asks too much of it, or stops it, does not start it again.
public struct RestartPolicy: Sendable, Hashable {
  let most: Int?

  /// It has ended then: whoever calls it is told so.
  public static let never = RestartPolicy(most: 0)
  /// So many times at most.
  public static func upTo(_ times: Int) -> RestartPolicy { RestartPolicy(most: max(0, times)) }
  /// However often: with pauses up to ten seconds between starts where each ends at once.
  public static let unlimited = RestartPolicy(most: nil)
}

/// What an actor is called in its cluster.
public struct ActorName: Sendable, Hashable, ExpressibleByStringLiteral {
  /// What happens where another actor has the name.
  public struct Taken: Sendable, Hashable {
    let rule: ActorStart.Taken
    /// `spawn` throws `alreadyExists`.
    public static let fail = Taken(rule: .fail)
    /// `spawn` returns that one, if it is of the same type.
    public static let use = Taken(rule: .use)
    /// That one ends, calls and all.
    public static let replace = Taken(rule: .replace)
  }

  /// It: 1 to 1,000 bytes of UTF-8, compared byte by byte.
  public let text: String
  /// What happens where another actor has it.
  public let ifTaken: Taken

  /// A name, and what happens where another actor has it.
  public init(_ text: String, ifTaken: Taken = .fail) {
    self.text = text
    self.ifTaken = ifTaken
  }

  public init(stringLiteral value: String) { self.init(value) }
}

/// When an actor ends, if nobody stops it.
public struct Lifetime: Sendable, Hashable {
  let isDetached: Bool
  /// With the job that started it.
  public static let job = Lifetime(isDetached: false)
  /// Not at all: it is a job of its own, goes on when the head is started again, and may be called from every job of the
  /// cluster. `mobula actor stop` ends it.
  public static let detached = Lifetime(isDetached: true)
}

/// How an actor is to end.
public struct StopMode: Sendable, Hashable {
  let seconds: Double
  /// At once, in the middle of whatever it does.
  public static let now = StopMode(seconds: 0)
  /// It takes no further calls, and those that go on have so long to end; then `willStop` is called.
  public static func afterCalls(within limit: Duration) -> StopMode {
    StopMode(seconds: max(0.001, min(limit, .untilItComes) / .seconds(1)))
  }
}

/// How an actor is.
public enum ActorState: String, Sendable, Codable {
  /// A pod is sought for it, or its `init` runs.
  case starting
  /// It can be called.
  case alive
  /// It was lost, and is started again.
  case restarting
  /// It ends when the calls that go on have ended.
  case stopping
  /// It has ended for good.
  case dead
}

/// An actor of the cluster, as its head knows it.
public struct ActorStatus: Sendable, Hashable {
  /// Which actor it is.
  public let actor: RemoteActorID
  /// What it is called, if anything.
  public let name: String?
  /// Its type, as in `app.Model`.
  public let type: String
  /// How it is.
  public let state: ActorState
  /// The job that it ends with; its own, if it is detached.
  public let job: JobID
  /// Whether it outlives the job that started it.
  public let isDetached: Bool
  /// Where it lives, if it does.
  public let host: String?
  /// The pod where it lives, if it does.
  public let pod: String?
  /// Which start of it this is, in the order of starts; what it writes elsewhere can be told apart by that.
  public let incarnation: UInt64
  /// How often it was started again.
  public let restarts: Int
  /// Why it ended last, if it did.
  public let reason: String?

  init(_ listing: ActorListing) {
    actor = listing.actor
    name = listing.name
    type = readableName(ofType: listing.type)
    state =
      switch listing.state {
      case .starting: .starting
      case .alive: .alive
      case .restarting: .restarting
      case .stopping: .stopping
      case .dead: .dead
      }
    job = listing.job
    isDetached = listing.isDetached
    host = listing.hostName
    pod = listing.podName
    incarnation = listing.incarnation
    restarts = listing.restarts
    reason = listing.reason
  }
}
