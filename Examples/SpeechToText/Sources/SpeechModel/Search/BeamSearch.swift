extension Decoding {
  /// The tokens that follow `prompt` in the best of several beams, up to and without the end token.
  ///
  /// The same algorithm, in the same order of floating-point operations, as transformers 4.40.2's `_beam_search`
  /// with `BeamSearchScorer`: from all beams the 2·`beams` best continuations, of which finished ones are kept apart.
  ///
  /// - Parameter prompt: At least one token, and fewer than the settings' maximum length.
  func beamSearch(_ prompt: [Int], _ settings: SearchSettings) -> [Int] {
    let maxLength = min(settings.maxLength, capacity)
    var hypotheses = BeamHypotheses(settings)
    var running = RunningBeams(count: settings.beams, capacity: maxLength)
    var candidates = TopCandidates(count: 2 * settings.beams)
    var logits = start(prompt)
    var length = prompt.count

    while true {
      candidates.removeAll()
      for beam in 0..<settings.beams {
        let row = logits + (length == prompt.count ? 0 : beam * vocabularySize)
        let largest = maximum(row, vocabularySize)
        let total = logarithm(sumOfExponentials(row, minus: largest, vocabularySize))
        settings.restrict(row, vocabularySize, after: running.tokens(beam))
        candidates.add(
          row, vocabularySize, beam: beam, maximum: largest, logSum: total, score: running.logProbability(beam))
      }
      length += 1
      for (rank, candidate) in candidates.sorted.enumerated() {
        if candidate.token != settings.endToken {
          running.prepare(candidate)
        } else if rank < settings.beams {
          hypotheses.add(
            running.tokens(candidate.beam), logProbability: candidate.score, length: length - prompt.count)
        }
        if running.isFull { break }
      }
      let isDone = hypotheses.isDone(best: candidates.best, length: length - prompt.count)
      guard !isDone, running.advance() else { return hypotheses.best }
      guard length < maxLength else { break }
      reorder(running.origins, length: length - 1)
      logits = step(running.inputs(at: length - 1))
    }
    for beam in 0..<settings.beams {
      hypotheses.add(
        running.tokens(beam), logProbability: running.logProbability(beam), length: length - prompt.count)
    }
    return hypotheses.best
  }
}
