import MobulaCore
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct SchedulerTests {
  let p = pod(1), q = pod(2)
  let job = JobID(1)

  private func demand(
    _ number: UInt64, _ resources: Resources, _ rule: PlacementRule = .pack, deadline: Duration = .seconds(100),
    job: JobID = JobID(1)
  ) -> LeaseDemand {
    LeaseDemand(
      id: RequestID(number), lease: lease(number), job: job, resources: resources, rule: rule, deadline: deadline)
  }

  /// Pod p on host 1 with two b, pod q on host 2 with one b and one c.
  private func scheduler() -> SchedulerStateMachine {
    var scheduler = SchedulerStateMachine()
    #expect(scheduler.podRegistered(p, host: host(1), total: ["b": 2], leases: [], at: .zero).actions == [])
    #expect(scheduler.podRegistered(q, host: host(2), total: ["b": 1, "c": 1], leases: [], at: .zero).actions == [])
    return scheduler
  }

  @Test func aLeaseGoesFromRequestToReturn() {
    var scheduler = scheduler()
    #expect(scheduler.request(demand(1, ["c": 1]), at: .zero) == [.ask(q, lease(1), 1)])
    #expect(scheduler.podGranted(q, lease(1), at: .zero) == [.grant(1, lease(1), q)])
    #expect(scheduler.request(demand(2, ["c": 1]), at: .zero) == [.wakeAt(.seconds(100))])
    #expect(scheduler.returned(lease(1), at: .zero) == [.release(q, lease(1), workerIsReusable: true)])
    #expect(scheduler.released(q, lease(1), at: .zero) == [.ask(q, lease(2), 2)])
    #expect(scheduler.returned(lease(1), at: .zero) == [])
  }

  @Test func whatIsLentIsGivenToOthers() {
    var scheduler = SchedulerStateMachine()
    let booked = BookedLease(lease: lease(1), job: job, resources: ["CPU": 1, "b": 1], isLent: true)
    #expect(
      scheduler.podRegistered(p, host: host(1), total: ["CPU": 1, "b": 2], leases: [booked], at: .zero).actions == [])
    // The pod had lent it already; what else it has it keeps.
    #expect(scheduler.request(demand(2, ["CPU": 1, "b": 1]), at: .zero) == [.ask(p, lease(2), 2)])
    #expect(scheduler.podGranted(p, lease(2), at: .zero) == [.grant(2, lease(2), p)])
    #expect(scheduler.request(demand(3, ["CPU": 1]), at: .zero) == [.wakeAt(.seconds(100))])
    // One goes on, and then the other waits: nobody else has room before.
    #expect(scheduler.lent(p, lease(1), false, at: .zero) == [])
    #expect(scheduler.lent(p, lease(2), true, at: .zero) == [])
    #expect(scheduler.lent(p, lease(1), true, at: .zero) == [.ask(p, lease(3), 3)])
    #expect(scheduler.lent(p, lease(9), true, at: .zero) == [])
  }

  @Test func whatIsMissingIsSaid() {
    var scheduler = scheduler()
    var waiting = demand(1, ["d": 2], deadline: .seconds(1))
    waiting.waits = true
    _ = scheduler.request(waiting, at: .zero)
    #expect(scheduler.shortage(["d": 2], .pack) == .infeasible(["d": 2], .pack, pods: [["b": 2], ["b": 1, "c": 1]]))
    #expect(scheduler.shortage(["b": 2], .pack) == nil)
    #expect(scheduler.shortage(["b": 2], .host(host(2))) != nil)
    // It goes on waiting for somebody who has it; only its time ends it.
    #expect(scheduler.tick(.milliseconds(900)) == [.wakeAt(.seconds(1))])
    #expect(scheduler.tick(.seconds(1)) == [.refuse(1, .busy(["d": 2], said: nil))])
  }

  /// A driver whose connection broke gives back what it does not know to be granted, on another connection, while the
  /// head still has its request.
  @Test func whatIsGivenBackBeforeItIsGrantedIsNobodys() {
    var scheduler = scheduler()
    #expect(scheduler.request(demand(1, ["c": 1]), at: .zero) == [.ask(q, lease(1), 1)])
    #expect(scheduler.request(demand(2, ["c": 1]), at: .zero) == [.wakeAt(.seconds(100))])
    #expect(scheduler.returned(lease(2), at: .zero) == [.refuse(2, .givenBack(lease(2)))])
    #expect(scheduler.returned(lease(1), at: .zero) == [.refuse(1, .givenBack(lease(1)))])
    #expect(scheduler.podGranted(q, lease(1), at: .zero) == [.release(q, lease(1), workerIsReusable: true)])
    #expect(scheduler.released(q, lease(1), at: .zero) == [])
    // Nor does the request make it somebody's when it comes later yet.
    #expect(scheduler.returned(lease(3), at: .zero) == [])
    #expect(scheduler.request(demand(3, ["c": 1]), at: .zero) == [.refuse(3, .givenBack(lease(3)))])
  }

  /// At a head that was started again, a driver may be there before the pod that has what it gives back.
  @Test func whatIsGivenBackBeforeItsPodIsThereIsEnded() {
    var scheduler = SchedulerStateMachine()
    #expect(scheduler.returned(lease(1), workerIsReusable: false, at: .zero) == [])
    let booked = [1, 2].map { BookedLease(lease: lease($0), job: job, resources: ["b": 1]) }
    let (_, end) = scheduler.podRegistered(
      p, host: host(1), total: ["b": 2], leases: booked, confirms: true, at: .zero)
    #expect(end == [lease(1)])
    #expect(scheduler.leases(of: job) == [lease(2)] && scheduler.brought(of: job) == [lease(2)])
  }

  @Test func aPodThatRefusesIsPassedOver() {
    var scheduler = scheduler()
    let full = MobulaError(.full, "no room")
    #expect(scheduler.request(demand(1, ["b": 1], .host(host(1))), at: .zero) == [.ask(p, lease(1), 1)])
    #expect(scheduler.request(demand(2, ["b": 1]), at: .zero) == [.ask(p, lease(2), 2)])
    #expect(scheduler.podRefused(p, lease(2), full, at: .zero) == [.ask(q, lease(2), 2)])
    #expect(scheduler.podRefused(q, lease(2), full, at: .zero) == [.wakeAt(.seconds(1))])
    #expect(scheduler.tick(.seconds(1)) == [.ask(p, lease(2), 2)])
    // A pod that can't serve it at all is not asked again.
    let build = MobulaError(.mismatch, "another build")
    #expect(scheduler.podRefused(p, lease(2), build, at: .seconds(1)) == [.ask(q, lease(2), 2)])
    #expect(scheduler.podRefused(q, lease(2), build, at: .seconds(1)) == [.refuse(2, .impossible(build))])
  }

  @Test func whatNoPodHasIsSaidInASentence() throws {
    var scheduler = scheduler()
    #expect(
      scheduler.request(demand(1, ["worker_pod_z": 1], deadline: .seconds(5)), at: .zero) == [.wakeAt(.seconds(5))])
    let actions = scheduler.tick(.seconds(5))
    guard case .refuse(1, let refusal) = actions.first else {
      Issue.record("\(actions)")
      return
    }
    let error = refusal.error { $0.short }
    #expect(error.code == .unavailable)
    #expect(
      error.message
        == "No pod has worker_pod_z=1: the pods there have b=1,c=1; b=2; start a host with `--resources worker_pod_z=1`."
    )
    // A pod that joins in time has it.
    #expect(scheduler.request(demand(2, ["z": 1]), at: .seconds(6)) == [.wakeAt(.seconds(26))])
    #expect(
      scheduler.podRegistered(pod(3), host: host(3), total: ["z": 1], leases: [], at: .seconds(8)).actions == [
        .ask(pod(3), lease(2), 2)
      ])
    // Each resource is there, but not together.
    _ = scheduler.request(demand(3, ["z": 1, "b": 1], deadline: .seconds(9)), at: .seconds(8))
    let late = scheduler.tick(.seconds(9))
    #expect(late == [.refuse(3, .infeasible(["z": 1, "b": 1], .pack, pods: [["b": 2], ["b": 1, "c": 1], ["z": 1]]))])
  }

  @Test func laterRequestsPassOnlyWithWhatEarlierOnesDoNotNeed() {
    var scheduler = SchedulerStateMachine()
    _ = scheduler.podRegistered(p, host: host(1), total: ["CPU": 4, "b": 1], leases: [], at: .zero)
    #expect(scheduler.request(demand(1, ["b": 1]), at: .zero) == [.ask(p, lease(1), 1)])
    _ = scheduler.podGranted(p, lease(1), at: .zero)
    #expect(scheduler.request(demand(2, ["CPU": 3, "b": 1]), at: .zero) == [.wakeAt(.seconds(100))])
    #expect(scheduler.request(demand(3, ["CPU": 1]), at: .zero) == [.ask(p, lease(3), 3)])
    // Three CPUs are idle, but kept for the second request.
    #expect(scheduler.request(demand(4, ["CPU": 1]), at: .zero) == [])
    _ = scheduler.returned(lease(1), at: .zero)
    #expect(scheduler.released(p, lease(1), at: .zero) == [.ask(p, lease(2), 2)])
  }

  @Test func aPodThatWasLostEndsWhatWasRevoked() {
    var scheduler = scheduler()
    _ = scheduler.request(demand(1, ["b": 2]), at: .zero)
    _ = scheduler.podGranted(p, lease(1), at: .zero)
    #expect(scheduler.podLost(p, at: .zero).contains(.revoke(lease(1), JobID(1), .podLost(p))))
    let booked = BookedLease(lease: lease(1), job: JobID(1), resources: ["b": 2])
    let (actions, end) = scheduler.podRegistered(
      p, host: host(1), total: ["b": 2], leases: [booked], areCurrent: false, confirms: true, at: .zero)
    #expect(actions == [] && end == [lease(1)])
    // Nothing is asked of it before it has.
    #expect(!scheduler.request(demand(2, ["b": 2]), at: .zero).contains(.ask(p, lease(2), 2)))
    #expect(scheduler.podConfirmed(p, at: .zero).contains(.ask(p, lease(2), 2)))
    // One that knows no second step is told to release it.
    _ = scheduler.podLost(p, at: .zero)
    let (orders, none) = scheduler.podRegistered(
      p, host: host(1), total: ["b": 2], leases: [booked], areCurrent: false, at: .zero)
    #expect(orders.contains(.release(p, lease(1), workerIsReusable: false)) && none == [])
  }

  /// A driver is back at the head before the pod, and gives back what it no longer needs. The worker may be waiting for
  /// what it has submitted itself, and stays where the driver says that others may have it.
  @Test(arguments: [true, false]) func whatWasGivenBackBeforeItsPodIsBackKeepsItsWorker(isReusable: Bool) {
    var scheduler = SchedulerStateMachine()
    #expect(scheduler.returned(lease(1), workerIsReusable: isReusable, at: .zero) == [])
    let booked = BookedLease(lease: lease(1), job: JobID(1), resources: ["b": 2])
    func register() -> (actions: [SchedulerAction], end: [LeaseID]) {
      scheduler.podRegistered(p, host: host(1), total: ["b": 2], leases: [booked], confirms: true, at: .zero)
    }
    let (orders, end) = register()
    #expect(orders == (isReusable ? [.release(p, lease(1), workerIsReusable: true)] : []))
    #expect(end == (isReusable ? [] : [lease(1)]))
    #expect(!scheduler.hasPlace(lease(1)))
    // The order was lost with the connection.
    let (again, endAgain) = register()
    #expect(again == orders && endAgain == end)
    _ = scheduler.podConfirmed(p, at: .zero)
    if isReusable {
      // Its resources are free once the pod has let go of it.
      #expect(!scheduler.request(demand(2, ["b": 2]), at: .zero).contains(.ask(p, lease(2), 2)))
      #expect(scheduler.released(p, lease(1), at: .zero).contains(.ask(p, lease(2), 2)))
    } else {
      #expect(scheduler.request(demand(2, ["b": 2]), at: .zero).contains(.ask(p, lease(2), 2)))
    }
  }

  @Test func aLostPodsLeasesAreRevoked() {
    var scheduler = scheduler()
    _ = scheduler.request(demand(1, ["c": 1]), at: .zero)
    _ = scheduler.podGranted(q, lease(1), at: .zero)
    #expect(scheduler.request(demand(2, ["b": 1], .spread), at: .zero) == [.ask(p, lease(2), 2)])
    #expect(scheduler.podLost(q, at: .zero) == [.revoke(lease(1), job, .podLost(q))])
    // A pod that is lost before it answers: the request goes elsewhere, its late answer is nobody's.
    #expect(scheduler.podRegistered(q, host: host(2), total: ["b": 1], leases: [], at: .zero).actions == [])
    #expect(scheduler.podLost(p, at: .zero) == [.ask(q, lease(2), 2)])
    #expect(scheduler.podGranted(p, lease(2), at: .zero) == [.release(p, lease(2), workerIsReusable: true)])
    #expect(scheduler.podGranted(q, lease(2), at: .zero) == [.grant(2, lease(2), q)])
    #expect(
      scheduler.workerEnded(q, lease(2), "signal 9", at: .zero) == [.revoke(lease(2), job, .workerEnded("signal 9"))])
  }

  @Test func aCancelledRequestLeavesNoLease() {
    var scheduler = scheduler()
    _ = scheduler.request(demand(1, ["c": 1]), at: .zero)
    #expect(scheduler.cancel(1, at: .zero) == [])
    #expect(scheduler.request(demand(2, ["c": 1]), at: .zero) == [.wakeAt(.seconds(100))])
    #expect(scheduler.podGranted(q, lease(1), at: .zero) == [.release(q, lease(1), workerIsReusable: true)])
    #expect(scheduler.released(q, lease(1), at: .zero) == [.ask(q, lease(2), 2)])
  }

  @Test func anEndedJobGivesAllBack() {
    var scheduler = scheduler()
    _ = scheduler.request(demand(1, ["c": 1]), at: .zero)
    _ = scheduler.podGranted(q, lease(1), at: .zero)
    _ = scheduler.request(demand(2, ["c": 1]), at: .zero)
    #expect(
      scheduler.jobEnded(job, at: .zero) == [
        .refuse(2, .jobEnded(job)), .release(q, lease(1), workerIsReusable: false),
      ])
    #expect(scheduler.request(demand(3, ["c": 1]), at: .zero) == [.refuse(3, .jobEnded(job))])
  }

  @Test func aPodsBooksComeBackWithIt() {
    var scheduler = scheduler()
    let kept = BookedLease(lease: lease(9), job: job, resources: ["c": 1])
    #expect(
      scheduler.podRegistered(q, host: host(2), total: ["b": 1, "c": 1], leases: [kept], at: .zero).actions == [])
    #expect(scheduler.request(demand(1, ["c": 1]), at: .zero) == [.wakeAt(.seconds(100))])
    #expect(
      scheduler.podRegistered(q, host: host(2), total: ["b": 1, "c": 1], leases: [], at: .zero).actions == [
        .revoke(lease(9), job, .workerEnded("The pod no longer has the lease in its books.")), .ask(q, lease(1), 1),
      ])
    // Whether it took the lease is not known: it must give it up before another gets the room.
    #expect(
      scheduler.podUnreachable(q, lease(1), at: .zero) == [
        .release(q, lease(1), workerIsReusable: false), .wakeAt(.seconds(1)),
      ])
    #expect(scheduler.tick(.seconds(2)) == [.wakeAt(.seconds(100))])
    #expect(scheduler.released(q, lease(1), at: .seconds(2)) == [.ask(q, lease(1), 1)])
  }

  @Test func absurdDemandsAreRefused() {
    var scheduler = scheduler()
    for amount in [-1, Int.max] {
      let actions = scheduler.request(demand(1, ["b": ResourceAmount(tenThousandths: amount)]), at: .zero)
      guard case .refuse(1, .impossible(let error)) = actions.first else {
        Issue.record("\(actions)")
        return
      }
      #expect(error.code == .invalidArgument)
    }
  }
}

@Suite struct PodPlacementTests {
  private func view(_ number: UInt64, _ host: HostID, free: Resources, leases: Int) -> PodView {
    PodView(pod: pod(number), host: host, total: ["CPU": 4], free: free, leases: leases)
  }

  @Test func rules() {
    let pods = [
      view(1, host(1), free: ["CPU": 4], leases: 0), view(2, host(1), free: ["CPU": 1], leases: 3),
      view(3, host(2), free: ["CPU": 3], leases: 1),
    ]
    #expect(PodPlacement.choose(pods, ["CPU": 1], .pack) == pod(2))
    #expect(PodPlacement.choose(pods, ["CPU": 2], .pack) == pod(3))
    #expect(PodPlacement.choose(pods, ["CPU": 1], .spread) == pod(3))
    #expect(PodPlacement.choose(pods, ["CPU": 1], .host(host(1))) == pod(1))
    #expect(PodPlacement.choose(pods, ["CPU": 4], .host(host(2))) == nil)
    #expect(PodPlacement.choose(pods, ["GPU": 1], .pack) == nil)
    #expect(PodPlacement.choose([], [:], .pack) == nil)
  }
}
