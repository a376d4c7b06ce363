/// The decoder of either family, without any state: `Decoding` runs it.
struct TokenDecoder {
  let layers: [DecoderLayer]
  let norm: LayerNorm
  let logits: Linear
  let width: Int
  let heads: Int
  let vocabularySize: Int
  /// Tokens that can be decoded, the prompt included.
  let maxLength: Int
  /// [vocabularySize, width]
  private let embeddings: UnsafePointer<Float>
  private let scale: Float
  /// One row for each position, from the first on.
  private let positions: UnsafePointer<Float>
  /// A token that has no position (Speech2Text's padding).
  private let positionless: Int?
  /// Keeps the memory that the pointers lead to.
  private let model: NormalisedModel

  init(_ model: NormalisedModel) throws(SpeechError) {
    self.model = model
    let configuration = model.configuration
    width = configuration.dModel
    heads = configuration.decoderHeads
    vocabularySize = configuration.vocabularySize
    maxLength = configuration.maxTargetPositions
    embeddings = try model.tensor("decoder.embed_tokens.weight", [vocabularySize, width]).base
    logits = try Linear(
      model, "decoder.embed_tokens", outputs: vocabularySize, inputs: width, hasBias: false)
    norm = try LayerNorm(model, "decoder.layer_norm", width: width)
    if configuration.family == .speech2text {
      let offset = SpeechConfiguration.sinusoidOffset
      positions =
        try model.tensor("decoder.embed_positions.weights", [maxLength + offset, width]).base + offset * width
      positionless = configuration.padToken
    } else {
      positions = try model.tensor("decoder.embed_positions.weight", [maxLength, width]).base
      positionless = nil
    }
    // Whisper's files may have the flag, too, and transformers ignores it there.
    scale = configuration.scaleEmbedding && configuration.family == .speech2text ? Float(width).squareRoot() : 1
    var layers: [DecoderLayer] = []
    for index in 0..<configuration.decoderLayers {
      layers.append(try DecoderLayer(model, "decoder.layers.\(index)"))
    }
    self.layers = layers
  }

  /// Writes what goes into the first layer for a token at a position.
  func embed(_ token: Int, at position: Int, into x: UnsafeMutablePointer<Float>) {
    if token == positionless {
      x.update(repeating: 0, count: width)
    } else {
      x.update(from: positions + position * width, count: width)
    }
    add(scale, times: embeddings + token * width, to: x, width)
  }
}
