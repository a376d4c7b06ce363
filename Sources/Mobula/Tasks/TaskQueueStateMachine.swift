import MobulaCore

/// Decides which of a process's tasks run on which of its leases, in which order, and how many leases it asks for.
///
/// Tasks of one shape wait in one line. A lease is a slot: its worker runs one task at a time, in the order in which they
/// were pushed, and short ones are pushed ahead, so that it need not wait for the next. What waits behind a task that turns
/// out to take long is called back. A lease is kept a moment after its last task, and given back after a while in any
/// case, so that other jobs get their turn.
///
/// In a worker, a task that waits has its lease lent to the tasks that it has submitted: those that fit run here, the
/// newest first, so that work that waits for work ends also where nobody else has room.
struct TaskQueueStateMachine {
  typealias TaskID = UInt64
  /// Of a lease, also of one that is only asked for.
  typealias SlotID = UInt64
  typealias Instant = ContinuousClock.Instant

  let settings: Settings
  var items: [TaskID: Item] = [:]
  var slots: [SlotID: Slot] = [:]
  /// By shape, as they came.
  var lines: [Line] = []
  private var numbers: [Shape: Int] = [:]
  /// Of tasks that have any beside those that all have.
  private var limits: [TaskID: Limits] = [:]
  /// When the workers of tasks are ended that are to end, should they still run.
  var forces: [TaskID: Instant] = [:]
  /// Leases that are lent here, and what they have.
  var lent: [(slot: SlotID, resources: Resources)] = []
  /// When tasks are looked at again: those whose next attempt is due, and those that have limits.
  private var agenda = TaskAgenda()
  private var lastTask: TaskID = 0
  var lastSlot: SlotID = 0
  var actions: [Action] = []

  init(_ settings: Settings = Settings()) { self.settings = settings }

  /// Tasks that have neither ended nor failed.
  var count: Int { items.count }

  /// What is to be done, in this order.
  mutating func takeActions() -> [Action] {
    defer { actions.removeAll(keepingCapacity: true) }
    return actions
  }

  // MARK: Events

  /// A task is to run, once so many of its arguments are there.
  mutating func submit(
    _ shape: Shape, _ limits: Limits = Limits(), arguments: Int = 0, at now: Instant
  ) -> TaskID {
    lastTask += 1
    let place: Item.Place = arguments > 0 ? .blocked(arguments) : .waiting
    let hasLimits = limits != Limits()
    if hasLimits { self.limits[lastTask] = limits }
    items[lastTask] = Item(place: place, ready: now, line: Int32(line(of: shape)), hasLimits: hasLimits)
    if let end = limits.end { look(at: lastTask, end) }
    if arguments == 0 { enqueue(lastTask, now) }
    return lastTask
  }

  private mutating func line(of shape: Shape) -> Int {
    // Nearly all tasks of a process are like those before them.
    if let last = lines.last, last.shape == shape { return lines.count - 1 }
    if let number = numbers[shape] { return number }
    lines.append(Line(shape))
    numbers[shape] = lines.count - 1
    return lines.count - 1
  }

  func limits(of task: TaskID) -> Limits {
    items[task]?.hasLimits == true ? limits[task] ?? Limits() : Limits()
  }

  private mutating func removeItem(_ task: TaskID) {
    guard let item = items.removeValue(forKey: task) else { return }
    if item.hasLimits { limits[task] = nil }
    if item.isCancelled { forces[task] = nil }
  }

  /// One more of a task's arguments is there.
  mutating func argumentCame(_ task: TaskID, at now: Instant) {
    guard case .blocked(let count) = items[task]?.place else { return }
    items[task]!.place = .blocked(count - 1)
    if count <= 1 { enqueue(task, now) }
  }

  /// A task is over, wherever it is.
  mutating func discard(_ task: TaskID) {
    guard let item = items[task] else { return }
    switch item.place {
    case .waiting: lines[Int(item.line)].waiting.remove(task)
    case .at(let id): slots[id]?.pushed.removeAll { $0 == task }
    case .blocked, .delayed: break
    }
    removeItem(task)
  }

  /// A task is to end. One that runs is told so; after `force` its worker is ended.
  mutating func cancel(_ task: TaskID, force: Duration?, at now: Instant) {
    guard let item = items[task] else { return }
    guard case .at(let id) = item.place, let slot = slots[id] else {
      if item.place == .waiting { lines[Int(item.line)].waiting.remove(task) }
      fail(task, Self.cancelled)
      // What was asked for it may not be needed any more.
      return pump(Int(item.line), now)
    }
    if !item.isCancelled {
      items[task]!.isCancelled = true
      actions.append(.cancel(id, [task]))
    }
    // Without a process of its own there is nothing to end.
    guard let force, !slot.isLent else { return }
    let instant = min(forces[task] ?? now + force, now + force)
    forces[task] = instant
    wake(at: instant)
  }

