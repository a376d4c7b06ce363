import MobulaCore
import Synchronization

/// A task that this process has submitted, until it has ended; then what came of it, for as long as somebody here refers
/// to it.
///
/// A small result is here and nowhere else until its reference leaves this process: then it becomes an object, as any.
final class TaskRecord: Sendable {
  typealias Outcome = EndedTask.Outcome

  private struct State {
    var outcome: Outcome?
    var waiting: [UInt64: CheckedContinuation<Outcome?, Never>] = [:]
    /// Called once there is an outcome.
    var watchers: [UInt64: @Sendable () -> Void] = [:]
    /// Whether others may know of the object.
    var isShared = false
    /// Whether this process holds the object at the head.
    var isHeld = false
    /// Whether nobody here refers to it any more.
    var isDropped = false
    /// Makes it an object, once it is one to be made.
    var making: Task<Void, Never>?
  }

  /// What it takes to run it, and what is to be known of that.
  private struct Work {
    var arguments: ByteString
    /// Those in its arguments.
    var references: [AnyReference]
    var task: TaskQueueStateMachine.TaskID?
    var attempt = 1
    var cancelsChildren = true
  }

  let object: ObjectID
  /// Under which this process's hold counts.
  let number: UInt64
  let type: String
  /// The `RunningWork` that submitted it; 0 for none.
  let parent: UInt64
  /// Whether it is a call of an actor: then `type` is its target.
  let isCall: Bool
  private let options: Options?
  /// What it takes while it has not ended: with what is kept beside its arguments.
  let bytes: Int
  /// `nil` once it has ended.
  private let work: Mutex<Work?>
  private let state = Mutex(State())

  /// What few tasks have.
  private final class Options: Sendable {
    let name: String?
    let retries: RetryPolicy
    let arguments: ArgumentPolicy

    init(_ options: TaskOptions) {
      name = options.name
      retries = options.retries
      arguments = options.arguments
    }
  }

  init(
    _ object: ObjectID, number: UInt64, type: String, arguments: (bytes: ByteString, references: [AnyReference]),
    parent: UInt64 = 0, options: TaskOptions = TaskOptions(), isCall: Bool = false
  ) {
    self.isCall = isCall
    self.object = object
    self.number = number
    self.type = type
    self.parent = parent
    let isPlain = options.name == nil && options.retries.isWanted == nil && options.arguments == .ready
    self.options = isPlain ? nil : Options(options)
    bytes = arguments.bytes.bytes.count + 500
    work = Mutex(Work(arguments: arguments.bytes, references: arguments.references))
  }

  var outcome: Outcome? { state.withLock { $0.outcome } }
  var failure: InlineObject? { if case .failed(let bytes) = outcome { bytes } else { nil } }

  /// As people call it.
  var name: String { options?.name ?? (isCall ? WorkerService.readable(type) : readableName(ofType: type)) }

  /// Among the tasks, or the calls, of this process.
  var task: TaskQueueStateMachine.TaskID? {
    get { work.withLock { $0?.task } }
    set { work.withLock { $0?.task = newValue } }
  }
  /// Which time it is tried, from 1.
  var attempt: Int {
    get { work.withLock { $0?.attempt ?? 1 } }
    set { work.withLock { $0?.attempt = newValue } }
  }
  /// Whether those go with it that it has submitted, should it be cancelled.
  var cancelsChildren: Bool {
    get { work.withLock { $0?.cancelsChildren ?? true } }
    set { work.withLock { $0?.cancelsChildren = newValue } }
  }

  /// As a worker is told of it.
  func pushed(as task: TaskQueueStateMachine.TaskID) -> PushedTask {
    let (arguments, attempt) = work.withLock { ($0?.arguments ?? ByteString([]), $0?.attempt ?? 1) }
    return PushedTask(
      task: task, type: type, arguments: arguments, result: object, attempt: attempt,
      bringsArguments: options?.arguments != .asTheyCome)
  }

  /// The error of an attempt, if its submitter says that another one may do better.
  func worthAnotherTry(_ bytes: InlineObject) -> MobulaError? {
    guard let isWanted = options?.retries.isWanted, let error = StoredFailure.of(bytes) as? WorkError, isWanted(error)
    else {
      return nil
    }
    return MobulaError(.workFailed, error.description)
  }

  /// How many objects are being made in this process of results that others wait for.
  static let makings = Atomic<Int>(0)

  private static func making(
    _ object: ObjectID, _ bytes: InlineObject, _ make: @escaping @Sendable (ObjectID, InlineObject) async -> Void,
    keeping reference: AnyReference? = nil
  ) -> Task<Void, Never> {
    makings.add(1, ordering: .acquiringAndReleasing)
    return Task {
      await make(object, bytes)
      makings.subtract(1, ordering: .acquiringAndReleasing)
      withExtendedLifetime(reference) {}
    }
  }

  /// The task has ended.
  ///
  /// - Parameter make: makes an object of the bytes, for who knows of it elsewhere.
  func finish(
    _ outcome: Outcome, holds: ProcessHolds, make: @escaping @Sendable (ObjectID, InlineObject) async -> Void
  ) {
    // References in arguments may go now, in whichever thread, outside of all locks.
    let former = work.withLock { work in
      defer { work = nil }
      return work
    }
    let (waiting, watchers) = state.withLock { state in
      state.outcome = outcome
      switch outcome {
      case .inline(let bytes) where state.isShared, .failed(let bytes) where state.isShared:
        state.making = Self.making(object, bytes, make)
      case .inline, .failed, .stored: break
      }
      defer { (state.waiting, state.watchers) = ([:], [:]) }
      return (state.waiting, state.watchers)
    }
    for continuation in waiting.values { continuation.resume(returning: outcome) }
    for watcher in watchers.values { watcher() }
    withExtendedLifetime(former) {}
  }

