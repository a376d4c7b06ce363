package import MobulaCore

/// Chunks that this host gets from elsewhere than other hosts, from S3, beside the exchange.
///
/// A chunk comes from one side only: what is reserved for filling is asked of no lane.
extension ExchangeStateMachine {
  /// Whoever fills is about to get these chunks.
  ///
  /// - Returns: those of them that are neither here nor asked for, in runs: get these.
  package mutating func reserve(_ chunks: Range<Int>) -> [Range<Int>] {
    guard !isOver else { return [] }
    var runs: [Range<Int>] = []
    for chunk in chunks where !taken.contains(chunk) {
      if let last = runs.last, last.upperBound == chunk {
        runs[runs.count - 1] = last.lowerBound..<chunk + 1
      } else {
        runs.append(chunk..<chunk + 1)
      }
    }
    for run in runs {
      for chunk in run {
        taken.insert(chunk)
        filling.insert(chunk)
      }
    }
    return runs
  }

  /// A reserved chunk is here, verified and committed.
  package mutating func filled(_ chunk: Int, now: Duration) -> [Action] {
    filling.remove(chunk)
    verified.insert(chunk)
    lastProgress = now
    guard !isOver else { return [] }
    var actions: [Action] = []
    tellOthers(chunk, than: nil, &actions)
    return verified.isComplete ? actions + end() + [.complete] : actions
  }

  /// Those of the reserved chunks that are not here by now won't come that way.
  package mutating func unreserve(_ chunks: Range<Int>, now: Duration) -> [Action] {
    for chunk in chunks where filling.contains(chunk) {
      filling.remove(chunk)
      taken.remove(chunk)
    }
    guard !isOver else { return [] }
    var actions: [Action] = []
    for place in lanes.indices { fill(place, now, &actions) }
    return actions
  }

  package func has(_ chunks: Range<Int>) -> Bool { chunks.allSatisfy { verified.contains($0) } }

  /// Nothing is filled any more: what is missing has to come from other hosts.
  ///
  /// - Parameter error: why, if it failed.
  package mutating func fillEnded(_ error: MobulaError?, now: Duration) -> [Action] {
    guard isFilled else { return [] }
    isFilled = false
    lastFailure = error ?? lastFailure
    fillFailure = error
    guard !isOver else { return [] }
    // Who waits for another source is told now if there is none at all.
    lastProgress = now
    if let refusal, lanes.isEmpty, candidates.isEmpty, busyHosts.isEmpty { return fail(refusal) }
    return connect(now)
  }

  /// As `reserve`, of those that are asked of nobody the last ones: other hosts are asked for the first.
  package mutating func reserveLast(_ count: Int) -> [Range<Int>] {
    guard !isOver else { return [] }
    var first = geometry.count
    var found = 0
    while first > 0, found < count {
      first -= 1
      if !taken.contains(first) { found += 1 }
    }
    return reserve(first..<geometry.count)
  }
}