  static var cancelled: MobulaError { MobulaError(.cancelled, "The task was cancelled.") }

  /// A task of this process's waits: what fits into so much may run here.
  mutating func lend(_ resources: Resources, at now: Instant) -> SlotID {
    lastSlot += 1
    let id = lastSlot
    var slot = Slot(line: 0)
    (slot.phase, slot.isLent) = (.open, true)
    slots[id] = slot
    lent.append((id, resources))
    fill(id, resources, now)
    return id
  }

  /// It goes on: what runs there by now may end.
  mutating func takeBack(_ id: SlotID) {
    guard let slot = slots[id], slot.isLent else { return }
    lent.removeAll { $0.slot == id }
    if slot.pushed.isEmpty { slots[id] = nil } else { slots[id]!.isRetiring = true }
  }

  /// A lease that was asked for is there; its worker is being connected to.
  mutating func granted(_ id: SlotID) {
    guard let slot = slots[id], slot.phase == .requested else { return }
    slots[id]?.phase = .granted
    lines[slot.line].shortage = nil
    lines[slot.line].ramp = min(lines[slot.line].ramp * 2, settings.mostRequests)
  }

  /// The head says what is missing for a lease that was asked for.
  ///
  /// - Returns: how many tasks wait for it; `nil` where that was said before.
  mutating func lacks(_ id: SlotID, _ reason: String) -> Int? {
    guard let slot = slots[id], slot.phase == .requested, lines[slot.line].shortage != reason else { return nil }
    lines[slot.line].shortage = reason
    return lines[slot.line].waiting.count
  }

  /// A lease that was asked for will not come.
  mutating func refused(_ id: SlotID, _ error: MobulaError, at now: Instant) {
    guard let slot = remove(id) else { return }
    // Each task is told by itself; the others may be what the next answer is about.
    if let task = lines[slot.line].waiting.popFirst() { fail(task, error) }
    pump(slot.line, now)
  }

  /// The worker of a lease takes tasks.
  mutating func opened(_ id: SlotID, at now: Instant) {
    guard let slot = slots[id], slot.phase == .granted else { return }
    (slots[id]!.phase, slots[id]!.openSince) = (.open, now)
    pump(slot.line, now)
    rest(id, now)
  }

  /// Tasks have ended, and so long each has run; `nil` for one that did not.
  mutating func done(_ id: SlotID, _ ended: [(task: TaskID, took: Duration?)], at now: Instant) {
    for (task, took) in ended {
      guard let line = leave(id, task, now) else { continue }
      removeItem(task)
      if let took { learn(took, line) }
    }
    look(after: id, now)
  }

  /// Whether a task that has failed may be tried again.
  func mayRetry(_ task: TaskID) -> Bool {
    items[task].map { !$0.isCancelled && Int($0.errors) < limits(of: task).errors } ?? false
  }

  /// A task has failed by an error of its own, and is to be tried again.
  mutating func failed(_ id: SlotID, _ task: TaskID, took: Duration, _ error: MobulaError, at now: Instant) {
    guard let line = leave(id, task, now) else { return }
    learn(took, line)
    if let item = items[task] {
      if item.isCancelled {
        fail(task, Self.cancelled)
      } else {
        items[task]!.errors += 1
        setBack(task, error, now)
      }
    }
    look(after: id, now)
  }

  /// A task is not at a slot any more.
  private mutating func leave(_ id: SlotID, _ task: TaskID, _ now: Instant) -> Int? {
    guard let index = slots[id]?.pushed.firstIndex(of: task) else { return nil }
    slots[id]!.leave(index, now)
    if index == 0, let front = slots[id]!.pushed.first { wakeForFront(front, since: now) }
    return items[task].map { Int($0.line) } ?? slots[id]!.line
  }

  private mutating func learn(_ took: Duration, _ line: Int) {
    lines[line].mean = lines[line].mean.map { $0 * 0.9 + took * 0.1 } ?? took
  }

  /// Tasks of a slot have ended.
  private mutating func look(after id: SlotID, _ now: Instant) {
    guard let slot = slots[id] else { return }
    if slot.isLent {
      if slot.isRetiring, slot.pushed.isEmpty { slots[id] = nil }
      if let entry = lent.first(where: { $0.slot == id }) { fill(id, entry.resources, now) }
      return
    }
    if let since = slot.openSince, since + settings.tenure <= now { slots[id]!.isRetiring = true }
    pump(slot.line, now)
    rest(id, now)
  }

