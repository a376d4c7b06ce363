import MobulaCore

extension ClusterState {
  /// A member that brings something to a young head knew the one before: others may still come
  /// with what belongs to it.
  mutating func beginSettling() {
    guard now < settings.hostTimeout, settlesAt == nil, mayLearn else { return }
    directory.beginSettling()
    settlesAt = settings.hostTimeout
    act(.wakeAt(settings.hostTimeout))
  }

  /// A member has objects or leases of these jobs.
  mutating func heard(of registered: Set<JobID>) {
    // Who comes after the others have settled is not waited for; and what was written down is all that there was.
    let mayResume = settlesAt != nil && mayLearn
    // What a late host has of a job that has ended here makes it no running job.
    let others = registered.filter { !isOver($0) }
    end(jobs.heard(others, mayResume: mayResume, at: now), "with a head before this one")
    if let next = jobs.nextDeadline { act(.wakeAt(next)) }
  }

  mutating func endSettling() {
    settlesAt = nil
    if isRecovering { saveLater([.recovering]) }
    isRecovering = false
    apply(directory.settled())
    for job in jobs.running { revokeClaims(of: job) }
  }

  /// All members are back that were written down: there is nobody else to wait for.
  mutating func endSettlingEarly() {
    if settlesAt != nil, !mayLearn, directory.unheard.isEmpty, podsAreBack { endSettling() }
  }

  private var podsAreBack: Bool {
    membership.pods.members.values.allSatisfy { $0.isHeard || !$0.isPresent }
  }
}
