/// A Whisper's configuration from CTranslate2's files: its sizes from the variables' shapes, its tokens from
/// `config.json` and the vocabulary. A `generation_config.json` of transformers' beside them is heeded.
struct CTranslate2Configuration {
  let configuration: SpeechConfiguration
  let vocabulary: Vocabulary

  /// - Throws: `badModel`, if the files contradict each other or one is missing; `unsupported`, for a variant of the
  ///   model that isn't known.
  init(_ model: CTranslate2Model, _ files: ModelFiles) throws(SpeechError) {
    guard let json = try files.json("config.json") else {
      throw SpeechError(.badModel, "config.json is missing beside \(model.name): fetch it too.")
    }
    let generation = try ConfigReader(
      [try files.json("generation_config.json"), json], name: "generation_config.json or config.json")
    let embeddings = try model.shape("decoder/embeddings/weight", dimensions: 2)
    let sourcePositions = try model.shape("encoder/position_encodings/encodings", dimensions: 2)[0]
    let targetPositions = try model.shape("decoder/position_encodings/encodings", dimensions: 2)[0]
    let feedForward = "layer_0/ffn/linear_0/weight"
    // In the enumeration ActivationType of CTranslate2, 0 is ReLU and 3 GELU with the error function.
    let activations: [Int: SpeechConfiguration.Activation] = [0: .relu, 3: .gelu]
    guard let activation = activations[model.integer("decoder/activation") ?? 3] else {
      throw SpeechError(.unsupported, "\(model.name) has an unknown activation; ReLU and GELU are known.")
    }
    guard model.integer("decoder/pre_norm") ?? 1 == 1, model.integer("decoder/alibi") ?? 0 == 0 else {
      throw SpeechError(.unsupported, "\(model.name) is no usual Whisper (post-norm or ALiBi), which isn't known.")
    }
    let vocabulary = try Vocabulary(files, size: embeddings[0], family: .whisper, fromCTranslate2: true)
    guard let end = vocabulary.special["<|endoftext|>"] else {
      throw SpeechError(.badModel, "The vocabulary has no <|endoftext|>: it belongs to another model.")
    }
    let whisper = try SpeechConfiguration.Whisper(
      vocabulary, generation, suppress: "suppress_ids", beginSuppress: "suppress_ids_begin")
    let maxLength = try generation.integer("max_length", default: targetPositions)
    configuration = try SpeechConfiguration(
      family: .whisper, dModel: embeddings[1], encoderLayers: Self.layers(model, "encoder"),
      decoderLayers: Self.layers(model, "decoder"), encoderHeads: try Self.heads(model, "encoder"),
      decoderHeads: try Self.heads(model, "decoder"),
      encoderFFN: try model.shape("encoder/\(feedForward)", dimensions: 2)[0],
      decoderFFN: try model.shape("decoder/\(feedForward)", dimensions: 2)[0], vocabularySize: embeddings[0],
      melBins: try model.shape("encoder/conv1/weight", dimensions: 3)[1], maxSourcePositions: sourcePositions,
      maxTargetPositions: targetPositions, scaleEmbedding: model.integer("decoder/scale_embeddings") ?? 0 != 0,
      activation: activation, padToken: end, bosToken: end, eosToken: end,
      decoderStartToken: whisper.startOfTranscriptToken,
      generation: try HuggingFaceConfiguration.generation(generation, maxLength: min(maxLength, targetPositions)),
      speech2text: nil, whisper: whisper
    ).checked(model.name)
    self.vocabulary = vocabulary
  }

  private static func layers(_ model: CTranslate2Model, _ side: String) -> Int {
    var count = 0
    while model.variables["\(side)/layer_\(count)/self_attention/linear_0/weight"] != nil { count += 1 }
    return count
  }

  private static func heads(_ model: CTranslate2Model, _ side: String) throws(SpeechError) -> Int {
    guard let heads = model.integer("\(side)/num_heads") else {
      throw SpeechError(.badModel, "\(model.name) has no \(side)/num_heads: convert the model anew.")
    }
    return heads
  }
}
