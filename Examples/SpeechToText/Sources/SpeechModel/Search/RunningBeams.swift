/// The beams of a search that have not ended, in memory that is taken once.
struct RunningBeams {
  private let capacity: Int
  /// How many tokens each beam has.
  private var length = 0
  /// [beams, capacity]
  private var history: [Int]
  private var spareHistory: [Int]
  private var logProbabilities: [Float]
  /// The continuations that go on, in the order of the beams that they become.
  private var next: [TopCandidates.Candidate] = []
  /// Which beam each one continues, after `advance`.
  private(set) var origins: [Int]
  private var inputs: [Decoding.Input] = []

  /// - Parameter capacity: The most tokens of a beam.
  init(count: Int, capacity: Int) {
    self.capacity = capacity
    history = Array(repeating: 0, count: count * capacity)
    spareHistory = history
    // All beams begin alike, so all but one are put back far enough.
    logProbabilities = (0..<count).map { $0 == 0 ? 0 : -1e9 }
    origins = Array(repeating: 0, count: count)
    next.reserveCapacity(count)
    inputs.reserveCapacity(count)
  }

  /// Whether there is a continuation for each beam.
  var isFull: Bool { next.count == origins.count }

  /// What a beam generated.
  func tokens(_ beam: Int) -> ArraySlice<Int> { history[beam * capacity..<beam * capacity + length] }

  func logProbability(_ beam: Int) -> Float { logProbabilities[beam] }

  /// Adds the next beam's continuation.
  mutating func prepare(_ candidate: TopCandidates.Candidate) { next.append(candidate) }

  /// Makes beams of the continuations; false if there is none.
  mutating func advance() -> Bool {
    guard let first = next.first else { return false }
    // Only a model that may choose next to nothing has too few continuations.
    while !isFull { next.append(TopCandidates.Candidate(score: -1e9, beam: first.beam, token: first.token)) }
    for (beam, candidate) in next.enumerated() {
      for index in 0..<length { spareHistory[beam * capacity + index] = history[candidate.beam * capacity + index] }
      spareHistory[beam * capacity + length] = candidate.token
      logProbabilities[beam] = candidate.score
      origins[beam] = candidate.beam
    }
    swap(&history, &spareHistory)
    length += 1
    next.removeAll(keepingCapacity: true)
    return true
  }

  /// Each beam's last token.
  mutating func inputs(at position: Int) -> [Decoding.Input] {
    inputs.removeAll(keepingCapacity: true)
    for beam in origins.indices {
      inputs.append(.init(token: history[beam * capacity + length - 1], position: position, beam: beam))
    }
    return inputs
  }
}
