import Distributed
import MobulaCore
import MobulaWire
import Synchronization

/// Calls of this worker's actors: those of one caller to one actor begin in the order in which they came.
final class ActorMailboxes: Sendable {
  private struct Key: Hashable {
    var connection: UInt64
    var actor: RemoteActorID
  }

  private struct CallKey: Hashable {
    var connection: UInt64
    var number: UInt64
  }

  private struct State {
    var mailboxes: [Key: Mailbox] = [:]
    var running: [CallKey: RunningCall] = [:]
    var gates: [RemoteActorID: CallGate] = [:]
    /// Actors that take no calls any more.
    var ending: Set<RemoteActorID> = []
    /// When the head last knew of this worker's pod, where that matters.
    var heard: UInt64?
  }

  private let cluster: Cluster
  private let place: WorkPlace
  private let state = Mutex(State())

  init(_ cluster: Cluster, _ place: WorkPlace) {
    self.cluster = cluster
    self.place = place
  }

  func add(to router: inout RPCRouter) {
    router.on(WorkerAPI.call) { calling, connection in
      let call = try WorkCoding.call(calling.call)
      let refusal = self.state.withLock { state -> MobulaError? in
        if state.ending.contains(call.actor) {
          return MobulaError(.actorUnavailable, "The actor \(call.actor.short) is being stopped, and takes no calls.")
        }
        state.running[CallKey(connection: connection.id, number: call.number)] = RunningCall(call.actor)
        return nil
      }
      if let refusal { return Self.tell(call.number, .failed(WorkRunner.failure(refusal)), connection) }
      self.mailbox(call.actor, connection).push(call)
    }
    router.on(WorkerAPI.cancelCalls) { numbers, connection in
      for number in numbers.calls {
        let key = CallKey(connection: connection.id, number: number)
        guard let call = self.state.withLock({ $0.running[key] }) else { continue }
        if call.endUnlessBegun() {
          _ = self.state.withLock { $0.running.removeValue(forKey: key) }
          Self.tell(number, .failed(WorkRunner.failure(Self.cancelled)), connection)
        } else {
          // User code may be told of it at once: not where everything of the connection is read.
          Task { call.cancel() }
        }
      }
    }
  }

  /// How many calls an actor answers at a time.
  func limit(_ actor: RemoteActorID, to limit: Int) { state.withLock { $0.gates[actor] = CallGate(limit) } }

  /// Has an actor take no calls any more, and waits for those that it has.
  func end(_ actor: RemoteActorID, within limit: Duration) async {
    state.withLock { _ = $0.ending.insert(actor) }
    let end = ContinuousClock.now + limit
    while ContinuousClock.now < end, state.withLock({ $0.running.values.contains { $0.actor == actor } }) {
      try? await Task.sleep(for: .milliseconds(5))
    }
  }

  /// Has an actor take calls again.
  func goOn(_ actor: RemoteActorID) { state.withLock { _ = $0.ending.remove(actor) } }

  /// The head knew of this worker's pod at that time.
  func headHeard(_ nanoseconds: UInt64) { state.withLock { $0.heard = max($0.heard ?? 0, nanoseconds) } }

  /// - Throws: `MobulaError` (`actorUnavailable`) where another may have been started in this one's place.
  private func checkFence() throws(MobulaError) {
    guard let heard = state.withLock({ $0.heard }), ActorFence.isOver(heard: heard, now: bootNanoseconds()) else {
      return
    }
    throw MobulaError(
      .actorUnavailable,
      "The host of this actor has not heard of the head for \(ActorFence.limit): it begins nothing, since it may have been started again elsewhere."
    )
  }

  func disconnected(_ connection: RPCConnection) {
    let (mailboxes, calls) = state.withLock { state in
      let mailboxes = state.mailboxes.filter { $0.key.connection == connection.id }
      for key in mailboxes.keys { state.mailboxes[key] = nil }
      let calls = state.running.filter { $0.key.connection == connection.id }
      for key in calls.keys { state.running[key] = nil }
      return (mailboxes, calls)
    }
    for mailbox in mailboxes.values { mailbox.close() }
    // Nobody is there to be told what comes of them.
    for call in calls.values where !call.endUnlessBegun() { Task { call.cancel() } }
  }

