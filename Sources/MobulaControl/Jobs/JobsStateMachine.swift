import MobulaCore

/// Which jobs run, and whether their drivers are there.
///
/// A driver that knows its job's secret may be without a connection for `timeout`, at whichever head it comes back; the
/// job of one that does not ends with its connection. Instants are durations since the head's start.
struct JobsStateMachine: Sendable {
  enum Presence: Hashable, Sendable {
    /// Can transition to: away, or out of the table.
    case connected(ConnectionID)
    /// The job ends at the instant. Can transition to: connected, or out of the table.
    case away(until: Duration)
    /// It has no driver, and ends with its actor. Can transition to: out of the table.
    case byItself
  }

  struct Job: Hashable, Sendable {
    /// `nil` for a job that is known from what hosts and pods have of it: who resumes it first has it.
    var secret: JobSecret?
    var presence: Presence
    /// Whether the driver comes back after it lost its connection.
    var resumes: Bool
    /// Where the driver runs, if it said so.
    var host: HostID?
    /// The leases that the driver had when it resumed the job, and got since, until `claimsDue`: so long pods may still
    /// bring theirs, and workers of the job say which they have.
    var claims: Set<LeaseID>?
    var claimsDue = Duration.zero
    /// Whether that time is over: whoever brings another lease then brings what nobody has.
    var hasDecidedClaims = false
    /// The leases that workers of the job say that they have.
    var workersClaims: Set<LeaseID> = []

    var isByItself: Bool { presence == .byItself }
  }

  private(set) var jobs: [JobID: Job] = [:]
  /// The highest number that was given out or heard of.
  private(set) var last = JobID.commandLine
  let timeout: Duration

  /// - Parameter timeout: how long a driver may be away; 60 s unless told otherwise.
  init(timeout: Duration = .seconds(60)) { self.timeout = timeout }

  subscript(job: JobID) -> Job? { jobs[job] }

  var running: [JobID] { jobs.keys.sorted() }

  func connection(of job: JobID) -> ConnectionID? {
    if case .connected(let connection)? = jobs[job]?.presence { connection } else { nil }
  }

  /// Numbers up to this one may have been given out.
  mutating func heard(of number: JobID) {
    // A number that no head has reached is nothing to count on from.
    if number <= .highestBelieved { last = max(last, number) }
  }

  /// What a head before this one wrote down.
  mutating func load(_ records: some Sequence<JobRecord>, at now: Duration) {
    for record in records where record.state == .running {
      jobs[record.job] = Job(secret: record.secret, presence: .away(until: now + timeout), resumes: true)
    }
  }

  /// The number of a new job.
  ///
  /// - Throws: `MobulaError` (`full`) when the cluster has used up all numbers.
  mutating func number() throws(MobulaError) -> JobID {
    guard let next = last.next else {
      throw MobulaError(.full, "This cluster has given out every number that a job can have: start another cluster.")
    }
    last = next
    return next
  }

  mutating func started(
    _ job: JobID, secret: JobSecret, resumes: Bool, host: HostID?, on connection: ConnectionID
  ) {
    jobs[job] = Job(secret: secret, presence: .connected(connection), resumes: resumes, host: host)
  }

  /// An actor that outlives its driver is a job of its own.
  mutating func startedByItself(_ job: JobID, secret: JobSecret) {
    jobs[job] = Job(secret: secret, presence: .byItself, resumes: true, hasDecidedClaims: true)
  }

  /// A job that a head before this one wrote down has no driver.
  mutating func runsByItself(_ job: JobID) {
    jobs[job]?.presence = .byItself
    jobs[job]?.hasDecidedClaims = true
  }

  /// The actor has ended that the job was.
  mutating func endedByItself(_ job: JobID) { jobs[job] = nil }

  /// A driver is back, with the leases that it has.
  ///
  /// - Parameter learns: whether this head knows only of those jobs that it has been told of: then a driver may come
  ///   before the host and the pods that have something of its job.
  ///   - due: when its leases are decided by what the driver and the workers of the job claim.
  /// - Throws: `MobulaError`: `notFound` when the job has ended, `denied` for another secret than its own.
  /// - Returns: whether the secret is news.
  @discardableResult mutating func resumed(
    _ job: JobID, secret: JobSecret, host: HostID?, claims: Set<LeaseID>, due: Duration = .zero,
    learns: Bool = false, on connection: ConnectionID
  ) throws(MobulaError) -> Bool {
    let learned =
      learns && job <= .highestBelieved && job != .commandLine
      ? Job(presence: .connected(connection), resumes: true) : nil
    guard let known = jobs[job] ?? learned else {
      throw MobulaError(
        .notFound,
        "Job \(job) has ended: its driver was away for longer than \(timeout), or has ended it. Start another.")
    }
    guard known.secret ?? secret == secret else {
      throw MobulaError(.denied, "That is not the secret of job \(job): only its own driver goes on with it.")
    }
    heard(of: job)
    jobs[job] = Job(
      secret: secret, presence: .connected(connection), resumes: true, host: host ?? known.host, claims: claims,
      claimsDue: due, workersClaims: known.workersClaims)
    return known.secret == nil
  }

