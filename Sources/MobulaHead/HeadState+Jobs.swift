internal import Logging
internal import MobulaCore
internal import MobulaWire

extension HeadState {
  /// - Throws: `MobulaError` (`full`) when the cluster has used up all numbers.
  mutating func startJob(
    _ start: JobStart, on connection: RPCConnection, _ answer: @escaping Answer<JobReply>
  ) throws(MobulaError) {
    let job = try jobs.number()
    let secret = JobSecret.random()
    let records = reserve(.jobs, UInt64(job.number)) + [.job(JobRecord(job: job, secret: secret))]
    propose(records) { state, failure in
      if let failure {
        state.unreserve(.jobs)
        return answer(&state, .failure(failure))
      }
      state.jobs.started(
        job, secret: secret, resumes: start.resumes ?? false, host: connection.peer.host,
        on: ConnectionID(connection.id))
      state.watch(connection)
      answer(&state, .success(JobReply(job: job, secret: secret)))
    }
  }

  /// A driver goes on with its job, on another connection, perhaps at another head.
  mutating func resumeJob(
    _ request: JobResumption, on connection: RPCConnection, at now: Duration
  ) throws(MobulaError) {
    try jobs.resumed(
      request.job, secret: request.secret, host: connection.peer.host, claims: Set(request.leases),
      on: ConnectionID(connection.id))
    watch(connection)
    act(.log(.info, "the driver of job \(request.job) is back"))
    // Pods that have not registered yet may have what it claims.
    if settlesAt == nil { settleClaims(of: request.job, releasing: false, at: now) }
  }

  /// What the driver has and no pod is lost; what a pod has and nobody of the job is nobody's.
  ///
  /// - Parameter releasing: whether the latter is given back: workers claim theirs at a restarted head alone, so that
  ///   one that goes on can't tell.
  mutating func settleClaims(of job: JobID, releasing: Bool = true, at now: Duration) {
    guard let claims = jobs.takeClaims(of: job) else { return }
    let booked = Set(scheduler.leases(of: job))
    for lease in claims.subtracting(booked).sorted() {
      guard let connection = jobs.connection(of: job).flatMap({ connections[$0] }) else { continue }
      act(
        .revoke(LeaseLost(lease: lease, reason: "The lease's pod was lost while the driver was away."), at: connection))
    }
    for lease in booked.subtracting(claims).sorted() where releasing {
      apply(scheduler.returned(lease, workerIsReusable: false, at: now))
    }
  }

  mutating func endJob(_ request: JobEnd) throws(MobulaError) {
    if try jobs.ended(request.job, secret: request.secret) { end([request.job], "as its driver says") }
  }

  mutating func driverEnded(_ notice: DriverEnded, on connection: RPCConnection) throws(MobulaError) {
    try check(notice.host, on: connection)
    if jobs.driverEnded(notice.job, on: notice.host) { end([notice.job], "with its driver's process") }
  }

  /// Jobs are over: written down first, then their work ends and their objects go.
  mutating func end(_ ended: [JobID], _ reason: String) {
    guard !ended.isEmpty else { return }
    for job in ended { act(.log(.info, "job \(job) has ended, \(reason)")) }
    let records = ended.map { JournalRecord.jobForgotten($0) }
    propose(records) { state, failure in
      if failure != nil { state.save(later: records) }
      for job in ended {
        state.apply(state.directory.jobEnded(job))
        state.apply(state.scheduler.jobEnded(job, at: state.now))
      }
    }
  }
}
