import MobulaCore

/// Decides which of a process's tasks run on which of its leases, in which order, and how many leases it asks for.
///
/// Tasks of one shape wait in one line. A lease is a slot: its worker runs one task at a time, in the order in which they
/// were pushed, and short ones are pushed ahead, so that it need not wait for the next. What waits behind a task that turns
/// out to take long is called back. A lease is kept a moment after its last task, and given back after a while in any
/// case, so that other jobs get their turn.
struct TaskQueueStateMachine {
  typealias TaskID = UInt64
  /// Of a lease, also of one that is only asked for.
  typealias SlotID = UInt64
  typealias Instant = ContinuousClock.Instant

  /// What tasks have in common that may run on the same lease.
  struct Shape: Hashable, Sendable {
    var demand: Resources
    var strategy: PlacementStrategy
  }

  struct Settings: Sendable {
    /// How often a task is started again whose worker was lost.
    var retries = 3
    /// How long a task may wait for a lease, and how long it may run.
    var workLimit = Duration.seconds(86_400)
    /// How long a lease is kept without work.
    var linger = Duration.milliseconds(10)
    /// How long a lease is kept with work.
    var tenure = Duration.milliseconds(100)
    /// How long a task runs before those behind it are called back.
    var patience = Duration.milliseconds(10)
    /// Tasks that take longer are not pushed ahead.
    var longTask = Duration.milliseconds(5)
    /// So much work is pushed ahead.
    var ahead = Duration.milliseconds(1)
    /// The most tasks that are at one worker.
    var mostPushed = 128
    /// The most leases that are asked for at a time.
    var mostRequests = 64
    /// The pause before a task's second attempt; twice as long before each further one.
    var firstPause = Duration.milliseconds(100)
  }

  enum Action: Equatable {
    case request(SlotID, Shape)
    /// What is asked for is not needed any more.
    case withdraw(SlotID)
    case push(SlotID, [TaskID])
    case recall(SlotID, [TaskID])
    case giveBack(SlotID, workerIsReusable: Bool)
    case fail(TaskID, MobulaError)
    /// A task that will run again, and why it did not end.
    case retry(TaskID, MobulaError)
    case wakeAt(Instant)
  }

  private struct Item {
    var shape: Shape
    var submitted: Instant
    var attempts = 0
  }

  private struct Slot {
    /// Can transition to: open, and to its end.
    enum Phase { case requested, granted, open }

    var shape: Shape
    var phase = Phase.requested
    /// In the order in which they run.
    var pushed: [TaskID] = []
    /// Since when the first of them has been running, as far as is known here.
    var frontSince: Instant?
    var idleSince: Instant?
    var openSince: Instant?
    var isRecalling = false
    /// Whether the task that runs takes long, so that nothing is to wait behind it.
    var isStuck = false
    /// Whether it gets no more work, and is given back when it has none.
    var isRetiring = false

    var isIdle: Bool { phase == .open && pushed.isEmpty }
  }

  private struct Line {
    var waiting = TaskLine()
    var slots: Set<SlotID> = []
    /// How long a task runs; `nil` until one has.
    var mean: Duration?
    /// The most leases that are asked for at a time: doubled with each that is granted.
    var ramp = 2
  }

  private let settings: Settings
  private var items: [TaskID: Item] = [:]
  private var slots: [SlotID: Slot] = [:]
  private var lines: [Shape: Line] = [:]
  /// Tasks whose next attempt is due later.
  private var delayed: [(due: Instant, task: TaskID)] = []
  private var lastTask: TaskID = 0
  private var lastSlot: SlotID = 0
  private var actions: [Action] = []

  init(_ settings: Settings = Settings()) { self.settings = settings }

  /// Tasks that have neither ended nor failed.
  var count: Int { items.count }

  /// What is to be done, in this order.
  mutating func takeActions() -> [Action] {
    defer { actions.removeAll(keepingCapacity: true) }
    return actions
  }

  // MARK: Events

