/// Layer normalisation over a row, with ε = 10⁻⁵.
struct LayerNorm {
  private let weight: UnsafePointer<Float>
  private let bias: UnsafePointer<Float>
  private let width: Int

  init(_ model: NormalisedModel, _ name: String, width: Int) throws(SpeechError) {
    weight = try model.tensor("\(name).weight", [width]).base
    bias = try model.tensor("\(name).bias", [width]).base
    self.width = width
  }

  /// Normalises `rows` rows of `input` into `output`, which may be the same.
  func apply(_ input: UnsafePointer<Float>, rows: Int, into output: UnsafeMutablePointer<Float>) {
    for row in 0..<rows {
      let x = input + row * width
      let y = output + row * width
      let mean = sum(x) / Float(width)
      let deviation = (squares(x, mean) / Float(width) + 1e-5).squareRoot()
      let factor = 1 / deviation
      inLanes(width) {
        (y + $0).lanes = ((x + $0).lanes - mean) * factor * (weight + $0).lanes + (bias + $0).lanes
      } rest: {
        y[$0] = (x[$0] - mean) * factor * weight[$0] + bias[$0]
      }
    }
  }

  private func sum(_ x: UnsafePointer<Float>) -> Float {
    var sums = Lanes.zero
    var sum: Float = 0
    inLanes(width) {
      sums += (x + $0).lanes
    } rest: {
      sum += x[$0]
    }
    return sums.sum() + sum
  }

  private func squares(_ x: UnsafePointer<Float>, _ mean: Float) -> Float {
    var sums = Lanes.zero
    var sum: Float = 0
    inLanes(width) {
      let difference = (x + $0).lanes - mean
      sums += difference * difference
    } rest: {
      sum += (x[$0] - mean) * (x[$0] - mean)
    }
    return sums.sum() + sum
  }
}
