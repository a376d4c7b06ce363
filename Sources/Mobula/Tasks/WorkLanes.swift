import MobulaCore
import MobulaWire
import Synchronization

/// The tasks that were pushed to this worker, a lane for each lease that it serves.
final class WorkLanes: Sendable {
  /// A lane: tasks run one at a time, in the order in which they came.
  final class Lane: Sendable {
    private struct State {
      var tasks: [PushedTask] = []
      /// Of these, those that have begun.
      var begun = 0
      var waiting: CheckedContinuation<PushedTask?, Never>?
      /// The task that was taken last; its work, once it runs as one; and whether it is to end.
      var running: (task: UInt64, work: RunningWork?, isCancelled: Bool)?
      var isOver = false
    }

    private let state = Mutex(State())

    func push(_ tasks: [PushedTask]) {
      let (waiting, next) = state.withLock { state -> (CheckedContinuation<PushedTask?, Never>?, PushedTask?) in
        state.tasks += tasks
        guard let waiting = state.waiting, state.begun < state.tasks.count else { return (nil, nil) }
        state.waiting = nil
        return (waiting, Self.begin(&state))
      }
      waiting?.resume(returning: next)
    }

    private static func begin(_ state: inout State) -> PushedTask {
      let task = state.tasks[state.begun]
      state.running = (task.task, nil, false)
      state.begun += 1
      if state.begun == state.tasks.count || state.begun > 256 {
        state.tasks.removeFirst(state.begun)
        state.begun = 0
      }
      return task
    }

    /// Takes tasks out that have not begun.
    func recall(_ numbers: Set<UInt64>) -> [UInt64] {
      state.withLock { state in
        let back = state.tasks[state.begun...].filter { numbers.contains($0.task) }.map(\.task)
        state.tasks = state.tasks[state.begun...].filter { !numbers.contains($0.task) }
        state.begun = 0
        return back
      }
    }

    /// The task that was taken last runs as this.
    ///
    /// - Returns: whether it is to end by now.
    func runs(as work: RunningWork?) -> Bool {
      state.withLock { state in
        state.running?.work = work
        return state.running?.isCancelled == true
      }
    }

    /// Tasks are to end: those that have not begun are taken out, and one that runs is returned.
    func cancel(_ numbers: Set<UInt64>) -> (back: [UInt64], running: RunningWork?) {
      let back = recall(numbers)
      return state.withLock { state in
        guard let running = state.running, numbers.contains(running.task) else { return (back, nil) }
        state.running?.isCancelled = true
        return (back, running.work)
      }
    }

    /// The next task, once there is one; `nil` when the lane is over.
    func next() async -> PushedTask? {
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let found = state.withLock { state -> PushedTask?? in
            if state.isOver { return .some(nil) }
            if state.begun < state.tasks.count { return Self.begin(&state) }
            state.waiting = continuation
            return nil
          }
          if let found { continuation.resume(returning: found) }
        }
      } onCancel: {
        end()
      }
    }

    private func end() {
      let waiting = state.withLock { state in
        state.isOver = true
        defer { state.waiting = nil }
        return state.waiting
      }
      waiting?.resume(returning: nil)
    }
  }

  /// By lease; made by whichever comes first, the lane's stream or its first tasks.
  private let lanes = Mutex<[LeaseID: (lane: Lane, connection: UInt64)]>([:])
  private let runner: WorkRunner
  /// Tells the pod that a lease is lent, or is not any more; false where too many are.
  private let lend: @Sendable (LeaseID, Bool) async -> Bool

  init(_ runner: WorkRunner, lend: @escaping @Sendable (LeaseID, Bool) async -> Bool) {
    self.runner = runner
    self.lend = lend
  }

  func add(to router: inout RPCRouter) {
    router.on(WorkerAPI.work) { request, connection, _ in
      let lane = self.lane(request.lease, connection)
      defer { _ = self.lanes.withLock { $0.removeValue(forKey: request.lease) } }
      try await self.run(lane, request, connection)
    }
    router.on(WorkerAPI.push) { request, connection in
      self.lane(request.lease, connection).push(try WorkCoding.tasks(request.tasks))
    }
    router.on(WorkerAPI.recall) { request, connection in
      let back = self.known(request.lease)?.recall(Set(request.tasks)) ?? []
      try? connection.tell(WorkerAPI.recalled, WorkRecall(lease: request.lease, tasks: back))
    }
    router.on(WorkerAPI.cancel) { request, connection in
      guard let (back, work) = self.known(request.lease)?.cancel(Set(request.tasks)) else { return }
      let ends = back.map { EndedTask(task: $0, outcome: .failed(WorkRunner.cancelled()), took: 0) }
      if !ends.isEmpty {
        try? connection.tell(WorkerAPI.ended, WorkEnded(lease: request.lease, ends: WorkCoding.encode(ends)))
      }
      // User code may be told of it at once: not where everything of the connection is read.
      if let work { Task { work.cancel(children: request.children) } }
    }
  }

  /// Forgets what a submitter that is gone never took.
  func disconnected(_ connection: RPCConnection) {
    lanes.withLock { lanes in lanes = lanes.filter { $0.value.connection != connection.id } }
  }

  private func known(_ lease: LeaseID) -> Lane? { lanes.withLock { $0[lease]?.lane } }

  private func lane(_ lease: LeaseID, _ connection: RPCConnection) -> Lane {
    lanes.withLock { lanes in
      if let known = lanes[lease] { return known.lane }
      let lane = Lane()
      lanes[lease] = (lane, connection.id)
      return lane
    }
  }

  private func run(_ lane: Lane, _ request: WorkLane, _ connection: RPCConnection) async throws {
    let (lease, lend) = (request.lease, lend)
    let loan = LeaseLoan { await lend(lease, $0) }
    while let task = await lane.next() {
      let begin = ContinuousClock.now
      let work = RunningWork(resources: request.resources, loan: loan, tasks: runner.tasks)
      if lane.runs(as: work) { work.cancel(children: true) }
      let outcome = await runner.run(task, as: work) {
        try await connection.call(
          WorkerAPI.storing, WorkStoring(lease: lease, task: task.task), deadline: .untilItComes)
      }
      _ = lane.runs(as: nil)
      // When the lease is over, what stopped then is not what came of the task.
      try Task.checkCancellation()
      let took = UInt64(max(0, (ContinuousClock.now - begin) / .nanoseconds(1)))
      // At once, since the next task may wait for this one's result; what is told in a moment leaves together.
      let ended = [EndedTask(task: task.task, outcome: outcome, took: took)]
      try connection.tell(WorkerAPI.ended, WorkEnded(lease: lease, ends: WorkCoding.encode(ended)))
    }
  }
}