  /// A task is to run.
  mutating func submit(_ shape: Shape, at now: Instant) -> TaskID {
    lastTask += 1
    items[lastTask] = Item(shape: shape, submitted: now)
    lines[shape, default: Line()].waiting.append(lastTask)
    pump(shape, now)
    if lines[shape]?.waiting.first == lastTask { wake(at: now + settings.workLimit) }
    return lastTask
  }

  /// A lease that was asked for is there; its worker is being connected to.
  mutating func granted(_ id: SlotID) {
    guard let slot = slots[id], slot.phase == .requested else { return }
    slots[id]?.phase = .granted
    let ramp = lines[slot.shape]?.ramp ?? 1
    lines[slot.shape]?.ramp = min(ramp * 2, settings.mostRequests)
  }

  /// A lease that was asked for will not come.
  mutating func refused(_ id: SlotID, _ error: MobulaError, at now: Instant) {
    guard let slot = remove(id) else { return }
    // Each task is told by itself; the others may be what the next answer is about.
    if let task = lines[slot.shape]?.waiting.popFirst() { fail(task, error) }
    pump(slot.shape, now)
  }

  /// The worker of a lease takes tasks.
  mutating func opened(_ id: SlotID, at now: Instant) {
    guard let slot = slots[id], slot.phase == .granted else { return }
    (slots[id]!.phase, slots[id]!.openSince) = (.open, now)
    pump(slot.shape, now)
    rest(id, now)
  }

  /// Tasks have ended, and so long each has run; `nil` for one that did not.
  mutating func done(_ id: SlotID, _ ended: [(task: TaskID, took: Duration?)], at now: Instant) {
    guard let shape = slots[id]?.shape else { return }
    for (task, took) in ended {
      guard let index = slots[id]!.pushed.firstIndex(of: task) else { continue }
      slots[id]!.pushed.remove(at: index)
      items[task] = nil
      guard let took else { continue }
      let mean = lines[shape]?.mean
      lines[shape]?.mean = mean.map { $0 * 0.9 + took * 0.1 } ?? took
    }
    slots[id]!.frontSince = slots[id]!.pushed.isEmpty ? nil : now
    slots[id]!.isStuck = false
    if let since = slots[id]!.openSince, since + settings.tenure <= now { slots[id]!.isRetiring = true }
    pump(shape, now)
    rest(id, now)
  }

  /// Tasks were called back that had not begun.
  mutating func recalled(_ id: SlotID, _ tasks: [TaskID], at now: Instant) {
    guard let shape = slots[id]?.shape else { return }
    slots[id]!.isRecalling = false
    let back = slots[id]!.pushed.filter { Set(tasks).contains($0) }
    slots[id]!.pushed.removeAll { Set(back).contains($0) }
    lines[shape]?.waiting.prepend(back)
    pump(shape, now)
    rest(id, now)
  }

  /// A lease is over before it was given back, since its worker was lost or can't be reached.
  ///
  /// - Parameter error: why; with `connectionClosed` the task that ran may run again elsewhere.
  mutating func lost(_ id: SlotID, _ error: MobulaError, at now: Instant) {
    guard let slot = remove(id) else { return }
    actions.append(.giveBack(id, workerIsReusable: false))
    var rest = slot.pushed[...]
    // Of one that never was there the next would be in the place of the first.
    let front = rest.popFirst() ?? (slot.phase == .open ? nil : lines[slot.shape]?.waiting.popFirst())
    lines[slot.shape]?.waiting.prepend(Array(rest))
    if let front { setBack(front, error, now) }
    pump(slot.shape, now)
  }

