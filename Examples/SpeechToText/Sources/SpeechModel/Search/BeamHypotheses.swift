/// The best finished beams of a search, as transformers' `BeamHypotheses` keeps them.
struct BeamHypotheses {
  private let settings: SearchSettings
  private var finished: [(score: Double, tokens: [Int])] = []
  private var worstScore = 1e9

  init(_ settings: SearchSettings) { self.settings = settings }

  /// - Parameters:
  ///   - tokens: What was generated.
  ///   - length: In tokens, the end token included where there is one.
  mutating func add(_ tokens: ArraySlice<Int>, logProbability: Float, length: Int) {
    let score = perLength(logProbability, length)
    guard finished.count < settings.beams || score > worstScore else { return }
    finished.append((score, Array(tokens)))
    guard finished.count > settings.beams else {
      worstScore = min(worstScore, score)
      return
    }
    let ascending = finished.indices.sorted { (finished[$0].score, $0) < (finished[$1].score, $1) }
    worstScore = finished[ascending[1]].score
    finished.remove(at: ascending[0])
  }

  /// Whether no running beam can become better than the finished ones.
  ///
  /// - Parameters:
  ///   - best: The highest log probability of a candidate in this step.
  ///   - length: The length of a candidate.
  func isDone(best: Float, length: Int) -> Bool {
    guard finished.count >= settings.beams else { return false }
    return settings.earlyStopping || worstScore >= perLength(best, length)
  }

  /// The tokens with the highest score.
  var best: [Int] {
    var best = finished.first
    for candidate in finished.dropFirst() where candidate.score >= (best?.score ?? 0) { best = candidate }
    return best?.tokens ?? []
  }

  private func perLength(_ logProbability: Float, _ length: Int) -> Double {
    Double(logProbability) / power(Double(length), settings.lengthPenalty)
  }
}
