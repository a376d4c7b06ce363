import MobulaCore

/// A driver wants the right to run work of one resource shape on one worker.
struct LeaseDemand: Hashable, Sendable {
  var id: RequestID
  var lease: LeaseID
  var job: JobID
  var resources: Resources
  var rule = PlacementRule.pack
  /// When it fails if it was not granted.
  var deadline: Duration
  /// Whether it goes on waiting where no pod could ever hold it.
  var waits = false
  /// Whether a worker asks: what waits for it may have what others wait for, so that it goes first.
  var isNested = false
  /// When it was asked for.
  var since = Duration.zero
}

/// A lease that a pod has in its books when it registers.
struct BookedLease: Hashable, Sendable {
  var lease: LeaseID
  var job: JobID
  var resources: Resources
  /// Whether its CPU is lent to others.
  var isLent = false
}

enum SchedulerAction: Hashable, Sendable {
  /// Ask the pod for the lease; it answers with `podGranted` or `podRefused`.
  case ask(PodID, LeaseID, RequestID)
  case grant(RequestID, LeaseID, PodID)
  case refuse(RequestID, LeaseRefusal)
  /// Tell the pod to give the lease up; once it has, say `released`.
  case release(PodID, LeaseID, workerIsReusable: Bool)
  /// Tell the job's driver that its lease is gone.
  case revoke(LeaseID, JobID, LeaseLoss)
  /// Call `tick` at this instant, if nothing else is said until then.
  case wakeAt(Duration)
}

enum LeaseLoss: Hashable, Sendable {
  case podLost(PodID)
  /// The worker ended; the text is the pod's.
  case workerEnded(String)
}

/// Why a lease was not granted.
enum LeaseRefusal: Hashable, Sendable {
  /// No pod could hold it even if it were idle; `pods` is what they have in all.
  case infeasible(Resources, PlacementRule, pods: [Resources])
  /// Some pods could, but none was free in time; the text is the last pod's own refusal.
  case busy(Resources, said: String?)
  case jobEnded(JobID)
  /// It is wanted on a host that is about to go.
  case draining(HostID)
  /// The driver has given it back before it was granted.
  case givenBack(LeaseID)
  /// The request can't be meant so, or every pod that could hold it says why it won't.
  case impossible(MobulaError)

  /// The sentence for the driver; `name` turns a host into what people call it.
  func error(name: (HostID) -> String) -> MobulaError {
    switch self {
    case .infeasible(let demand, let rule, let pods):
      return Self.infeasible(demand, rule, pods, name)
    case .busy(let demand, let said):
      let reason = said.map { " (the last pod asked said: \($0))" } ?? ""
      return MobulaError(
        .deadlineExceeded,
        "No pod had \(demand) free in time\(reason); start more hosts, or end work that no longer needs its resources.")
    case .jobEnded(let job):
      return MobulaError(.cancelled, "Job \(job) has ended, and its lease requests with it; start a new one.")
    case .draining(let host):
      return MobulaError(
        .unavailable, "Host \(name(host)) is being drained and takes no more work: choose another, or all of them.")
    case .givenBack(let lease):
      return MobulaError(.cancelled, "Lease \(lease) was given back before it was granted; ask for another.")
    case .impossible(let error): return error
    }
  }

  private static func infeasible(
    _ demand: Resources, _ rule: PlacementRule, _ pods: [Resources], _ name: (HostID) -> String
  ) -> MobulaError {
    // Only what no pod has is named, unless it is the combination that none has.
    let missing = Resources(
      demand.amounts.filter { resource, amount in !pods.contains { $0[resource] >= amount } })
    let named = missing.amounts.isEmpty ? demand : missing
    var place = "No pod"
    if case .host(let host) = rule { place = "No pod of host \(name(host))" }
    let there =
      pods.isEmpty
      ? "there are no pods" : "the pods there have \(pods.map(\.described).sorted().joined(separator: "; "))"
    return MobulaError(
      .unavailable, "\(place) has \(named.described): \(there); start a host with \(option(for: named)).")
  }

  /// The option of `mobula start` that gives a host these resources.
  private static func option(for resources: Resources) -> String {
    let amounts = resources.amounts.sorted { $0.key < $1.key }.map { name, amount in
      guard name == Resources.memory else { return "\(name)=\(amount)" }
      let bytes = ByteCount(amount.tenThousandths / 10_000)
      let text = bytes.description.filter { $0 != " " }
      return "\(name)=\(ByteCount(text) == bytes ? text : "\(bytes.bytes)")"
    }
    return "`--resources \(amounts.joined(separator: ","))`"
  }
}

extension Resources {
  fileprivate var described: String { amounts.isEmpty ? "nothing" : description }
}
