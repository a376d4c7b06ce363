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
    /// Makes an object of bytes that lie here.
    var make: @Sendable (ObjectID, InlineObject) async -> Void
  }

  /// A lease that is given back once, by whoever is the first.
  private final class Lease: Sendable {
    let id: LeaseID
    private let isOver = Atomic(false)

    init(_ id: LeaseID) { self.id = id }

    func end() -> Bool { !isOver.exchange(true, ordering: .acquiringAndReleasing) }
  }

  /// A lease, from when it is asked for.
  private struct Slot {
    var lease: Lease
    /// Asks for the lease, and then reads what comes of its tasks.
    var running: Task<Void, Never>?
    var connection: RPCConnection?
  }

  private struct State {
    var machine: TaskQueueStateMachine
    var records: [TaskID: TaskRecord] = [:]
    var slots: [SlotID: Slot] = [:]
    var byLease: [LeaseID: SlotID] = [:]
    var wakeAt: ContinuousClock.Instant?
    var timer: Task<Void, Never>?
    var isClosed = false
  }

  /// What is to be done outside of the lock.
  private enum Effect {
    case ask(SlotID, Lease, Shape)
    case refuse(SlotID, [TaskID], MobulaError)
    case recall(SlotID, RPCConnection, [TaskID])
    case giveBack(Slot, isReusable: Bool)
    case fail(TaskRecord, MobulaError)
    case warn(String, MobulaError)
  }

  private let around: Surroundings
  private let state: Mutex<State>

  init(_ settings: TaskQueueStateMachine.Settings, _ surroundings: Surroundings) {
    around = surroundings
    state = Mutex(State(machine: TaskQueueStateMachine(settings)))
    around.workers.listen { [weak self] ended, connection in try self?.took(ended, over: connection) }
  }

  /// Takes a task, whose record is told when it has ended. Never waits.
  ///
  /// - Throws: `MobulaError` (`unavailable`) once the process has closed its cluster.
  func submit(_ record: TaskRecord, _ shape: Shape) throws(MobulaError) {
    let isClosed = state.withLock { $0.isClosed }
    guard !isClosed else { throw Self.closed }
    perform { state in
      let task = state.machine.submit(shape, at: .now)
      state.records[task] = record
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
  private func perform(_ event: (inout State) -> Void) {
    let effects = state.withLock { state in
      event(&state)
      var effects: [Effect] = []
      for action in state.machine.takeActions() {
        if let effect = take(action, &state) { effects.append(effect) }
      }
      return effects
    }
    for effect in effects { carryOut(effect) }
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
        state.records[task].map {
          PushedTask(task: task, type: $0.type, arguments: $0.arguments, result: $0.object)
        }
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
      return state.slots[id]?.connection.map { .recall(id, $0, tasks) }
    case .giveBack(let id, let isReusable):
      return remove(id, &state).map { .giveBack($0, isReusable: isReusable) }
    case .fail(let task, let error): return state.records.removeValue(forKey: task).map { .fail($0, error) }
    case .retry(let task, let error): return state.records[task].map { .warn(readableName(ofType: $0.type), error) }
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

  private func remove(_ id: SlotID, _ state: inout State) -> Slot? {
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
      let task = Task { await self.serve(id, lease, shape) }
      let isWanted = state.withLock { state in
        guard state.slots[id] != nil else { return false }
        state.slots[id]!.running = task
        return true
      }
      if !isWanted { task.cancel() }
    case .refuse(let id, let tasks, let error):
      var records: [TaskRecord] = []
      perform { state in
        records = tasks.compactMap { state.records.removeValue(forKey: $0) }
        state.machine.done(id, tasks.map { ($0, nil) }, at: .now)
      }
      for record in records { finish(record, with: error) }
    case .recall(let id, let connection, let tasks): Task { await self.recall(id, connection, tasks) }
    case .giveBack(let slot, let isReusable):
      guard slot.lease.end() else { return }
      // The worker ends what it does for the lease when the stream ends.
      slot.running?.cancel()
      Task { await self.tell(slot.lease, isReusable: isReusable) }
    case .fail(let record, let error): finish(record, with: error)
    case .warn(let task, let error):
      around.log.warning("a worker was lost; the task runs again", metadata: ["task": "\(task)", "error": "\(error)"])
    }
  }

  private func finish(_ record: TaskRecord, with error: MobulaError) {
    do {
      let value = try EncodedValue(error, isError: true)
      record.finish(.inline(InlineObject(value)), holds: around.holds, make: around.make)
    } catch {
      preconditionFailure("an error of ours can be encoded: \(error)")
    }
  }

  // MARK: Leases

  /// Asks for a lease, and reads what comes of its tasks until it is over.
  private func serve(_ id: SlotID, _ first: Lease, _ shape: Shape) async {
    var lease = first
    let grant: LeaseGrant
    do {
      grant = try await request(&lease, id, shape)
    } catch {
      // What was granted after all is given back.
      await giveBack(lease)
      if Task.isCancelled { return }
      let error = MobulaError(describing: error)
      return perform { state in
        _ = self.remove(id, &state)
        state.machine.refused(id, error, at: .now)
      }
    }
    guard !Task.isCancelled else { return await giveBack(lease) }
    perform { $0.machine.granted(id) }
    do {
      let connection = try await around.workers.leasedConnection(to: grant)
      let stream = try await connection.stream(WorkerAPI.work, WorkLane(lease: lease.id))
      perform { state in
        state.slots[id]?.connection = connection
        state.machine.opened(id, at: .now)
      }
      for try await _ in stream {}
      throw MobulaError(.connectionClosed, "The worker ended before its work.")
    } catch {
      if Task.isCancelled { return await giveBack(lease) }
      var reason = MobulaError(describing: error)
      if reason.code == .connectionClosed, let said = await around.workers.loss(of: lease.id) {
        reason = MobulaError(.connectionClosed, said)
      }
      perform { $0.machine.lost(id, reason, at: .now) }
    }
  }

  /// The lease, once the head has granted it, for which it takes as long as others have what it needs.
  private func request(_ lease: inout Lease, _ id: SlotID, _ shape: Shape) async throws -> LeaseGrant {
    while true {
      let request = LeaseRequest(
        lease: lease.id, job: around.job, demand: shape.demand, strategy: shape.strategy, program: around.program)
      around.workers.requested(lease.id)
      do {
        let grant = try await around.head.callOnce(HeadAPI.requestLease, request, deadline: .seconds(3600))
        around.workers.leased(lease.id, at: grant.endpoint)
        return grant
      } catch let error as MobulaError
        where [.connectionClosed, .deadlineExceeded].contains(error.code) && !Task.isCancelled
      {
        // A head that went away may have had it granted: another one, then.
        await giveBack(lease)
        let next = Lease(.random())
        lease = next
        state.withLock { state in
          guard let former = state.slots[id]?.lease else { return }
          state.byLease[former.id] = nil
          state.byLease[next.id] = id
          state.slots[id]!.lease = next
        }
      }
    }
  }

  private func giveBack(_ lease: Lease) async {
    if lease.end() { await tell(lease, isReusable: true) }
  }

  private func tell(_ lease: Lease, isReusable: Bool) async {
    around.workers.returned(lease.id)
    await around.head.giveBack(LeaseReturn(lease: lease.id, workerIsReusable: isReusable))
  }

  // MARK: Tasks

  private func recall(_ id: SlotID, _ connection: RPCConnection, _ tasks: [TaskID]) async {
    guard let lease = state.withLock({ $0.slots[id]?.lease.id }) else { return }
    // A task may keep all threads of its worker for as long as it likes. Of a connection that is gone the lease's end
    // says what is to be done.
    guard
      let answer = try? await connection.call(
        WorkerAPI.recall, WorkRecall(lease: lease, tasks: tasks), deadline: .seconds(86_400))
    else { return }
    perform { $0.machine.recalled(id, answer.tasks, at: .now) }
  }

  private func took(_ ended: WorkEnded, over connection: RPCConnection) throws {
    let ends = try WorkCoding.ends(ended.ends)
    var stored: [UInt64] = []
    var records: [TaskRecord?] = []
    perform { state in
      // What is said of a lease that is over comes too late: its tasks run elsewhere by now.
      guard let id = state.byLease[ended.lease], state.slots[id]?.connection === connection else { return }
      records = ends.map { end in
        if case .stored(let number) = end.outcome { stored.append(number) }
        return state.records.removeValue(forKey: end.task)
      }
      state.machine.done(id, ends.map { ($0.task, .nanoseconds(Int64(clamping: $0.took))) }, at: .now)
    }
    for (end, record) in zip(ends, records) {
      guard let record else { continue }
      switch end.outcome {
      case .inline(let bytes): record.finish(.inline(bytes), holds: around.holds, make: around.make)
      case .stored: record.finish(.stored, holds: around.holds, make: around.make)
      }
    }
    if !stored.isEmpty { Task { [stored] in await self.take(stored, from: connection) } }
  }

  /// Once the head knows that this process holds them, the worker need not.
  private func take(_ results: [UInt64], from connection: RPCConnection) async {
    guard (try? await around.holds.flush()) != nil else { return }
    _ = try? await connection.call(WorkerAPI.taken, WorkTaken(results: results))
  }
}
