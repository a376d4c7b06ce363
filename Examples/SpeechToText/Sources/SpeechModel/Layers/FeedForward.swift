/// A Transformer layer's feed-forward network: `x + W₂ f(W₁ norm(x) + b₁) + b₂`.
struct FeedForward {
  private let norm: LayerNorm
  private let first: Linear
  private let second: Linear
  private let activation: SpeechConfiguration.Activation

  /// Rows that go through both maps before the next ones, so that what is between them stays in the cache.
  private static let block = 512

  /// - Parameter name: The layer's: `encoder.layers.0`.
  init(
    _ model: NormalisedModel, _ name: String, width: Int, inner: Int, activation: SpeechConfiguration.Activation
  ) throws(SpeechError) {
    norm = try LayerNorm(model, "\(name).final_layer_norm", width: width)
    first = try Linear(model, "\(name).fc1", outputs: inner, inputs: width)
    second = try Linear(model, "\(name).fc2", outputs: width, inputs: inner)
    self.activation = activation
  }

  /// Changes `rows` rows of `x` in place.
  func apply(_ x: UnsafeMutablePointer<Float>, rows: Int, _ workspace: Workspace) {
    let block = min(rows, Self.block)
    let normed = workspace.normed.reserve(block * first.inputs)
    let hidden = workspace.hidden.reserve(block * first.outputs)
    for start in stride(from: 0, to: rows, by: Self.block) {
      let count = min(Self.block, rows - start)
      let part = x + start * first.inputs
      norm.apply(part, rows: count, into: normed)
      first.apply(normed, rows: count, into: hidden)
      activate(hidden, count * first.outputs, activation)
      second.apply(hidden, rows: count, into: part, adding: true)
    }
  }
}

/// Applies an activation to `count` numbers in place.
func activate(_ x: UnsafeMutablePointer<Float>, _ count: Int, _ activation: SpeechConfiguration.Activation) {
  switch activation {
  case .relu:
    inLanes(count) {
      let value = (x + $0).lanes
      (x + $0).lanes = value.replacing(with: 0, where: value .< Lanes.zero)
    } rest: {
      x[$0] = max(x[$0], 0)
    }
  case .gelu:
    inLanes(count) {
      (x + $0).lanes = gelu((x + $0).lanes)
    } rest: {
      x[$0] = gelu(Lanes(repeating: x[$0]))[0]
    }
  }
}

/// The gated linear unit: from rows of 2·`width` numbers, the first half times the sigmoid of the second.
func gate(_ x: UnsafePointer<Float>, rows: Int, width: Int, into y: UnsafeMutablePointer<Float>) {
  for row in 0..<rows {
    let value = x + row * 2 * width
    let gate = value + width
    let result = y + row * width
    inLanes(width) {
      (result + $0).lanes = (value + $0).lanes / (1 + exponential(bounded(-(gate + $0).lanes)))
    } rest: {
      result[$0] = value[$0] / (1 + exponential(bounded(Lanes(repeating: -gate[$0])))[0])
    }
  }
}

/// At most 87, for which `exponential` still is finite.
@inline(__always)
private func bounded(_ x: Lanes) -> Lanes { x.replacing(with: 87, where: x .> Lanes(repeating: 87)) }
