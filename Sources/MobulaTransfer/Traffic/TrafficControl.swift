internal import Dispatch
public import MobulaCore
internal import Synchronization

/// One direction of a host's network, which all its connections share: keeps them to a rate, and lets first what is
/// waited for.
public final class TrafficControl: Sendable {
  private enum Waiter: Sendable {
    case thread(DispatchSemaphore)
    case task(CheckedContinuation<Void, Never>)
  }

  private struct State {
    var machine: TrafficStateMachine
    var waiters: [TrafficStateMachine.FlowID: Waiter] = [:]
    var nextFlow: TrafficStateMachine.FlowID = 0
    /// The instant of the timer that counts: any other that is still to fire was set before it, and says nothing.
    var alarm: Duration?
  }

  public let limit: LinkRate?
  /// The most bytes to ask for at once.
  let piece: Int
  private let start = ContinuousClock.now
  private let state: Mutex<State>
  private let timer = DispatchQueue(label: "mobula.traffic", qos: .userInitiated)

  /// - Parameter limit: `nil` for as fast as it goes.
  public init(limit: LinkRate? = nil) {
    let machine = TrafficStateMachine(limit: limit)
    self.limit = limit
    piece = machine.piece
    state = Mutex(State(machine: machine))
  }

  /// A connection that shares this direction.
  func flow(_ priority: TransferPriority) -> TrafficFlow {
    let number = state.withLock { state in
      state.nextFlow += 1
      return state.nextFlow
    }
    return TrafficFlow(number, priority, of: self)
  }

  /// Suspends until so many bytes may be moved.
  ///
  /// - Throws: `CancellationError`.
  public func admit(_ bytes: Int, _ priority: TransferPriority) async throws {
    try await flow(priority).admit(bytes)
  }

  /// What the kernel may take in ahead of who receives, of each of several connections: it arrives
  /// whatever the limit, so together it must be little against a second's worth. `nil` without a limit.
  var receiveBuffer: Int? {
    limit.map { max(16_384, min(4_194_304, Int($0.bytesPerSecond / 25 / 8))) }
  }

  // MARK: For flows

  private func ask(
    _ flow: TrafficStateMachine.FlowID, _ bytes: Int, _ priority: TransferPriority, continues: Bool, _ waiter: Waiter
  ) {
    act({ $0.asked(flow, bytes, priority, continues: continues, now: $1) }) { $0[flow] = waiter }
  }

  fileprivate func change(_ flow: TrafficStateMachine.FlowID, to priority: TransferPriority) {
    act { $0.changed(flow, to: priority, now: $1) }
  }

  /// Wakes whoever waits for the flow.
  fileprivate func leave(_ flow: TrafficStateMachine.FlowID) {
    let waiter = state.withLock { $0.waiters.removeValue(forKey: flow) }
    if let waiter { Self.wake(waiter) }
    act { $0.left(flow, now: $1) }
  }

  private func act(
    _ event: (inout TrafficStateMachine, Duration) -> [TrafficStateMachine.Action],
    _ prepare: (inout [TrafficStateMachine.FlowID: Waiter]) -> Void = { _ in }
  ) {
    let (woken, alarm, now) = state.withLock { state in
      let now = ContinuousClock.now - start
      prepare(&state.waiters)
      var woken: [Waiter] = []
      var alarm: Duration?
      for action in event(&state.machine, now) {
        switch action {
        case .admit(let flow): if let waiter = state.waiters.removeValue(forKey: flow) { woken.append(waiter) }
        case .wakeAt(let instant):
          if let set = state.alarm, set <= instant, set > now { break }
          state.alarm = instant
          alarm = instant
        }
      }
      return (woken, alarm, now)
    }
    for waiter in woken { Self.wake(waiter) }
    guard let alarm else { return }
    let delay = Int(max(.zero, alarm - now) / .nanoseconds(1))
    timer.asyncAfter(deadline: .now() + .nanoseconds(delay)) { [weak self] in
      guard let self else { return }
      let isCurrent = state.withLock { state in
        guard state.alarm == alarm else { return false }
        // Should it have come early, it is set once more.
        state.alarm = nil
        return true
      }
      if isCurrent { act { $0.tick(now: $1) } }
    }
  }

