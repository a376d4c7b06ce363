public import MobulaCore

/// What a task needs, where it may go, and how often and for how long it is tried.
///
/// A type of task has its own (`RemoteTask.options`), and a call may say otherwise.
public struct TaskOptions: Sendable {
  /// What a pod must have left for it. Default: one CPU.
  public var resources: Resources = [Resources.cpu: 1]
  /// Which of the pods that have it is taken. Default: the one with the least left.
  public var placement = PlacementStrategy.pack
  /// When it is tried again. Default: up to three times, if its worker is lost.
  public var retries = RetryPolicy.onLoss(3)
  /// How long one attempt may run. What takes longer fails, is told to end, and has its worker ended five seconds later.
  /// Default: as long as it likes.
  public var timeout: Duration?
  /// How long it may take in all, from `submit` on: waiting, all attempts and the pauses between them. Default:
  /// `ClusterOptions.workDeadline`.
  public var deadline: Duration?
  /// How long it may wait for a pod that has what it needs, once its arguments are there. Default: for as long as it
  /// takes.
  public var schedulingLimit: Duration?
  /// What of its arguments is there when it begins. Default: all of it.
  public var arguments = ArgumentPolicy.ready
  /// Variables of its worker's environment, beside `ClusterOptions.workerEnvironment`. Default: none.
  public var environment: [String: String] = [:]
  /// What it is called in messages. Default: its type.
  public var name: String?

  /// The defaults.
  public init() {}

  /// Resources by name, e.g. `["worker_pod_b": 1]`.
  ///
  /// - Parameters:
  ///   - custom: resources of one's own.
  ///   - cpu: CPUs; 1 unless told otherwise.
  ///   - gpu: GPUs: whole ones, or a part of one; none unless told otherwise. `Worker.gpus` says which they are.
  ///   - memory: memory of the pod, for its books; none unless told otherwise.
  ///   - placement: which of the pods that have it is taken.
  public static func resources(
    _ custom: Resources = [:], cpu: ResourceAmount = 1, gpu: ResourceAmount = .zero, memory: ByteCount? = nil,
    placement: PlacementStrategy = .pack
  ) -> TaskOptions {
    var options = TaskOptions()
    options.resources = Resources(custom, cpu: cpu, gpu: gpu, memory: memory)
    options.placement = placement
    return options
  }

  /// - Throws: `MobulaError` (`invalidArgument`) for what can't be meant so.
  func check() throws(MobulaError) {
    try Self.check(resources)
    try ClusterOptions.check(environment)
    for (limit, name) in [(timeout, "timeout"), (deadline, "deadline"), (schedulingLimit, "schedulingLimit")] {
      guard let limit, limit <= .zero else { continue }
      throw MobulaError(.invalidArgument, "A task's \(name) can't be \(limit): give a time above zero, or none.")
    }
  }

  static func check(_ resources: Resources) throws(MobulaError) {
    guard !resources.arePlausible else { return }
    throw MobulaError(
      .invalidArgument, "Work can't need \(resources): amounts are positive, and at most 25 TB of memory.")
  }
}

extension Resources {
  init(_ custom: Resources, cpu: ResourceAmount, gpu: ResourceAmount, memory: ByteCount?) {
    self = custom
    self[Self.cpu] = cpu
    if gpu != .zero { self[Self.gpu] = gpu }
    if let memory { self[Self.memory] = ResourceAmount(memory.bytes) }
  }
}

/// How many calls of an actor run at a time.
public struct Concurrency: Sendable, Hashable {
  let limit: Int

  /// While one call waits, others go on, as in every actor of Swift; so many at most have begun and not ended.
  public static func reentrant(limit: Int) -> Concurrency { Concurrency(limit: max(1, limit)) }

  /// One call after the other, each to its end.
  public static let serial = Concurrency(limit: 1)
}

/// When a task is tried again.
///
/// Pauses of 100 ms, twice as long each time and 10 s at most, lie between attempts.
public struct RetryPolicy: Sendable {
  var losses: Int
  var errors = 0
  var isWanted: (@Sendable (WorkError) -> Bool)?

  /// It is tried once: whoever waits for it gets `workerLost` when its worker is lost, and may not know what of it was done.
  public static let never = RetryPolicy(losses: 0)

  /// It is tried again when its worker, pod or host is lost, so many times at most: so it may be done more than once.
  public static func onLoss(_ times: Int) -> RetryPolicy { RetryPolicy(losses: max(0, times)) }

  /// It is tried again, too, when it throws an error of which the closure says that another attempt may do better, so
  /// many times at most.
  ///
  /// - Parameter isWanted: is called in the process that submitted the task, before whoever waits for it is told.
  public func and(_ times: Int, when isWanted: @escaping @Sendable (WorkError) -> Bool) -> RetryPolicy {
    RetryPolicy(losses: losses, errors: max(0, times), isWanted: isWanted)
  }
}

/// What of a task's arguments is there when it begins.
public struct ArgumentPolicy: Sendable, Hashable {
  private let isReady: Bool

  /// Results of other tasks that it refers to have been made, and are on its host; it fails if one of them did.
  public static let ready = ArgumentPolicy(isReady: true)
  /// It begins at once, and waits itself for what it needs.
  public static let asTheyCome = ArgumentPolicy(isReady: false)
}
