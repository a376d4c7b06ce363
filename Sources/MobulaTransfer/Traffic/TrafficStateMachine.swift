package import MobulaCore

/// Who may use a host's network next, in one direction: at most at a given rate, and what is waited for first.
///
/// Every connection is a *flow*. It asks before each piece that it sends or receives, and waits until it is admitted.
///
/// - With a limit, a piece may begin once those before it would be over at that rate. What was not used
///   is made up for, up to `burst`, so that whoever wakes late loses nothing.
/// - Among those that wait, the highest priority is first. Without a limit nobody waits for a rate: a lower
///   priority waits as long as a higher one was active in the last `grace`.
/// - Whoever has to give way is admitted 1 byte for every `bytesPerShared` of higher priorities, and without a
///   limit at least once every `patience`: it is slowed down, not cut off.
/// - Within a priority, what is in the middle of a chunk goes before what begins one, so that few chunks are
///   half sent; else in the order of asking.
///
/// Instants are durations since any common instant.
package struct TrafficStateMachine: Sendable {
  package typealias FlowID = UInt64

  package enum Action: Hashable, Sendable {
    /// The flow may move what it asked for.
    case admit(FlowID)
    /// Say `tick` at this instant, unless something else is said before.
    case wakeAt(Duration)
  }

  private struct Ask: Sendable {
    var flow: FlowID
    var bytes: Int
    var continues: Bool
  }

  /// The flows of one priority.
  private struct Rank: Sendable {
    var waiting: [Ask] = []
    /// Bytes that it may move although higher ones are at it.
    var share = 0
    /// When one of its flows asked or was admitted last.
    var lastActive: Duration?
    /// When one was admitted last, or began to wait after none did.
    var since = Duration.zero
  }

  /// How much unused time is made up for: with a piece of 10 ms, and 2% of TCP's headers, 5% of the second after a rest.
  package static let burst = Duration.milliseconds(20)
  /// A higher priority that was silent for so long is over.
  package static let grace = Duration.milliseconds(100)
  package static let patience = Duration.milliseconds(200)
  package static let bytesPerShared = 20
  /// The largest piece.
  package static let maximumPiece = 262_144

  package let limit: LinkRate?
  /// The most bytes to ask for at once: 10 ms of the limit, from 4 KiB to 256 KiB.
  package let piece: Int
  private var ranks = Array(repeating: Rank(), count: TransferPriority.allCases.count)
  /// When those that were admitted would be over at the limit.
  private var free = Duration.zero

  /// - Parameter limit: `nil` for as fast as it goes.
  package init(limit: LinkRate?) {
    self.limit = limit
    let hundredth = limit.map { Int($0.bytesPerSecond / 100) } ?? Self.maximumPiece
    piece = max(4096, min(Self.maximumPiece, hundredth / 4096 * 4096))
  }

  /// A flow wants to move so many bytes; until it is admitted it asks for nothing else.
  ///
  /// - Parameter continues: whether it is in the middle of a chunk.
  package mutating func asked(
    _ flow: FlowID, _ bytes: Int, _ priority: TransferPriority, continues: Bool, now: Duration
  ) -> [Action] {
    precondition(!ranks.contains { $0.waiting.contains { $0.flow == flow } }, "a flow asks once at a time")
    insert(Ask(flow: flow, bytes: bytes, continues: continues), Int(priority.rawValue), now)
    return serve(now)
  }

  /// A flow that waits has another priority now; one that does not wait says so when it asks.
  package mutating func changed(_ flow: FlowID, to priority: TransferPriority, now: Duration) -> [Action] {
    guard let ask = take(flow) else { return [] }
    insert(ask, Int(priority.rawValue), now)
    return serve(now)
  }

  /// A flow wants nothing any more.
  package mutating func left(_ flow: FlowID, now: Duration) -> [Action] {
    take(flow) == nil ? [] : serve(now)
  }

  /// Time has passed.
  package mutating func tick(now: Duration) -> [Action] { serve(now) }

  private mutating func insert(_ ask: Ask, _ rank: Int, _ now: Duration) {
    if ranks[rank].waiting.isEmpty { ranks[rank].since = now }
    ranks[rank].lastActive = now
    let place = ask.continues ? ranks[rank].waiting.firstIndex { !$0.continues } : nil
    ranks[rank].waiting.insert(ask, at: place ?? ranks[rank].waiting.count)
  }

  private mutating func take(_ flow: FlowID) -> Ask? {
    for rank in ranks.indices {
      if let place = ranks[rank].waiting.firstIndex(where: { $0.flow == flow }) {
        return ranks[rank].waiting.remove(at: place)
      }
    }
    return nil
  }

  // MARK: Deciding

  private mutating func serve(_ now: Duration) -> [Action] {
    var actions: [Action] = []
    while ranks.contains(where: { !$0.waiting.isEmpty }) {
      if limit != nil, free > now { return actions + [.wakeAt(free)] }
      guard let rank = next(now) else { return actions + [.wakeAt(nextTurn(now))] }
      actions.append(.admit(admit(rank, now)))
    }
    return actions
  }

  /// Whose turn it is: that of the highest, unless a lower one has earned its share.
  private func next(_ now: Duration) -> Int? {
    for (index, rank) in ranks.enumerated() {
      guard let first = rank.waiting.first else { continue }
      guard givesWay(index, now) else { return index }
      if rank.share >= first.bytes { return index }
      if limit == nil, now - rank.since >= Self.patience { return index }
    }
    return nil
  }

  private func givesWay(_ index: Int, _ now: Duration) -> Bool {
    ranks[(index + 1)...].contains { higher in
      if !higher.waiting.isEmpty { return true }
      guard limit == nil, let active = higher.lastActive else { return false }
      return now - active < Self.grace
    }
  }

  /// When somebody who gives way need not any longer. Only without a limit, where nobody else waits.
  private func nextTurn(_ now: Duration) -> Duration {
    ranks.indices.compactMap { index in
      if ranks[index].waiting.isEmpty { return nil }
      let quiet = ranks[(index + 1)...].compactMap { $0.lastActive.map { $0 + Self.grace } }.max() ?? now
      return min(quiet, ranks[index].since + Self.patience)
    }.min() ?? now
  }

  private mutating func admit(_ index: Int, _ now: Duration) -> FlowID {
    let gaveWay = givesWay(index, now)
    let ask = ranks[index].waiting.removeFirst()
    ranks[index].lastActive = now
    ranks[index].since = now
    if gaveWay { ranks[index].share = max(0, ranks[index].share - ask.bytes) }
    for lower in 0..<index {
      guard let first = ranks[lower].waiting.first else { continue }
      // Not more than it would use at once: what it did not want meanwhile is gone.
      ranks[lower].share = min(ranks[lower].share + ask.bytes / Self.bytesPerShared, 2 * first.bytes)
    }
    if let limit { free = max(free, now - Self.burst) + limit.time(for: ask.bytes) }
    return ask.flow
  }
}
