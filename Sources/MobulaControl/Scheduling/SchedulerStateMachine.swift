import MobulaCore

/// Who gets leases of which pod.
///
/// The pods' own books decide: this one picks a pod and asks, and picks another when the
/// pod refuses. What fits nowhere now waits in order of arrival. A later request may pass
/// an earlier one, but only with what the earlier one would not need: each of the first
/// that wait has its demand reserved at one pod. Instants are durations since the head's start.
struct SchedulerStateMachine: Sendable {
  struct Booking: Sendable {
    enum State: Hashable, Sendable {
      /// The pod has been asked, for a request or, once that was cancelled, for nobody.
      /// Can transition to: held, releasing.
      case asked(RequestID?)
      /// A driver has it. Can transition to: releasing.
      case held
      /// The pod has been told to give it up; its resources are not free before it has.
      case releasing(workerIsReusable: Bool)
      /// The pod is told to end it, in the answer to its registration: it is over when the pod confirms that.
      case ending
    }

    var job: JobID
    var resources: Resources
    var state: State
    /// Whether it was not granted here: the pod had it when it registered.
    var isBrought = false
    /// Whether its CPU is lent to others, since what runs on it waits.
    var isLent = false

    /// What of the pod's it takes now.
    var taken: Resources { isLent ? resources.withoutCPU : resources }
  }

  struct PodBook: Sendable {
    var host: HostID
    var total: Resources
    var leases: [LeaseID: Booking] = [:]
    /// Whether it has ended what it was told to end when it registered: it is given nothing before.
    var isConfirmed = true

    var leased: Resources { leases.values.reduce(Resources()) { $0 + $1.taken } }
  }

  struct Waiting: Sendable {
    var demand: LeaseDemand
    /// Its place in the queue, also after a pod has refused it.
    let arrival: UInt64
    /// Pods that have no room, and when to ask them again.
    var pausedPods: [PodID: Duration] = [:]
    /// Pods that can't hold it, whenever they are asked, and why.
    var unfitPods: [PodID: MobulaError] = [:]
    var lastRefusal: String?
    /// Since when no pod could hold it even if it were idle.
    var infeasibleSince: Duration?
    var reservedPod: PodID?
  }

  private(set) var pods: [PodID: PodBook] = [:]
  /// In order of arrival, those of workers first.
  var queue: [Waiting] = []
  var asking: [RequestID: Waiting] = [:]
  /// Hosts whose pods get no more leases.
  private(set) var draining: Set<HostID> = []
  /// Where the leases are that drivers have.
  private(set) var places: [LeaseID: PodID] = [:]
  private var endedJobs = EndedJobs()
  /// The last leases that were given back while no pod was known to have them: nobody has them any more, whoever still
  /// brings them.
  private var givenBack = RecentSet<LeaseID>(capacity: 16_384)
  /// Those of them whose workers may serve others, and may be waiting for tasks that they have submitted themselves.
  private var givenBackReusable = RecentSet<LeaseID>(capacity: 16_384)
  private var arrivals: UInt64 = 0
  /// Puts requests of drivers behind all of workers.
  private static let afterNested: UInt64 = 1 << 62
  var nextWake: Duration?
  /// How long a request may wait while no pod could ever hold it.
  let infeasibleTimeout: Duration
  /// How long a pod that refused a request is not asked for it again.
  let refusalPause: Duration

  init(infeasibleTimeout: Duration = .seconds(20), refusalPause: Duration = .seconds(1)) {
    self.infeasibleTimeout = infeasibleTimeout
    self.refusalPause = refusalPause
  }

  // MARK: Drivers