  /// Time has passed.
  mutating func tick(at now: Instant) {
    for (_, task) in delayed.filter({ $0.due <= now }) {
      if let shape = items[task]?.shape { lines[shape, default: Line()].waiting.append(task) }
    }
    delayed.removeAll { $0.due <= now }
    // Before leases without work are given back.
    for shape in lines.keys { pump(shape, now) }
    for (id, slot) in slots.sorted(by: { $0.key < $1.key }) where slot.phase == .open { look(id, slot, now) }
    for shape in lines.keys {
      while let task = lines[shape]?.waiting.first, let item = items[task],
        item.submitted + settings.workLimit <= now
      {
        _ = lines[shape]?.waiting.popFirst()
        fail(
          task,
          MobulaError(
            .unavailable,
            "No pod had \(shape.demand) free within \(settings.workLimit): `mobula status` shows what the pods have, and who has it now."
          ))
      }
      pump(shape, now)
      if let task = lines[shape]?.waiting.first, let item = items[task] {
        wake(at: item.submitted + settings.workLimit)
      }
    }
    if let next = delayed.map(\.due).min() { wake(at: next) }
  }

  /// The process ends: nothing runs any more.
  mutating func close(_ error: MobulaError) {
    for task in items.keys.sorted() { actions.append(.fail(task, error)) }
    for (id, slot) in slots.sorted(by: { $0.key < $1.key }) {
      actions.append(slot.phase == .requested ? .withdraw(id) : .giveBack(id, workerIsReusable: slot.pushed.isEmpty))
    }
    (items, slots, lines, delayed) = ([:], [:], [:], [])
  }

  // MARK: Decisions

  private mutating func wake(at instant: Instant) { actions.append(.wakeAt(instant)) }

  private mutating func fail(_ task: TaskID, _ error: MobulaError) {
    items[task] = nil
    actions.append(.fail(task, error))
  }

  /// A task did not end. Only a lost worker is worth another try: nobody else would run the task better.
  private mutating func setBack(_ task: TaskID, _ error: MobulaError, _ now: Instant) {
    guard let attempts = items[task]?.attempts else { return }
    guard error.code == .connectionClosed, attempts < settings.retries else { return fail(task, error) }
    items[task]!.attempts += 1
    actions.append(.retry(task, error))
    let due = now + settings.firstPause * (1 << min(attempts, 20))
    delayed.append((due, task))
    wake(at: due)
  }

  private mutating func remove(_ id: SlotID) -> Slot? {
    guard let slot = slots.removeValue(forKey: id) else { return nil }
    lines[slot.shape]?.slots.remove(id)
    return slot
  }

  private mutating func giveBack(_ id: SlotID) {
    guard let slot = remove(id) else { return }
    actions.append(.giveBack(id, workerIsReusable: true))
    ask(slot.shape)
  }

  /// How many tasks may be at one worker.
  private func window(_ line: Line) -> Int {
    guard let mean = line.mean, mean < settings.longTask else { return 1 }
    return min(settings.mostPushed, Int((settings.ahead / max(mean, .nanoseconds(100))).rounded(.up)) + 1)
  }

  /// Gives waiting tasks to slots that have room, and asks for more of these where that is worth it.
  private mutating func pump(_ shape: Shape, _ now: Instant) {
    guard var line = lines[shape] else { return }
    let window = window(line)
    while !line.waiting.isEmpty {
      let free = line.slots.filter { id in
        slots[id].map {
          $0.phase == .open && !$0.isRetiring && !$0.isRecalling && !$0.isStuck && $0.pushed.count < window
        } ?? false
      }
      guard !free.isEmpty else { break }
      let share = (line.waiting.count + free.count - 1) / free.count
      for id in free.sorted(by: { (slots[$0]!.pushed.count, $0) < (slots[$1]!.pushed.count, $1) }) {
        let tasks = line.waiting.popFirst(min(share, window - slots[id]!.pushed.count))
        if tasks.isEmpty { break }
        if slots[id]!.pushed.isEmpty { slots[id]!.frontSince = now }
        slots[id]!.pushed += tasks
        slots[id]!.idleSince = nil
        actions.append(.push(id, tasks))
        if slots[id]!.pushed.count > 1 { wake(at: slots[id]!.frontSince! + settings.patience) }
      }
    }
    lines[shape] = line
    ask(shape)
  }

