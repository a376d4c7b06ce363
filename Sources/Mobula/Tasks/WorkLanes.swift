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

    var isEmpty: Bool { state.withLock { $0.begun == $0.tasks.count } }

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

  private struct State {
    /// By lease; made by whichever comes first, the lane's stream or its first tasks.
    var lanes: [LeaseID: (lane: Lane, connection: UInt64)] = [:]
    /// Results in the store, held until their submitters hold them.
    var kept: [UInt64: (reference: AnyReference, connection: UInt64)] = [:]
    var last: UInt64 = 0
  }

  /// Results up to this size go to the submitter itself, and not into a store: 100 KB.
  static let mostInline = 100_000

  private let context: TaskContext
  private var cluster: Cluster { context.cluster }
  private let state = Mutex(State())

  init(_ context: TaskContext) { self.context = context }

  func add(to router: inout RPCRouter) {
    router.on(WorkerAPI.work) { request, connection, _ in
      let lane = self.lane(request.lease, connection)
      defer { _ = self.state.withLock { $0.lanes.removeValue(forKey: request.lease) } }
      try await self.run(lane, request.lease, connection)
    }
    router.on(WorkerAPI.push) { request, connection in
      self.lane(request.lease, connection).push(try WorkCoding.tasks(request.tasks))
    }
    router.on(WorkerAPI.recall) { request, connection in
      WorkRecall(
        lease: request.lease, tasks: self.lane(request.lease, connection).recall(Set(request.tasks)))
    }
    router.on(WorkerAPI.taken) { request, connection in
      // References end outside of the lock.
      let former = self.state.withLock { state in
        request.results.compactMap { number in
          state.kept[number]?.connection == connection.id ? state.kept.removeValue(forKey: number) : nil
        }
      }
      withExtendedLifetime(former) {}
      return Empty()
    }
  }

  /// Forgets what a submitter that is gone never took.
  func disconnected(_ connection: RPCConnection) {
    let former = state.withLock { state in
      state.lanes = state.lanes.filter { $0.value.connection != connection.id }
      let former = state.kept.filter { $0.value.connection == connection.id }
      for number in former.keys { state.kept[number] = nil }
      return former
    }
    withExtendedLifetime(former) {}
  }

  private func lane(_ lease: LeaseID, _ connection: RPCConnection) -> Lane {
    state.withLock { state in
      if let known = state.lanes[lease] { return known.lane }
      let lane = Lane()
      state.lanes[lease] = (lane, connection.id)
      return lane
    }
  }

  private func run(_ lane: Lane, _ lease: LeaseID, _ connection: RPCConnection) async throws {
    while let task = await lane.next() {
      let begin = ContinuousClock.now
      let outcome = try await run(task, connection)
      let took = UInt64(max(0, (ContinuousClock.now - begin) / .nanoseconds(1)))
      // At once, since the next task may wait for this one's result; what is told in a moment leaves together.
      let ended = [EndedTask(task: task.task, outcome: outcome, took: took)]
      try connection.tell(WorkerAPI.ended, WorkEnded(lease: lease, ends: WorkCoding.encode(ended)))
    }
  }

  /// - Throws: `CancellationError` when the lease is over: what stopped then is not what came of the task.
  private func run(_ pushed: PushedTask, _ connection: RPCConnection) async throws -> EndedTask.Outcome {
    do {
      guard let type = TaskTypes.shared[pushed.type] else {
        throw MobulaError(
          .mismatch,
          "The task \(readableName(ofType: pushed.type)) is not in this worker's program: run the same build everywhere."
        )
      }
      return try await run(type, pushed, connection)
    } catch {
      try Task.checkCancellation()
      return .inline(
        InlineObject(
          try EncodedValue(WorkerService.failure(error, of: readableName(ofType: pushed.type)), isError: true)))
    }
  }

  private func run<Work: RemoteTask>(
    _ type: Work.Type, _ pushed: PushedTask, _ connection: RPCConnection
  ) async throws -> EndedTask.Outcome {
    let reader = ValueReader(cluster: cluster)
    let task = try ArgumentCoding.decode(type, from: pushed.arguments, reader: reader)
    if !reader.references.isEmpty { try await cluster.store.holds.flush() }
    let result: EncodedValue
    do { result = try EncodedValue(try await task.run(in: context)) } catch {
      throw WorkerService.failure(error, of: "\(Work.self)")
    }
    if result.references.isEmpty, result.layout.size <= Self.mostInline { return .inline(InlineObject(result)) }
    // What the result contains is held by this process until the object holds it, and that until its submitter does.
    let reference = cluster.newReference(to: pushed.result)
    do {
      try await cluster.make(pushed.result, result, holds: true, confirms: true)
    } catch let error as MobulaError where error.code == .alreadyExists {
      // An earlier run of the same task got as far as its result, but not as far as saying so.
    }
    // Its submitter is about to know of it, on whichever host: its end here must not be that of one nobody knew of.
    reference.share()
    try await cluster.store.holds.flush()
    let number = state.withLock { state in
      state.last += 1
      state.kept[state.last] = (reference, connection.id)
      return state.last
    }
    return .stored(number)
  }
}

/// Types of tasks by their mangled names: looking one up takes as long as a small task.
private final class TaskTypes: Sendable {
  static let shared = TaskTypes()
  private let known = Mutex<[String: any RemoteTask.Type]>([:])

  subscript(_ name: String) -> (any RemoteTask.Type)? {
    if let type = known.withLock({ $0[name] }) { return type }
    guard let type = _typeByName(name) as? any RemoteTask.Type else { return nil }
    known.withLock { $0[name] = type }
    return type
  }
}
