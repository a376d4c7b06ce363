extension SpeechConfiguration.Whisper {
  /// The special tokens, from a generation configuration where that names them, else from the vocabulary.
  ///
  /// - Parameters:
  ///   - suppress: The configuration's key of the tokens never chosen.
  ///   - beginSuppress: The key of those never chosen first.
  /// - Throws: `badModel`, if a token that every model has is missing.
  init(
    _ vocabulary: Vocabulary, _ generation: ConfigReader, suppress: String, beginSuppress: String
  ) throws(SpeechError) {
    let special = vocabulary.special
    func token(_ name: String) -> Int? { special["<|\(name)|>"] }
    func needed(_ name: String, _ value: Int?) throws(SpeechError) -> Int {
      guard let value else {
        throw SpeechError(.badModel, "The vocabulary has no <|\(name)|>: fetch tokenizer.json too.")
      }
      return value
    }
    let start = try needed("startoftranscript", token("startoftranscript"))
    let noTimestamps = try needed(
      "notimestamps", generation["no_timestamps_token_id"]?.integer ?? token("notimestamps"))
    guard vocabulary.tokens.indices ~= noTimestamps else {
      throw SpeechError(.badModel, "\(generation.name) has no_timestamps_token_id \(noTimestamps), which is no token.")
    }
    // OpenAI's own rule, where nothing says it: the English vocabulary is one token shorter.
    let isMultilingual = try generation.bool("is_multilingual", default: vocabulary.tokens.count >= 51865)
    var languages: [String: Int] = [:]
    if isMultilingual {
      for (name, number) in special where number > start {
        let code = name.dropFirst(2).dropLast(2)
        if 2...3 ~= code.utf8.count, code.utf8.allSatisfy({ 97...122 ~= $0 }) { languages[String(code)] = number }
      }
    }
    self.init(
      isMultilingual: isMultilingual, languages: languages, startOfTranscriptToken: start,
      noTimestampsToken: noTimestamps, timestampBeginToken: token("0.00") ?? noTimestamps + 1,
      transcribeToken: token("transcribe"), translateToken: token("translate"),
      startOfPreviousToken: generation["prev_sot_token_id"]?.integer ?? token("startofprev"),
      noSpeechToken: token("nospeech") ?? token("nocaptions"), suppressTokens: try generation.integers(suppress),
      beginSuppressTokens: try generation.integers(beginSuppress))
  }
}