  private mutating func ask(_ shape: Shape) {
    guard let line = lines[shape] else { return }
    let requested = line.slots.filter { slots[$0]?.phase == .requested }.sorted()
    guard !line.waiting.isEmpty else {
      for id in requested {
        _ = remove(id)
        actions.append(.withdraw(id))
      }
      return
    }
    var wanted = line.waiting.count
    // More leases than that would be given back before they have done anything.
    if let mean = line.mean {
      let there = line.slots.count { id in
        slots[id].map { $0.phase != .requested && !$0.isRetiring && !$0.isStuck } ?? false
      }
      let work = Int(min((mean * wanted / settings.ahead).rounded(.up), 1e6))
      wanted = min(wanted, max(there == 0 ? 1 : 0, work - there))
    }
    let missing = min(wanted, line.ramp) - requested.count
    guard missing > 0 else { return }
    for _ in 0..<missing {
      lastSlot += 1
      slots[lastSlot] = Slot(shape: shape)
      lines[shape]!.slots.insert(lastSlot)
      actions.append(.request(lastSlot, shape))
    }
    // What another shape keeps for later may be what is missing.
    for (id, slot) in slots.sorted(by: { $0.key < $1.key }) where slot.isIdle && slot.shape != shape { giveBack(id) }
  }

  /// A slot may have nothing to do, or have been here for long.
  private mutating func rest(_ id: SlotID, _ now: Instant) {
    guard let slot = slots[id], slot.isIdle else { return }
    if slot.isRetiring { return giveBack(id) }
    if slot.idleSince == nil {
      slots[id]!.idleSince = now
      wake(at: now + settings.linger)
    }
  }

  private mutating func look(_ id: SlotID, _ slot: Slot, _ now: Instant) {
    if slot.isIdle {
      guard let since = slot.idleSince else { return }
      if since + settings.linger <= now { giveBack(id) } else { wake(at: since + settings.linger) }
      return
    }
    guard let since = slot.frontSince, let front = slot.pushed.first else { return }
    if since + settings.workLimit <= now {
      _ = remove(id)
      actions.append(.giveBack(id, workerIsReusable: false))
      lines[slot.shape]?.waiting.prepend(Array(slot.pushed.dropFirst()))
      fail(
        front,
        MobulaError(
          .deadlineExceeded, "The task did not end within \(settings.workLimit): give it more time, or less to do."))
    } else if slot.pushed.count > 1, !slot.isStuck {
      if since + settings.patience <= now {
        (slots[id]!.isRecalling, slots[id]!.isStuck) = (true, true)
        actions.append(.recall(id, Array(slot.pushed.dropFirst())))
        wake(at: since + settings.workLimit)
      } else {
        wake(at: since + settings.patience)
      }
    } else {
      wake(at: since + settings.workLimit)
    }
  }
}

/// Tasks that wait, the first at one end.
struct TaskLine {
  typealias TaskID = TaskQueueStateMachine.TaskID

  /// Those that were put back, the next last.
  private var front: [TaskID] = []
  private var back: [TaskID] = []
  /// Of `back`, those that have gone.
  private var gone = 0

  var count: Int { front.count + back.count - gone }
  var isEmpty: Bool { count == 0 }
  var first: TaskID? { front.last ?? (gone < back.count ? back[gone] : nil) }

  mutating func append(_ task: TaskID) { back.append(task) }

  /// Puts tasks before all others, in their order.
  mutating func prepend(_ tasks: [TaskID]) { front += tasks.reversed() }

  mutating func popFirst() -> TaskID? {
    if let task = front.popLast() { return task }
    guard gone < back.count else { return nil }
    gone += 1
    let task = back[gone - 1]
    if gone > 1024, gone * 2 > back.count {
      back.removeFirst(gone)
      gone = 0
    }
    return task
  }

  mutating func popFirst(_ most: Int) -> [TaskID] {
    var tasks: [TaskID] = []
    while tasks.count < most, let task = popFirst() { tasks.append(task) }
    return tasks
  }
}
