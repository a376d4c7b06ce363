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
      var running: (task: UInt64, work: RunningWork)?
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
    func runs(_ task: UInt64, as work: RunningWork?) { state.withLock { $0.running = work.map { (task, $0) } } }

    /// That of a task which runs.
    func running(_ tasks: Set<UInt64>) -> RunningWork? {
      state.withLock { state in state.running.flatMap { tasks.contains($0.task) ? $0.work : nil } }
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
  /// Tells the pod that a lease is lent, or is not any more.
  private let lend: @Sendable (LeaseID, Bool) async -> Void

  init(_ runner: WorkRunner, lend: @escaping @Sendable (LeaseID, Bool) async -> Void) {
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
      let back = self.lane(request.lease, connection).recall(Set(request.tasks))
      try? connection.tell(WorkerAPI.recalled, WorkRecall(lease: request.lease, tasks: back))
    }
    router.on(WorkerAPI.cancel) { request, connection in
      let lane = self.lane(request.lease, connection)
      let tasks = Set(request.tasks)
      let ends = try lane.recall(tasks).map {
        EndedTask(task: $0, outcome: .failed(try WorkRunner.cancelled()), took: 0)
      }
      if !ends.isEmpty {
        try? connection.tell(WorkerAPI.ended, WorkEnded(lease: request.lease, ends: WorkCoding.encode(ends)))
      }
      // User code may be told of it at once: not where everything of the connection is read.
      guard let work = lane.running(tasks) else { return }
      Task { work.cancel(children: request.children) }
    }
  }

  /// Forgets what a submitter that is gone never took.
  func disconnected(_ connection: RPCConnection) {
    lanes.withLock { lanes in lanes = lanes.filter { $0.value.connection != connection.id } }
  }

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
      lane.runs(task.task, as: work)
      let outcome = await runner.run(task, as: work) {
        try await connection.call(
          WorkerAPI.storing, WorkStoring(lease: lease, task: task.task), deadline: .seconds(86_400))
      }
      lane.runs(task.task, as: nil)
      // When the lease is over, what stopped then is not what came of the task.
      try Task.checkCancellation()
      let took = UInt64(max(0, (ContinuousClock.now - begin) / .nanoseconds(1)))
      // At once, since the next task may wait for this one's result; what is told in a moment leaves together.
      let ended = [EndedTask(task: task.task, outcome: outcome, took: took)]
      try connection.tell(WorkerAPI.ended, WorkEnded(lease: lease, ends: WorkCoding.encode(ended)))
    }
  }
}
