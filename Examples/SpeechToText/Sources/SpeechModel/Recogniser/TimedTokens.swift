/// A window's tokens with Whisper's timestamps among them, cut as OpenAI's and transformers' long-form transcription
/// do: a text between two timestamps is a segment; what follows the last pair belongs to the next window.
struct TimedTokens {
  private let tokens: [Int]
  private let firstTimestamp: Int
  /// The window's length.
  private let seconds: Double

  /// What timestamps are apart.
  private static let precision = 0.02

  init(_ tokens: [Int], firstTimestamp: Int, seconds: Double) {
    self.tokens = tokens
    self.firstTimestamp = firstTimestamp
    self.seconds = seconds
  }

  /// Segments in seconds from the window's beginning, and how many of its `samples` they cover; at least one.
  func result(
    samples: Int, _ detokeniser: Detokeniser
  ) -> (segments: [(start: Double, end: Double, text: String)], consumed: Int) {
    let isTimestamp = tokens.map { $0 >= firstTimestamp }
    var ends = tokens.indices.dropFirst().filter { isTimestamp[$0 - 1] && isTimestamp[$0] }
    let endsInSilence = tokens.count >= 2 && isTimestamp[tokens.count - 1] && !isTimestamp[tokens.count - 2]
    guard let last = ends.last else {
      let end = tokens.last { $0 > firstTimestamp }.map(time) ?? seconds
      return ([(0, min(end, seconds), detokeniser(tokens))], samples)
    }
    if endsInSilence { ends.append(tokens.count) }
    var segments: [(start: Double, end: Double, text: String)] = []
    var start = 0
    for end in ends {
      let begin = min(time(tokens[start]), seconds)
      segments.append((begin, max(begin, min(time(tokens[end - 1]), seconds)), detokeniser(tokens[start..<end])))
      start = end
    }
    let covered = Int((time(tokens[last - 1]) * Double(AudioSamples.sampleRate)).rounded())
    // A window of which nothing is covered would come again for ever.
    return (segments, endsInSilence || covered < 1 ? samples : min(covered, samples))
  }

  private func time(_ token: Int) -> Double { max(0, Double(token - firstTimestamp) * Self.precision) }
}
