internal import MobulaCore
internal import MobulaWire

extension HeadState {
  mutating func requestLease(_ id: RequestID, _ request: LeaseRequest, at now: Duration) throws(MobulaError) {
    guard jobs[request.job] != nil else {
      throw MobulaError(
        .notFound, "Job \(request.job) is not running at this head: start a job on this connection and ask again.")
    }
    leaseRequests[id] = request
    apply(
      scheduler.request(
        LeaseDemand(
          id: id, lease: request.lease, job: request.job, resources: request.demand,
          rule: PlacementRule(request.strategy), deadline: now + configuration.leaseTimeout), at: now))
  }

  /// The pod's answer to a question.
  mutating func podAnswered(_ pod: PodID, _ lease: LeaseID, _ answer: PodAnswer, at now: Duration) {
    switch answer {
    case .granted(let grant):
      grants[lease] = grant
      apply(scheduler.podGranted(pod, lease, at: now))
      grants[lease] = nil
    case .refused(let error): apply(scheduler.podRefused(pod, lease, error, at: now))
    case .unreachable: apply(scheduler.podUnreachable(pod, lease, at: now))
    }
  }

  /// A pod says, on its own connection, that the worker of a lease has ended.
  mutating func leaseLost(_ loss: LeaseLost, on connection: RPCConnection, at now: Duration) throws(MobulaError) {
    let id = ConnectionID(connection.id)
    guard let pod = membership.pods.members.first(where: { $0.value.connection == id })?.key else {
      throw MobulaError(.mismatch, "No pod is registered on this connection: register it again before other calls.")
    }
    apply(scheduler.workerEnded(pod, loss.lease, loss.reason, at: now))
  }

  mutating func apply(_ actions: [SchedulerAction]) {
    for action in actions {
      switch action {
      case .ask(let pod, _, let id):
        guard let request = leaseRequests[id] else { continue }
        act(.ask(pod, request, at: connection(of: pod)))
      case .grant(let id, let lease, _):
        if let job = leaseRequests.removeValue(forKey: id)?.job { jobs.granted(lease, to: job) }
        guard case .lease(let continuation)? = waiters.removeValue(forKey: id), let grant = grants[lease] else {
          continue
        }
        act(.resume { continuation.resume(returning: grant) })
      case .refuse(let id, let refusal):
        leaseRequests[id] = nil
        guard let waiter = waiters.removeValue(forKey: id) else { continue }
        let error = refusal.error(name: hostName)
        act(.resume { waiter.fail(error) })
      case .release(let pod, let lease, let workerIsReusable):
        act(.release(pod, LeaseReturn(lease: lease, workerIsReusable: workerIsReusable), at: connection(of: pod)))
      case .revoke(let lease, let job, let loss):
        // A driver that is away finds out when it comes back.
        guard let connection = jobs.connection(of: job).flatMap({ connections[$0] }) else { continue }
        act(.revoke(LeaseLost(lease: lease, reason: describe(loss)), at: connection))
      case .wakeAt(let instant): act(.wakeAt(instant))
      }
    }
  }

  private func connection(of pod: PodID) -> RPCConnection? {
    membership.pods[pod]?.connection.flatMap { connections[$0] }
  }

  private func describe(_ loss: LeaseLoss) -> String {
    switch loss {
    case .podLost(let pod): "Pod \(podName(pod)) was lost, with the worker of this lease."
    case .workerEnded(let reason): reason
    }
  }
}

/// What a pod answered when it was asked for a lease.
enum PodAnswer: Sendable {
  case granted(LeaseGrant)
  case refused(MobulaError)
  /// No answer: whether it has the lease is not known.
  case unreachable
}
