/// The encoder of either family: convolutions over the features, then a Transformer with its norms in front.
struct AudioEncoder {
  private let convolutions: [Convolution]
  /// Behind each convolution: a gated linear unit (Speech2Text) or the activation (Whisper).
  private let isGated: Bool
  private let activation: SpeechConfiguration.Activation
  private let scale: Float
  /// [maxFrames, width]
  private let positions: UnsafePointer<Float>
  private let maxFrames: Int
  private let layers: [(attention: SelfAttention, feedForward: FeedForward)]
  private let norm: LayerNorm
  let width: Int

  init(_ model: NormalisedModel) throws(SpeechError) {
    let configuration = model.configuration
    let width = configuration.dModel
    self.width = width
    activation = configuration.activation
    maxFrames = configuration.maxSourcePositions
    scale = configuration.scaleEmbedding && configuration.family == .speech2text ? Float(width).squareRoot() : 1
    var convolutions: [Convolution] = []
    if let own = configuration.speech2text {
      isGated = true
      for (index, kernel) in own.convKernels.enumerated() {
        convolutions.append(
          try Convolution(
            model, "encoder.conv.conv_layers.\(index)",
            outputs: index == own.convKernels.count - 1 ? 2 * width : own.convChannels,
            inputs: index == 0 ? configuration.melBins : own.convChannels / 2, kernel: kernel, step: 2))
      }
      let offset = SpeechConfiguration.sinusoidOffset
      positions =
        try model.tensor("encoder.embed_positions.weights", [maxFrames + offset, width]).base + offset * width
    } else {
      isGated = false
      for (name, inputs, step) in [("encoder.conv1", configuration.melBins, 1), ("encoder.conv2", width, 2)] {
        convolutions.append(try Convolution(model, name, outputs: width, inputs: inputs, kernel: 3, step: step))
      }
      positions = try model.tensor("encoder.embed_positions.weight", [maxFrames, width]).base
    }
    self.convolutions = convolutions
    var layers: [(SelfAttention, FeedForward)] = []
    for index in 0..<configuration.encoderLayers {
      let name = "encoder.layers.\(index)"
      layers.append(
        (
          try SelfAttention(model, name, width: width, heads: configuration.encoderHeads),
          try FeedForward(model, name, width: width, inner: configuration.encoderFFN, activation: activation)
        ))
    }
    self.layers = layers
    norm = try LayerNorm(model, "encoder.layer_norm", width: width)
  }

  /// How many frames come out of `frames` frames of features; never more than there are positions for.
  func outputFrames(_ frames: Int) -> Int {
    min(maxFrames, convolutions.reduce(frames) { $1.outputFrames($0) })
  }

  /// The frames of features that all positions are needed for.
  var maxInputFrames: Int {
    convolutions.reversed().reduce(maxFrames) { frames, convolution in frames * convolution.step }
  }

  /// - Parameter features: `frames` rows of as many numbers as there are mel bins.
  /// - Returns: [outputFrames(frames), width] in the workspace, until the next call.
  func encode(
    _ features: UnsafePointer<Float>, frames: Int, _ workspace: Workspace
  ) -> (base: UnsafePointer<Float>, frames: Int) {
    let count = outputFrames(frames)
    let x = subsample(features, frames: frames, count, workspace)
    for (attention, feedForward) in layers {
      attention.apply(x, rows: count, workspace)
      feedForward.apply(x, rows: count, workspace)
    }
    let encoded = workspace.encoded.reserve(count * width)
    norm.apply(x, rows: count, into: encoded)
    return (UnsafePointer(encoded), count)
  }

  /// Runs the convolutions, scales, and adds the positions.
  private func subsample(
    _ features: UnsafePointer<Float>, frames: Int, _ count: Int, _ workspace: Workspace
  ) -> UnsafeMutablePointer<Float> {
    var (frames, width) = (frames, convolutions[0].inputs)
    var padding = convolutions[0].padding
    var input = workspace.convolutions[0].reserve(frames: frames, width: width, padding: padding)
    input.update(from: features, count: frames * width)
    for (index, convolution) in convolutions.enumerated() {
      let outputs = workspace.hidden.reserve(convolution.outputFrames(frames) * convolution.outputs)
      convolution.apply(input - padding * width, frames: frames, into: outputs)
      frames = convolution.outputFrames(frames)
      width = isGated ? convolution.outputs / 2 : convolution.outputs
      padding = index + 1 < convolutions.count ? convolutions[index + 1].padding : 0
      input = workspace.convolutions[(index + 1) % 2].reserve(frames: frames, width: width, padding: padding)
      if isGated {
        gate(outputs, rows: frames, width: width, into: input)
      } else {
        activate(outputs, frames * width, activation)
        input.update(from: outputs, count: frames * width)
      }
    }
    let x = workspace.x.reserve(count * width)
    x.update(from: positions, count: count * width)
    add(scale, times: input, to: x, count * width)
    return x
  }
}
