import MobulaCore
import MobulaWire

/// What this process holds, told to its host in order.
final class ProcessHolds: Sendable {
  /// A reference of this process.
  typealias Holder = HoldLedgerStateMachine.Holder

  private let queue: ReportQueue

  init(_ link: PeerLink) {
    queue = ReportQueue(linger: .milliseconds(2)) { batch, isCurrent in
      try await Self.send(batch, isCurrent, over: link)
    }
  }

  private static func send(
    _ batch: ReportQueue.Batch, _ isCurrent: () -> Bool, over link: PeerLink
  ) async throws -> ReportQueue.Confirmation? {
    let host = try await link.connection()
    // Ends of holds must not wait behind a hold of which the head has to know first.
    var confirm: ReportQueue.Confirmation?
    if !batch.holds.added.isEmpty || batch.needsConfirmation {
      confirm = { _ = try await link.call(HostAPI.confirmHolds, Empty(), deadline: .seconds(60)) }
    }
    // A registration has told it all anew.
    guard isCurrent(), !batch.holds.isEmpty || !batch.shared.isEmpty else { return confirm }
    let changes = ProcessHoldChanges(
      added: batch.holds.added, removed: batch.holds.removed, unshared: batch.neverShared, shared: batch.shared,
      waits: false)
    do {
      _ = try await host.call(HostAPI.holdsChanged, changes, deadline: .seconds(60))
    } catch let error as MobulaError where error.code == .connectionClosed {
      // The registration that follows says it all; who waits for this waits for that.
      try await link.waitForRegistration(isCurrent)
    } catch {
      // The host would go on believing what is no longer so.
      await host.close()
      throw error
    }
    return confirm
  }

  /// Says on a new connection what this process holds, in parts that each fit into a frame.
  func register(on connection: RPCConnection) async throws {
    var parts = pages(of: queue.change { $0.takeRegistration() }) { _ in 17 }
    let last = parts.popLast() ?? []
    for part in parts {
      _ = try await connection.call(HostAPI.registerHolds, HoldRegistration(holds: part, more: true))
    }
    _ = try await connection.call(HostAPI.registerHolds, HoldRegistration(holds: last, waits: false))
  }

  /// A reference to an object that others know; reported with the next flush.
  func hold(_ object: ObjectID, by reference: Holder) { queue.change { $0.hold([object], by: reference) } }

  /// A reference to an object whose making tells of it.
  func holdSilently(_ object: ObjectID, by reference: Holder) {
    queue.change { $0.holdSilently(object, by: reference) }
  }

  /// A reference is over; reported soon.
  func release(_ object: ObjectID, by reference: Holder) { queue.change { $0.release([object], by: reference) } }

  /// A reference is over that never left this process; reported in a moment.
  func releaseUnshared(_ object: ObjectID, by reference: Holder) {
    queue.change { $0.releaseUnshared(object, by: reference) }
  }

  /// A reference leaves this process.
  func share(_ object: ObjectID) { queue.change { $0.share(object) } }

  /// Whether so much is waiting to be reported that who adds to it should `deliver` first.
  var isBehind: Bool { queue.look { $0.isBehind } }

  /// Returns when the head knows all that was said before.
  ///
  /// - Throws: `MobulaError` when host or head did not take it.
  func flush() async throws { try await queue.flush() }

  /// Returns when the host knows it.
  func deliver() async throws { try await queue.flush(confirms: false) }
}
