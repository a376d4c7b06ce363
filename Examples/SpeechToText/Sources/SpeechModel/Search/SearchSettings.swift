/// How tokens are chosen; names and meaning as in transformers' `GenerationConfig`.
struct SearchSettings {
  /// 1 is greedy search.
  var beams: Int
  /// In tokens, the prompt included.
  var maxLength: Int
  /// Whether a search ends as soon as there are as many finished beams as there are beams.
  var earlyStopping: Bool
  /// The power of the length that a beam's score is divided by.
  var lengthPenalty: Double
  var endToken: Int
  /// Tokens that are never chosen.
  var suppressed: [Int] = []
  /// Tokens that are never chosen first.
  var suppressedFirst: [Int] = []
  /// Where the text is to be timed.
  var timestamps: TimestampRules?

  /// Takes out of a row of logits what can't be chosen after the tokens that were generated.
  func restrict(_ logits: UnsafeMutablePointer<Float>, _ vocabularySize: Int, after tokens: ArraySlice<Int>) {
    if tokens.isEmpty { for token in suppressedFirst { logits[token] = -.infinity } }
    for token in suppressed { logits[token] = -.infinity }
    timestamps?.restrict(logits, vocabularySize, after: tokens)
  }
}