  /// Tasks were called back that had not begun.
  mutating func recalled(_ id: SlotID, _ tasks: [TaskID], at now: Instant) {
    guard let line = slots[id]?.line else { return }
    slots[id]!.isRecalling = false
    let called = Set(tasks)
    let back = slots[id]!.pushed.filter { called.contains($0) }
    slots[id]!.pushed.removeAll { called.contains($0) }
    setWaiting(back, line)
    pump(line, now)
    rest(id, now)
  }

  /// A lease is over before it was given back, since its worker was lost or can't be reached.
  ///
  /// - Parameter error: why; with `connectionClosed` the task that ran may run again elsewhere.
  mutating func lost(_ id: SlotID, _ error: MobulaError, at now: Instant) {
    guard let slot = remove(id) else { return }
    actions.append(.giveBack(id, workerIsReusable: false))
    // Of one that never was there the next would be in the place of the first.
    let front = slot.pushed.first ?? (slot.phase == .open ? nil : lines[slot.line].waiting.popFirst())
    setWaiting(Array(slot.pushed.dropFirst()), slot.line)
    if let front, let item = items[front] {
      if item.isCancelled {
        fail(front, Self.cancelled)
      } else if error.code == .connectionClosed, slot.phase != .open, item.misses < Self.mostMisses {
        // It has not begun: nobody is charged.
        items[front]!.misses += 1
        setBack(front, error, now)
      } else if error.code == .connectionClosed {
        items[front]!.losses += 1
        if Int(item.losses) < limits(of: front).losses {
          setBack(front, error, now)
        } else {
          fail(front, Self.lost(error, times: Int(item.losses) + 1, hasRun: slot.phase == .open))
        }
      } else {
        // Nobody else would run it better.
        fail(front, error)
      }
    }
    pump(slot.line, now)
  }

  /// What can't be reached so often has something else that keeps it from it.
  private static let mostMisses = 10

  private static func lost(_ error: MobulaError, times: Int, hasRun: Bool) -> MobulaError {
    let again = times > 1 ? "The task was tried \(times) times. " : ""
    var lost = MobulaError(.workerLost, again + error.message)
    lost.mayHaveRun = hasRun
    return lost
  }

  /// Time has passed.
  mutating func tick(at now: Instant) {
    while let task = agenda.popFirst(until: now) { look(atTask: task, now) }
    if let next = agenda.first { wake(at: next) }
    // Before leases without work are given back.
    for line in lines.indices { pump(line, now) }
    for (id, slot) in slots.sorted(by: { $0.key < $1.key }) where slot.phase == .open { look(id, slot, now) }
  }

  /// The process ends: nothing runs any more.
  mutating func close(_ error: MobulaError) {
    for task in items.keys.sorted() { actions.append(.fail(task, error)) }
    for (id, slot) in slots.sorted(by: { $0.key < $1.key }) where !slot.isLent {
      actions.append(slot.phase == .requested ? .withdraw(id) : .giveBack(id, workerIsReusable: slot.pushed.isEmpty))
    }
    (items, slots, lines, numbers, agenda, lent) = ([:], [:], [], [:], TaskAgenda(), [])
    (limits, forces) = ([:], [:])
  }

  // MARK: Decisions

  mutating func wake(at instant: Instant) { actions.append(.wakeAt(instant)) }

  private mutating func fail(_ task: TaskID, _ error: MobulaError) {
    removeItem(task)
    actions.append(.fail(task, error))
  }

  /// A task did not end, and is tried again after a pause.
  private mutating func setBack(_ task: TaskID, _ error: MobulaError, _ now: Instant) {
    guard let item = items[task] else { return }
    actions.append(.retry(task, error))
    let times = Int(item.losses) + Int(item.errors) - 1
    let due = now + min(settings.firstPause * (1 << min(max(times, 0), 20)), settings.longestPause)
    items[task]!.place = .delayed
    items[task]!.ready = due
    look(at: task, due)
  }

  /// Puts tasks before all others of their line that were at a worker and did not run.
  private mutating func setWaiting(_ tasks: [TaskID], _ line: Int) {
    var back: [TaskID] = []
    for task in tasks where items[task] != nil {
      if items[task]!.isCancelled { fail(task, Self.cancelled) } else { back.append(task) }
    }
    for task in back { items[task]!.place = .waiting }
    lines[line].waiting.prepend(back)
  }

  private mutating func enqueue(_ task: TaskID, _ now: Instant) {
    guard let item = items[task] else { return }
    items[task]!.place = .waiting
    items[task]!.ready = now
    if item.hasLimits, let wait = limits(of: task).wait { look(at: task, now + wait) }
    lines[Int(item.line)].waiting.append(task)
    pump(Int(item.line), now)
  }

