internal import Logging
internal import MobulaCore

extension HeadState {
  /// A member that brings something to a young head knew the one before: others may still come
  /// with what belongs to it.
  mutating func beginSettling(at now: Duration) {
    guard now < configuration.hostTimeout, settlesAt == nil else { return }
    directory.beginSettling()
    settlesAt = configuration.hostTimeout
    act(.wakeAt(configuration.hostTimeout))
  }

  /// A member has objects or leases of these jobs.
  mutating func heard(of registered: Set<JobID>, at now: Duration) {
    // A number that no head has reached is nothing to count on from.
    for job in registered where job <= .highestBelieved { lastJob = max(lastJob, job) }
    let orphans = registered.filter { $0 != .commandLine && jobs[$0] == nil }
    orphanedJobs.formUnion(orphans)
    // Who comes after the others have settled is not waited for.
    if settlesAt == nil { endOrphanedJobs(at: now) }
  }

  mutating func endSettling(at now: Duration) {
    settlesAt = nil
    for job in orphanedJobs.sorted() { act(.log(.notice, "job \(job) has ended: its driver has not come back")) }
    apply(directory.settled(ending: orphanedJobs.sorted()))
    endOrphanedJobs(at: now)
  }

  /// Ends the jobs that are known from registrations only. A driver cannot resume its job at a
  /// restarted head yet, so that nobody would ever end them; once it can, a job that was resumed
  /// has to leave `orphanedJobs`.
  private mutating func endOrphanedJobs(at now: Duration) {
    for job in orphanedJobs.sorted() {
      apply(directory.jobEnded(job))
      apply(scheduler.jobEnded(job, at: now))
    }
    orphanedJobs = []
  }
}
