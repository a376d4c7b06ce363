import MobulaControl
import MobulaCore

/// A connection from a process to the head. What one side says arrives in order, or not at all.
final class SimulatedLink {
  typealias Answer = Result<ClusterReply, MobulaError>

  /// A call on its way.
  final class Call {
    var request: RequestID?
    /// What is to be done when who called is gone before the answer.
    var abandon: ((SimulatedHead) -> Void)?
    var isOver = false
  }

  private enum Direction { case up, down }

  let id: ConnectionID
  let name: String
  let machine: SimulatedMachine?
  unowned let world: ClusterSimulation
  private(set) weak var head: SimulatedHead?
  private(set) var isOpenBelow = true
  private(set) var isOpenAbove = true
  private(set) var isCut = false
  private var lastUp = Duration.zero, lastDown = Duration.zero
  private var heldUp: [() -> Void] = [], heldDown: [() -> Void] = []
  private var pending: [UInt64: (call: Call, since: Duration, what: String, then: (Answer) -> Void)] = [:]
  private var pendingDown: [UInt64: () -> Void] = [:]
  /// What the head calls on it.
  var below: (any SimulatedPeer)?
  /// Says that the process below has noticed the end.
  var onClose: (() -> Void)?

  init(_ name: String, to head: SimulatedHead, from machine: SimulatedMachine?, in world: ClusterSimulation) {
    id = ConnectionID(world.number())
    self.name = name
    self.machine = machine
    self.head = head
    self.world = world
    world.links.append(self)
    head.links[id] = self
  }

  // MARK: Messages

  private func send(_ direction: Direction, _ body: @escaping () -> Void) {
    if isCut { return }
    let last = direction == .up ? lastUp : lastDown
    let due = max(last, world.now + world.milliseconds(0...6)) + .nanoseconds(1)
    if direction == .up { lastUp = due } else { lastDown = due }
    world.after(due - world.now) {
      if self.isCut { return }
      if self.machine?.isPartitioned == true || !(direction == .up ? self.heldUp : self.heldDown).isEmpty {
        if direction == .up { self.heldUp.append(body) } else { self.heldDown.append(body) }
      } else {
        body()
      }
    }
  }

  /// The partition is over: what was on its way arrives.
  func release() {
    let (up, down) = (heldUp, heldDown)
    (heldUp, heldDown) = ([], [])
    for body in up where !isCut { body() }
    for body in down where !isCut { body() }
  }

  /// Calls the head. `then` is called once: with the answer, at the deadline, or when the link has ended.
  func call(
    _ what: String, within limit: Duration = .seconds(8), _ request: @escaping (SimulatedHead, Call) -> Void,
    then: @escaping (Answer) -> Void
  ) {
    guard isOpenBelow else { return then(.failure(Self.closed)) }
    let (number, call) = (world.number(), Call())
    pending[number] = (call, world.now, what, then)
    send(.up) {
      guard let head = self.head, head.isAlive, self.isOpenAbove else { return }
      head.received(call, self) { answer in
        guard self.isOpenAbove else { return call.abandon?(head) ?? () }
        self.send(.down) { if self.isOpenBelow { self.finish(number, answer) } }
      }
      request(head, call)
    }
    world.after(limit) {
      guard self.pending[number] != nil else { return }
      self.send(.up) { if let head = self.head, head.isAlive { head.cancel(call) } }
      self.finish(number, .failure(MobulaError(.deadlineExceeded, "\(what) took longer than \(limit).")))
    }
  }

  private func finish(_ number: UInt64, _ answer: Answer) {
    pending.removeValue(forKey: number)?.then(answer)
  }

  /// The head calls the process. `then` is told whether it took notice, and nothing when it is not known.
  func tell(_ request: @escaping (any SimulatedPeer, @escaping () -> Void) -> Void, then: @escaping (Bool) -> Void) {
    guard isOpenAbove else { return then(false) }
    let number = world.number()
    pendingDown[number] = { then(false) }
    send(.down) {
      guard self.isOpenBelow, let below = self.below else { return }
      request(below) {
        self.send(.up) {
          guard self.isOpenAbove, self.pendingDown.removeValue(forKey: number) != nil else { return }
          then(true)
        }
      }
    }
  }

  // MARK: The end

  private static let closed = MobulaError(.connectionClosed, "The connection is gone.")

  /// It breaks: each side notices in its own time, and what is on its way is lost.
  func cut(_ patience: ClosedRange<Int> = 0...400) {
    guard !isCut else { return }
    isCut = true
    world.after(world.milliseconds(patience)) { self.closeBelow() }
    world.after(world.milliseconds(patience)) { self.closeAbove() }
  }

  /// The process below ends it, or has ended.
  func close() {
    closeBelow()
    isCut = true
    world.after(machine?.isPartitioned == true ? world.milliseconds(300...1500) : world.milliseconds(0...20)) {
      self.closeAbove()
    }
  }

  /// The head ends it, or has ended.
  func closeByHead() {
    closeAbove()
    isCut = true
    world.after(machine?.isPartitioned == true ? world.milliseconds(300...1500) : world.milliseconds(0...20)) {
      self.closeBelow()
    }
  }

  private func closeBelow() {
    guard isOpenBelow else { return }
    isOpenBelow = false
    isCut = true
    below = nil
    let waiting = pending.sorted { $0.key < $1.key }
    pending = [:]
    onClose?()
    onClose = nil
    for (_, call) in waiting { call.then(.failure(Self.closed)) }
  }

  private func closeAbove() {
    guard isOpenAbove else { return }
    isOpenAbove = false
    isCut = true
    let waiting = pendingDown.sorted { $0.key < $1.key }
    pendingDown = [:]
    if let head, head.isAlive { head.closed(self) }
    for (_, then) in waiting { then() }
    world.links.removeAll { $0 === self }
  }

  func end() {
    (pending, pendingDown, heldUp, heldDown) = ([:], [:], [], [])
    onClose = nil
    below = nil
  }

  /// Calls that have waited for so long, and should not.
  func overdue(_ limit: Duration) -> [String] {
    pending.sorted { $0.key < $1.key }.filter { world.now - $0.value.since > limit }.map(\.value.what)
  }
}

/// A process that the head calls.
protocol SimulatedPeer: AnyObject {
  /// Says that it is there.
  var isThere: Bool { get }
  func drop(_ request: DropRequest)
  func keep(_ request: KeepRequest)
  func learn(_ names: NameNews)
  func grant(_ request: LeaseRequest, _ answer: @escaping (PodAnswer) -> Void)
  func release(_ lease: LeaseReturn)
  func revoked(_ loss: LeaseLost)
  func runActor(_ run: ActorRun, _ answer: @escaping (Result<Endpoint, MobulaError>) -> Void)
  func endActor(_ ending: ActorEnding, _ done: @escaping () -> Void)
}

extension SimulatedPeer {
  var isThere: Bool { true }
  func drop(_ request: DropRequest) {}
  func keep(_ request: KeepRequest) {}
  func learn(_ names: NameNews) {}
  func grant(_ request: LeaseRequest, _ answer: @escaping (PodAnswer) -> Void) {}
  func release(_ lease: LeaseReturn) {}
  func revoked(_ loss: LeaseLost) {}
  func runActor(_ run: ActorRun, _ answer: @escaping (Result<Endpoint, MobulaError>) -> Void) {}
  func endActor(_ ending: ActorEnding, _ done: @escaping () -> Void) {}
}
