internal import MobulaCore
internal import Synchronization

/// What the receivers of each object are told that this host has: what one of them is not told of, another is.
final class OfferBook: Sendable {
  private struct Entry {
    var machine: OfferStateMachine
    var wake: [OfferStateMachine.ReceiverID: @Sendable () -> Void] = [:]
  }

  private let entries = Mutex<[ObjectID: Entry]>([:])

  /// A receiver was connected; `wake` is called when there may be news for it.
  ///
  /// - Returns: whether it is to say which of the offered chunks it got from elsewhere.
  func join(
    _ receiver: OfferStateMachine.ReceiverID, _ source: any ChunkSource, wake: @escaping @Sendable () -> Void
  ) -> Bool {
    entries.withLock { entries in
      var entry =
        entries[source.object]
        ?? Entry(
          machine: OfferStateMachine(
            count: source.geometry.count, isOrigin: source.isOrigin, window: Self.window(source.geometry)))
      entry.machine.joined(receiver)
      entry.wake[receiver] = wake
      entries[source.object] = entry
      return entry.machine.isOrigin
    }
  }

  func leave(_ receiver: OfferStateMachine.ReceiverID, _ object: ObjectID) {
    let woken = entries.withLock { entries in
      guard var entry = entries[object] else { return [@Sendable () -> Void]() }
      let hasNews = entry.machine.left(receiver)
      entry.wake[receiver] = nil
      entries[object] = entry.machine.isIdle ? nil : entry
      return hasNews ? Array(entry.wake.values) : []
    }
    for wake in woken { wake() }
  }

  func acknowledged(_ receiver: OfferStateMachine.ReceiverID, _ object: ObjectID, _ chunk: Int) {
    entries.withLock { $0[object]?.machine.acknowledged(receiver, chunk) }
  }

  /// What to tell the receiver now.
  ///
  /// - Parameter foreign: of what is verified, what an origin has from other hosts.
  func take(
    _ receiver: OfferStateMachine.ReceiverID, _ object: ObjectID, verified: ChunkMap, foreign: ChunkMap?
  ) -> [Range<Int>] {
    entries.withLock { entries in
      entries[object]?.machine.verified(verified, foreign: foreign)
      return entries[object]?.machine.take(receiver) ?? []
    }
  }

  /// A receiver must never wait for news while it has room to ask: twice what it asks for at once. Of a small object
  /// only a part, so that there is something for the others.
  static func window(_ geometry: ChunkGeometry) -> Int {
    min(2 * ExchangeLimits().chunksInFlight(geometry), max(4, geometry.count / 8))
  }
}
