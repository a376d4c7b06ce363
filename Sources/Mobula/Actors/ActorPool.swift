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
