/// The continuations with the highest log probabilities, the first of equals before the others.
struct TopCandidates {
  struct Candidate {
    let score: Float
    let beam: Int
    let token: Int
  }

  private let count: Int
  /// Descending.
  private(set) var sorted: [Candidate] = []

  init(count: Int) {
    self.count = count
    sorted.reserveCapacity(count + 1)
  }

  /// Of all of them.
  var best: Float { sorted.first?.score ?? -.infinity }

  mutating func removeAll() { sorted.removeAll(keepingCapacity: true) }

  /// Adds a beam's tokens with `score` + log softmax of `logits`.
  ///
  /// - Parameters:
  ///   - maximum: The largest of the logits.
  ///   - logSum: The logarithm of the sum of exp(logit - maximum).
  mutating func add(
    _ logits: UnsafePointer<Float>, _ vocabularySize: Int, beam: Int, maximum: Float, logSum: Float, score: Float
  ) {
    var least = threshold
    inLanes(vocabularySize) { start in
      let scores = ((logits + start).lanes - maximum) - logSum + score
      guard any(scores .> Lanes(repeating: least)) else { return }
      for lane in 0..<8 where scores[lane] > least {
        insert(Candidate(score: scores[lane], beam: beam, token: start + lane))
        least = threshold
      }
    } rest: { index in
      let result = ((logits[index] - maximum) - logSum) + score
      guard result > least else { return }
      insert(Candidate(score: result, beam: beam, token: index))
      least = threshold
    }
  }

  /// What a candidate has to exceed.
  private var threshold: Float { sorted.count < count ? -.infinity : sorted[count - 1].score }

  private mutating func insert(_ candidate: Candidate) {
    let index = sorted.firstIndex { $0.score < candidate.score } ?? sorted.count
    sorted.insert(candidate, at: index)
    if sorted.count > count { sorted.removeLast() }
  }
}
