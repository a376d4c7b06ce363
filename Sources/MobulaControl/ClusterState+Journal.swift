package import MobulaCore

extension ClusterState {
  /// Records of what has happened and can't be refused: they are tried again until they are kept.
  mutating func save(later records: [JournalRecord]) {
    guard isJournalled, !records.isEmpty else { return }
    unsaved += records
    act(.wakeAt(now + .seconds(1)))
  }

  mutating func saveUnsaved() {
    guard !unsaved.isEmpty else { return }
    let records = unsaved
    unsaved = []
    save(records)
  }

  /// Records of what needs nobody's answer.
  mutating func save(_ records: [JournalRecord]) { propose(records, .news(records)) }

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
    directory.load(journal.names.values)
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
