package import MobulaCore

extension ClusterState {
  /// A driver begins.
  ///
  /// - Parameters:
  ///   - secret: drawn for this job; only its driver is told.
  ///   - host: where the driver runs, if it says so.
  package mutating func startJob(
    _ id: RequestID, _ start: JobStart, secret: JobSecret, host: HostID?, on connection: ConnectionID
  ) {
    decide(id) { state throws(MobulaError) in
      let job = try state.jobs.number()
      let records = state.reserve(.jobs, UInt64(job.number)) + [.job(JobRecord(job: job, secret: secret))]
      state.propose(
        records,
        .jobStart(
          id, JobReply(job: job, secret: secret), secret, resumes: start.resumes ?? false, host: host, on: connection))
    }
  }

  /// A driver goes on with its job, on another connection, perhaps at another head.
  package mutating func resumeJob(
    _ id: RequestID, _ request: JobResumption, host: HostID?, on connection: ConnectionID
  ) {
    // One that is known only from what hosts and pods have of it, or from its driver, is written down from now on: the
    // next head learns of no job that was not.
    let isNews = jobs[request.job].map { $0.secret == nil } ?? learnsJob(request.job)
    propose(
      isNews ? [.job(JobRecord(job: request.job, secret: request.secret))] : [],
      .jobResumption(id, request, isNews: isNews, host: host, on: connection))
  }

  private func learnsJob(_ job: JobID) -> Bool {
    mayLearn && (settlesAt != nil || now < settings.hostTimeout) && !isOver(job)
  }

  /// Whether a job has ended at this head, be it that this is still being written down.
  func isOver(_ job: JobID) -> Bool { ending.contains(job) || directory.endedJobs.contains(job) }

  mutating func resume(
    _ id: RequestID, _ request: JobResumption, isNews: Bool, host: HostID?, on connection: ConnectionID
  ) throws(MobulaError) {
    do {
      try jobs.resumed(
        request.job, secret: request.secret, host: host, claims: Set(request.leases),
        due: now + settings.hostTimeout, learns: isNews && !isOver(request.job), on: connection)
    } catch {
      // What was written down is not so after all.
      if isNews { saveLater([.job(request.job)]) }
      throw error
    }
    watch(connection)
    act(.log(.info, "the driver of job \(request.job) is back"))
    answer(id, .done)
    act(.wakeAt(now + settings.hostTimeout))
    // Pods that have not registered yet may have what it claims.
    if settlesAt == nil { revokeClaims(of: request.job) }
  }

  /// Workers of a job have these leases, too.
  package mutating func claimed(_ claims: LeaseClaims) { jobs.claimed(Set(claims.leases), of: claims.job) }

  /// What the driver has and no pod is lost.
  mutating func revokeClaims(of job: JobID) {
    guard let claims = jobs.claims(of: job), let connection = connection(of: job) else { return }
    let lost = claims.subtracting(scheduler.leases(of: job)).sorted()
    jobs.revoked(lost, of: job)
    for lease in lost {
      act(
        .revoke(LeaseLost(lease: lease, reason: "The lease's pod was lost while the driver was away."), at: connection))
    }
  }

  /// What pods have brought and nobody of the job claims is nobody's: its driver has given it back to a head before this
  /// one, or never heard that it was granted. Workers of the job say in their own time what they have, which this waits
  /// for.
  mutating func decideClaims() {
    for (job, claims) in jobs.takeClaims(dueAt: now) {
      for lease in scheduler.brought(of: job) where !claims.contains(lease) && !actors.lives(by: lease) {
        apply(scheduler.returned(lease, workerIsReusable: false, at: now))
      }
    }
  }

  /// A pod that comes after the claims were decided brings leases that its driver was told are lost, or gave back.
  mutating func decideClaims(on leases: [LeaseRecord]) {
    for lease in leases where jobs[lease.job]?.hasDecidedClaims == true {
      if jobs.isClaimedByWorkers(lease.lease, of: lease.job) || actors.lives(by: lease.lease) { continue }
      apply(scheduler.returned(lease.lease, workerIsReusable: false, at: now))
    }
  }

  /// Whether a job is over for certain. One that is not known may be heard of yet, from a member, at a head that knows
  /// less than the one before it did.
  package func hasEnded(_ job: JobID) -> Bool {
    guard jobs[job] == nil else { return false }
    return isOver(job) || !mayLearn || settlesAt == nil && now >= settings.hostTimeout
  }

  /// Whether the job's driver is at the other end of a connection.
  package func drives(_ job: JobID, _ connection: ConnectionID) -> Bool { jobs.connection(of: job) == connection }

  package mutating func endJob(_ request: JobEnd) throws(MobulaError) {
    if try jobs.ended(request.job, secret: request.secret) { end([request.job], "as its driver says") }
  }

  /// A host has seen that the process which drives a job has ended.
  package mutating func driverEnded(_ notice: DriverEnded, on connection: ConnectionID) throws(MobulaError) {
    try check(notice.host, on: connection)
    if jobs.driverEnded(notice.job, on: notice.host) { end([notice.job], "with its driver's process") }
  }

  /// Jobs are over: written down first, then their work ends and their objects go.
  mutating func end(_ ended: [JobID], _ reason: String) {
    guard !ended.isEmpty else { return }
    for job in ended { act(.log(.info, "job \(job) has ended, \(reason)")) }
    let records =
      ended.map { JournalRecord.jobForgotten($0) }
      + ended.flatMap { actors.ofJob($0) }.map { JournalRecord.actorForgotten($0) }
    ending.formUnion(ended)
    propose(records, .jobEnd(ended))
  }

  /// Where a job's driver is called; `nil` while it is away.
  package func connection(of job: JobID) -> ConnectionID? {
    jobs.connection(of: job).flatMap { connections.contains($0) ? $0 : nil }
  }
}