  /// A driver asks for a lease: granted, refused, or waiting until its deadline.
  mutating func request(_ demand: LeaseDemand, at now: Duration) -> [SchedulerAction] {
    if endedJobs.contains(demand.job) { return [.refuse(demand.id, .jobEnded(demand.job))] }
    guard demand.resources.arePlausible else {
      let error = MobulaError(
        .invalidArgument, "A lease can't be of \(demand.resources): amounts are positive, and at most 25 TB of memory.")
      return [.refuse(demand.id, .impossible(error))]
    }
    let isKnown =
      places[demand.lease] != nil || queue.contains { $0.demand.lease == demand.lease }
      || asking.values.contains { $0.demand.lease == demand.lease }
    guard !isKnown else {
      let error = MobulaError(.alreadyExists, "Lease \(demand.lease) was requested before: take a new identifier.")
      return [.refuse(demand.id, .impossible(error))]
    }
    if givenBack.contains(demand.lease) { return [.refuse(demand.id, .givenBack(demand.lease))] }
    arrivals += 1
    var demand = demand
    demand.since = now
    let waiting = Waiting(demand: demand, arrival: demand.isNested ? arrivals : arrivals | Self.afterNested)
    queue.insert(waiting, at: queue.firstIndex { $0.arrival > waiting.arrival } ?? queue.count)
    return place(at: now)
  }

  /// The driver no longer wants what it asked for.
  mutating func cancel(_ request: RequestID, at now: Duration) -> [SchedulerAction] {
    queue.removeAll { $0.demand.id == request }
    abandonAsk(request)
    return place(at: now)
  }

  /// The driver gives a lease back: one that it has, or one of which it does not know whether it was granted.
  mutating func returned(_ lease: LeaseID, workerIsReusable: Bool = true, at now: Duration) -> [SchedulerAction] {
    if let pod = places[lease] { return release(lease, at: pod, workerIsReusable: workerIsReusable) }
    givenBack.insert(lease)
    if workerIsReusable { givenBackReusable.insert(lease) }
    // Its request may have come on a connection of which only the driver knows yet that it is over.
    guard let waiting = (queue + asking.values).first(where: { $0.demand.lease == lease }) else { return [] }
    return [.refuse(waiting.demand.id, .givenBack(lease))] + cancel(waiting.demand.id, at: now)
  }

  /// A job has ended: its requests fail, its leases are given up.
  mutating func jobEnded(_ job: JobID, at now: Duration) -> [SchedulerAction] {
    endedJobs.insert(job)
    var actions: [SchedulerAction] = []
    for waiting in (queue + asking.values).filter({ $0.demand.job == job }).sorted(by: { $0.arrival < $1.arrival }) {
      actions.append(.refuse(waiting.demand.id, .jobEnded(job)))
      abandonAsk(waiting.demand.id)
    }
    queue.removeAll { $0.demand.job == job }
    for (lease, pod) in places.sorted(by: { $0.key < $1.key }) where pods[pod]?.leases[lease]?.job == job {
      actions += release(lease, at: pod, workerIsReusable: false)
    }
    return actions + place(at: now)
  }

  // MARK: Pods

