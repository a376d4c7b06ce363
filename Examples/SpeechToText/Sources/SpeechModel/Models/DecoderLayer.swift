/// A decoder's layer: attention to what was decoded, attention to the audio, and a feed-forward network.
struct DecoderLayer {
  let selfNorm: LayerNorm
  let projections: Linear
  let selfOutput: Linear
  let crossNorm: LayerNorm
  let crossQuery: Linear
  let crossKeysValues: Linear
  let crossOutput: Linear
  let feedForward: FeedForward

  init(_ model: NormalisedModel, _ name: String) throws(SpeechError) {
    let width = model.configuration.dModel
    selfNorm = try LayerNorm(model, "\(name).self_attn_layer_norm", width: width)
    projections = try Linear(model, "\(name).self_attn.qkv_proj", outputs: 3 * width, inputs: width)
    selfOutput = try Linear(model, "\(name).self_attn.out_proj", outputs: width, inputs: width)
    crossNorm = try LayerNorm(model, "\(name).encoder_attn_layer_norm", width: width)
    crossQuery = try Linear(model, "\(name).encoder_attn.q_proj", outputs: width, inputs: width)
    crossKeysValues = try Linear(model, "\(name).encoder_attn.kv_proj", outputs: 2 * width, inputs: width)
    crossOutput = try Linear(model, "\(name).encoder_attn.out_proj", outputs: width, inputs: width)
    feedForward = try FeedForward(
      model, name, width: width, inner: model.configuration.decoderFFN, activation: model.configuration.activation)
  }
}
