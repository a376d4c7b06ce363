internal import Logging
internal import MobulaCore
internal import MobulaWire

/// Says what came of something that may have had to be written down first.
typealias Answer<Value: Sendable> = @Sendable (inout HeadState, Result<Value, MobulaError>) -> Void

extension HeadState {
  /// Has records written down, and goes on when they are: what follows from them is not to be seen before.
  ///
  /// - Parameter body: called once, in the order of the proposals, with the error when they could not be kept.
  mutating func propose(
    _ records: [JournalRecord], _ body: @escaping @Sendable (inout HeadState, MobulaError?) -> Void
  ) {
    guard isJournalled, !records.isEmpty else { return body(&self, nil) }
    act(.commit(Commit(records: records, then: body)))
  }

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
    propose(records) { state, failure in if failure != nil { state.save(later: records) } }
  }

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

  /// Records of what needs nobody's answer.
  mutating func save(_ records: [JournalRecord]) {
    propose(records) { state, failure in if failure != nil { state.save(later: records) } }
  }

  /// What is true of a name now.
  func record(of name: Name) -> JournalRecord {
    directory.known(name).map { .name(NameRecord(name.text, $0)) } ?? .nameRemoved(name.text)
  }

  /// What a head before this one has written down.
  mutating func load(_ journal: JournalState) {
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
      settlesAt = configuration.hostTimeout
      act(.wakeAt(configuration.hostTimeout))
    }
  }
}

/// Records to be written down, and what follows.
struct Commit: Sendable {
  let records: [JournalRecord]
  let then: @Sendable (inout HeadState, MobulaError?) -> Void
}
