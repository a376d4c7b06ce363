import Logging
import MobulaCore
import MobulaWire

extension Cluster {
  /// Has some worker run a task, and returns at once; the reference's `value` waits for it.
  ///
  /// Tasks wait here for workers that have what they need, in the order in which they were submitted. One whose worker is
  /// lost runs again, up to `ClusterOptions.taskRetries` times; one that throws does not. A result of up to 100 KB comes to
  /// this process itself, and becomes an object of the cluster's when its reference is passed on.
  /// - Throws: `MobulaError`: `invalidArgument` for a task that no worker could find, or in a process that started no job,
  ///   `unavailable` once the cluster was closed; what the task throws when it is encoded.
  @discardableResult
  public func submit<Work: RemoteTask>(
    _ task: Work, _ request: ResourceRequest = .resources()
  ) throws -> ObjectRef<Work.Output> {
    guard let tasks else {
      throw MobulaError(.invalidArgument, "This process started no job: connect with Cluster.connect() to run work.")
    }
    guard let type = _mangledTypeName(Work.self) else {
      throw MobulaError(
        .invalidArgument, "\(Work.self) has no name that a worker could find: declare it outside of functions.")
    }
    let arguments = try ArgumentCoding.encode(task)
    let object = ObjectID.random(job: job)
    let reference = references.reference(to: object) { number in
      AnyReference(
        object, cluster: self, number: number, isShared: false,
        task: TaskRecord(object, number: number, type: type, arguments: arguments))
    }
    try tasks.submit(reference.task!, .init(demand: request.demand, strategy: request.strategy))
    return ObjectRef(reference)
  }

  /// Makes an object of a task's small result, which others were told of.
  func make(_ object: ObjectID, _ bytes: InlineObject) async {
    do {
      // It would go at once if nobody held it.
      try await store.holds.flush()
      try await store.make(object, size: bytes.bytes.count, holds: false, contains: []) { $0.append(bytes.bytes) }
    } catch let error as MobulaError where error.code == .alreadyExists {
    } catch {
      log.error(
        "a result could not be made an object, for which others wait",
        metadata: ["object": "\(object)", "error": "\(error)"])
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
    await head.giveBack(LeaseReturn(lease: lease, workerIsReusable: workerIsReusable))
  }
}
