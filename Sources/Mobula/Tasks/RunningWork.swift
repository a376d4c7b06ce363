import MobulaCore
import Synchronization

/// A task that runs in this process: what it is of, and what it lends while it waits.
final class RunningWork: Sendable {
  /// That of the code that asks.
  @TaskLocal static var current: RunningWork?

  private struct State {
    /// So many of its waits go on.
    var waits = 0
    /// Where others run on its lease meanwhile.
    var slot: TaskQueueStateMachine.SlotID?
    var isCancelled = false
    var cancel: (@Sendable () -> Void)?
    /// Whether it has ended: what still waits in its name lends nothing.
    var isOver = false
  }

  private static let numbers = Atomic<UInt64>(0)

  /// Of its own, from 1.
  let number = numbers.wrappingAdd(1, ordering: .relaxed).newValue
  /// What its lease has.
  let resources: Resources
  private let loan: LeaseLoan
  private weak let tasks: TaskQueue?
  /// Whether it runs on the lease of another, which waits.
  private let isGuest: Bool
  private let state = Mutex(State())

  init(resources: Resources, loan: LeaseLoan, tasks: TaskQueue?) {
    self.resources = resources
    self.loan = loan
    self.tasks = tasks
    isGuest = false
  }

  /// One that runs on another's lease while that one waits.
  init(on lender: RunningWork) {
    resources = lender.resources
    loan = lender.loan
    tasks = lender.tasks
    isGuest = true
  }

  var isCancelled: Bool { state.withLock { $0.isCancelled } }

  /// Runs `body` as this work, in a task that `cancel` ends.
  func run<Value: Sendable>(_ body: @escaping @Sendable () async -> Value) async -> Value {
    loan.begin()
    defer { end() }
    let task = Task.immediate { await Self.$current.withValue(self) { await body() } }
    let isCancelled = state.withLock { state in
      state.cancel = { task.cancel() }
      return state.isCancelled
    }
    if isCancelled { task.cancel() }
    return await withTaskCancellationHandler {
      await task.value
    } onCancel: {
      cancel(children: true)
    }
  }

  func cancel(children: Bool) {
    let cancel = state.withLock { state in
      state.isCancelled = true
      return state.cancel
    }
    cancel?()
    if children { tasks?.cancelChildren(of: self) }
  }

  /// Lends the lease of the task that asks, if one does, as long as `body` waits for something that is still to be made.
  static func waiting<Value>(_ body: () async throws -> Value) async rethrows -> Value {
    guard let work = current else { return try await body() }
    work.beginWaiting()
    defer { work.endWaiting() }
    return try await body()
  }

  /// It has ended, whatever still waits in its name.
  private func end() {
    let slot = state.withLock { state in
      state.isOver = true
      if state.waits > 0 { loan.begin() }
      if isGuest { loan.pause() } else { loan.end() }
      return state.slot.take()
    }
    if let slot { tasks?.takeBack(slot) }
  }

  private func beginWaiting() {
    // The loan is told under the lock, so that it hears of begin and end in their order.
    let isFirst = state.withLock { state in
      guard !state.isOver else { return false }
      state.waits += 1
      if state.waits == 1 { loan.pause() }
      return state.waits == 1
    }
    guard isFirst, let slot = tasks?.lend(self) else { return }
    let isUseless = state.withLock { state in
      // It may wait no more by now, or again.
      guard state.waits > 0, state.slot == nil, !state.isOver else { return true }
      state.slot = slot
      return false
    }
    if isUseless { tasks?.takeBack(slot) }
  }

  private func endWaiting() {
    let slot = state.withLock { state -> TaskQueueStateMachine.SlotID? in
      guard !state.isOver, state.waits > 0 else { return nil }
      state.waits -= 1
      guard state.waits == 0 else { return nil }
      loan.begin()
      return state.slot.take()
    }
    if let slot { tasks?.takeBack(slot) }
  }
}

/// The CPU of a lease, lent to the others of its pod while all that runs on the lease waits.
final class LeaseLoan: Sendable {
  private struct State {
    /// So many tasks run on the lease and don't wait.
    var active = 0
    var pausedSince: ContinuousClock.Instant?
    var isLooking = false
    /// What the pod was told, or is being told.
    var isLent = false
    var isTelling = false
  }

  /// What waits for less is not worth telling anybody.
  private static let patience = Duration.milliseconds(10)

  private let tell: @Sendable (_ isLent: Bool) async -> Bool
  private let state = Mutex(State())

  /// - Parameter tell: tells the pod; false where it says that too many are lent.
  init(_ tell: @escaping @Sendable (_ isLent: Bool) async -> Bool) { self.tell = tell }

  /// A task runs on it, or runs on.
  func begin() {
    let tells = state.withLock { state in
      state.active += 1
      state.pausedSince = nil
      return Self.beginTelling(&state)
    }
    if tells { Task.detached { await self.keepTelling() } }
  }

  /// A task that runs on it waits, or has ended for which another one waits.
  func pause() {
    let looks = state.withLock { state in
      state.active -= 1
      guard state.active == 0 else { return false }
      state.pausedSince = .now
      defer { state.isLooking = true }
      return !state.isLooking
    }
    if looks { Task.detached { await self.look() } }
  }

  /// The task that it was given for has ended: the next one is about to come.
  func end() { state.withLock { $0.active -= 1 } }

  private func look() async {
    while true {
      let left = state.withLock { state -> Duration? in
        guard let since = state.pausedSince else {
          state.isLooking = false
          return nil
        }
        return since + Self.patience - .now
      }
      guard let left else { return }
      if left > .zero {
        try? await Task.sleep(for: left)
        continue
      }
      let tells = state.withLock { state in
        state.isLooking = false
        return Self.beginTelling(&state)
      }
      if tells { await keepTelling() }
      return
    }
  }

  /// Whether what the pod was told is not so any more, and nobody is about to tell it.
  private static func beginTelling(_ state: inout State) -> Bool {
    guard !state.isTelling, state.isLent != isToBeLent(state) else { return false }
    state.isTelling = true
    return true
  }

  private static func isToBeLent(_ state: State) -> Bool {
    state.active == 0 && state.pausedSince.map { $0 + patience <= .now } ?? false
  }

  private func keepTelling() async {
    while true {
      let isLent = state.withLock { state -> Bool? in
        let isLent = Self.isToBeLent(state)
        guard isLent != state.isLent else {
          state.isTelling = false
          return nil
        }
        state.isLent = isLent
        return isLent
      }
      guard let isLent else { return }
      if await tell(isLent) || !isLent { continue }
      // Too many are lent: it is asked for again as long as it waits.
      state.withLock { $0.isLent = false }
      try? await Task.sleep(for: .milliseconds(500))
    }
  }
}
