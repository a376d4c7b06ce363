import Logging
import MobulaCore
import MobulaWire
import Synchronization

/// The tasks of this process, and the leases that they run on. What is decided is `TaskQueueStateMachine`'s.
final class TaskQueue: Sendable {
  typealias TaskID = TaskQueueStateMachine.TaskID
  typealias SlotID = TaskQueueStateMachine.SlotID
  typealias Shape = TaskQueueStateMachine.Shape

  /// What the queue needs of its process.
  struct Surroundings: Sendable {
    var head: HeadSession
    var workers: WorkerConnections
    var holds: ProcessHolds
    var job: JobID
    var program: WorkerProgram
    var log: Logger
    /// The most bytes that tasks may have which have not ended.
    var most: Int
    /// Makes an object of bytes that lie here.
    var make: @Sendable (ObjectID, InlineObject) async -> Void
  }

  /// Runs a task of this process's here, on the lease of one that waits.
  typealias Runner = @Sendable (PushedTask, TaskRecord, RunningWork) async -> EndedTask.Outcome

  /// A lease that is given back once, by whoever is the first.
  final class Lease: Sendable {
    let id: LeaseID
    private let isOver = Atomic(false)

    init(_ id: LeaseID) { self.id = id }

    func end() -> Bool { !isOver.exchange(true, ordering: .acquiringAndReleasing) }
  }

  /// A lease, from when it is asked for.
  struct Slot {
    var lease: Lease
    /// Asks for the lease, and then reads what comes of its tasks.
    var running: Task<Void, Never>?
    var connection: RPCConnection?
  }

  struct State {
    var machine: TaskQueueStateMachine
    var records: [TaskID: TaskRecord] = [:]
    var slots: [SlotID: Slot] = [:]
    var byLease: [LeaseID: SlotID] = [:]
    /// Leases that are lent here, by whichever task waits; and what runs on them now.
    var lenders: [SlotID: RunningWork] = [:]
    var here: [SlotID: (task: TaskID, work: RunningWork)] = [:]
    var runner: Runner?
    /// Of the tasks that have not ended.
    var bytes = 0
    var wakeAt: ContinuousClock.Instant?
    var timer: Task<Void, Never>?
    var isClosed = false
  }

  /// What is to be done outside of the lock.
  private enum Effect {
    case ask(SlotID, Lease, Shape)
    case refuse(SlotID, [TaskID], MobulaError)
    case runHere(SlotID, TaskID, PushedTask, TaskRecord, RunningWork, Runner)
    case cancelHere(RunningWork)
    case giveBack(Slot, isReusable: Bool)
    case fail(TaskRecord, MobulaError)
    case warn(String, MobulaError)
  }

  let around: Surroundings
  let state: Mutex<State>
  /// Tasks that are over, and whose records do not know yet.
  private let finishing = Atomic<Int>(0)

  init(_ settings: TaskQueueStateMachine.Settings, _ surroundings: Surroundings) {
    around = surroundings
    state = Mutex(State(machine: TaskQueueStateMachine(settings)))
    around.workers.listen(
      .init(
        ended: { [weak self] ended, connection in try self?.took(ended, over: connection) },
        recalled: { [weak self] recalled, connection in self?.took(recalled, over: connection) },
        storing: { [weak self] task, connection in
          guard let self else { return false }
          return try await self.willStore(task, over: connection)
        }))
  }

  /// Whether nothing goes on that was submitted here.
  var isIdle: Bool {
    state.withLock { $0.machine.count == 0 && $0.here.isEmpty }
      && finishing.load(ordering: .acquiring) == 0 && TaskRecord.makings.load(ordering: .acquiring) == 0
  }

  /// Says who runs tasks in this process itself.
  func runsHere(_ runner: @escaping Runner) { state.withLock { $0.runner = runner } }

