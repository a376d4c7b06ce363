/// A configuration from transformers' `config.json`, `generation_config.json` and `preprocessor_config.json`.
struct HuggingFaceConfiguration {
  let configuration: SpeechConfiguration
  let vocabulary: Vocabulary

  /// - Throws: `badModel`, if one is missing or damaged; `unsupported`, for another architecture.
  init(_ files: ModelFiles) throws(SpeechError) {
    guard let json = try files.json("config.json") else {
      throw SpeechError(.badModel, "config.json is missing beside the weights: fetch it too.")
    }
    let config = try ConfigReader([json], name: "config.json")
    let family: SpeechConfiguration.Family
    switch try config.string("model_type", default: "") {
    case "speech_to_text": family = .speech2text
    case "whisper": family = .whisper
    case let type:
      throw SpeechError(
        .unsupported, "config.json describes a model of type \"\(type)\"; speech_to_text and whisper are known.")
    }
    let generation = try ConfigReader(
      [try files.json("generation_config.json"), json], name: "generation_config.json or config.json")
    let dModel = try config.integer("d_model")
    let layout = (
      encoderLayers: try config.integer("encoder_layers"), decoderLayers: try config.integer("decoder_layers"),
      encoderHeads: try config.integer("encoder_attention_heads"),
      decoderHeads: try config.integer("decoder_attention_heads"),
      encoderFFN: try config.integer("encoder_ffn_dim"), decoderFFN: try config.integer("decoder_ffn_dim")
    )
    guard
      let activation = SpeechConfiguration.Activation(
        rawValue: try config.string("activation_function", default: family == .whisper ? "gelu" : "relu"))
    else {
      throw SpeechError(.unsupported, "config.json has an unknown activation_function; relu and gelu are known.")
    }
    guard try config.bool("tie_word_embeddings", default: true) else {
      throw SpeechError(.unsupported, "config.json doesn't tie the output layer to the embeddings; only that is known.")
    }
    let vocabularySize = try config.integer("vocab_size")
    let vocabulary = try Vocabulary(files, size: vocabularySize, family: family, fromCTranslate2: false)
    let positions = try config.integer("max_target_positions")
    let eos = try config.integer("eos_token_id", default: family == .whisper ? 50257 : 2)
    let whisper =
      family == .whisper
      ? try SpeechConfiguration.Whisper(
        vocabulary, generation, suppress: "suppress_tokens", beginSuppress: "begin_suppress_tokens") : nil
    let maxLength = try generation.integer("max_length", default: positions)
    configuration = try SpeechConfiguration(
      family: family, dModel: dModel, encoderLayers: layout.encoderLayers, decoderLayers: layout.decoderLayers,
      encoderHeads: layout.encoderHeads, decoderHeads: layout.decoderHeads, encoderFFN: layout.encoderFFN,
      decoderFFN: layout.decoderFFN, vocabularySize: vocabularySize,
      melBins: family == .whisper
        ? try config.integer("num_mel_bins", default: 80) : try config.integer("input_feat_per_channel", default: 80),
      maxSourcePositions: try config.integer("max_source_positions"), maxTargetPositions: positions,
      scaleEmbedding: try config.bool("scale_embedding", default: family == .speech2text), activation: activation,
      padToken: try config.integer("pad_token_id", default: family == .whisper ? eos : 1),
      bosToken: try config.integer("bos_token_id", default: family == .whisper ? eos : 0), eosToken: eos,
      decoderStartToken: try generation.integer(
        "decoder_start_token_id", default: whisper?.startOfTranscriptToken ?? 2),
      generation: try Self.generation(generation, maxLength: min(maxLength, positions)),
      speech2text: family == .speech2text
        ? try Self.speech2text(config, try files.json("preprocessor_config.json")) : nil,
      whisper: whisper
    ).checked("config.json")
    self.vocabulary = vocabulary
  }

  /// Where a field is missing its default is transformers', but for the longest output, which is all positions.
  static func generation(
    _ config: ConfigReader, maxLength: Int
  ) throws(SpeechError) -> SpeechConfiguration.Generation {
    if let stopping = config["early_stopping"], stopping.bool == nil {
      throw SpeechError(.unsupported, "\(config.name) has an early_stopping that is neither true nor false.")
    }
    return SpeechConfiguration.Generation(
      beams: try config.integer("num_beams", default: 1), maxLength: maxLength,
      earlyStopping: try config.bool("early_stopping", default: false),
      lengthPenalty: try config.double("length_penalty", default: 1))
  }

  private static func speech2text(
    _ config: ConfigReader, _ preprocessor: JSONValue?
  ) throws(SpeechError) -> SpeechConfiguration.Speech2Text {
    let preprocessor = try ConfigReader([preprocessor], name: "preprocessor_config.json")
    let kernels = try config.integers("conv_kernel_sizes")
    guard try config.integer("input_channels", default: 1) == 1,
      try config.integer("num_conv_layers", default: kernels.count) == kernels.count
    else {
      throw SpeechError(.unsupported, "config.json wants several input channels, or has not a kernel a convolution.")
    }
    let melBins = try config.integer("input_feat_per_channel", default: 80)
    guard try preprocessor.integer("num_mel_bins", default: melBins) == melBins else {
      throw SpeechError(.badModel, "preprocessor_config.json and config.json differ in the mel bins: correct one.")
    }
    // The misspelt key is transformers' own.
    let normalize = try preprocessor.bool("do_ceptral_normalize", default: true)
    let means = try preprocessor.bool("normalize_means", default: true)
    let variances = try preprocessor.bool("normalize_vars", default: true)
    return SpeechConfiguration.Speech2Text(
      convChannels: try config.integer("conv_channels"), convKernels: kernels, normalizeMeans: normalize && means,
      normalizeVariances: normalize && variances,
      samplingRate: try preprocessor.integer("sampling_rate", default: 16000))
  }
}
