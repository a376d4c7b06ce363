import MobulaCore

extension SchedulerStateMachine {
  /// How many waiting requests have their demand kept for them; bounded so that sums stay small.
  private static let reservations = 32

  struct Shape: Hashable {
    var resources: Resources
    var rule: PlacementRule
  }

  /// The pods as placement sees them, in the order of their identifiers.
  var views: [PodView] {
    pods.filter { $0.value.isConfirmed && !draining.contains($0.value.host) }.sorted { $0.key < $1.key }.map {
      pod, book in
      PodView(
        pod: pod, host: book.host, total: book.total, free: book.total - book.leased, leases: book.leases.count)
    }
  }

  /// Time has passed: requests whose deadline has come fail, pods that refused are asked again.
  mutating func tick(_ now: Duration) -> [SchedulerAction] {
    nextWake = nil
    return place(at: now)
  }

  /// Asks a pod for every waiting request that one has room for.
  mutating func place(at now: Duration) -> [SchedulerAction] {
    var actions: [SchedulerAction] = []
    var views = self.views
    var stillWaiting: [Waiting] = []
    var blocked: Set<Shape> = []
    var reserved = 0
    for var waiting in queue {
      let demand = waiting.demand
      if let refusal = refusal(of: waiting, views, at: now) {
        actions.append(.refuse(demand.id, refusal))
        continue
      }
      let shape = Shape(resources: demand.resources, rule: demand.rule)
      let candidates = blocked.contains(shape) ? [] : views.filter { mayAsk($0.pod, for: waiting, at: now) }
      if let pod = PodPlacement.choose(candidates, demand.resources, demand.rule),
        let index = views.firstIndex(where: { $0.pod == pod })
      {
        views[index].free = views[index].free - demand.resources
        views[index].leases += 1
        waiting.infeasibleSince = nil
        waiting.reservedPod = nil
        book(waiting, at: pod)
        actions.append(.ask(pod, demand.lease, demand.id))
        continue
      }
      if candidates.count == views.count { blocked.insert(shape) }
      waiting.noteFeasibility(in: views, at: now)
      if reserved < Self.reservations, let index = waiting.reserve(in: views) {
        views[index].free = views[index].free - demand.resources
        reserved += 1
      }
      stillWaiting.append(waiting)
    }
    queue = stillWaiting
    return actions + wakeUp(after: now)
  }

  /// Why a waiting request fails now; `nil` while it may go on waiting.
  private func refusal(of waiting: Waiting, _ views: [PodView], at now: Duration) -> LeaseRefusal? {
    let demand = waiting.demand
    if case .host(let host) = demand.rule, draining.contains(host) { return .draining(host) }
    let feasible = views.filter { PodPlacement.isFeasible($0, demand.resources, demand.rule) }
    if let error = feasible.compactMap({ waiting.unfitPods[$0.pod] }).first,
      feasible.allSatisfy({ waiting.unfitPods[$0.pod] != nil })
    {
      return .impossible(error)
    }
    let isOverdue = demand.deadline <= now
    let isHopeless = waiting.infeasibleSince.map { $0 + infeasibleTimeout <= now } ?? false
    if feasible.isEmpty, !demand.waits, isOverdue || isHopeless {
      return .infeasible(demand.resources, demand.rule, pods: views.filter { $0.isEligible(demand.rule) }.map(\.total))
    }
    return isOverdue ? .busy(demand.resources, said: waiting.lastRefusal) : nil
  }

  /// What is missing where no pod could hold a demand even if it were idle; `nil` where one could.
  func shortage(_ demand: Resources, _ rule: PlacementRule) -> LeaseRefusal? {
    let views = views
    guard !views.contains(where: { PodPlacement.isFeasible($0, demand, rule) }) else { return nil }
    return .infeasible(demand, rule, pods: views.filter { $0.isEligible(rule) }.map(\.total))
  }

  /// A pod that still has the lease to give up is not asked for it again before it has.
  private func mayAsk(_ pod: PodID, for waiting: Waiting, at now: Duration) -> Bool {
    waiting.unfitPods[pod] == nil && (waiting.pausedPods[pod].map { $0 <= now } ?? true)
      && pods[pod]?.leases[waiting.demand.lease] == nil
  }

  private mutating func wakeUp(after now: Duration) -> [SchedulerAction] {
    let instants = queue.flatMap { waiting in
      [waiting.demand.deadline] + waiting.pausedPods.values
        + (waiting.infeasibleSince.map { [$0 + infeasibleTimeout] } ?? [])
    }
    let next = instants.filter { $0 > now }.min()
    guard next != nextWake else { return [] }
    nextWake = next
    return next.map { [.wakeAt($0)] } ?? []
  }
}

extension PodView {
  fileprivate func isEligible(_ rule: PlacementRule) -> Bool {
    if case .host(let wanted) = rule { host == wanted } else { true }
  }
}

extension SchedulerStateMachine.Waiting {
  fileprivate mutating func noteFeasibility(in views: [PodView], at now: Duration) {
    let isFeasible = views.contains { PodPlacement.isFeasible($0, demand.resources, demand.rule) }
    infeasibleSince = isFeasible ? nil : infeasibleSince ?? now
  }

  /// The pod at which the demand is kept: the same one as long as it is there, else the one with most left.
  fileprivate mutating func reserve(in views: [PodView]) -> Int? {
    let feasible = views.indices.filter {
      PodPlacement.isFeasible(views[$0], demand.resources, demand.rule) && unfitPods[views[$0].pod] == nil
    }
    let index =
      feasible.first { views[$0].pod == reservedPod } ?? feasible.min { shortfall(views[$0]) < shortfall(views[$1]) }
    reservedPod = index.map { views[$0].pod }
    return index
  }

  /// How much of the demand the pod lacks now, in shares of its totals.
  private func shortfall(_ view: PodView) -> Double {
    demand.resources.amounts.map { name, amount in
      Double(max(0, (amount - view.free[name]).tenThousandths)) / Double(max(1, view.total[name].tenThousandths))
    }.reduce(0, +)
  }
}
