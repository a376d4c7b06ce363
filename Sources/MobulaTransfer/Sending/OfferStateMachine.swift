package import MobulaCore

/// Which chunks of one object a source tells each of its receivers that it has.
///
/// A source that has the bytes from another host tells everybody everything: whoever has a chunk, others have too.
/// One that may be the only one (an *origin*: the maker, or who reads from S3) tells each chunk to one receiver first, a
/// few at a time, so that its interface sends every byte once while the receivers pass on what they have. Once a receiver has all that it was
/// told, and there is nothing that nobody was told, it is told what others were, a few at a time as well: it says at
/// once what it has by then. (What BitTorrent calls super-seeding, with a window.) What an origin has from other hosts
/// it tells everybody, too.
package struct OfferStateMachine: Sendable {
  /// A connection to a receiver.
  package typealias ReceiverID = UInt64

  private struct Receiver: Sendable {
    var told: ChunkMap
    /// Told, and not yet acknowledged.
    var open: Set<Int> = []
  }

  private let count: Int
  /// Whether this host may be the only one that has the bytes.
  package let isOrigin: Bool
  /// Chunks that all receivers together are told ahead of those that they have.
  private let window: Int
  private var verified: ChunkMap
  /// What an origin has from other hosts.
  private var foreign: ChunkMap?
  /// What somebody was told, and may be asked for.
  private var given: ChunkMap
  private var receivers: [ReceiverID: Receiver] = [:]

  /// - Parameter window: chunks that receivers are told ahead of those that they have: the only one so many, several
  ///   their share, but each at least four (or all of a smaller window).
  package init(count: Int, isOrigin: Bool, window: Int) {
    precondition(window > 0, "a window holds at least one chunk")
    self.count = count
    self.isOrigin = isOrigin
    self.window = window
    verified = ChunkMap(count: count)
    given = ChunkMap(count: count)
  }

  package var isIdle: Bool { receivers.isEmpty }

  package mutating func joined(_ receiver: ReceiverID) {
    precondition(receivers[receiver] == nil, "a receiver joins once")
    receivers[receiver] = Receiver(told: ChunkMap(count: count))
  }

  /// A receiver is gone: what it was told, and did not get, is for the others.
  ///
  /// - Returns: whether others may be told something now.
  package mutating func left(_ receiver: ReceiverID) -> Bool {
    guard let gone = receivers.removeValue(forKey: receiver), isOrigin else { return false }
    for chunk in gone.open where !receivers.values.contains(where: { $0.told.contains(chunk) }) { given.remove(chunk) }
    return !gone.open.isEmpty
  }

  /// These chunks are verified here.
  ///
  /// - Parameter foreign: those that an origin has from other hosts.
  package mutating func verified(_ map: ChunkMap, foreign: ChunkMap? = nil) {
    verified = map
    self.foreign = foreign
  }

  /// A receiver has a chunk, from here or from elsewhere.
  package mutating func acknowledged(_ receiver: ReceiverID, _ chunk: Int) { receivers[receiver]?.open.remove(chunk) }

  /// What to tell a receiver now.
  package mutating func take(_ receiver: ReceiverID) -> [Range<Int>] {
    guard var state = receivers[receiver] else { return [] }
    defer { receivers[receiver] = state }
    guard isOrigin else {
      let news = verified.ranges(notIn: state.told)
      state.told = verified
      return news
    }
    let before = state.told
    if let foreign {
      state.told.formUnion(foreign)
      given.formUnion(foreign)
    }
    // What one was told waits for that one: the fewer, the more is left for whoever is fast.
    let share = max(min(4, window), window / receivers.count)
    tell(&state, share - state.open.count, notIn: given)
    given.formUnion(state.told)
    if state.open.isEmpty, verified.isComplete, given.isComplete { tell(&state, share, notIn: state.told) }
    return state.told.ranges(notIn: before)
  }

  /// Tells the receiver up to `count` chunks, the lowest that it was not told and that are not in `others`.
  private func tell(_ receiver: inout Receiver, _ count: Int, notIn others: ChunkMap) {
    guard count > 0 else { return }
    var left = count
    verified.forEach(notIn: others, receiver.told) { chunk in
      receiver.told.insert(chunk)
      receiver.open.insert(chunk)
      left -= 1
      return left > 0
    }
  }
}
