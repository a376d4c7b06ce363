extension SpeechRecogniser {
  private static let maxBeams = 32
  /// In tokens; what a model's files may claim beyond it would only cost memory.
  private static let maxLength = 4096
  /// Of the tokens' keys and values, in bytes: Whisper large with 32 beams takes 5 GB.
  private static let maxCacheSize = 8_000_000_000

  /// A window's length, in samples.
  var windowSamples: Int {
    switch model.configuration.family {
    case .speech2text:
      min(
        Self.windowSeconds * AudioSamples.sampleRate,
        (encoder.maxInputFrames - 1) * KaldiFilterBank.hop + KaldiFilterBank.frameSize)
    case .whisper: encoder.maxInputFrames * LogMelSpectrogram.hop
    }
  }

  /// What the options come to with this model.
  ///
  /// - Throws: `unsupported`, saying which option the model can't follow.
  func settings(_ options: TranscriptionOptions) throws(SpeechError) -> SearchSettings {
    let configuration = model.configuration
    let beams = options.beams ?? configuration.generation.beams
    guard 1...Self.maxBeams ~= beams else {
      throw SpeechError(.unsupported, "\(beams) beams can't be searched: use 1 to \(Self.maxBeams).")
    }
    // Start, language, task and no-timestamps are the longest prompt.
    let lengths =
      (configuration.family == .whisper ? 5 : 2)...max(5, min(configuration.maxTargetPositions, Self.maxLength))
    let maxLength = min(
      options.maxLength ?? configuration.generation.maxLength, configuration.maxTargetPositions, Self.maxLength)
    guard lengths ~= maxLength, lengths ~= (options.maxLength ?? maxLength) else {
      throw SpeechError(
        .unsupported,
        "A length of \(options.maxLength ?? maxLength) tokens isn't possible: use \(lengths.lowerBound) to "
          + "\(lengths.upperBound).")
    }
    // Checked configurations and the limits above keep this under 2⁴⁴.
    let size = Self.cacheSize(
      layers: configuration.decoderLayers, width: configuration.dModel, length: maxLength, beams: beams)
    guard size <= Self.maxCacheSize else {
      throw SpeechError(
        .unsupported,
        "\(beams) beams of \(maxLength) tokens would take \(size) bytes with this model, and \(Self.maxCacheSize) are "
          + "the most: use fewer beams or a shorter length.")
    }
    try check(language: options.language, options.task)
    return SearchSettings(
      beams: beams, maxLength: maxLength, earlyStopping: configuration.generation.earlyStopping,
      lengthPenalty: configuration.generation.lengthPenalty, endToken: configuration.eosToken,
      suppressed: configuration.whisper?.suppressTokens ?? [],
      suppressedFirst: configuration.whisper?.beginSuppressTokens ?? [])
  }

  /// What a search's keys and values take, in bytes: [layers, length, beams, 2 width] of float32.
  private static func cacheSize(layers: Int, width: Int, length: Int, beams: Int) -> Int {
    layers * length * beams * 2 * width * MemoryLayout<Float>.size
  }

  private func check(language: String?, _ task: TranscriptionOptions.Task) throws(SpeechError) {
    let whisper = model.configuration.whisper
    let isMultilingual = whisper?.isMultilingual ?? false
    if task == .translate, !isMultilingual || whisper?.translateToken == nil {
      throw SpeechError(.unsupported, "The model can't translate: use a multilingual Whisper, or transcribe.")
    }
    guard let language else { return }
    let known = isMultilingual ? whisper?.languages.keys.sorted() ?? [] : ["en"]
    guard known.contains(language) else {
      throw SpeechError(
        .unsupported,
        "The model doesn't know the language \(language): use one of \(known.joined(separator: ", ")), or none.")
    }
  }
}
