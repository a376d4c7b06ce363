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
    for place in lanes.indices where isIdle(lanes[place]) {
      guard let (victim, chunk) = mostLate(forLaneAt: place, now) else { continue }
      if lanes[victim].arriving == chunk {
        // It can't be written by two: the chunk is free once the lane has ended.
        actions += close(lanes[victim].id)
        fill(place, now, &actions)
      } else {
        lanes[victim].requested.removeAll { $0 == chunk }
        lanes[victim].revoked.insert(chunk)
        actions.append(.cancel(lanes[victim].id, chunk))
        actions.append(ask(place, for: chunk, now))
      }
    }
    return actions
  }

  /// What a lane needs for a chunk when neither it nor the others have much else to do.
  ///
  /// Near the end the lanes share the interface with fewer chunks than before: what the lane did at best, but no more than
  /// all did together.
  private func timeAlone(of lane: Lane) -> Duration {
    guard let rate = lane.rate, peak > 0 else { return time(of: lane) }
    return .seconds(Double(geometry.chunkSize) / max(rate, min(lane.best, peak)))
  }

  /// What a lane needs for a chunk.
  private func time(of lane: Lane) -> Duration {
    if let rate = lane.rate { return .seconds(Double(geometry.chunkSize) / rate) }
    let rates = lanes.compactMap(\.rate)
    guard !rates.isEmpty else { return Self.negligible }
    return .seconds(Double(geometry.chunkSize) * Double(rates.count) / rates.reduce(0, +))
  }

  /// Of the chunks that are asked of other lanes, and that this one has too and much earlier, the one that comes last.
  ///
  /// - Returns: the place of the lane that was asked for it.
  private func mostLate(forLaneAt place: Int, _ now: Duration) -> (victim: Int, chunk: Int)? {
    let lane = lanes[place]
    let own = timeAlone(of: lane)
    var worst: (victim: Int, chunk: Int, remaining: Duration)?
    for (victim, other) in lanes.enumerated() where other.host != lane.host && !other.isClosing {
      let each = time(of: other)
      let elapsed = now - other.since
      for (position, chunk) in other.requested.enumerated()
      where lane.offered.contains(chunk) && chunk != lane.discarding {
        // A chunk that is late is expected to take as long again as it has taken.
        let remaining = elapsed < each * 2 ? each * (position + 1) - elapsed : elapsed * (position + 1)
        // What arrives already costs its lane.
        let bearable = other.arriving == chunk ? max(own * 4, Self.unbearable) : own * 2 + Self.negligible
        guard remaining > bearable else { continue }
        let isWorse = worst.map { ($0.remaining, $0.victim) < (remaining, victim) } ?? true
        if isWorse { worst = (victim, chunk, remaining) }
      }
    }
    return worst.map { ($0.victim, $0.chunk) }
  }
}
