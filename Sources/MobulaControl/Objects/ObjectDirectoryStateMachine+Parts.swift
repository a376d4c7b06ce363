import MobulaCore

/// Objects that hosts read from outside, each a part.
extension ObjectDirectoryStateMachine {
  /// A host wants to know what to read next: answered at once, or when there is something, or nothing any more.
  ///
  /// A head that was restarted knows nothing of who has read what: it gives every part again, and who has one says so.
  ///
  /// - Parameters:
  ///   - finished: chunks that the host was given, and has now.
  ///   - wantsMore: whether to give it others; it reads on, in any case.
  ///   - geometry: of the object.
  mutating func takePart(
    _ question: PartQuestion, finished: Range<Int>?, wantsMore: Bool = true, geometry: ChunkGeometry, now: Duration
  ) -> [DirectoryAction] {
    clock = max(clock, now)
    let object = question.object
    guard !tombstones.contains(object), var record = records[object], !record.planner.hasComplete,
      record.geometry == geometry
    else { return [.part(question.id, nil)] }
    var fill = record.fill ?? FillPlanner(geometry)
    if let finished { fill.finished(question.host, finished, now: now) }
    guard wantsMore else {
      records[object]?.fill = fill
      return [.part(question.id, nil)]
    }
    let answer = fill.take(question.host, now: now)
    record.fill = fill
    record.planner.setFills(question.host, answer != .none)
    if answer == .wait { record.readers.append(question.id) }
    records[object] = record
    switch answer {
    case .part(let chunks): return [.part(question.id, chunks)] + advance([object])
    case .none: return [.part(question.id, nil)]
    case .wait:
      parts[question.id] = question
      return advance([object])
    }
  }

  /// What a host that has just claimed an object reads first; `nil` where others read all of it.
  mutating func firstPart(of object: ObjectID, for host: HostID, now: Duration) -> Range<Int>? {
    clock = max(clock, now)
    guard let record = records[object] else { return nil }
    if !record.planner.hasComplete, var fill = record.fill, case .part(let chunks) = fill.take(host, now: clock) {
      records[object]?.fill = fill
      return chunks
    }
    // It does not read along, unless another call of that host's does: whoever comes back claims anew.
    let readsAlong =
      record.fill?.isReading(host) == true || record.planner.partial.contains(host)
      || record.readers.contains { parts[$0]?.host == host }
    if !readsAlong {
      records[object]?.fill?.failed(host)
      records[object]?.planner.setFills(host, false)
    }
    return nil
  }

  /// A host that has all of an object, or reads all of it from outside, for another that takes it there. Of several each
  /// is as good: who asks chooses.
  func wholeSource(of object: ObjectID, besides host: HostID) -> HostID? {
    guard let record = records[object] else { return nil }
    let complete = record.planner.complete.filter { $0 != host }
    if complete.isEmpty { return record.fill?.onlyReader.flatMap { $0 == host ? nil : $0 } }
    return complete[Int((host.low ^ object.low) % UInt64(complete.count))]
  }

  /// A host can't read an object from outside any more; what it has read it has.
  mutating func partsFailed(_ host: HostID, _ object: ObjectID) -> [DirectoryAction] {
    records[object]?.fill?.failed(host)
    records[object]?.planner.setFills(host, false)
    return forgetParts { $0.host == host && $0.object == object } + advance([object])
  }

  /// Time has passed: what takes one host long may be for another.
  mutating func retryParts(now: Duration) -> [DirectoryAction] {
    Set(parts.values.map(\.object)).sorted().flatMap { serveReaders($0, now: now) }
  }

  /// Whether `retryParts` may bring anything, later.
  var hasReaders: Bool { !parts.isEmpty }

  mutating func cancelPart(_ id: RequestID) {
    guard let question = parts.removeValue(forKey: id) else { return }
    records[question.object]?.readers.removeAll { $0 == id }
    if records[question.object]?.isBlank == true { records[question.object] = nil }
  }

  /// Answers those that wait for something to read, and can be answered now.
  ///
  /// - Parameter now: `nil` where no time has passed since the last call.
  mutating func serveReaders(_ object: ObjectID, now: Duration? = nil) -> [DirectoryAction] {
    guard records[object]?.readers.isEmpty == false, var record = records[object] else { return [] }
    if let now { clock = max(clock, now) }
    var actions: [DirectoryAction] = []
    var waiting: [RequestID] = []
    for id in record.readers {
      guard let question = parts[id] else { continue }
      let answer = !record.planner.hasComplete ? record.fill?.take(question.host, now: clock) ?? .none : .none
      switch answer {
      case .wait: waiting.append(id)
      case .none: actions.append(.part(id, nil))
      case .part(let chunks): actions.append(.part(id, chunks))
      }
      if answer != .wait { parts[id] = nil }
    }
    record.readers = waiting
    records[object] = record
    return actions
  }

  /// Ends questions that nobody waits for any more.
  mutating func forgetParts(where isGone: (PartQuestion) -> Bool) -> [DirectoryAction] {
    parts.values.filter(isGone).sorted { $0.id < $1.id }.map { question in
      cancelPart(question.id)
      return .part(question.id, nil)
    }
  }
}
