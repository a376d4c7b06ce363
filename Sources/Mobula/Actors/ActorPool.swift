import MobulaCore
import Synchronization

/// Actors that do the same, for who does not mind which of them does it.
public struct ActorPool<Act: RemoteActor>: Sendable {
  /// All of them.
  public let actors: [Act]
  private let free: FreeActors<Act>

  /// - Parameter actors: at least one; each is given to one at a time.
  public init(_ actors: [Act]) {
    precondition(!actors.isEmpty, "a pool has at least one actor")
    self.actors = actors
    free = FreeActors(actors)
  }

  /// Has an actor for as long as `body` runs, waiting until one is free; those that wait get one in their order.
  ///
  /// - Throws: what `body` throws; `CancellationError`.
  public func with<Value>(_ body: (Act) async throws -> Value) async throws -> Value {
    let actor = try await free.take()
    defer { free.giveBack(actor) }
    return try await body(actor)
  }

  /// What the actors make of inputs, each by whichever is free.
  ///
  /// - Parameters:
  ///   - inputs: taken as results are: so it fits sequences of any length.
  ///   - perActor: how many calls an actor has at a time; two unless told otherwise, so that the next is there when one ends.
  ///   - ordered: whether results come in the order of their inputs, or as they are there.
  ///   - call: the call for an input.
  public func map<Input: Sendable, Output: Sendable>(
    _ inputs: some Sequence<Input> & Sendable, perActor: Int = 2, ordered: Bool = false,
    _ call: @escaping @Sendable (Act, Input) async throws -> Output
  ) -> some AsyncSequence<Output, any Error> & Sendable {
    map(SequenceStream(base: inputs), perActor: perActor, ordered: ordered, call)
  }

  /// What the actors make of inputs as these come, each by whichever is free.
  ///
  /// - Parameters:
  ///   - inputs: taken as results are.
  ///   - perActor: how many calls an actor has at a time; two unless told otherwise, so that the next is there when one ends.
  ///   - ordered: whether results come in the order of their inputs, or as they are there.
  ///   - call: the call for an input.
  public func map<Inputs: AsyncSequence & Sendable, Output: Sendable>(
    _ inputs: Inputs, perActor: Int = 2, ordered: Bool = false,
    _ call: @escaping @Sendable (Act, Inputs.Element) async throws -> Output
  ) -> some AsyncSequence<Output, any Error> & Sendable where Inputs.Element: Sendable {
    let slots = FreeActors(Array(repeating: actors, count: max(1, perActor)).flatMap { $0 })
    return BoundedMap(inputs: inputs, limit: actors.count * max(1, perActor), ordered: ordered) { input in
      let actor = try await slots.take()
      defer { slots.giveBack(actor) }
      return try await call(actor, input)
    }
  }
}

/// Those that nobody has.
private final class FreeActors<Act: RemoteActor>: Sendable {
  private struct State {
    var free: [Act]
    var waiting: [(ticket: UInt64, continuation: CheckedContinuation<Act?, Never>)] = []
    var last: UInt64 = 0
  }

  private let state: Mutex<State>

  init(_ actors: [Act]) { state = Mutex(State(free: actors.reversed())) }

  func take() async throws -> Act {
    let ticket = state.withLock { state in
      state.last += 1
      return state.last
    }
    let actor = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let found = state.withLock { state -> Act?? in
          if Task.isCancelled { return .some(nil) }
          if let actor = state.free.popLast() { return actor }
          state.waiting.append((ticket, continuation))
          return nil
        }
        if let found { continuation.resume(returning: found) }
      }
    } onCancel: {
      let waiting = state.withLock { state in
        state.waiting.firstIndex { $0.ticket == ticket }.map { state.waiting.remove(at: $0).continuation }
      }
      waiting?.resume(returning: nil)
    }
    guard let actor else { throw CancellationError() }
    return actor
  }

  func giveBack(_ actor: Act) {
    let next = state.withLock { state -> CheckedContinuation<Act?, Never>? in
      guard !state.waiting.isEmpty else {
        state.free.append(actor)
        return nil
      }
      return state.waiting.removeFirst().continuation
    }
    next?.resume(returning: actor)
  }
}

/// What a closure makes of inputs, so many at a time.
struct BoundedMap<Inputs: AsyncSequence & Sendable, Output: Sendable>: AsyncSequence, Sendable
where Inputs.Element: Sendable {
  typealias Element = Output
  typealias Failure = any Error

  let inputs: Inputs
  let limit: Int
  let ordered: Bool
  let transform: @Sendable (Inputs.Element) async throws -> Output

  func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(sequence: self, inputs: inputs.makeAsyncIterator(), running: Running())
  }

  /// What has begun and was not taken; cancelled with the iteration.
  final class Running: Sendable {
    private struct State {
      var tasks: [UInt64: Task<Output, any Error>] = [:]
      var next: UInt64 = 0
    }

    private let state = Mutex(State())
    private let ended: AsyncStream<UInt64>
    private let continuation: AsyncStream<UInt64>.Continuation

    init() { (ended, continuation) = AsyncStream.makeStream(of: UInt64.self) }

    deinit { for task in state.withLock({ $0.tasks }).values { task.cancel() } }

    var count: Int { state.withLock { $0.tasks.count } }

    func add(_ body: @escaping @Sendable () async throws -> Output) {
      let continuation = continuation
      state.withLock { state in
        let number = state.next
        state.next += 1
        state.tasks[number] = Task {
          defer { continuation.yield(number) }
          return try await body()
        }
      }
    }

    private func take(_ number: UInt64) -> Task<Output, any Error>? {
      state.withLock { $0.tasks.removeValue(forKey: number) }
    }

    /// The oldest, or the one that ended first, once one has.
    func next(ordered: Bool) async -> Task<Output, any Error>? {
      guard count > 0 else { return nil }
      if ordered { return state.withLock { $0.tasks.keys.min() }.flatMap { take($0) } }
      for await number in ended { if let task = take(number) { return task } }
      return nil
    }
  }

  struct AsyncIterator: AsyncIteratorProtocol {
    let sequence: BoundedMap
    var inputs: Inputs.AsyncIterator
    let running: Running
    var isOver = false

    mutating func next() async throws -> Output? {
      while !isOver, running.count < sequence.limit {
        try Task.checkCancellation()
        guard let input = try await inputs.next(isolation: #isolation) else {
          isOver = true
          break
        }
        let transform = sequence.transform
        running.add { try await transform(input) }
      }
      guard let task = await running.next(ordered: sequence.ordered) else {
        try Task.checkCancellation()
        return nil
      }
      return try await withTaskCancellationHandler {
        try await task.value
      } onCancel: {
        task.cancel()
      }
    }
  }
}