  private func mailbox(_ actor: RemoteActorID, _ connection: RPCConnection) -> Mailbox {
    let (mailbox, isNew) = state.withLock { state in
      let key = Key(connection: connection.id, actor: actor)
      if let known = state.mailboxes[key] { return (known, false) }
      let mailbox = Mailbox()
      state.mailboxes[key] = mailbox
      return (mailbox, true)
    }
    if isNew { Task { await self.serve(mailbox, connection) } }
    return mailbox
  }

  private func serve(_ mailbox: Mailbox, _ connection: RPCConnection) async {
    while let call = await mailbox.next() {
      let key = CallKey(connection: connection.id, number: call.number)
      let (running, gate) = state.withLock { state in (state.running[key], state.gates[call.actor]) }
      // It has ended before it began, where there is none.
      guard let running, !running.isOver else { continue }
      await gate?.enter()
      guard running.begin() else {
        gate?.leave()
        continue
      }
      // It runs here until it first waits, so that each reaches its actor before the next begins.
      running.task = Task.immediate {
        let outcome =
          running.isCancelled ? .failed(WorkRunner.failure(Self.cancelled)) : await self.run(call, connection)
        gate?.leave()
        _ = self.state.withLock { $0.running.removeValue(forKey: key) }
        Self.tell(call.number, outcome, connection)
      }
    }
  }

  private static var cancelled: MobulaError { MobulaError(.cancelled, "The call was cancelled.") }

  private static func tell(_ number: UInt64, _ outcome: EndedTask.Outcome, _ connection: RPCConnection) {
    let ended = [EndedTask(task: number, outcome: outcome, took: 0)]
    do throws(MobulaError) {
      try connection.tell(WorkerAPI.returned, ActorReturns(ends: WorkCoding.encode(ended)))
    } catch {
      // Of a connection that is gone nobody waits for it; what is too large for a frame is said.
      guard error.code == .invalidArgument else { return }
      let failed = [EndedTask(task: number, outcome: .failed(WorkRunner.failure(error)), took: 0)]
      try? connection.tell(WorkerAPI.returned, ActorReturns(ends: WorkCoding.encode(failed)))
    }
  }

  private func run(_ call: ActorCall, _ connection: RPCConnection) async -> EndedTask.Outcome {
    do {
      try checkFence()
      guard let actor = cluster.actors[call.actor] else {
        throw MobulaError(.actorUnavailable, "The actor \(call.actor.short) is not here any more.")
      }
      let reader = ValueReader(cluster: cluster)
      let handler = CallResultHandler()
      try await execute(call, on: actor, reader: reader, handler: handler)
      // What it keeps of the references in its arguments is known before its caller lets go of them.
      if !reader.references.isEmpty { try await cluster.store.holds.flush() }
      let result = try handler.taken ?? EncodedValue(Done())
      if result.references.isEmpty, result.layout.size <= WorkRunner.mostInline { return .inline(InlineObject(result)) }
      // A call that was cancelled meanwhile has a result all the same.
      try await Task.detached { [cluster] in
        let isWanted = try await connection.call(
          WorkerAPI.storingCall, ActorCalls.Numbers(calls: [call.number]), deadline: .untilItComes)
        if isWanted { try await cluster.make(call.result, result, holds: false, confirms: true) }
      }.value
      return .stored
    } catch is CancellationError where Task.isCancelled {
      return .failed(WorkRunner.failure(Self.cancelled))
    } catch {
      return .failed(WorkRunner.failure(error))
    }
  }

