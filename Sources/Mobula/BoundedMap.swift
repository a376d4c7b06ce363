import Synchronization

/// A sequence, asynchronously.
struct SequenceStream<Base: Sequence & Sendable>: AsyncSequence, Sendable where Base.Element: Sendable {
  let base: Base

  struct AsyncIterator: AsyncIteratorProtocol {
    var base: Base.Iterator

    mutating func next() async -> Base.Element? { base.next() }
  }

  func makeAsyncIterator() -> AsyncIterator { AsyncIterator(base: base.makeIterator()) }
}

/// What a closure makes of inputs, so many of them at a time: begun, or made and not taken yet.
///
/// Inputs are taken as results are, and results are there as soon as they are made, however long the next input takes.
struct BoundedMap<Inputs: AsyncSequence & Sendable, Output: Sendable>: AsyncSequence, Sendable
where Inputs.Element: Sendable {
  typealias Element = Output
  typealias Failure = any Error

  let inputs: Inputs
  let limit: Int
  let ordered: Bool
  let transform: @Sendable (Inputs.Element) async throws -> Output

  func makeAsyncIterator() -> AsyncIterator { AsyncIterator(iteration: Iteration(Running(self))) }

  struct AsyncIterator: AsyncIteratorProtocol {
    let iteration: Iteration

    func next() async throws -> Output? { try await iteration.running.next() }
  }

  /// Ends what has begun with the iteration: what has begun keeps itself.
  final class Iteration: Sendable {
    let running: Running

    init(_ running: Running) { self.running = running }

    deinit { running.end() }
  }

  enum Found {
    case result(Result<Output, any Error>)
    case over(Result<Void, any Error>)
    case nothing
  }

  /// What has begun.
  final class Running: Sendable {
    private struct State {
      /// Those that were not taken, by their numbers; `nil` while they run.
      var results: [Int: Result<Output, any Error>?] = [:]
      var tasks: [Int: Task<Void, Never>] = [:]
      /// Those that have ended and were not taken, in that order.
      var ended: [Int] = []
      var next = 0
      var taken = 0
      /// Whether there are no more inputs, and why.
      var end: Result<Void, any Error>?
      var producer: Task<Void, Never>?
      /// Who waits for something to change: the one that takes results, and the one that takes inputs.
      var consumer: CheckedContinuation<Void, Never>?
      var room: CheckedContinuation<Void, Never>?
    }

    private let sequence: BoundedMap
    private let state = Mutex(State())

    init(_ sequence: BoundedMap) { self.sequence = sequence }

    func end() {
      let (producer, tasks) = state.withLock { ($0.producer, Array($0.tasks.values)) }
      producer?.cancel()
      for task in tasks { task.cancel() }
    }

    func next() async throws -> Output? {
      begin()
      while true {
        try Task.checkCancellation()
        let (found, room) = state.withLock { state -> (Found, CheckedContinuation<Void, Never>?) in
          let number = sequence.ordered ? state.taken : state.ended.first
          if let number, let result = state.results[number] ?? nil {
            state.results[number] = nil
            state.tasks[number] = nil
            state.ended.removeAll { $0 == number }
            state.taken += 1
            return (.result(result), state.room.take())
          }
          if state.results.isEmpty, let end = state.end { return (.over(end), nil) }
          return (.nothing, nil)
        }
        room?.resume()
        switch found {
        case .result(let result): return try result.get()
        case .over(let end):
          try end.get()
          return nil
        case .nothing: await RunningWork.waiting { await self.waitForChange() }
        }
      }
    }

    private func waitForChange() async {
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let isNews = state.withLock { state in
            let number = sequence.ordered ? state.taken : state.ended.first
            let hasResult = number.map { (state.results[$0] ?? nil) != nil } ?? false
            if hasResult || Task.isCancelled || state.results.isEmpty && state.end != nil { return true }
            state.consumer = continuation
            return false
          }
          if isNews { continuation.resume() }
        }
      } onCancel: {
        state.withLock { $0.consumer.take() }?.resume()
      }
    }

    /// Begins to take inputs, at the first time.
    private func begin() {
      state.withLock { state in
        guard state.producer == nil else { return }
        state.producer = Task { await self.produce() }
      }
    }

    private func produce() async {
      do {
        for try await input in sequence.inputs {
          if Task.isCancelled { return }
          add(input)
          await waitForRoom()
        }
        finish(.success(()))
      } catch {
        finish(.failure(error))
      }
    }

    private func add(_ input: Inputs.Element) {
      state.withLock { state in
        let number = state.next
        state.next += 1
        state.results[number] = .some(nil)
        state.tasks[number] = Task {
          let result: Result<Output, any Error>
          do { result = .success(try await self.sequence.transform(input)) } catch { result = .failure(error) }
          self.ended(number, result)
        }
      }
    }

    private func ended(_ number: Int, _ result: Result<Output, any Error>) {
      let consumer = state.withLock { state in
        state.results[number] = .some(result)
        state.ended.append(number)
        return state.consumer.take()
      }
      consumer?.resume()
    }

    private func finish(_ end: Result<Void, any Error>) {
      let consumer = state.withLock { state in
        state.end = end
        return state.consumer.take()
      }
      consumer?.resume()
    }

    private func waitForRoom() async {
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let hasRoom = state.withLock { state in
            if state.results.count < sequence.limit || Task.isCancelled { return true }
            state.room = continuation
            return false
          }
          if hasRoom { continuation.resume() }
        }
      } onCancel: {
        state.withLock { $0.room.take() }?.resume()
      }
    }
  }
}