  /// Takes a task, whose record is told when it has ended. Never waits.
  ///
  /// - Parameter arguments: tasks of this process whose results it needs: it begins once these have ended, and fails
  ///   where one of them does.
  /// - Throws: `MobulaError`: `unavailable` once the process has closed its cluster, `full` where too much waits.
  func submit(
    _ record: TaskRecord, _ shape: Shape, _ limits: TaskQueueStateMachine.Limits, after arguments: [TaskRecord] = []
  ) throws(MobulaError) {
    // One that has failed is looked at as if it failed now.
    let unready = arguments.filter { $0.outcome == nil || $0.failure != nil }
    let task = try perform { state throws(MobulaError) in
      guard !state.isClosed else { throw Self.closed }
      guard record.bytes <= around.most else {
        throw MobulaError(
          .invalidArgument,
          "A task's arguments have \(ByteCount(record.bytes)), and all that wait may have \(ByteCount(around.most)): put what is big, and pass its reference."
        )
      }
      guard state.bytes + record.bytes <= around.most else {
        throw MobulaError(
          .full,
          "\(ByteCount(state.bytes)) of tasks wait already: wait for some of them, or submit them with Cluster.map, which keeps a bound."
        )
      }
      state.bytes += record.bytes
      let task = state.machine.submit(shape, limits, arguments: unready.count, at: .now)
      record.task = task
      state.records[task] = record
      return task
    }
    for argument in unready {
      let watching = argument.whenDone { [weak self, weak argument] in self?.came(argument, of: task) }
      if watching == nil { came(argument, of: task) }
    }
  }

  /// One of a task's arguments has ended.
  private func came(_ argument: TaskRecord?, of task: TaskID) {
    guard let failure = argument?.failure else { return perform { $0.machine.argumentCame(task, at: .now) } }
    let record = perform { state in
      state.machine.discard(task)
      return take(task, &state)
    }
    guard let record else { return }
    // Others may wait for this one, and others for those: each in its turn, and not each in the one before it.
    Task.detached { self.finish(record, .failed(failure)) }
  }

  /// The record of a task that is over.
  private func take(_ task: TaskID, _ state: inout State) -> TaskRecord? {
    guard let record = state.records.removeValue(forKey: task) else { return nil }
    state.bytes -= record.bytes
    finishing.add(1, ordering: .relaxed)
    return record
  }

  /// Has a task end that has not, and those that it has submitted if they are this process's.
  func cancel(_ record: TaskRecord, force: Duration?, children: Bool) {
    perform { state in
      guard let task = record.task, state.records[task] === record else { return }
      record.cancelsChildren = children
      state.machine.cancel(task, force: force, at: .now)
    }
  }

  /// Has all tasks end that a task of this process has submitted.
  func cancelChildren(of parent: RunningWork) {
    let records = state.withLock { state in state.records.values.filter { $0.parent == parent.number } }
    for record in records { cancel(record, force: nil, children: true) }
  }

  /// A task that runs here waits: what it has submitted may run on its lease.
  func lend(_ work: RunningWork) -> SlotID? {
    perform { state in
      guard !state.isClosed, state.runner != nil else { return nil }
      let id = state.machine.lend(work.resources, at: .now)
      state.lenders[id] = work
      return id
    }
  }

  func takeBack(_ id: SlotID) {
    perform { state in
      state.machine.takeBack(id)
      state.lenders[id] = nil
    }
  }

  private static var closed: MobulaError {
    MobulaError(.unavailable, "The cluster was closed: tasks that had not ended by then have no result.")
  }

  /// Gives all leases back; tasks that did not end fail.
  func close() async {
    let running = state.withLock { state in
      state.isClosed = true
      state.timer?.cancel()
      return state.slots.values.compactMap(\.running)
    }
    perform { $0.machine.close(Self.closed) }
    for task in running { task.cancel() }
    for task in running { await task.value }
  }

  // MARK: Carrying out

  /// Has the machine decide, and does what it says.
  func perform<Value: Sendable, Failure>(
    _ event: (inout State) throws(Failure) -> Value
  ) throws(Failure) -> Value {
    let result: (value: Value, effects: [Effect]) = try state.withLock { state throws(Failure) in
      let value = try event(&state)
      var effects: [Effect] = []
      for action in state.machine.takeActions() {
        if let effect = take(action, &state) { effects.append(effect) }
      }
      return (value, effects)
    }
    for effect in result.effects { carryOut(effect) }
    return result.value
  }

