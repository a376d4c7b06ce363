import MobulaCore

extension TaskQueueStateMachine {
  /// How many tasks may be at one worker.
  private func window(_ line: Line) -> Int {
    guard let mean = line.mean, mean < settings.longTask else { return 1 }
    return min(settings.mostPushed, Int((settings.ahead / max(mean, .nanoseconds(100))).rounded(.up)) + 1)
  }

  /// Gives waiting tasks to slots that have room, and asks for more of these where that is worth it.
  mutating func pump(_ line: Int, _ now: Instant) {
    for (slot, resources) in lent { fill(slot, resources, now) }
    let window = window(lines[line])
    while !lines[line].waiting.isEmpty {
      var free: [(count: Int, slot: SlotID)] = []
      for id in lines[line].slots {
        guard let slot = slots[id], slot.phase == .open, slot.pushed.count < window else { continue }
        if !slot.isRetiring, !slot.isRecalling, !slot.isStuck { free.append((slot.pushed.count, id)) }
      }
      guard !free.isEmpty else { break }
      if free.count > 1 { free.sort { $0 < $1 } }
      let share = (lines[line].waiting.count + free.count - 1) / free.count
      for (count, id) in free {
        let tasks = lines[line].waiting.popFirst(min(share, window - count))
        if tasks.isEmpty { break }
        for task in tasks { items[task]?.place = .at(id) }
        push(tasks, to: id, now)
      }
    }
    ask(line, now)
  }

  private mutating func push(_ tasks: [TaskID], to id: SlotID, _ now: Instant) {
    let isFirst = slots[id]!.push(tasks, now)
    actions.append(.push(id, tasks))
    if isFirst { wakeForFront(tasks[0], since: now) }
    if let slot = slots[id], slot.pushed.count > 1, let since = slot.frontSince { wake(at: since + settings.patience) }
  }

  mutating func wakeForFront(_ task: TaskID, since: Instant) {
    guard let item = items[task], item.hasLimits || item.isCancelled else { return }
    if let attempt = limits(of: task).attempt { wake(at: since + attempt) }
    if let force = forces[task] { wake(at: force) }
  }

  /// Has a lease that is lent here run the newest of the tasks that fit into it.
  mutating func fill(_ id: SlotID, _ resources: Resources, _ now: Instant) {
    guard slots[id]?.pushed.isEmpty == true else { return }
    var newest: (line: Int, task: TaskID)?
    for (number, line) in lines.enumerated() {
      // What is to run on a certain host or with an environment of its own needs a worker of its own.
      guard let task = line.waiting.last, task > newest?.task ?? 0, line.shape.strategy == .pack,
        line.shape.environment.isEmpty, resources.covers(line.shape.demand)
      else { continue }
      newest = (number, task)
    }
    guard let (line, task) = newest else { return }
    _ = lines[line].waiting.popLast()
    items[task]?.place = .at(id)
    _ = slots[id]!.push([task], now)
    wakeForFront(task, since: now)
    actions.append(.runHere(id, task))
    ask(line, now)
  }

  mutating func ask(_ number: Int, _ now: Instant) {
    guard let first = lines[number].waiting.first else { return withdraw(number) }
    if settings.askDelay > .zero, let ready = items[first]?.ready, ready + settings.askDelay > now {
      return wake(at: ready + settings.askDelay)
    }
    var (requested, there) = (0, 0)
    for id in lines[number].slots {
      guard let slot = slots[id] else { continue }
      if slot.phase == .requested { requested += 1 } else if !slot.isRetiring, !slot.isStuck { there += 1 }
    }
    var wanted = lines[number].waiting.count
    // More leases than that would be given back before they have done anything.
    if let mean = lines[number].mean {
      let work = Int(min((mean * wanted / settings.ahead).rounded(.up), 1e6))
      wanted = min(wanted, max(there == 0 ? 1 : 0, work - there))
    }
    let missing = min(wanted, lines[number].ramp) - requested
    guard missing > 0 else { return }
    for _ in 0..<missing {
      lastSlot += 1
      slots[lastSlot] = Slot(line: number)
      lines[number].slots.append(lastSlot)
      actions.append(.request(lastSlot, lines[number].shape))
    }
    // What another shape keeps for later may be what is missing.
    for (id, slot) in slots.sorted(by: { $0.key < $1.key }) where slot.isIdle && !slot.isLent && slot.line != number {
      giveBack(id, now)
    }
  }

  /// Nothing waits for what was asked for.
  private mutating func withdraw(_ number: Int) {
    // Nearly always there is nothing of that.
    guard lines[number].slots.contains(where: { slots[$0]?.phase == .requested }) else { return }
    for id in lines[number].slots where slots[id]?.phase == .requested {
      _ = remove(id)
      actions.append(.withdraw(id))
    }
  }
}
