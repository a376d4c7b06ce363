import Logging
import MobulaCore
import MobulaWire

extension Cluster {
  /// Starts a task on some worker and returns at once; the reference's `value` waits for it.
  ///
  /// A task whose worker is lost runs again, up to `ClusterOptions.taskRetries` times; one that throws does not.
  public func submit<Work: RemoteTask>(
    _ task: Work, _ request: ResourceRequest = .resources()
  ) async throws -> ObjectRef<Work.Output> {
    guard let type = _mangledTypeName(Work.self) else {
      throw MobulaError(
        .invalidArgument, "\(Work.self) has no name that a worker could find: declare it outside of functions.")
    }
    let arguments = try ArgumentCoding.encode(task)
    let result = reference(to: ObjectID.random(job: job))
    // The result must be held before it can be made, or it would go at once.
    try await store.holds.flush()
    let call = TaskCall(type: type, arguments: arguments.bytes, result: result.object)
    Task {
      await self.run(call, request)
      // Arguments are held until the worker has registered them, the result at least until it is there.
      withExtendedLifetime((arguments.references, result)) {}
    }
    return ObjectRef(result)
  }

  private func run(_ call: TaskCall, _ request: ResourceRequest) async {
    var failure = MobulaError(.unavailable, "The task \(readableName(ofType: call.type)) was not started.")
    for attempt in 0...options.taskRetries {
      do {
        try await runOnce(call, request)
        return
      } catch let error as MobulaError {
        failure = error
        // Only a lost worker is worth another try: nobody else would run the task better.
        guard error.code == .connectionClosed, attempt < options.taskRetries else { break }
        log.warning(
          "a worker was lost; the task runs again",
          metadata: ["task": "\(readableName(ofType: call.type))", "error": "\(error)"])
      } catch {
        failure = MobulaError(.workFailed, "\(error)")
        break
      }
      try? await Task.sleep(for: .milliseconds(100 << attempt))
    }
    do {
      try await make(call.result, EncodedValue(failure, isError: true), holds: false)
    } catch {
      log.error(
        "a task failed, and so did telling it",
        metadata: ["task": "\(readableName(ofType: call.type))", "error": "\(failure)"])
    }
  }

  private func runOnce(_ call: TaskCall, _ request: ResourceRequest) async throws {
    // A task may queue for as long as those before it take.
    let grant = try await lease(request, within: options.workDeadline)
    do {
      let worker = try await workers.leasedConnection(to: grant)
      _ = try await worker.call(WorkerAPI.run, call, deadline: options.workDeadline)
      await giveBack(grant.lease, workerIsReusable: true)
    } catch {
      let error = await explained(error, grant.lease)
      await giveBack(grant.lease, workerIsReusable: false)
      throw error
    }
  }

  /// An error of a call to a worker; of one that has ended with what its pod says of that, and its last words.
  func explained(_ error: any Error, _ lease: LeaseID?) async -> any Error {
    guard let closed = error as? MobulaError, closed.code == .connectionClosed, let lease,
      let reason = await workers.loss(of: lease)
    else { return error }
    return MobulaError(.connectionClosed, reason)
  }

  /// The right to run work of this shape on one worker.
  func lease(_ request: ResourceRequest, within limit: Duration) async throws -> LeaseGrant {
    guard let program else {
      throw MobulaError(.invalidArgument, "This process started no job: connect with Cluster.connect() to run work.")
    }
    let end = ContinuousClock.now + limit
    while true {
      // A new identifier each time: a head that went away may have had the one before granted.
      let lease = LeaseRequest(
        lease: .random(), job: job, demand: request.demand, strategy: request.strategy, program: program)
      workers.requested(lease.lease)
      do {
        let grant = try await head.callOnce(
          HeadAPI.requestLease, lease, deadline: max(ContinuousClock.now.duration(to: end), .milliseconds(1)))
        workers.leased(grant.lease, at: grant.endpoint)
        return grant
      } catch {
        // What was granted after all is given back.
        await giveBack(lease.lease, workerIsReusable: true)
        switch (error as? MobulaError)?.code {
        case .connectionClosed? where ContinuousClock.now < end: continue
        case .connectionClosed?, .deadlineExceeded?:
          throw MobulaError(
            .unavailable,
            "No pod had \(request.demand) free within \(limit): `mobula status` shows what the pods have, and who has it now."
          )
        default: throw error
        }
      }
    }
  }

  func giveBack(_ lease: LeaseID, workerIsReusable: Bool) async {
    workers.returned(lease)
    let notice = LeaseReturn(lease: lease, workerIsReusable: workerIsReusable)
    await cleanUp { [head] in
      if (try? await head.call(HeadAPI.returnLease, notice, deadline: .seconds(5))) != nil { return }
      // The head is away: nobody waits for it here, and it hears of it when it is back.
      Task { _ = try? await head.call(HeadAPI.returnLease, notice, deadline: .seconds(600)) }
    }
  }
}
