import MobulaCore
import Synchronization

/// A task that this process has submitted, until it has ended; then what came of it, for as long as somebody here refers
/// to it.
///
/// A small result is here and nowhere else until its reference leaves this process: then it becomes an object, as any.
final class TaskRecord: Sendable {
  enum Outcome: Sendable {
    /// The bytes of the object that it would be.
    case inline(InlineObject)
    /// It is an object in the stores of the cluster.
    case stored
  }

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

  let object: ObjectID
  /// Under which this process's hold counts.
  let number: UInt64
  let type: String
  /// With the references in them, while the task is to be run.
  private let work: Mutex<(arguments: ByteString, references: [AnyReference])?>
  private let state = Mutex(State())

  init(
    _ object: ObjectID, number: UInt64, type: String, arguments: (bytes: ByteString, references: [AnyReference])
  ) {
    self.object = object
    self.number = number
    self.type = type
    work = Mutex((arguments.bytes, arguments.references))
  }

  var arguments: ByteString { work.withLock { $0?.arguments ?? ByteString([]) } }
  var outcome: Outcome? { state.withLock { $0.outcome } }

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
      case .stored where !state.isHeld && !state.isDropped:
        holds.hold(object, by: number)
        (state.isHeld, state.isShared) = (true, true)
      case .inline(let bytes) where state.isShared:
        state.making = Task { [object] in await make(object, bytes) }
      case .inline, .stored: break
      }
      defer { (state.waiting, state.watchers) = ([:], [:]) }
      return (state.waiting, state.watchers)
    }
    for continuation in waiting.values { continuation.resume(returning: outcome) }
    for watcher in watchers.values { watcher() }
    withExtendedLifetime(former) {}
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
      guard case .inline(let bytes)? = state.outcome else { return }
      state.making = Task { [object] in
        await make(object, bytes)
        withExtendedLifetime(reference) {}
      }
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