  /// A pod is there, for the first time or again, with the leases in its books.
  ///
  /// - Parameters:
  ///   - areCurrent: whether leases that are not in the books here are leases: they are where the head was restarted,
  ///     and not where the pod was declared lost.
  ///   - confirms: whether the pod says `podConfirmed` once it has ended the leases that are returned as `end`; another
  ///     one is told to release them.
  mutating func podRegistered(
    _ pod: PodID, host: HostID, total: Resources, leases: [BookedLease], areCurrent: Bool = true,
    confirms: Bool = false, at now: Duration
  ) -> (actions: [SchedulerAction], end: [LeaseID]) {
    var actions: [SchedulerAction] = []
    var end: [LeaseID] = []
    var book = pods[pod] ?? PodBook(host: host, total: total)
    book.total = total.arePlausible ? total : Resources()
    book.isConfirmed = !confirms
    pods[pod] = book
    let listed = Set(leases.map(\.lease))
    for (lease, booking) in book.leases.sorted(by: { $0.key < $1.key }) where !listed.contains(lease) {
      switch booking.state {
      // The answer to that question is still to come, from the former connection.
      case .asked: continue
      case .held: actions += drop(lease, at: pod, .workerEnded("The pod no longer has the lease in its books."))
      case .releasing, .ending: _ = drop(lease, at: pod, nil)
      }
    }
    for entry in leases where entry.resources.arePlausible {
      let isElsewhere = places[entry.lease].map { $0 != pod } ?? false
      let isOver: Bool
      // Its worker stays: to end it would end what it has submitted, which others wait for.
      var isReusable = false
      pods[pod]?.leases[entry.lease]?.isLent = entry.isLent
      switch book.leases[entry.lease]?.state {
      case .asked, .held: isOver = false
      case .releasing(let workerIsReusable): (isOver, isReusable) = (true, workerIsReusable && areCurrent)
      case .ending: isOver = true
      case nil:
        pods[pod]?.leases[entry.lease] = Booking(
          job: entry.job, resources: entry.resources, state: .held, isBrought: true, isLent: entry.isLent)
        let isForeign = !areCurrent || isElsewhere || endedJobs.contains(entry.job)
        isOver = isForeign || givenBack.contains(entry.lease)
        isReusable = !isForeign && givenBackReusable.contains(entry.lease)
        if !isOver { places[entry.lease] = pod }
      }
      guard isOver else { continue }
      if isReusable {
        actions += release(entry.lease, at: pod, workerIsReusable: true)
      } else if confirms {
        pods[pod]?.leases[entry.lease]?.state = .ending
        end.append(entry.lease)
      } else {
        actions += release(entry.lease, at: pod, workerIsReusable: false)
      }
    }
    return (actions + place(at: now), end)
  }

  /// The pod has ended what it was told to end.
  mutating func podConfirmed(_ pod: PodID, at now: Duration) -> [SchedulerAction] {
    guard pods[pod] != nil else { return [] }
    for (lease, booking) in pods[pod]!.leases where booking.state == .ending { _ = drop(lease, at: pod, nil) }
    pods[pod]?.isConfirmed = true
    return place(at: now)
  }

  /// The pods of a host get no more leases, or may get some again. Those that they have end by themselves.
  mutating func setDraining(_ host: HostID, _ isDraining: Bool, at now: Duration) -> [SchedulerAction] {
    if isDraining { draining.insert(host) } else { draining.remove(host) }
    return place(at: now)
  }

  /// A pod is gone, and with it its leases.
  mutating func podLost(_ pod: PodID, at now: Duration) -> [SchedulerAction] {
    var actions: [SchedulerAction] = []
    for (lease, booking) in (pods[pod]?.leases ?? [:]).sorted(by: { $0.key < $1.key }) {
      if case .asked(let request?) = booking.state { requeue(request) { _ in } }
      actions += drop(lease, at: pod, .podLost(pod))
    }
    pods[pod] = nil
    return actions + place(at: now)
  }

  /// The pod has taken the lease into its books.
  mutating func podGranted(_ pod: PodID, _ lease: LeaseID, at now: Duration) -> [SchedulerAction] {
    if case .asked(let request?) = pods[pod]?.leases[lease]?.state {
      asking[request] = nil
      pods[pod]?.leases[lease]?.state = .held
      places[lease] = pod
      return [.grant(request, lease, pod)]
    }
    // Nobody wants it any more.
    return release(lease, at: pod, workerIsReusable: true)
  }

  /// The pod has no room for the lease, or can't serve it at all: then the error's code is another than `full`.
  mutating func podRefused(_ pod: PodID, _ lease: LeaseID, _ error: MobulaError, at now: Duration) -> [SchedulerAction]
  {
    guard let booking = pods[pod]?.leases[lease], case .asked(let request) = booking.state else { return [] }
    _ = drop(lease, at: pod, nil)
    let pause = now + refusalPause
    if let request {
      requeue(request) { waiting in
        waiting.lastRefusal = error.message
        if error.code == .full || error.code == .unavailable {
          waiting.pausedPods[pod] = pause
        } else {
          waiting.unfitPods[pod] = error
        }
      }
    }
    return place(at: now)
  }

