/// What Whisper may choose when it times its text, as transformers' `WhisperTimeStampLogitsProcessor`: timestamps come
/// in pairs around a text, never go back, and win where all of them together are likelier than any other token.
struct TimestampRules {
  let noTimestampsToken: Int
  /// The token of 0.00 s; all that follow are timestamps.
  let firstTimestamp: Int
  let endToken: Int
  /// The latest one that a window may begin with, in steps of 0.02 s.
  var maxInitialTimestamp = 50

  func restrict(_ logits: UnsafeMutablePointer<Float>, _ vocabularySize: Int, after tokens: ArraySlice<Int>) {
    func forbid(_ range: Range<Int>) { (logits + range.lowerBound).update(repeating: -.infinity, count: range.count) }
    forbid(noTimestampsToken..<noTimestampsToken + 1)
    let isAfterTimestamp = (tokens.last ?? 0) >= firstTimestamp
    let isAfterPair = tokens.count < 2 || tokens[tokens.endIndex - 2] >= firstTimestamp
    if isAfterTimestamp { forbid(isAfterPair ? firstTimestamp..<vocabularySize : 0..<endToken) }
    if let last = tokens.last(where: { $0 >= firstTimestamp }) {
      // A text may begin where the one before it ended, and ends later than it began.
      forbid(firstTimestamp..<(isAfterTimestamp && !isAfterPair ? last : last + 1))
    }
    if tokens.isEmpty {
      forbid(0..<firstTimestamp)
      forbid(min(firstTimestamp + maxInitialTimestamp + 1, vocabularySize)..<vocabularySize)
    }
    let likeliestText = maximum(logits, firstTimestamp)
    let timestamps = logits + firstTimestamp
    let largest = maximum(timestamps, vocabularySize - firstTimestamp)
    guard largest > -.infinity else { return }
    let sum = sumOfExponentials(timestamps, minus: largest, vocabularySize - firstTimestamp)
    if largest + logarithm(sum) > likeliestText { forbid(0..<firstTimestamp) }
  }
}
