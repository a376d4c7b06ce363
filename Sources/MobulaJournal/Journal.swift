package import MobulaCore

/// Where the head keeps its records, and finds them when it starts again.
///
/// Commits are groups: records that are appended together are there together, or not at all.
package protocol Journal: Sendable {
  /// What was committed before, by any head.
  ///
  /// - Throws: `MobulaError`: `corrupted` when it can't be read, with the way out.
  func load() async throws(MobulaError) -> JournalState

  /// Takes records in the order of the calls, without waiting, so that it can be called under the lock that orders
  /// decisions.
  ///
  /// `done` is called once, in the order of the calls, from a thread of the journal's, with the error when the records
  /// are not kept. When a commit fails, all that were appended before its `done` has returned fail as well: what was
  /// decided on the strength of it is not kept either. What is appended after that is tried again.
  func append(_ records: [JournalRecord], done: @escaping @Sendable (Result<Void, MobulaError>) -> Void)

  /// Commits what was appended before, then lets go of the file.
  func close() async
}

extension Journal {
  /// Returns when the records will outlive this process and the machine's power.
  ///
  /// - Throws: `MobulaError` (`full`, `inputOutput`) when they are not kept.
  package func commit(_ records: [JournalRecord]) async throws(MobulaError) {
    let result = await withCheckedContinuation { continuation in
      append(records) { continuation.resume(returning: $0) }
    }
    try result.get()
  }
}
