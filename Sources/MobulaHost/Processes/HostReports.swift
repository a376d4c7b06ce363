import MobulaCore
import MobulaStore
import MobulaWire

/// What the head is told of this host, in order: what is in its store, and what its processes hold.
final class HostReports: Sendable {
  /// A process of this host.
  typealias Holder = HoldLedgerStateMachine.Holder

  private let queue: ReportQueue

  init(_ host: HostID, store: Store, head: PeerLink) {
    // What a process puts and lets go of again within that time, the head never hears of. Long enough for a host that is
    // behind with what its processes say: what is told in vain makes it later still.
    queue = ReportQueue(
      linger: .milliseconds(100),
      ready: { limit in
        do {
          _ = try await head.connection(until: .now + limit)
          return true
        } catch let error as MobulaError where error.code == .unavailable && !head.isOver { return false }
      }
    ) { batch, isCurrent in
      try await Self.send(batch, isCurrent, of: host, in: store, to: head)
      return nil
    }
  }

  private static func send(
    _ batch: ReportQueue.Batch, _ isCurrent: () -> Bool, of host: HostID, in store: Store, to head: PeerLink
  ) async throws {
    let connection = try await head.connection(until: .now + ReportQueue.patience)
    do {
      for some in pages(of: changes(batch.changes, store), size: \.wireSize) {
        _ = try await connection.call(HeadAPI.replicasChanged, ReplicaChanges(host: host, changes: some))
      }
      // Differences are against what the head was told. A registration tells it everything anew, and
      // makes older differences wrong; so they are sent on no later connection than they are for.
      if batch.holds.isEmpty { return }
      guard isCurrent() else {
        // The head knows with that registration's answer: whoever is told so before lets go of them elsewhere.
        return try await head.waitForRegistration(within: ReportQueue.patience, isCurrent)
      }
      // All in one message where they fit, as they nearly always do; what is added is never told after what ends.
      for holds in HoldChanges.parts(host, added: batch.holds.added, removed: batch.holds.removed) {
        _ = try await connection.call(HeadAPI.holdsChanged, holds)
      }
    } catch let error as MobulaError where error.code == .connectionClosed {
      // The registration that follows says what is here and held; who waits for this waits for that. What else
      // the report said is said again.
      try await head.waitForRegistration(within: ReportQueue.patience, isCurrent)
      for some in pages(of: changes(batch.changes, store), size: \.wireSize) {
        _ = try await head.call(HeadAPI.replicasChanged, ReplicaChanges(host: host, changes: some))
      }
    } catch {
      // The head knows less than it was to: a registration puts it right.
      await connection.close()
      throw error
    }
  }

  /// What the head is told: of objects that were made here all that it has to know, if they are still there.
  private static func changes(_ changes: [ReportQueueStateMachine.Change], _ store: Store) -> [ReplicaChange] {
    changes.compactMap { change in
      switch change {
      case .replica(let change): change
      case .made(let object, let contains, let held):
        store.info(of: object).map {
          .sealed(
            ReplicaReport(
              object: object, geometry: $0.geometry, digest: $0.digest, contains: contains,
              isPrimary: store.isPrimary(object)), held: held)
        }
      }
    }
  }

  // MARK: Holds

  /// Counts holds; they are reported with the next flush.
  func hold(_ objects: [ObjectID], by holder: Holder) { queue.change { $0.hold(objects, by: holder) } }

  /// Ends holds.
  ///
  /// - Parameter unshared: of them, those of which nobody but the holder ever knew.
  /// - Returns: those of which the head was not told, and never will be.
  func release(_ objects: [ObjectID], unshared: [ObjectID], by holder: Holder) -> [ObjectID] {
    queue.change { $0.release(objects, unshared: unshared, by: holder) }
  }

  /// A holder that has come back holds these, and of those that it was known to hold no others.
  func setHolds(_ objects: [ObjectID], known: Set<ObjectID>, by holder: Holder) {
    queue.change { $0.setHolds(objects, known: known, by: holder) }
  }

  /// Ends all holds of a holder.
  func holderGone(_ holder: Holder) { queue.change { $0.holderGone(holder) } }

  func held(by holder: Holder) -> Set<ObjectID> { queue.look { $0.held(by: holder) } }

  /// Those of the objects that nobody holds here.
  func unheld(among objects: some Sequence<ObjectID> & Sendable) -> [ObjectID] {
    queue.look { $0.unheld(among: objects) }
  }

  /// Those of the objects that nobody holds here and that nobody elsewhere can know of.
  func unwanted(among objects: some Sequence<ObjectID> & Sendable) -> [ObjectID] {
    queue.look { $0.unwanted(among: objects) }
  }

  // MARK: Objects

  /// An object was made here, and is held by its maker, if there is a `holder`.
  func made(_ object: ObjectID, contains: [ObjectID], holder: Holder?) {
    queue.change { $0.made(object, contains: contains, holder: holder) }
  }

  /// An object is here no longer.
  func gone(_ object: ObjectID) { queue.change { $0.gone(object) } }

  /// Others may know of these objects from now on.
  func wasShared(_ objects: [ObjectID]) {
    if !objects.isEmpty { queue.change { $0.wasShared(objects) } }
  }

  /// Reports now what was to wait for a moment.
  func hurry() { queue.change { $0.hurry() } }

  /// Reports a replica, and returns when it was delivered or `limit` has passed: whatever is done with the
  /// replica here needs nobody's answer.
  func announce(_ change: ReplicaChange, within limit: Duration = .seconds(2)) async {
    note(change)
    await flush(within: limit)
  }

  /// Reports a replica, soon.
  func note(_ change: ReplicaChange) { queue.change { $0.note(change) } }

  /// Returns when what was said before was delivered, or `limit` has passed.
  func flush(within limit: Duration) async { _ = try? await queue.flush(within: limit) }

  // MARK: The head

  /// How many changes wait to be told.
  var queuedChanges: Int { queue.look { $0.queuedChanges } }

  /// Takes all holds, for a registration that carries them; to be called after the list of what is here was made.
  func takeRegistration() -> [ObjectID] { queue.change { $0.takeRegistration() } }

  /// Returns when the head knows all that was said before.
  ///
  /// - Throws: what telling it threw; `MobulaError` (`unavailable`) when for 30 s it could not be told.
  func flush() async throws { try await queue.flush() }
}
