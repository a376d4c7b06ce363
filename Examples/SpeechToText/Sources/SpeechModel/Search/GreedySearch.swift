extension Decoding {
  /// The tokens that follow `prompt`, each the likeliest one, up to and without the end token.
  ///
  /// - Parameter prompt: At least one token, and fewer than the settings' maximum length.
  func greedySearch(
    _ prompt: [Int], _ settings: SearchSettings
  ) -> [Int] {
    var tokens = prompt
    tokens.reserveCapacity(settings.maxLength)
    var logits = start(prompt)
    var input = [Input(token: 0, position: 0, beam: 0)]
    while tokens.count < min(settings.maxLength, capacity) {
      settings.restrict(logits, vocabularySize, after: tokens[prompt.count...])
      let token = indexOfMaximum(logits, vocabularySize)
      if token == settings.endToken { break }
      tokens.append(token)
      // The last token needs no successor.
      guard tokens.count < min(settings.maxLength, capacity) else { break }
      input[0] = Input(token: token, position: tokens.count - 1, beam: 0)
      logits = step(input)
    }
    return Array(tokens[prompt.count...])
  }
}

/// Where the largest of `count` numbers first is.
func indexOfMaximum(_ x: UnsafePointer<Float>, _ count: Int) -> Int {
  let largest = maximum(x, count)
  return (0..<count).first { x[$0] == largest } ?? 0
}