  /// The pod did not answer: whether it has the lease is not known, so that it must give it up.
  mutating func podUnreachable(_ pod: PodID, _ lease: LeaseID, at now: Duration) -> [SchedulerAction] {
    guard case .asked(let request) = pods[pod]?.leases[lease]?.state else { return [] }
    let pause = now + refusalPause
    if let request { requeue(request) { $0.pausedPods[pod] = pause } }
    return release(lease, at: pod, workerIsReusable: false) + place(at: now)
  }

  /// The pod has given the lease up.
  mutating func released(_ pod: PodID, _ lease: LeaseID, at now: Duration) -> [SchedulerAction] {
    guard case .releasing = pods[pod]?.leases[lease]?.state else { return [] }
    return drop(lease, at: pod, nil) + place(at: now)
  }

  /// The worker of a lease has ended.
  mutating func workerEnded(_ pod: PodID, _ lease: LeaseID, _ reason: String, at now: Duration) -> [SchedulerAction] {
    guard let booking = pods[pod]?.leases[lease] else { return [] }
    // The answer to the question will say so, too.
    if case .asked = booking.state { return [] }
    return drop(lease, at: pod, .workerEnded(reason)) + place(at: now)
  }

  /// The CPU of a lease is lent to others, or is not any more: then the books may be below nothing until others end.
  mutating func lent(_ pod: PodID, _ lease: LeaseID, _ isLent: Bool, at now: Duration) -> [SchedulerAction] {
    guard let booking = pods[pod]?.leases[lease], booking.isLent != isLent else { return [] }
    pods[pod]?.leases[lease]?.isLent = isLent
    return place(at: now)
  }

  /// The leases that a job's driver has.
  func leases(of job: JobID) -> [LeaseID] {
    places.filter { lease, pod in pods[pod]?.leases[lease]?.job == job }.keys.sorted()
  }

  /// Those of them that pods had when they registered, in order.
  func brought(of job: JobID) -> [LeaseID] {
    leases(of: job).filter { lease in places[lease].flatMap { pods[$0]?.leases[lease]?.isBrought } == true }
  }

  /// Whether a driver is believed to have the lease.
  func hasPlace(_ lease: LeaseID) -> Bool { places[lease] != nil }

  /// Where a lease is that somebody is believed to have.
  func place(of lease: LeaseID) -> PodID? { places[lease] }

  // MARK: Books

  mutating func book(_ waiting: Waiting, at pod: PodID) {
    let demand = waiting.demand
    asking[demand.id] = waiting
    pods[pod]?.leases[demand.lease] = Booking(
      job: demand.job, resources: demand.resources, state: .asked(demand.id))
  }

  private mutating func release(_ lease: LeaseID, at pod: PodID, workerIsReusable: Bool) -> [SchedulerAction] {
    if places[lease] == pod { places[lease] = nil }
    pods[pod]?.leases[lease]?.state = .releasing(workerIsReusable: workerIsReusable)
    return [.release(pod, lease, workerIsReusable: workerIsReusable)]
  }

  /// The lease is out of the pod's books; a driver that had it learns of its loss.
  private mutating func drop(_ lease: LeaseID, at pod: PodID, _ loss: LeaseLoss?) -> [SchedulerAction] {
    let booking = pods[pod]?.leases.removeValue(forKey: lease)
    if places[lease] == pod { places[lease] = nil }
    guard let booking, booking.state == .held, let loss else { return [] }
    return [.revoke(lease, booking.job, loss)]
  }

  private mutating func abandonAsk(_ request: RequestID) {
    guard let waiting = asking.removeValue(forKey: request) else { return }
    for pod in pods.keys where pods[pod]?.leases[waiting.demand.lease]?.state == .asked(request) {
      pods[pod]?.leases[waiting.demand.lease]?.state = .asked(nil)
    }
  }

  private mutating func requeue(_ request: RequestID, _ change: (inout Waiting) -> Void) {
    guard var waiting = asking.removeValue(forKey: request) else { return }
    change(&waiting)
    let index = queue.firstIndex { $0.arrival > waiting.arrival } ?? queue.count
    queue.insert(waiting, at: index)
  }
}
