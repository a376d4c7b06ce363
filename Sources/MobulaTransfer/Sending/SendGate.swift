internal import Dispatch
internal import MobulaCore
internal import Synchronization

/// Lets few chunks leave at a time, over all connections of a host.
///
/// A chunk is of use to its receiver, and to those behind it, only when all of it is there: eight chunks that share an
/// interface all come as late as the last one of eight that follow each other.
final class SendGate: Sendable {
  private struct State {
    var machine = SendGateStateMachine()
    var sleeping: [UInt64: DispatchSemaphore] = [:]
  }

  private let start = ContinuousClock.now
  private let state = Mutex(State())

  /// Runs `body`, which sends a chunk and returns its bytes, when its turn has come.
  func pass(_ body: () throws(MobulaError) -> Int) throws(MobulaError) -> Int {
    let number = enter()
    var sent = 0
    defer { leave(number, sent: sent) }
    sent = try body()
    return sent
  }

  private func enter() -> UInt64 {
    let semaphore = DispatchSemaphore(value: 0)
    let number = state.withLock { $0.machine.arrived() }
    while true {
      let (wait, next) = state.withLock { state in
        let wait = state.machine.enter(number, at: ContinuousClock.now - start)
        state.sleeping[number] = wait == nil ? nil : semaphore
        return (wait, state.machine.next.flatMap { state.sleeping[$0] })
      }
      guard let wait else {
        // There may be room for two.
        next?.signal()
        return number
      }
      _ = semaphore.wait(timeout: .now() + .nanoseconds(Int(wait.inSeconds * 1e9) + 1000))
    }
  }

  private func leave(_ number: UInt64, sent bytes: Int) {
    let next = state.withLock { state in
      state.machine.left(number, sent: bytes, at: ContinuousClock.now - start)
      return state.machine.next.flatMap { state.sleeping[$0] }
    }
    next?.signal()
  }
}

/// Who may send a chunk now: those who came first.
struct SendGateStateMachine: Sendable {
  /// Enough that the interface does not run dry between two chunks, or where a receiver is busy with others.
  static let chunksAtOnce = 3
  /// How long a chunk keeps its place before it is known what the interface does.
  private static let initialPatience = Duration.milliseconds(50)

  private var waiting: [UInt64] = []
  private var leaving: [(number: UInt64, since: Duration)] = []
  private var last: UInt64 = 0
  /// What the fastest chunks do, in bytes a second.
  private var rate: Double?
  private var size = 0.0

  /// A chunk that takes three times as long as one that has the interface for itself goes to a receiver that is slow,
  /// and keeps nobody waiting.
  private var patience: Duration {
    guard let rate else { return Self.initialPatience }
    return .seconds(3 * size / rate) + .milliseconds(1)
  }

  /// Whose turn is next.
  var next: UInt64? { waiting.first }

  /// Somebody has a chunk to send.
  mutating func arrived() -> UInt64 {
    last += 1
    waiting.append(last)
    return last
  }

  /// Lets a chunk leave that has arrived: `nil`, or how long to wait before asking again.
  mutating func enter(_ number: UInt64, at now: Duration) -> Duration? {
    let inTheWay = leaving.map { $0.since + patience }.filter { $0 > now }.sorted()
    // Those before it are woken first.
    guard waiting.first == number else { return patience + .milliseconds(1) }
    guard inTheWay.count < Self.chunksAtOnce else { return inTheWay[inTheWay.count - Self.chunksAtOnce] - now }
    waiting.removeFirst()
    leaving.append((number, now))
    return nil
  }

  /// - Parameter bytes: what was sent; 0 when that failed, or nothing was to be sent any more.
  mutating func left(_ number: UInt64, sent bytes: Int, at now: Duration) {
    guard let index = leaving.firstIndex(where: { $0.number == number }) else { return }
    let took = now - leaving.remove(at: index).since
    guard bytes > 0 else { return }
    let rate = Double(bytes) / max(took, .microseconds(1)).inSeconds
    // Interfaces and neighbours change: what was seen once is forgotten in a few hundred chunks.
    self.rate = max(rate, (self.rate ?? 0) * 0.99)
    size = Double(bytes)
  }
}
