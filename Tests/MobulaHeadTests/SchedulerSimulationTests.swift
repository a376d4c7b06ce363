import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct SchedulerSimulationTests {
  /// Pods that grant whatever they are asked, so that their books show whether the head
  /// ever asks too much; answers, releases and losses come late and in any order.
  @Test(arguments: seeds) func podsAreNeverOvercommittedAndNobodyStarves(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var scheduler = SchedulerStateMachine(infeasibleTimeout: .seconds(1_000_000))
    let totals: [PodID: Resources] = [
      pod(1): ["CPU": 4, "a": 1], pod(2): ["CPU": 2, "b": 2], pod(3): ["CPU": 1, "a": 1, "b": 1],
    ]
    var books: [PodID: [LeaseID: Resources]] = [:]
    var there: Set<PodID> = []
    var demands: [LeaseID: LeaseDemand] = [:]
    var pendingAsks: [(PodID, LeaseID)] = []
    var pendingReleases: [(PodID, LeaseID)] = []
    var pendingConfirms: [PodID] = []
    var held: Set<LeaseID> = []
    var waiting: Set<RequestID> = []
    var now = Duration.zero
    var granted = 0

    func act(_ actions: [SchedulerAction]) throws {
      for action in actions {
        switch action {
        case .ask(let pod, let lease, _): pendingAsks.append((pod, lease))
        case .grant(let id, let lease, _):
          try #require(waiting.remove(id) != nil, "seed \(seed): \(id) was granted, but nobody waits")
          held.insert(lease)
          granted += 1
        case .refuse(let id, let refusal):
          Issue.record("seed \(seed): \(id) was refused: \(refusal)")
        case .release(let pod, let lease, _): pendingReleases.append((pod, lease))
        case .revoke(let lease, _, _): held.remove(lease)
        case .wakeAt: break
        }
      }
    }

    func deliverAsk() throws {
      let (pod, lease) = pendingAsks.remove(at: pendingAsks.indices.randomElement(using: &random)!)
      guard there.contains(pod) else { return }
      if now < .seconds(1_000), random.chance(20) {
        try act(scheduler.podRefused(pod, lease, MobulaError(.full, "no"), at: now))
        return
      }
      books[pod, default: [:]][lease] = demands[lease]!.resources
      let used = books[pod]!.values.reduce(Resources()) { $0 + $1 }
      try #require(totals[pod]!.covers(used), "seed \(seed): \(pod) has \(totals[pod]!), but leased \(used)")
      try act(scheduler.podGranted(pod, lease, at: now))
    }

    func deliverRelease() throws {
      let (pod, lease) = pendingReleases.remove(at: pendingReleases.indices.randomElement(using: &random)!)
      guard there.contains(pod) else { return }
      books[pod]?[lease] = nil
      try act(scheduler.released(pod, lease, at: now))
    }

    /// A pod registers with what is in its own books, whatever the head thinks of it.
    func register(_ pod: PodID, areCurrent: Bool = false) throws {
      there.insert(pod)
      let confirms = random.chance(50)
      let booked = (books[pod] ?? [:]).sorted { $0.key < $1.key }.map {
        BookedLease(lease: $0.key, job: JobID(1), resources: $0.value)
      }
      pendingConfirms.removeAll { $0 == pod }
      let (actions, end) = scheduler.podRegistered(
        pod, host: host(pod.low), total: totals[pod]!, leases: booked, areCurrent: areCurrent, confirms: confirms,
        at: now)
      for lease in end { books[pod]?[lease] = nil }
      if confirms { pendingConfirms.append(pod) }
      try act(actions)
    }

    for pod in totals.keys.sorted() { try register(pod) }
    let shapes: [Resources] = [
      ["CPU": 1], ["CPU": 4, "a": 1], ["a": 1], ["b": 1, "CPU": 0.5], ["CPU": 2, "b": 2], [:],
    ]
    var number: UInt64 = 0
    for _ in 0..<500 {
      now += .milliseconds(700)
      switch Int.random(in: 0..<100, using: &random) {
      case ..<30:
        number += 1
        let demand = LeaseDemand(
          id: RequestID(number), lease: lease(number), job: JobID(1),
          resources: shapes.randomElement(using: &random)!, rule: random.chance(50) ? .pack : .spread,
          deadline: .seconds(10_000_000))
        demands[demand.lease] = demand
        waiting.insert(demand.id)
        try act(scheduler.request(demand, at: now))
      case ..<55: if !pendingAsks.isEmpty { try deliverAsk() }
      case ..<70:
        if !pendingReleases.isEmpty { try deliverRelease() }
        if let pod = pendingConfirms.popLast() { try act(scheduler.podConfirmed(pod, at: now)) }
      case ..<85:
        if let lease = held.sorted().randomElement(using: &random) {
          held.remove(lease)
          try act(scheduler.returned(lease, at: now))
        }
      case ..<90:
        if let id = waiting.sorted().randomElement(using: &random) {
          waiting.remove(id)
          try act(scheduler.cancel(id, at: now))
        }
      case ..<95: try act(scheduler.tick(now))
      default:
        let pod = totals.keys.sorted().randomElement(using: &random)!
        if there.remove(pod) != nil {
          // It may be cut off, and its workers run on.
          if random.chance(50) { books[pod] = [:] }
          pendingConfirms.removeAll { $0 == pod }
          pendingAsks.removeAll { $0.0 == pod }
          pendingReleases.removeAll { $0.0 == pod }
          try act(scheduler.podLost(pod, at: now))
        } else {
          try register(pod)
        }
      }
    }
    // Calm: every pod is there, every lease comes back, and everybody gets one.
    now = .seconds(1_000)
    for pod in totals.keys.sorted() where !there.contains(pod) { try register(pod) }
    for pod in pendingConfirms { try act(scheduler.podConfirmed(pod, at: now)) }
    var rounds = 0
    while !waiting.isEmpty {
      rounds += 1
      try #require(rounds < 5_000, "seed \(seed): \(waiting.count) requests starve")
      now += .seconds(1)
      try act(scheduler.tick(now))
      if !pendingAsks.isEmpty { try deliverAsk() }
      if !pendingReleases.isEmpty { try deliverRelease() }
      if let lease = held.sorted().randomElement(using: &random), random.chance(50) {
        held.remove(lease)
        try act(scheduler.returned(lease, at: now))
      }
    }
    #expect(granted > 0, "seed \(seed)")
  }
}