  /// What of an action is done under the lock.
  private func take(_ action: TaskQueueStateMachine.Action, _ state: inout State) -> Effect? {
    switch action {
    case .request(let id, let shape):
      let lease = Lease(.random())
      state.slots[id] = Slot(lease: lease)
      state.byLease[lease.id] = id
      return .ask(id, lease, shape)
    case .withdraw(let id):
      remove(id, &state)?.running?.cancel()
      return nil
    case .push(let id, let tasks):
      // Under the lock, so that they come in the order in which the machine believes them to be.
      guard let slot = state.slots[id], let connection = slot.connection else { return nil }
      let pushed = tasks.compactMap { task in
        state.records[task]?.pushed(as: task)
      }
      var refused: (tasks: [TaskID], error: MobulaError)?
      func tell(_ tasks: [PushedTask]) {
        do throws(MobulaError) {
          try connection.tell(WorkerAPI.push, WorkPush(lease: slot.lease.id, tasks: WorkCoding.encode(tasks)))
        } catch {
          // Of a connection that is gone the lease's end says what is to be done.
          guard error.code == .invalidArgument else { return }
          // What does not fit into a frame by itself would fail at every worker.
          if tasks.count > 1 {
            for task in tasks { tell([task]) }
          } else {
            refused = ((refused?.tasks ?? []) + tasks.map(\.task), error)
          }
        }
      }
      for part in pages(of: pushed, size: { $0.arguments.bytes.count + $0.type.utf8.count + 64 }) { tell(part) }
      return refused.map { .refuse(id, $0.tasks, $0.error) }
    case .recall(let id, let tasks):
      guard let slot = state.slots[id] else { return nil }
      // Of a connection that is gone the lease's end says what is to be done.
      try? slot.connection?.tell(WorkerAPI.recall, WorkRecall(lease: slot.lease.id, tasks: tasks))
      return nil
    case .cancel(let id, let tasks):
      if let here = state.here[id] { return tasks.contains(here.task) ? .cancelHere(here.work) : nil }
      guard let slot = state.slots[id] else { return nil }
      let children = tasks.contains { state.records[$0]?.cancelsChildren != false }
      try? slot.connection?.tell(
        WorkerAPI.cancel, WorkCancel(lease: slot.lease.id, tasks: tasks, children: children))
      return nil
    case .runHere(let id, let task):
      guard let record = state.records[task], let lender = state.lenders[id], let runner = state.runner else {
        return nil
      }
      let work = RunningWork(on: lender)
      state.here[id] = (task, work)
      return .runHere(id, task, record.pushed(as: task), record, work, runner)
    case .giveBack(let id, let isReusable):
      return remove(id, &state).map { .giveBack($0, isReusable: isReusable) }
    case .fail(let task, let error): return take(task, &state).map { .fail($0, error) }
    case .retry(let task, let error):
      guard let record = state.records[task] else { return nil }
      record.attempt += 1
      return .warn(record.name, error)
    case .wakeAt(let instant):
      if let due = state.wakeAt, due <= instant { return nil }
      state.timer?.cancel()
      guard !state.isClosed else { return nil }
      state.wakeAt = instant
      state.timer = Task { [weak self] in
        try? await Task.sleep(until: instant, clock: .continuous)
        if !Task.isCancelled { self?.wake() }
      }
      return nil
    }
  }

  func remove(_ id: SlotID, _ state: inout State) -> Slot? {
    guard let slot = state.slots.removeValue(forKey: id) else { return nil }
    state.byLease[slot.lease.id] = nil
    return slot
  }

  private func wake() {
    perform { state in
      (state.wakeAt, state.timer) = (nil, nil)
      state.machine.tick(at: .now)
    }
  }

