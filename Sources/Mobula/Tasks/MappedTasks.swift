import MobulaCore
import Synchronization

/// Counts down from whichever threads.
final class Countdown: Sendable {
  private let left: Atomic<Int>

  init(_ count: Int) { left = Atomic(count) }

  /// - Returns: whether that was the last.
  func countDown() -> Bool { left.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 }
}

/// A sequence, asynchronously.
struct SequenceStream<Base: Sequence & Sendable>: AsyncSequence, Sendable where Base.Element: Sendable {
  let base: Base

  struct AsyncIterator: AsyncIteratorProtocol {
    var base: Base.Iterator

    mutating func next() async -> Base.Element? { base.next() }
  }

  func makeAsyncIterator() -> AsyncIterator { AsyncIterator(base: base.makeIterator()) }
}

/// Tasks that are submitted as their results are taken.
struct MappedTasks<Inputs: AsyncSequence & Sendable, Work: RemoteTask>: AsyncSequence, Sendable
where Inputs.Element: Sendable {
  typealias Element = Work.Output
  typealias Failure = any Error

  let cluster: Cluster
  let inputs: Inputs
  let limit: Int
  let ordered: Bool
  let options: TaskOptions
  let make: @Sendable (Inputs.Element) throws -> Work

  func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(sequence: self, inputs: inputs.makeAsyncIterator(), running: Running())
  }

  /// Those that were submitted and not taken; cancelled with the iteration.
  final class Running: Sendable {
    private let state = Mutex<(references: [UInt64: ObjectRef<Work.Output>], next: UInt64)>(([:], 0))
    private let ready: AsyncStream<UInt64>
    private let continuation: AsyncStream<UInt64>.Continuation

    init() { (ready, continuation) = AsyncStream.makeStream(of: UInt64.self) }

    deinit { for reference in state.withLock({ $0.references }).values { reference.cancel() } }

    var count: Int { state.withLock { $0.references.count } }

    func add(_ reference: ObjectRef<Work.Output>, tells: Bool) {
      let number = state.withLock { state in
        defer { state.next += 1 }
        state.references[state.next] = reference
        return state.next
      }
      guard tells else { return }
      let continuation = continuation
      let isOver = reference.reference.task?.whenDone { continuation.yield(number) } == nil
      if isOver { continuation.yield(number) }
    }

    /// The oldest.
    func first() -> ObjectRef<Work.Output>? {
      state.withLock { state in
        guard let number = state.references.keys.min() else { return nil }
        return state.references.removeValue(forKey: number)
      }
    }

    /// The one that ended first, once one has.
    func next() async -> ObjectRef<Work.Output>? {
      guard count > 0 else { return nil }
      for await number in ready {
        if let reference = state.withLock({ $0.references.removeValue(forKey: number) }) { return reference }
      }
      return nil
    }
  }

  struct AsyncIterator: AsyncIteratorProtocol {
    let sequence: MappedTasks
    var inputs: Inputs.AsyncIterator
    let running: Running
    var isOver = false

    mutating func next() async throws -> Work.Output? {
      while !isOver, running.count < sequence.limit {
        try Task.checkCancellation()
        guard let input = try await inputs.next(isolation: #isolation) else {
          isOver = true
          break
        }
        let reference = try sequence.cluster.submit(sequence.make(input), sequence.options)
        running.add(reference, tells: !sequence.ordered)
      }
      let reference: ObjectRef<Work.Output>?
      if sequence.ordered {
        reference = running.first()
      } else {
        reference = await RunningWork.waiting { await running.next() }
        try Task.checkCancellation()
      }
      guard let reference else { return nil }
      return try await withTaskCancellationHandler {
        try await reference.value
      } onCancel: {
        reference.cancel()
      }
    }
  }
}
