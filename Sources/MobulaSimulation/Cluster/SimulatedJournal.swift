import MobulaControl
import MobulaCore

/// The disk of the head's machine, with what is on its way there.
final class SimulatedJournal {
  private(set) var state = JournalState()
  /// Every record that was ever kept.
  private(set) var kept: Set<JournalRecord> = []
  private var waiting: [(id: CommitID, records: [JournalRecord])] = []
  private var writing: [(id: CommitID, records: [JournalRecord])] = []
  var isFailing = false

  static let failure = MobulaError(.full, "The disk of the head's journal is full: make room there, and try again.")

  init(cluster: ClusterID) { keep([.cluster(cluster)]) }

  var isWriting: Bool { !writing.isEmpty }

  /// Writes at once, as a head does before it listens.
  func keep(_ records: [JournalRecord]) {
    state.apply(records)
    kept.formUnion(records)
  }

  func append(_ id: CommitID, _ records: [JournalRecord]) { waiting.append((id, records)) }

  /// Takes the next group. False when nothing waits.
  func begin() -> Bool {
    guard writing.isEmpty, !waiting.isEmpty else { return false }
    writing = waiting
    waiting = []
    return true
  }

  /// The group is on the disk, or, when it fails, neither it nor what has come since.
  func end() -> [(id: CommitID, failure: MobulaError?)] {
    var group = writing
    writing = []
    if isFailing {
      group += waiting
      waiting = []
      return group.map { ($0.id, Self.failure) }
    }
    for commit in group { keep(commit.records) }
    return group.map { ($0.id, nil) }
  }

  /// The head's process is over: of the group that was being written a first part is there, which may be none.
  func crash(keeping random: inout SeededGenerator) {
    if !isFailing {
      for commit in writing.prefix(Int.random(in: 0...writing.count, using: &random)) { keep(commit.records) }
    }
    writing = []
    waiting = []
  }

  /// All of it is lost, and made anew as `mobula head recover` does.
  func recover(epoch: UInt64) {
    let cluster = state.cluster
    state = JournalState()
    kept = []
    writing = []
    waiting = []
    keep(
      [
        .recovering(true), .epoch(epoch), .counter(.jobs, limit: epoch), .counter(.claims, limit: epoch << 20),
      ] + (cluster.map { [.cluster($0)] } ?? []))
  }
}
