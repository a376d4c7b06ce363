/// A tensor that a normalised model has.
struct TensorDescription: Hashable {
  /// As in transformers, without the leading `model.`; `qkv_proj` and `kv_proj` are fused.
  let name: String
  let shape: [Int]
}

/// The product of the extents, or `nil` if it overflows or one is negative.
func elementCount(_ shape: [Int]) -> Int? {
  var count = 1
  for extent in shape {
    guard extent >= 0 else { return nil }
    let (product, overflow) = count.multipliedReportingOverflow(by: extent)
    if overflow { return nil }
    count = product
  }
  return count
}

extension SpeechConfiguration {
  /// The rows that precede position 0 in Speech2Text's position embeddings (transformers' `offset`).
  static let sinusoidOffset = 2

  /// Every tensor of a normalised model, in the order in which it is written.
  ///
  /// Linear weights are [out, in], fused ones with their parts' rows one after the other; convolutions [out, kernel, in].
  var layout: [TensorDescription] {
    var tensors: [TensorDescription] = []
    func add(_ name: String, _ shape: [Int]) { tensors.append(TensorDescription(name: name, shape: shape)) }
    func addPair(_ name: String, _ shape: [Int]) {
      add("\(name).weight", shape)
      add("\(name).bias", [shape[0]])
    }
    if let speech2text {
      for index in speech2text.convKernels.indices {
        addPair("encoder.conv.conv_layers.\(index)", convolutionShape(index))
      }
      add("encoder.embed_positions.weights", [maxSourcePositions + Self.sinusoidOffset, dModel])
    } else {
      addPair("encoder.conv1", [dModel, 3, melBins])
      addPair("encoder.conv2", [dModel, 3, dModel])
      add("encoder.embed_positions.weight", [maxSourcePositions, dModel])
    }
    func addLayers(_ side: String, _ layers: Int, _ width: Int, crossAttention: Bool) {
      for index in 0..<layers {
        let layer = "\(side).layers.\(index)"
        addPair("\(layer).self_attn_layer_norm", [dModel])
        addPair("\(layer).self_attn.qkv_proj", [3 * dModel, dModel])
        addPair("\(layer).self_attn.out_proj", [dModel, dModel])
        if crossAttention {
          addPair("\(layer).encoder_attn_layer_norm", [dModel])
          addPair("\(layer).encoder_attn.q_proj", [dModel, dModel])
          addPair("\(layer).encoder_attn.kv_proj", [2 * dModel, dModel])
          addPair("\(layer).encoder_attn.out_proj", [dModel, dModel])
        }
        addPair("\(layer).final_layer_norm", [dModel])
        addPair("\(layer).fc1", [width, dModel])
        addPair("\(layer).fc2", [dModel, width])
      }
      addPair("\(side).layer_norm", [dModel])
    }
    addLayers("encoder", encoderLayers, encoderFFN, crossAttention: false)
    add("decoder.embed_tokens.weight", [vocabularySize, dModel])
    if speech2text != nil {
      add("decoder.embed_positions.weights", [maxTargetPositions + Self.sinusoidOffset, dModel])
    } else {
      add("decoder.embed_positions.weight", [maxTargetPositions, dModel])
    }
    addLayers("decoder", decoderLayers, decoderFFN, crossAttention: true)
    return tensors
  }

  /// [out, kernel, in] of one of Speech2Text's convolutions, each followed by a gated linear unit that halves `out`.
  private func convolutionShape(_ index: Int) -> [Int] {
    guard let speech2text else { return [] }
    let kernels = speech2text.convKernels
    return [
      index == kernels.count - 1 ? 2 * dModel : speech2text.convChannels, kernels[index],
      index == 0 ? melBins : speech2text.convChannels / 2,
    ]
  }
}