  private func execute(
    _ call: ActorCall, on actor: any DistributedActor, reader: ValueReader, handler: CallResultHandler
  ) async throws {
    var decoder = CallDecoder(arguments: call.arguments, substitutions: call.substitutions, reader: reader)
    do {
      try await cluster.executeDistributedTarget(
        on: actor, target: RemoteCallTarget(call.target), invocationDecoder: &decoder, handler: handler)
    } catch is ExecuteDistributedTargetError {
      throw MobulaError(
        .mismatch,
        "The function \(WorkerService.readable(call.target)) is not in this worker's program, or takes other arguments: run the same build everywhere."
      )
    } catch is CancellationError where Task.isCancelled {
      throw CancellationError()
    } catch {
      throw WorkError(error, of: WorkerService.readable(call.target), in: place, attempt: 1)
    }
  }
}

/// Calls that one caller has made to one actor, and that have not begun.
private final class Mailbox: Sendable {
  private struct State {
    var calls: [ActorCall] = []
    var begun = 0
    var waiting: CheckedContinuation<ActorCall?, Never>?
    var isClosed = false
  }

  private let state = Mutex(State())

  func push(_ call: ActorCall) {
    let waiting = state.withLock { state in
      if let waiting = state.waiting.take() { return waiting as CheckedContinuation<ActorCall?, Never>? }
      state.calls.append(call)
      return nil
    }
    waiting?.resume(returning: call)
  }

  func close() {
    let waiting = state.withLock { state in
      state.isClosed = true
      state.calls = []
      state.begun = 0
      return state.waiting.take()
    }
    waiting?.resume(returning: nil)
  }

  /// The next call, once there is one; `nil` once it is closed.
  func next() async -> ActorCall? {
    await withCheckedContinuation { continuation in
      let found = state.withLock { state -> ActorCall?? in
        if state.isClosed { return .some(nil) }
        guard state.begun < state.calls.count else {
          state.waiting = continuation
          return nil
        }
        let call = state.calls[state.begun]
        state.begun += 1
        if state.begun == state.calls.count || state.begun > 256 {
          state.calls.removeFirst(state.begun)
          state.begun = 0
        }
        return call
      }
      if let found { continuation.resume(returning: found) }
    }
  }
}

/// A call, for who may want it to end.
private final class RunningCall: Sendable {
  private struct State {
    var hasBegun = false
    var isOver = false
    var isCancelled = false
    var task: Task<Void, Never>?
  }

  private let state = Mutex(State())
  let actor: RemoteActorID

  init(_ actor: RemoteActorID) { self.actor = actor }

  /// Whether it has ended before it began.
  var isOver: Bool { state.withLock { $0.isOver } }
  var isCancelled: Bool { state.withLock { $0.isCancelled } }

  /// - Returns: false where it has ended.
  func begin() -> Bool {
    state.withLock { state in
      guard !state.isOver else { return false }
      state.hasBegun = true
      return true
    }
  }

  /// - Returns: whether it has ended with that, since it had not begun.
  func endUnlessBegun() -> Bool {
    state.withLock { state in
      guard !state.hasBegun, !state.isOver else { return false }
      state.isOver = true
      return true
    }
  }

  var task: Task<Void, Never>? {
    get { state.withLock { $0.task } }
    set {
      let isCancelled = state.withLock { state in
        state.task = newValue
        return state.isCancelled
      }
      if isCancelled { newValue?.cancel() }
    }
  }

  func cancel() {
    let task = state.withLock { state in
      state.isCancelled = true
      return state.task
    }
    task?.cancel()
  }
}

/// Lets so many calls of an actor run at a time, the others in the order in which they came.
private final class CallGate: Sendable {
  private let state: Mutex<(free: Int, waiting: [CheckedContinuation<Void, Never>])>

  init(_ limit: Int) { state = Mutex((max(1, limit), [])) }

  func enter() async {
    // Nearly always there is room.
    let isIn = state.withLock { state in
      guard state.free > 0 else { return false }
      state.free -= 1
      return true
    }
    if isIn { return }
    await withCheckedContinuation { continuation in
      let isIn = state.withLock { state in
        guard state.free > 0 else {
          state.waiting.append(continuation)
          return false
        }
        state.free -= 1
        return true
      }
      if isIn { continuation.resume() }
    }
  }

  func leave() {
    let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
      guard !state.waiting.isEmpty else {
        state.free += 1
        return nil
      }
      return state.waiting.removeFirst()
    }
    next?.resume()
  }
}