  private static func wake(_ waiter: Waiter) {
    switch waiter {
    case .thread(let semaphore): semaphore.signal()
    case .task(let continuation): continuation.resume()
    }
  }

  fileprivate func ask(
    _ flow: TrafficStateMachine.FlowID, _ bytes: Int, _ priority: TransferPriority, continues: Bool,
    wakes semaphore: DispatchSemaphore
  ) { ask(flow, bytes, priority, continues: continues, .thread(semaphore)) }

  fileprivate func ask(
    _ flow: TrafficStateMachine.FlowID, _ bytes: Int, _ priority: TransferPriority,
    resumes continuation: CheckedContinuation<Void, Never>
  ) { ask(flow, bytes, priority, continues: true, .task(continuation)) }
}

/// One connection's part of a `TrafficControl`. One thread or task asks at a time; any may raise it or close it.
final class TrafficFlow: Sendable {
  enum Answer: Hashable, Sendable { case admitted, timeout, closed }

  private struct State {
    var priority: TransferPriority
    var isClosed = false
    /// Asked, and not answered yet.
    var isAsking = false
  }

  private let number: TrafficStateMachine.FlowID
  private let control: TrafficControl
  private let semaphore = DispatchSemaphore(value: 0)
  private let state: Mutex<State>

  fileprivate init(_ number: TrafficStateMachine.FlowID, _ priority: TransferPriority, of control: TrafficControl) {
    self.number = number
    self.control = control
    state = Mutex(State(priority: priority))
  }

  deinit { control.leave(number) }

  var priority: TransferPriority { state.withLock(\.priority) }
  var piece: Int { control.piece }
  var receiveBuffer: Int? { control.receiveBuffer }

  /// Raises the priority; it never falls.
  func raise(to priority: TransferPriority) {
    let isRaised = state.withLock { state in
      defer { state.priority = max(state.priority, priority) }
      return priority > state.priority
    }
    if isRaised { control.change(number, to: priority) }
  }

  /// Whoever waits is told, and everybody who asks later.
  func close() {
    state.withLock { $0.isClosed = true }
    control.leave(number)
  }

  /// Waits until so many bytes may be moved; after `timeout` the caller does something else, and asks again for the same.
  ///
  /// - Parameter continues: whether they are of a chunk that was begun.
  func wait(_ bytes: Int, continues: Bool = false, upTo timeout: Duration) -> Answer {
    let isNew = state.withLock { state in
      defer { state.isAsking = true }
      return !state.isAsking
    }
    if isNew, !isClosed { control.ask(number, bytes, priority, continues: continues, wakes: semaphore) }
    // Closed before it asked, nobody would wake it.
    if isClosed {
      control.leave(number)
      return .closed
    }
    let answer = semaphore.wait(timeout: .now() + .milliseconds(Int(clamping: timeout.milliseconds)))
    if isClosed { return .closed }
    guard answer == .success else { return .timeout }
    state.withLock { $0.isAsking = false }
    return .admitted
  }

  private var isClosed: Bool { state.withLock(\.isClosed) }

  /// Suspends until so many bytes, in pieces, may be moved.
  ///
  /// - Throws: `CancellationError`.
  fileprivate func admit(_ bytes: Int) async throws {
    var left = bytes
    while left > 0 {
      let piece = min(left, control.piece)
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          control.ask(number, piece, priority, resumes: continuation)
          if Task.isCancelled { control.leave(number) }
        }
      } onCancel: {
        control.leave(number)
      }
      try Task.checkCancellation()
      left -= piece
    }
  }
}
