import MobulaCore

/// What is asked of a slow lane is asked of an idle one.
extension ExchangeStateMachine {
  /// Below this nothing is worth the trouble.
  private static let negligible = Duration.milliseconds(20)
  /// A lane that is in the middle of a chunk is only left when it takes so long.
  private static let unbearable = Duration.milliseconds(250)

  mutating func rebalance(_ now: Duration) -> [Action] {
    // As long as there is something to ask for, nothing waits for what is slow.
    guard taken.isComplete else { return [] }
    var actions: [Action] = []
    for id in lanes.keys.sorted() {
      guard let lane = lanes[id], isIdle(lane) else { continue }
      let own = time(of: lane)
      guard let (victim, chunk, remaining) = mostLate(offeredBy: lane, otherThan: id, now),
        remaining > own * 2 + Self.negligible
      else { continue }
      if lanes[victim]?.arriving == chunk {
        guard remaining > own * 4, remaining > Self.unbearable else { continue }
        // It can't be written by two: the chunk is free once the lane has ended.
        actions += close(victim)
      } else {
        lanes[victim]?.requested.removeAll { $0 == chunk }
        lanes[victim]?.revoked.insert(chunk)
        taken.remove(chunk)
        actions.append(.cancel(victim, chunk))
      }
      actions += fill(id, now)
    }
    return actions
  }

  /// What a lane needs for a chunk when it has nothing else to do.
  private func time(of lane: Lane) -> Duration {
    let rates = lanes.values.compactMap(\.rate)
    guard let rate = lane.rate ?? (rates.isEmpty ? nil : rates.reduce(0, +) / Double(rates.count)) else {
      return Self.negligible
    }
    return .seconds(Double(geometry.chunkSize) / rate)
  }

  /// Of the chunks that are asked of other lanes, and that this one has too, the one that comes last.
  private func mostLate(
    offeredBy lane: Lane, otherThan id: LaneID, _ now: Duration
  ) -> (victim: LaneID, chunk: Int, remaining: Duration)? {
    var worst: (victim: LaneID, chunk: Int, remaining: Duration)?
    for (victim, other) in lanes where victim != id && other.host != lane.host && !other.isClosing {
      let each = time(of: other)
      let elapsed = now - other.since
      for (position, chunk) in other.requested.enumerated() where lane.offered.contains(chunk) {
        // A chunk that is late is expected to take as long again as it has taken.
        let remaining = elapsed < each * 2 ? each * (position + 1) - elapsed : elapsed * (position + 1)
        let isWorse = worst.map { ($0.remaining, $0.victim) < (remaining, victim) } ?? true
        if isWorse { worst = (victim, chunk, remaining) }
      }
    }
    return worst
  }
}
