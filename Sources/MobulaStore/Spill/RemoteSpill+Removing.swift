internal import MobulaCore
internal import Synchronization

/// What is not needed any more goes, as soon as the place can be reached.
extension RemoteSpill {
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

  func report(_ what: String, _ error: any Error) {
    trouble(MobulaError(.unavailable, "At \(place.title) \(what): \(Self.reason(error))."))
  }

  /// The end begins: nothing is written any more, and whoever waits gets an error.
  func end() {
    let tasks = state.withLock { state in
      state.isEnded = true
      return Array(state.running.values) + [state.remover, state.sweeper, state.cleaner].compactMap { $0 }
    }
    for task in tasks { task.cancel() }
  }

  /// The orderly end of a store: removes everything that is there, in the time that there is.
  ///
  /// - Parameter limit: when it must be over, even if that is sooner.
  func removeAll(until limit: ContinuousClock.Instant? = nil) {
    end()
    state.withLock { state in
      state.needed = []
      state.keepsInstance = false
    }
    let deadline = ContinuousClock.now + patience.removeAll
    let result = wait(until: min(deadline, limit ?? deadline), isLast: true) { try await self.removeUnneeded() }
    switch result {
    case .success: return
    case .failure(let error): report("what this host spilled stays until it starts again", error)
    case nil:
      report(
        "what this host spilled stays until it starts again", MobulaError(.deadlineExceeded, "it is not fast enough"))
    }
  }
}