  /// An object is about to be made of the result elsewhere.
  ///
  /// - Returns: whether this process holds it from now on; false where nobody wants it any more.
  func holdStored(_ holds: ProcessHolds) -> Bool {
    state.withLock { state in
      // Others may have it who hold it themselves.
      guard !state.isDropped else { return state.isShared }
      if !state.isHeld { holds.hold(object, by: number) }
      (state.isHeld, state.isShared) = (true, true)
      return true
    }
  }

  /// The reference leaves this process: the object is held from now on, and made where it is not.
  func share(
    _ reference: AnyReference, make: @escaping @Sendable (ObjectID, InlineObject) async -> Void
  ) {
    let holds = reference.cluster.store.holds
    state.withLock { state in
      guard !state.isShared else { return }
      state.isShared = true
      if !state.isHeld {
        holds.hold(object, by: number)
        state.isHeld = true
      }
      let bytes: InlineObject
      switch state.outcome {
      case .inline(let result)?, .failed(let result)?: bytes = result
      case .stored?, nil: return
      }
      state.making = Self.making(object, bytes, make, keeping: reference)
    }
  }

  /// Returns once the object is made of which others were told.
  func waitUntilMade() async {
    _ = await self.wait(until: nil)
    await state.withLock { $0.making }?.value
  }

  /// Nobody here refers to it any more.
  ///
  /// - Returns: whether a hold ends with it.
  func drop() -> Bool {
    state.withLock { state in
      state.isDropped = true
      return state.isHeld
    }
  }

  /// Calls `body` once there is an outcome.
  ///
  /// - Returns: what `stopWatching` takes; `nil` where there is an outcome already, of which `body` is not told.
  func whenDone(_ body: @escaping @Sendable () -> Void) -> UInt64? {
    let ticket = Self.tickets.wrappingAdd(1, ordering: .relaxed).newValue
    return state.withLock { state in
      guard state.outcome == nil else { return nil }
      state.watchers[ticket] = body
      return ticket
    }
  }

  func stopWatching(_ ticket: UInt64) { _ = state.withLock { $0.watchers.removeValue(forKey: ticket) } }

  private static let tickets = Atomic<UInt64>(0)

  /// - Returns: what came of it; `nil` at the deadline, and when the waiting task is cancelled.
  func wait(until deadline: ContinuousClock.Instant?) async -> Outcome? {
    if let outcome { return outcome }
    let ticket = Self.tickets.wrappingAdd(1, ordering: .relaxed).newValue
    if let deadline { Patience.shared.add(ticket, until: deadline) { [weak self] in self?.giveUp(ticket) } }
    defer { if deadline != nil { Patience.shared.remove(ticket) } }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let found = state.withLock { state -> Outcome?? in
          if let outcome = state.outcome { return .some(outcome) }
          if Task.isCancelled || deadline.map({ $0 <= .now }) == true { return .some(nil) }
          state.waiting[ticket] = continuation
          return nil
        }
        if let found { continuation.resume(returning: found) }
      }
    } onCancel: {
      giveUp(ticket)
    }
  }

  private func giveUp(_ ticket: UInt64) {
    state.withLock { $0.waiting.removeValue(forKey: ticket) }?.resume(returning: nil)
  }
}

/// The bytes of an object that is in this process's own memory.
final class InlineObject: ObjectMemory, Sendable {
  /// Aligned as objects are in the store, for the buffers in them.
  private static let alignment = 64

  /// Never changed after `init`, and freed with this: so it may be read from every thread.
  nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

  init(_ content: UnsafeRawBufferPointer) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: content.count, alignment: Self.alignment)
    memory.copyMemory(from: content)
    bytes = UnsafeRawBufferPointer(memory)
  }

  convenience init(_ value: EncodedValue) {
    self.init(size: value.layout.size) { value.write(to: $0) }
  }

  private init(size: Int, _ write: (UnsafeMutableRawBufferPointer) -> Void) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: Self.alignment)
    write(memory)
    bytes = UnsafeRawBufferPointer(memory)
  }

  deinit { bytes.deallocate() }
}

/// Deadlines of very many who wait, nearly all of which never come: looked at a few times a second, instead of a timer for
/// each.
final class Patience: Sendable {
  static let shared = Patience()

  private struct State {
    var waiting: [UInt64: (deadline: ContinuousClock.Instant, end: @Sendable () -> Void)] = [:]
    var isLooking = false
  }

  private static let interval = Duration.milliseconds(100)
  private let state = Mutex(State())

  func add(_ ticket: UInt64, until deadline: ContinuousClock.Instant, _ end: @escaping @Sendable () -> Void) {
    let begins = state.withLock { state in
      state.waiting[ticket] = (deadline, end)
      defer { state.isLooking = true }
      return !state.isLooking
    }
    if begins { Task { await self.look() } }
  }

  func remove(_ ticket: UInt64) { _ = state.withLock { $0.waiting.removeValue(forKey: ticket) } }

  private func look() async {
    while true {
      // Nearly all who wait have long deadlines.
      let next = state.withLock { $0.waiting.values.map(\.deadline).min() }
      try? await Task.sleep(for: min(.seconds(1), max(Self.interval, (next ?? .now) - .now)))
      let (ended, isOver) = state.withLock { state in
        let ended = state.waiting.filter { $0.value.deadline <= .now }
        for ticket in ended.keys { state.waiting[ticket] = nil }
        if state.waiting.isEmpty { state.isLooking = false }
        return (ended, state.waiting.isEmpty)
      }
      for (_, end) in ended.values { end() }
      if isOver { return }
    }
  }
}