  private func carryOut(_ effect: Effect) {
    switch effect {
    case .ask(let id, let lease, let shape):
      // With nothing of what the code has in its task that has just submitted something.
      let task = Task.detached { await self.serve(id, lease, shape) }
      let isWanted = state.withLock { state in
        guard state.slots[id] != nil else { return false }
        state.slots[id]!.running = task
        return true
      }
      if !isWanted { task.cancel() }
    case .refuse(let id, let tasks, let error):
      var records: [TaskRecord] = []
      perform { state in
        records = tasks.compactMap { take($0, &state) }
        state.machine.done(id, tasks.map { ($0, nil) }, at: .now)
        for task in tasks { state.machine.discard(task) }
      }
      for record in records { finish(record, .failed(WorkRunner.failure(error))) }
    case .runHere(let id, let task, let pushed, let record, let work, let runner):
      // Never where it was submitted: that code is not to wait.
      Task.detached {
        let begin = ContinuousClock.now
        let outcome = await runner(pushed, record, work)
        let took = UInt64(max(0, (ContinuousClock.now - begin) / .nanoseconds(1)))
        self.ended(here: id, EndedTask(task: task, outcome: outcome, took: took))
      }
    case .cancelHere(let work): work.cancel(children: true)
    case .giveBack(let slot, let isReusable):
      guard slot.lease.end() else { return }
      // The worker ends what it does for the lease when the stream ends.
      slot.running?.cancel()
      Task { await self.tell(slot.lease, isReusable: isReusable) }
    case .fail(let record, let error): finish(record, .failed(WorkRunner.failure(error)))
    case .warn(let task, let error):
      let what = error.code == .workFailed ? "a task failed, and runs again" : "a worker was lost; the task runs again"
      around.log.warning("\(what)", metadata: ["task": "\(task)", "error": "\(error)"])
    }
  }

  // MARK: Tasks

  /// The slot of a lease, if it is what the connection's worker serves.
  ///
  /// What is said of a lease that is over comes too late: its tasks run elsewhere by now.
  private func slot(_ lease: LeaseID, over connection: RPCConnection, _ state: borrowing State) -> SlotID? {
    guard let id = state.byLease[lease], state.slots[id]?.connection === connection else { return nil }
    return id
  }

  private func took(_ recalled: WorkRecall, over connection: RPCConnection) {
    perform { state in
      guard let id = slot(recalled.lease, over: connection, state) else { return }
      state.machine.recalled(id, recalled.tasks, at: .now)
    }
  }

  private func took(_ ended: WorkEnded, over connection: RPCConnection) throws {
    take(try WorkCoding.ends(ended.ends)) { self.slot(ended.lease, over: connection, $0) }
  }

  private func ended(here id: SlotID, _ ended: EndedTask) {
    take([ended]) { state in
      state.here[id] = nil
      return id
    }
  }

  /// Tasks have ended, or are to be tried again, at the slot that `choose` finds.
  private func take(_ ends: [EndedTask], at choose: (inout State) -> SlotID?) {
    // What its submitter says of an error is asked outside of the lock.
    var errors: [TaskID: MobulaError] = [:]
    for end in ends {
      guard case .failed(let bytes) = end.outcome, let record = state.withLock({ $0.records[end.task] }) else {
        continue
      }
      errors[end.task] = record.worthAnotherTry(bytes)
    }
    let records = perform { state -> [TaskRecord?] in
      guard let id = choose(&state) else { return [] }
      var over: [(task: TaskID, took: Duration?)] = []
      let records = ends.map { end -> TaskRecord? in
        let took = Duration.nanoseconds(Int64(clamping: end.took))
        if let error = errors[end.task], state.machine.mayRetry(end.task) {
          state.machine.failed(id, end.task, took: took, error, at: .now)
          return nil
        }
        over.append((end.task, took))
        return take(end.task, &state)
      }
      state.machine.done(id, over, at: .now)
      return records
    }
    for (end, record) in zip(ends, records) { finish(record, end.outcome) }
  }

  private func finish(_ record: TaskRecord?, _ outcome: EndedTask.Outcome) {
    guard let record else { return }
    record.finish(outcome, holds: around.holds, make: around.make)
    finishing.subtract(1, ordering: .releasing)
  }

  /// A worker is about to make an object of a result: it is held here before it is there, so that nothing that happens
  /// to the worker takes it away.
  ///
  /// - Returns: whether somebody still wants it.
  private func willStore(_ storing: WorkStoring, over connection: RPCConnection) async throws -> Bool {
    let record = state.withLock { state in
      slot(storing.lease, over: connection, state).flatMap { _ in state.records[storing.task] }
    }
    return try await willStore(record)
  }

  func willStore(_ record: TaskRecord?) async throws -> Bool {
    guard let record, record.holdStored(around.holds) else { return false }
    try await around.holds.flush()
    return true
  }
}
