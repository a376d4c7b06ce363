internal import Foundation

/// The shape of a speech model and how it is decoded, from whichever files it came in.
///
/// `init(from:)` believes what it reads; `checked()` bounds it. Both readers of this library check.
public struct SpeechConfiguration: Codable, Sendable, Hashable {
  public enum Family: String, Codable, Sendable, Hashable {
    /// Hugging Face's `speech_to_text`: a strided convolution and a Transformer over kaldi filter banks.
    case speech2text
    /// OpenAI's Whisper: two convolutions and a Transformer over 30 s of log-mel spectrogram.
    case whisper
  }

  public enum Activation: String, Codable, Sendable, Hashable {
    case relu
    /// The exact one, with the error function.
    case gelu
  }

  /// How tokens are searched when the caller doesn't say; names and meaning as in transformers' `GenerationConfig`.
  public struct Generation: Codable, Sendable, Hashable {
    /// 1 is greedy.
    public let beams: Int
    /// In tokens, the start token included; at most `maxTargetPositions`.
    public let maxLength: Int
    public let earlyStopping: Bool
    /// The power of the length that a beam's score is divided by.
    public let lengthPenalty: Double
  }

  /// What only Speech2Text has.
  public struct Speech2Text: Codable, Sendable, Hashable {
    /// What the subsampler's convolutions but the last put out, before the gated linear unit halves it.
    public let convChannels: Int
    /// One kernel a convolution, each odd, with stride 2 and padding of half of it.
    public let convKernels: [Int]
    /// Whether each mel bin's mean over the utterance is taken off (`do_ceptral_normalize` and `normalize_means`).
    public let normalizeMeans: Bool
    /// Whether each mel bin is divided by its deviation (`do_ceptral_normalize` and `normalize_vars`).
    public let normalizeVariances: Bool
    /// In Hz.
    public let samplingRate: Int
  }

  /// What only Whisper has: its special tokens. One that the vocabulary doesn't have is `nil`.
  public struct Whisper: Codable, Sendable, Hashable {
    public let isMultilingual: Bool
    /// Each language's token by its code ("en", "yue"); the model knows them only if it is multilingual.
    public let languages: [String: Int]
    public let startOfTranscriptToken: Int
    public let noTimestampsToken: Int
    /// The token of 0.00 s; the following ones are 0.02 s apart.
    public let timestampBeginToken: Int
    public let transcribeToken: Int?
    public let translateToken: Int?
    public let startOfPreviousToken: Int?
    public let noSpeechToken: Int?
    /// Tokens that are never chosen.
    public let suppressTokens: [Int]
    /// Tokens that are never chosen first.
    public let beginSuppressTokens: [Int]
  }

  public let family: Family
  public let dModel: Int
  public let encoderLayers: Int
  public let decoderLayers: Int
  public let encoderHeads: Int
  public let decoderHeads: Int
  public let encoderFFN: Int
  public let decoderFFN: Int
  public let vocabularySize: Int
  public let melBins: Int
  /// In frames behind the convolutions.
  public let maxSourcePositions: Int
  /// In tokens.
  public let maxTargetPositions: Int
  /// Whether embeddings are multiplied by √`dModel`.
  public let scaleEmbedding: Bool
  public let activation: Activation
  public let padToken: Int
  public let bosToken: Int
  public let eosToken: Int
  public let decoderStartToken: Int
  public let generation: Generation
  /// Set in this family only.
  public let speech2text: Speech2Text?
  /// Set in this family only.
  public let whisper: Whisper?
}

extension SpeechConfiguration {
  /// Itself, if every number is one that a model can have, so that sizes computed from them can't overflow.
  ///
  /// - Parameter name: what to call the file in an error.
  /// - Throws: `badModel`, naming the number.
  func checked(_ name: String) throws(SpeechError) -> SpeechConfiguration {
    func check(_ what: String, _ value: Int, _ range: ClosedRange<Int>) throws(SpeechError) {
      guard range ~= value else {
        throw SpeechError(
          .badModel, "\(name) gives \(value) as \(what), not \(range.lowerBound) to \(range.upperBound): correct it.")
      }
    }
    try check("the model's width", dModel, 2...65536)
    for layers in [encoderLayers, decoderLayers] { try check("a number of layers", layers, 1...128) }
    for heads in [encoderHeads, decoderHeads] {
      try check("a number of attention heads", heads, 1...dModel)
      guard dModel % heads == 0 else {
        throw SpeechError(
          .badModel, "\(name) has a width of \(dModel), which \(heads) attention heads don't divide: correct it.")
      }
    }
    for width in [encoderFFN, decoderFFN] { try check("a feed-forward width", width, 1...1 << 20) }
    try check("the vocabulary's size", vocabularySize, 1...1 << 22)
    try check("the number of mel bins", melBins, 1...1024)
    for positions in [maxSourcePositions, maxTargetPositions] {
      try check("a number of positions", positions, 1...1 << 20)
    }
    let tokens = 0...vocabularySize - 1
    for token in [padToken, bosToken, eosToken, decoderStartToken] { try check("a special token", token, tokens) }
    try check("the number of beams", generation.beams, 1...256)
    try check("the longest output", generation.maxLength, 1...maxTargetPositions)
    guard generation.lengthPenalty.isFinite, abs(generation.lengthPenalty) <= 100 else {
      throw SpeechError(.badModel, "\(name) gives a length penalty of \(generation.lengthPenalty): use 1.")
    }
    switch (family, speech2text, whisper) {
    case (.speech2text, let own?, nil):
      try check("the model's width", dModel, 4...65536)
      try check("the number of convolutions", own.convKernels.count, 1...8)
      try check("the convolutions' channels", own.convChannels, 2...65536)
      guard own.convChannels % 2 == 0 else {
        throw SpeechError(.badModel, "\(name) has \(own.convChannels) conv_channels, an odd number: correct it.")
      }
      for kernel in own.convKernels {
        try check("a convolution's kernel", kernel, 1...63)
        guard kernel % 2 == 1 else {
          throw SpeechError(.unsupported, "\(name) has a convolution of kernel \(kernel); only odd ones are known.")
        }
      }
      guard own.samplingRate == 16000 else {
        throw SpeechError(.unsupported, "\(name) wants audio at \(own.samplingRate) Hz; only 16000 Hz is known.")
      }
    case (.whisper, nil, let own?):
      for token in [own.startOfTranscriptToken, own.noTimestampsToken] { try check("a special token", token, tokens) }
      try check("the first timestamp", own.timestampBeginToken, 0...vocabularySize)
      for case let token? in [own.transcribeToken, own.translateToken, own.startOfPreviousToken, own.noSpeechToken] {
        try check("a special token", token, tokens)
      }
      for token in own.languages.values { try check("a language's token", token, tokens) }
      for token in own.suppressTokens + own.beginSuppressTokens { try check("a suppressed token", token, tokens) }
    default:
      throw SpeechError(.badModel, "\(name) lacks the part that a model of family \(family.rawValue) has.")
    }
    return self
  }
}

extension SpeechConfiguration {
  /// As JSON text, the same for the same value.
  var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Only numbers that aren't finite can't be encoded, and `checked()` lets none through.
    return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? ""
  }
}
