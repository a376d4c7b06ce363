package import MobulaCore

extension ClusterState {
  /// A driver asks for a lease: answered when a pod has granted it.
  ///
  /// - Parameter isNested: whether a worker asks.
  package mutating func requestLease(_ id: RequestID, _ request: LeaseRequest, isNested: Bool = false) {
    decide(id) { state throws(MobulaError) in
      guard state.jobs[request.job] != nil else {
        throw MobulaError(
          .notFound, "Job \(request.job) is not running at this head: start a job on this connection and ask again.")
      }
      state.questions[id] = .lease(request)
      state.apply(
        state.scheduler.request(
          LeaseDemand(
            id: id, lease: request.lease, job: request.job, resources: request.demand,
            rule: PlacementRule(request.strategy), deadline: state.now + state.settings.leaseTimeout,
            waits: request.waits == true, isNested: isNested), at: state.now))
    }
  }

  /// A driver gives a lease back.
  package mutating func returned(_ lease: LeaseReturn) {
    apply(scheduler.returned(lease.lease, workerIsReusable: lease.workerIsReusable, at: now))
  }

  /// Why a lease was not granted yet.
  package func explanation(of lease: LeaseID) -> LeaseExplanation {
    guard let waiting = scheduler.queue.first(where: { $0.demand.lease == lease }) else {
      return LeaseExplanation(reason: nil, isInfeasible: false)
    }
    return explanation(of: waiting.demand)
  }

  private func explanation(of demand: LeaseDemand) -> LeaseExplanation {
    let shortage = scheduler.shortage(demand.resources, demand.rule)
    if let shortage { return LeaseExplanation(reason: shortage.error(name: hostName).message, isInfeasible: true) }
    return LeaseExplanation(
      reason:
        "No pod has \(demand.resources) free now: it is leased to others; start more hosts, or end work that no longer needs it.",
      isInfeasible: false)
  }

  /// What requests wait for, by what they need and where, with the longest wait first.
  var demands: [ClusterStatus.Demand] {
    var first: [LeaseDemand] = []
    var counts: [SchedulerStateMachine.Shape: (count: Int, index: Int)] = [:]
    for waiting in scheduler.queue {
      let shape = SchedulerStateMachine.Shape(resources: waiting.demand.resources, rule: waiting.demand.rule)
      if let known = counts[shape] {
        counts[shape] = (known.count + 1, known.index)
      } else {
        counts[shape] = (1, first.count)
        first.append(waiting.demand)
      }
    }
    return first.prefix(100).map { demand in
      let shape = SchedulerStateMachine.Shape(resources: demand.resources, rule: demand.rule)
      return ClusterStatus.Demand(
        resources: demand.resources, requests: counts[shape]?.count ?? 1,
        seconds: Int(max(.zero, now - demand.since) / .seconds(1)), reason: explanation(of: demand).reason ?? "")
    }
  }

  /// The pod's answer to a question.
  package mutating func podAnswered(_ pod: PodID, _ lease: LeaseID, _ answer: PodAnswer) {
    switch answer {
    case .granted(let grant):
      grants[lease] = grant
      apply(scheduler.podGranted(pod, lease, at: now))
      grants[lease] = nil
    case .refused(let error): apply(scheduler.podRefused(pod, lease, error, at: now))
    case .unreachable: apply(scheduler.podUnreachable(pod, lease, at: now))
    }
  }

  /// The pod has given a lease up, as it was told.
  package mutating func podReleased(_ pod: PodID, _ lease: LeaseID) {
    apply(scheduler.released(pod, lease, at: now))
    actorEnded(lease, at: pod)
  }

  /// A pod says, on its own connection, that the worker of a lease has ended.
  package mutating func leaseLost(_ loss: LeaseLost, on connection: ConnectionID) throws(MobulaError) {
    apply(scheduler.workerEnded(try pod(on: connection), loss.lease, loss.reason, at: now))
  }

  /// A pod says, on its own connection, that the CPU of a lease is lent, or is not any more.
  package mutating func leaseLent(_ lent: LeaseLent, on connection: ConnectionID) throws(MobulaError) {
    apply(scheduler.lent(try pod(on: connection), lent.lease, lent.isLent, at: now))
  }

  private func pod(on connection: ConnectionID) throws(MobulaError) -> PodID {
    guard let pod = membership.pods.members.first(where: { $0.value.connection == connection })?.key else {
      throw MobulaError(.mismatch, "No pod is registered on this connection: register it again before other calls.")
    }
    return pod
  }

  mutating func apply(_ actions: [SchedulerAction]) {
    for action in actions {
      switch action {
      case .ask(let pod, _, let id):
        switch questions[id] {
        case .lease(let request)?, .actorLease(_, let request)?: act(.ask(pod, request, at: connection(of: pod)))
        default: continue
        }
      case .grant(let id, let lease, let pod):
        if case .actorLease(let actor, _)? = questions[id] {
          questions[id] = nil
          place(actor, pod)
          continue
        }
        guard case .lease(let request)? = questions[id], let grant = grants[lease] else { continue }
        jobs.granted(lease, to: request.job)
        answer(id, .lease(grant))
      case .refuse(let id, let refusal):
        if case .actorLease(let actor, _)? = questions[id] {
          questions[id] = nil
          leaseRefused(actor, refusal)
          continue
        }
        if questions[id] != nil { refuse(id, refusal.error(name: hostName)) }
      case .release(let pod, let lease, let workerIsReusable):
        act(.release(pod, LeaseReturn(lease: lease, workerIsReusable: workerIsReusable), at: connection(of: pod)))
      case .revoke(let lease, let job, let loss):
        if let actor = actors.leases[lease] {
          leaseLost(of: actor, loss)
          continue
        }
        // A driver that is away finds out when it comes back.
        guard let connection = connection(of: job) else { continue }
        act(.revoke(LeaseLost(lease: lease, reason: describe(loss)), at: connection))
      case .wakeAt(let instant): act(.wakeAt(instant))
      }
    }
  }

  func connection(of pod: PodID) -> ConnectionID? {
    membership.pods[pod]?.connection.flatMap { connections.contains($0) ? $0 : nil }
  }

  private func describe(_ loss: LeaseLoss) -> String {
    switch loss {
    case .podLost(let pod): "Pod \(podName(pod)) was lost, with the worker of this lease."
    case .workerEnded(let reason): reason
    }
  }
}