  /// A lease was granted to the job.
  mutating func granted(_ lease: LeaseID, to job: JobID) { _ = jobs[job]?.claims?.insert(lease) }

  /// Workers of the job have these.
  mutating func claimed(_ leases: Set<LeaseID>, of job: JobID) { jobs[job]?.workersClaims.formUnion(leases) }

  /// What the driver and the workers of a job say that they have; `nil` where that was decided, or nobody was asked.
  func claims(of job: JobID) -> Set<LeaseID>? {
    guard let job = jobs[job], let claims = job.claims else { return nil }
    return claims.union(job.workersClaims)
  }

  /// The driver is told that these are lost: from then on nobody claims them.
  mutating func revoked(_ leases: some Sequence<LeaseID>, of job: JobID) { jobs[job]?.claims?.subtract(leases) }

  /// The jobs whose claims are decided now, with these.
  mutating func takeClaims(dueAt now: Duration) -> [(job: JobID, claims: Set<LeaseID>)] {
    let due = jobs.filter { $0.value.claims != nil && $0.value.claimsDue <= now }.keys.sorted()
    let taken = due.map { (job: $0, claims: claims(of: $0) ?? []) }
    for job in due {
      jobs[job]?.claims = nil
      jobs[job]?.hasDecidedClaims = true
    }
    return taken
  }

  /// Whether workers of the job say that they have the lease.
  func isClaimedByWorkers(_ lease: LeaseID, of job: JobID) -> Bool { jobs[job]?.workersClaims.contains(lease) == true }

  /// Hosts or pods have something of these jobs.
  ///
  /// - Parameter mayResume: whether drivers may still come back that a head before this one knew.
  /// - Returns: those that have ended.
  mutating func heard(_ registered: Set<JobID>, mayResume: Bool, at now: Duration) -> [JobID] {
    for job in registered { heard(of: job) }
    let orphans = registered.filter { $0 != .commandLine && jobs[$0] == nil }
    guard mayResume else { return orphans.sorted() }
    for job in orphans { jobs[job] = Job(presence: .away(until: now + timeout), resumes: true) }
    return []
  }

  /// A connection is gone, and with it the jobs that end with it, which are returned.
  mutating func disconnected(_ connection: ConnectionID, at now: Duration) -> [JobID] {
    var ended: [JobID] = []
    for (job, state) in jobs where state.presence == .connected(connection) {
      if state.resumes { jobs[job]?.presence = .away(until: now + timeout) } else { ended.append(job) }
    }
    for job in ended { jobs[job] = nil }
    return ended.sorted()
  }

  /// The driver says that its job is over.
  ///
  /// - Throws: `MobulaError` (`denied`) for another secret than the job's.
  /// - Returns: whether it ran.
  mutating func ended(_ job: JobID, secret: JobSecret) throws(MobulaError) -> Bool {
    guard let known = jobs[job] else { return false }
    guard known.secret ?? secret == secret else {
      throw MobulaError(.denied, "That is not the secret of job \(job): only its own driver ends it.")
    }
    jobs[job] = nil
    return true
  }

  /// A host says that the process which drives the job has ended.
  ///
  /// - Returns: whether that ends the job.
  mutating func driverEnded(_ job: JobID, on host: HostID) -> Bool {
    guard let known = jobs[job], !known.isByItself, known.host ?? host == host else { return false }
    jobs[job] = nil
    return true
  }

  /// Time has passed: the jobs of drivers that did not come back have ended, and are returned.
  mutating func tick(_ now: Duration) -> [JobID] {
    let ended = jobs.filter {
      if case .away(let until) = $0.value.presence { until <= now } else { false }
    }.keys.sorted()
    for job in ended { jobs[job] = nil }
    return ended
  }

  /// When the next job ends if its driver stays away, or the next claims are decided.
  var nextDeadline: Duration? {
    jobs.values.flatMap { job -> [Duration] in
      let end: Duration? = if case .away(let until) = job.presence { until } else { nil }
      return [end, job.claims == nil ? nil : job.claimsDue].compactMap { $0 }
    }.min()
  }
}
