import HeapModule

/// Tasks that wait, the first at one end.
struct TaskLine {
  typealias TaskID = TaskQueueStateMachine.TaskID

  /// Those that were put back, the next last.
  private var front: [TaskID] = []
  private var back: [TaskID] = []
  /// Of `back`, those that have gone.
  private var gone = 0
  /// Those that were taken out of the middle; neither the first nor the last is one of them.
  private var removed: Set<TaskID> = []

  var count: Int { front.count + back.count - gone - removed.count }
  var isEmpty: Bool { count == 0 }
  var first: TaskID? { front.last ?? (gone < back.count ? back[gone] : nil) }
  var last: TaskID? { gone < back.count ? back.last : front.first }

  mutating func append(_ task: TaskID) { back.append(task) }

  /// Puts tasks before all others, in their order.
  mutating func prepend(_ tasks: [TaskID]) { front += tasks.reversed() }

  /// Takes a task out that is here.
  mutating func remove(_ task: TaskID) {
    removed.insert(task)
    trim()
  }

  mutating func popFirst() -> TaskID? {
    defer { trim() }
    return takeFirst()
  }

  mutating func popFirst(_ most: Int) -> [TaskID] {
    var tasks: [TaskID] = []
    while tasks.count < most, let task = popFirst() { tasks.append(task) }
    return tasks
  }

  mutating func popLast() -> TaskID? {
    defer { trim() }
    return takeLast()
  }

  private mutating func takeFirst() -> TaskID? {
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

  private mutating func takeLast() -> TaskID? {
    if gone < back.count { return back.removeLast() }
    return front.isEmpty ? nil : front.removeFirst()
  }

  private mutating func trim() {
    guard !removed.isEmpty else { return }
    while let task = first, removed.remove(task) != nil { _ = takeFirst() }
    while let task = last, removed.remove(task) != nil { _ = takeLast() }
  }
}

/// When tasks are to be looked at: a heap, since very many may have limits.
struct TaskAgenda {
  typealias TaskID = TaskQueueStateMachine.TaskID
  typealias Instant = TaskQueueStateMachine.Instant

  private struct Entry: Comparable {
    var instant: Instant
    var task: TaskID

    static func < (a: Self, b: Self) -> Bool { (a.instant, a.task) < (b.instant, b.task) }
  }

  private var heap = Heap<Entry>()

  var count: Int { heap.count }

  mutating func keep(_ isWanted: (TaskID) -> Bool) { heap.removeAll { !isWanted($0.task) } }

  /// When the first is to be looked at.
  var first: Instant? { heap.min?.instant }

  /// - Returns: whether it is the first now.
  mutating func insert(_ task: TaskID, at instant: Instant) -> Bool {
    heap.insert(Entry(instant: instant, task: task))
    return heap.min?.task == task
  }

  mutating func popFirst(until now: Instant) -> TaskID? {
    guard let first, first <= now else { return nil }
    return heap.popMin()?.task
  }
}
