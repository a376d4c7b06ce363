package import MobulaCore
internal import Synchronization

/// A journal in memory, for tests and simulation, that may fail and lose as a disk does.
///
/// With `commitsAtOnce` an append is done when it returns. Without, nothing is committed before `advance`.
package final class MemoryJournal: Journal {
  fileprivate typealias Commit = (records: [JournalRecord], done: @Sendable (Result<Void, MobulaError>) -> Void)

  fileprivate struct Contents {
    var state: JournalState
    var waiting: [Commit] = []
    var isFailing = false
    var commitsAtOnce: Bool
    var generator: SeededGenerator
    /// Whether the process that used it is over: what comes now is from the dead.
    var isOver = false
    var committed = 0
  }

  private let contents: Mutex<Contents>

  /// - Parameter seed: decides which of several commits a group takes, and what a crash keeps.
  package init(_ state: JournalState = JournalState(), commitsAtOnce: Bool = true, seed: UInt64 = 1) {
    contents = Mutex(
      Contents(state: state, commitsAtOnce: commitsAtOnce, generator: SeededGenerator(seed: seed)))
  }

  package func load() async throws(MobulaError) -> JournalState { state }

  /// What is committed.
  package var state: JournalState { contents.withLock { $0.state } }

  /// Whether an append is committed when it returns.
  package func setCommitsAtOnce(_ commitsAtOnce: Bool) { contents.withLock { $0.commitsAtOnce = commitsAtOnce } }

  /// Records committed since the start.
  package var committed: Int { contents.withLock { $0.committed } }

  /// Commits that wait for `advance`.
  package var waiting: Int { contents.withLock { $0.waiting.count } }

  /// While it fails, as a full disk does, every commit is refused.
  package func setFailing(_ isFailing: Bool) { contents.withLock { $0.isFailing = isFailing } }

  package func append(_ records: [JournalRecord], done: @escaping @Sendable (Result<Void, MobulaError>) -> Void) {
    let result = contents.withLock { contents -> Result<Void, MobulaError>? in
      if contents.isOver { return nil }
      guard contents.commitsAtOnce else {
        contents.waiting.append((records, done))
        return nil
      }
      if contents.isFailing { return .failure(Self.failure) }
      contents.commit([(records, done)])
      return .success(())
    }
    // Nobody else's: the caller may hold a lock that theirs needs.
    if let result { done(result) }
  }

  /// Commits some of what waits, or all of it, as one group.
  ///
  /// - Returns: whether anything waited.
  @discardableResult
  package func advance(all: Bool = false) -> Bool {
    let (group, result) = contents.withLock { contents -> ([Commit], Result<Void, MobulaError>) in
      guard !contents.waiting.isEmpty else { return ([], .success(())) }
      if contents.isFailing {
        defer { contents.waiting = [] }
        return (contents.waiting, .failure(Self.failure))
      }
      let count = all ? contents.waiting.count : Int.random(in: 1...contents.waiting.count, using: &contents.generator)
      let group = Array(contents.waiting.prefix(count))
      contents.waiting.removeFirst(count)
      contents.commit(group)
      return (group, .success(()))
    }
    for commit in group { commit.done(result) }
    return !group.isEmpty
  }

  /// The process is over at this moment: of what it waited for, some commits are there, the first ones, and none of
  /// them was told. A group is never there in part.
  ///
  /// - Returns: what the next process finds.
  package func crash() -> MemoryJournal {
    contents.withLock { contents in
      let kept = contents.isFailing ? 0 : Int.random(in: 0...contents.waiting.count, using: &contents.generator)
      contents.commit(Array(contents.waiting.prefix(kept)))
      contents.waiting = []
      contents.isOver = true
      return MemoryJournal(
        contents.state, commitsAtOnce: contents.commitsAtOnce, seed: contents.generator.next())
    }
  }

  package func close() async { while advance(all: true) {} }

  private static let failure = MobulaError(
    .full, "The head's journal can't be written (the disk is full): make room, and try again.")
}

extension MemoryJournal.Contents {
  fileprivate mutating func commit(_ group: [MemoryJournal.Commit]) {
    for commit in group {
      state.apply(commit.records)
      committed += commit.records.count
    }
  }
}