  private mutating func look(at task: TaskID, _ instant: Instant) {
    // Of tasks that have ended nearly all entries are for much later.
    if agenda.count > 2 * items.count + 1_024 { agenda.keep { items[$0] != nil } }
    if agenda.insert(task, at: instant) { wake(at: instant) }
  }

  /// A task's next attempt may be due, or its time over.
  private mutating func look(atTask task: TaskID, _ now: Instant) {
    guard let item = items[task] else { return }
    let (limits, line) = (limits(of: task), Int(item.line))
    if let end = limits.end, end <= now {
      if item.place == .waiting { lines[line].waiting.remove(task) }
      let limit = "its deadline"
      switch item.place {
      case .at(let id): return abandon(task, id, Self.late("The task did not end within \(limit)"), now)
      case .waiting:
        if let shortage = lines[line].shortage {
          return fail(task, MobulaError(.deadlineExceeded, "The task did not begin before \(limit). \(shortage)"))
        }
        return fail(task, Self.late("No pod had \(lines[line].shape.demand) free before \(limit)"))
      case .blocked: return fail(task, Self.late("The task's arguments did not come before \(limit)"))
      case .delayed: return fail(task, Self.late("The task was to be tried again, and did not end before \(limit)"))
      }
    }
    if item.place == .delayed, item.ready <= now { return enqueue(task, now) }
    if item.place == .waiting, let wait = limits.wait, item.ready + wait <= now {
      lines[line].waiting.remove(task)
      fail(
        task,
        MobulaError(
          .unschedulable,
          lines[line].shortage.map { "The task did not begin within \(wait). \($0)" }
            ?? "No pod had \(lines[line].shape.demand) free within \(wait): `mobula status` shows what the pods have, and who has it now."
        ))
    }
  }

  private static func late(_ what: String) -> MobulaError {
    MobulaError(
      .deadlineExceeded,
      "\(what): give it more time, or less to do; `mobula status` shows what the pods have, and who has it now.")
  }

  /// A task has failed here, while it still runs there, or may begin.
  private mutating func abandon(_ task: TaskID, _ id: SlotID, _ error: MobulaError, _ now: Instant) {
    fail(task, error)
    guard let slot = slots[id] else { return }
    actions.append(.cancel(id, [task]))
    guard !slot.isLent, slot.pushed.first == task else { return }
    slots[id]!.killAt = now + settings.grace
    wake(at: now + settings.grace)
  }

  mutating func remove(_ id: SlotID) -> Slot? {
    guard let slot = slots.removeValue(forKey: id) else { return nil }
    lines[slot.line].slots.removeAll { $0 == id }
    return slot
  }

  mutating func giveBack(_ id: SlotID, _ now: Instant) {
    guard let slot = remove(id) else { return }
    actions.append(.giveBack(id, workerIsReusable: true))
    ask(slot.line, now)
  }

  /// A slot may have nothing to do, or have been here for long.
  private mutating func rest(_ id: SlotID, _ now: Instant) {
    guard let slot = slots[id], slot.isIdle else { return }
    if slot.isRetiring { return giveBack(id, now) }
    if slot.idleSince == nil {
      slots[id]!.idleSince = now
      wake(at: now + settings.linger)
    }
  }

  private mutating func look(_ id: SlotID, _ slot: Slot, _ now: Instant) {
    if slot.isIdle {
      guard !slot.isLent, let since = slot.idleSince else { return }
      if since + settings.linger <= now { giveBack(id, now) } else { wake(at: since + settings.linger) }
      return
    }
    guard let since = slot.frontSince, let front = slot.pushed.first else { return }
    if let kill = slot.killAt ?? forces[front] {
      guard kill <= now else { return wake(at: kill) }
      return end(id, slot, now)
    }
    if let attempt = limits(of: front).attempt {
      if since + attempt <= now {
        abandon(
          front, id,
          MobulaError(.deadlineExceeded, "The task did not end within \(attempt): give it more time, or less to do."),
          now)
      } else {
        wake(at: since + attempt)
      }
    }
    guard slot.pushed.count > 1, !slot.isStuck else { return }
    if since + settings.patience <= now {
      (slots[id]!.isRecalling, slots[id]!.isStuck) = (true, true)
      actions.append(.recall(id, Array(slot.pushed.dropFirst())))
    } else {
      wake(at: since + settings.patience)
    }
  }

  /// Ends a worker whose task did not end when it was told to.
  private mutating func end(_ id: SlotID, _ slot: Slot, _ now: Instant) {
    _ = remove(id)
    actions.append(.giveBack(id, workerIsReusable: false))
    if let front = slot.pushed.first, items[front] != nil { fail(front, Self.cancelled) }
    setWaiting(Array(slot.pushed.dropFirst()), slot.line)
    pump(slot.line, now)
  }
}
