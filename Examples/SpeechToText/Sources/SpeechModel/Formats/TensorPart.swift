internal import Foundation

/// Where numbers of a normalised tensor come from; a tensor is one or more of them, one after the other.
enum TensorPart {
  case stored(StoredTensor)
  /// A convolution's weight, [out, in, kernel], to be written as [out, kernel, in].
  case convolution(StoredTensor)
  case zeros(count: Int)
  /// Speech2Text's position embeddings: transformers' `Speech2TextSinusoidalPositionalEmbedding`,
  /// with the padding token's row zeroed.
  case sinusoids(rows: Int, width: Int, padding: Int)

  /// In numbers. `ModelNormaliser` has checked the shapes, so this can't overflow.
  var count: Int {
    switch self {
    case .stored(let tensor), .convolution(let tensor): tensor.count
    case .zeros(let count): count
    case .sinusoids(let rows, let width, _): rows * width
    }
  }

  /// Writes the numbers from `start` on, as many as fit.
  ///
  /// - Precondition: There are as many.
  func fill(_ output: UnsafeMutableBufferPointer<Float>, from start: Int) {
    switch self {
    case .stored(let tensor): tensor.convert(into: output, from: start)
    case .convolution(let tensor):
      let (inputs, kernel) = (tensor.shape[1], tensor.shape[2])
      for index in 0..<output.count {
        let position = start + index
        let (row, tap, input) = (position / (kernel * inputs), position / inputs % kernel, position % inputs)
        output[index] = tensor.number((row * inputs + input) * kernel + tap)
      }
    case .zeros: output.update(repeating: 0)
    case .sinusoids(_, let width, let padding):
      let frequencies = Self.frequencies(width / 2)
      for index in 0..<output.count {
        let (row, column) = ((start + index) / width, (start + index) % width)
        if row == padding || column >= 2 * frequencies.count {
          output[index] = 0
        } else {
          // The product is rounded to float32 as there, which matters more than the rounding of the sine.
          let angle = Double(Float(row) * frequencies[column % frequencies.count])
          output[index] = Float(column < frequencies.count ? sin(angle) : cos(angle))
        }
      }
    }
  }

  /// 10000 to the power of -i / (half - 1), in float32 as in transformers.
  private static func frequencies(_ half: Int) -> [Float] {
    let step = Float(-log(10000) / Double(half - 1))
    return (0..<half).map { Float(exp(Double(Float($0) * step))) }
  }
}

/// Whether no number is infinite or NaN.
func isFinite(_ numbers: UnsafeMutableBufferPointer<Float>) -> Bool {
  guard let base = numbers.baseAddress else { return true }
  var worst: UInt32 = 0
  for index in 0..<numbers.count { worst = max(worst, base[index].bitPattern & 0x7F80_0000) }
  return worst < 0x7F80_0000
}
