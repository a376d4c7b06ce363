package import MobulaCore

extension ClusterState {
  /// What the journal has of these may not be so: what is so then is written when it takes records again, and nothing
  /// else about them is on its way.
  mutating func saveLater(_ subjects: some Sequence<JournalSubject>) {
    guard isJournalled else { return }
    unsaved.formUnion(subjects)
    if !unsaved.isEmpty { act(.wakeAt(now + .seconds(1))) }
  }

  mutating func saveUnsaved() {
    let subjects = unsaved.filter { proposed[$0] == nil }
    unsaved.subtract(subjects)
    save(subjects.map { record(of: $0) }.sorted { "\($0)" < "\($1)" })
  }

  /// What is so now.
  private func record(of subject: JournalSubject) -> JournalRecord {
    switch subject {
    case .host(let host): membership.record(of: host).map { .host($0) } ?? .hostForgotten(host)
    case .draining(let host): .draining(host, directory.draining.contains(host))
    case .pod(let pod): membership.record(of: pod).map { .pod($0) } ?? .podForgotten(pod)
    case .job(let job):
      jobs[job]?.secret.map { .job(JobRecord(job: job, secret: $0)) } ?? .jobForgotten(job)
    case .name(let name): record(of: name)
    case .actor(let actor): actors[actor].map { .actor($0.record(actor)) } ?? .actorForgotten(actor)
    case .recovering: .recovering(isRecovering)
    }
  }

  /// Records of what needs nobody's answer.
  mutating func save(_ records: [JournalRecord]) { propose(records, .news) }

  /// What is to be written before a number is given out.
  mutating func reserve(_ counter: JournalCounter, _ number: UInt64) -> [JournalRecord] {
    guard isJournalled, number >= limits[counter] ?? 0 else { return [] }
    let limit = number + JournalCounter.block
    limits[counter] = limit
    return [.counter(counter, limit: limit)]
  }

  /// The last reservation was not kept: the next number needs another.
  mutating func unreserve(_ counter: JournalCounter) { limits[counter] = nil }

  /// Names that came to be, or ceased to be, as a consequence of something else.
  ///
  /// - Parameter written: what has been written down already.
  mutating func saveNames(besides written: JournalRecord? = nil) {
    let changed = directory.takeChangedNames()
    save(changed.sorted().map { record(of: $0) }.filter { $0 != written })
  }

  /// What is true of a name now.
  func record(of name: Name) -> JournalRecord {
    directory.known(name).map { .name(NameRecord(name.text, $0)) } ?? .nameRemoved(name.text)
  }

  /// What a head before this one has written down. From now on what must outlive this one is proposed as records.
  package mutating func load(_ journal: JournalState) {
    isJournalled = true
    limits = journal.limits
    if let limit = journal.limits[.jobs], limit > 0 {
      jobs.heard(of: JobID(UInt32(clamping: limit - 1)))
    }
    if let limit = journal.limits[.claims], limit > 0 { directory.lastClaim = limit - 1 }
    jobs.load(journal.jobs.values, at: now)
    membership.load(hosts: Array(journal.hosts.values), pods: Array(journal.pods.values))
    for record in journal.hosts.values { hostNames.joined(record.host, record.name) }
    for record in journal.pods.values { podNames.joined(record.pod, record.name) }
    load(journal.actors.values)
    directory.load(journal.names.values)
    for host in journal.draining.sorted() { setDraining(host, true) }
    let members = Set(journal.hosts.values.filter { $0.state != .retired }.map(\.host))
    directory.expect(members)
    isRecovering = journal.isRecovering
    let isNew = journal.hosts.isEmpty && journal.pods.isEmpty && journal.jobs.isEmpty && journal.names.isEmpty
    mayLearn = isRecovering || isNew
    if isRecovering || !isNew {
      directory.beginSettling()
      settlesAt = settings.hostTimeout
      act(.wakeAt(settings.hostTimeout))
    }
  }
}

/// What a record is about: of two records about one thing the later one holds.
enum JournalSubject: Hashable, Sendable {
  case host(HostID), draining(HostID), pod(PodID), job(JobID), name(Name), actor(RemoteActorID), recovering

  /// `nil` for what only grows.
  init?(_ record: JournalRecord) {
    switch record {
    case .cluster, .epoch, .counter: return nil
    case .recovering: self = .recovering
    case .host(let record): self = .host(record.host)
    case .hostForgotten(let host): self = .host(host)
    case .draining(let host, _): self = .draining(host)
    case .pod(let record): self = .pod(record.pod)
    case .podForgotten(let pod): self = .pod(pod)
    case .job(let record): self = .job(record.job)
    case .jobForgotten(let job): self = .job(job)
    case .name(let record): self = .name(Name(record.name))
    case .nameRemoved(let name): self = .name(Name(name))
    case .actor(let record): self = .actor(record.actor)
    case .actorForgotten(let actor): self = .actor(actor)
    }
  }
}
