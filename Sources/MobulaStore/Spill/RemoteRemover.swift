internal import MobulaCore
internal import Synchronization

/// What a store needs of what is in a `SpillPlace`; all else goes, as soon as the place can be reached.
final class RemoteRemover: Sendable {
  private struct State {
    /// What is needed, what is being written, and what may be needed by the next run: all else in the place can go.
    var needed: Set<String> = []
    /// It is not known what an earlier run of this instance left: no item of this instance can go unasked.
    var keepsInstance = false
    var toRemove: [String] = []
    /// A write has failed, of which something may remain.
    var hasUnfinished = false
    var remover: Task<Void, Never>?
    var sweeper: Task<Void, Never>?
    var cleaner: Task<Void, Never>?
    /// For good: nothing is written any more.
    var isEnded = false
  }

  /// How many items are removed at once.
  private static let largestBatch = 1000
  private let place: any SpillPlace
  private let instance: SpillInstance
  private let patience: RemoteSpill.Patience
  private let trouble: @Sendable (MobulaError) -> Void
  private let state = Mutex(State())

  /// - Parameter trouble: told what goes wrong while nobody waits.
  init(
    _ place: any SpillPlace, instance: SpillInstance, patience: RemoteSpill.Patience,
    trouble: @escaping @Sendable (MobulaError) -> Void
  ) {
    self.place = place
    self.instance = instance
    self.patience = patience
    self.trouble = trouble
  }

  /// An item is about to be written. False when it is there already, or nothing is written any more.
  func need(_ name: String) -> Bool {
    state.withLock { $0.isEnded ? false : $0.needed.insert(name).inserted }
  }

  /// Items that an earlier run left, and that stay; all of this instance's, when it is not known which.
  func keep(_ names: Set<String>?) {
    state.withLock { state in
      if let names { state.needed.formUnion(names) } else { state.keepsInstance = true }
    }
  }

  /// Removes an item in the background, as soon as the place can be reached.
  ///
  /// - Parameter isUnfinished: whether it was not written to its end, as far as is known.
  func remove(_ name: String, isUnfinished: Bool = false) {
    state.withLock { state in
      state.needed.remove(name)
      // Everything goes, or has gone.
      if state.isEnded { return }
      state.toRemove.append(name)
      if state.remover == nil { state.remover = Task { await self.removeQueued() } }
      guard isUnfinished else { return }
      state.hasUnfinished = true
      if state.sweeper == nil { state.sweeper = Task { await self.sweep() } }
    }
  }

  private func removeQueued() async {
    var (pause, size) = (patience.firstPause, Self.largestBatch)
    while true {
      let batch = state.withLock { state in
        // Under the lock in which `remove` looks for this task.
        if state.toRemove.isEmpty { state.remover = nil }
        return Array(state.toRemove.prefix(size))
      }
      if batch.isEmpty { return }
      do {
        try await place.remove(batch)
        state.withLock { $0.toRemove.removeFirst(batch.count) }
        (pause, size) = (patience.firstPause, min(Self.largestBatch, size * 10))
      } catch {
        if Task.isCancelled { return }
        if pause == patience.firstPause { report("what is not needed any more can't be removed yet", error) }
        // One that can't be removed ends up alone, behind all others.
        state.withLock { state in
          state.toRemove.removeFirst(batch.count)
          state.toRemove += batch
        }
        size = max(1, size / 10)
        guard (try? await Task.sleep(for: pause)) != nil else { return }
        pause = min(patience.longestPause, pause * 2)
      }
    }
  }

  /// Removes what remains of writes that failed; apart from the queue, for which this is nothing to wait for.
  private func sweep() async {
    while true {
      let isDone = state.withLock { state in
        // Under the lock in which `remove` looks for this task.
        if !state.hasUnfinished { state.sweeper = nil }
        defer { state.hasUnfinished = false }
        return !state.hasUnfinished
      }
      if isDone { return }
      await untilItWorks("what remains of failed writes can't be removed yet") { try await self.removeUnfinished() }
      if Task.isCancelled { return }
    }
  }

  /// Does something again, after longer and longer pauses, until it works or the task is cancelled.
  ///
  /// - Parameter what: is told when it fails first.
  private func untilItWorks(_ what: String, _ body: () async throws -> Void) async {
    var pause = patience.firstPause
    while !Task.isCancelled {
      do {
        return try await body()
      } catch {
        if Task.isCancelled { return }
        if pause == patience.firstPause { report(what, error) }
        try? await Task.sleep(for: pause)
        pause = min(patience.longestPause, pause * 2)
      }
    }
  }

  /// Removes in the background what other runs of this host have left; until that has worked, or the end.
  func clean() {
    state.withLock { state in
      guard !state.isEnded, state.cleaner == nil else { return }
      state.cleaner = Task {
        await self.untilItWorks("what an earlier run left there can't be removed yet") {
          try await self.removeUnneeded()
        }
      }
    }
  }

  func removeUnneeded() async throws {
    // First the list: what is begun after it is needed, or will be removed by who began it.
    let names = try await place.items().map(\.name)
    let (needed, keepsInstance) = state.withLock { ($0.needed, $0.keepsInstance) }
    let stale = names.filter {
      !needed.contains($0) && !(keepsInstance && SpillItemName($0)?.instance == instance)
    }
    var failure: (any Error)?
    for start in stride(from: 0, to: stale.count, by: Self.largestBatch) {
      do {
        try await place.remove(Array(stale[start..<min(stale.count, start + Self.largestBatch)]))
      } catch {
        try Task.checkCancellation()
        failure = failure ?? error
      }
    }
    try await removeUnfinished()
    if let failure { throw failure }
  }

  private func removeUnfinished() async throws {
    try await place.removeUnfinished { name in self.state.withLock { $0.needed.contains(name) } }
  }

  private func report(_ what: String, _ error: any Error) { trouble(RemoteSpill.trouble(at: place, what, error)) }

  /// The end begins: nothing is written any more, and nothing removed in the background.
  func end() {
    let tasks = state.withLock { state in
      state.isEnded = true
      return [state.remover, state.sweeper, state.cleaner].compactMap { $0 }
    }
    for task in tasks { task.cancel() }
  }

  /// Nothing is needed any more: `removeUnneeded` removes all.
  func needNothing() {
    state.withLock { state in
      state.needed = []
      state.keepsInstance = false
    }
  }
}
