/// A convolution over time as matrix multiplications in place: with weights [out, kernel, in] and frames one after the
/// other, a window of `kernel` frames is a row, and the next row begins `step` frames later.
///
/// BLAS doesn't let rows overlap, so the kernel is taken in parts of `step` frames, whose products are added up.
struct Convolution {
  private let weight: UnsafePointer<Float>
  private let bias: UnsafePointer<Float>
  let outputs: Int
  let inputs: Int
  let kernel: Int
  /// The convolution's stride, in frames.
  let step: Int

  init(
    _ model: NormalisedModel, _ name: String, outputs: Int, inputs: Int, kernel: Int, step: Int
  ) throws(SpeechError) {
    weight = try model.tensor("\(name).weight", [outputs, kernel, inputs]).base
    bias = try model.tensor("\(name).bias", [outputs]).base
    self.outputs = outputs
    self.inputs = inputs
    self.kernel = kernel
    self.step = step
  }

  /// The zero frames that belong before the first frame and behind the last one.
  var padding: Int { kernel / 2 }

  /// How many frames come out of `frames`.
  func outputFrames(_ frames: Int) -> Int { frames < 1 ? 0 : (frames + 2 * padding - kernel) / step + 1 }

  /// - Parameters:
  ///   - input: `frames` frames with `padding` frames of zeros on either side: where the first zero is.
  ///   - output: Room for `outputFrames(frames)` frames.
  func apply(_ input: UnsafePointer<Float>, frames: Int, into output: UnsafeMutablePointer<Float>) {
    let rows = outputFrames(frames)
    for row in 0..<rows { (output + row * outputs).update(from: bias, count: outputs) }
    for first in stride(from: 0, to: kernel, by: step) {
      multiply(
        Rows(base: input + first * inputs, stride: step * inputs),
        transposed: Rows(base: weight + first * inputs, stride: kernel * inputs), into: output, stride: outputs,
        rows: rows, columns: outputs, inner: min(step, kernel - first) * inputs, beta: 1)
    }
  }
}

extension FloatBuffer {
  /// Room for `frames` frames between `padding` frames of zeros: where the first frame belongs.
  func reserve(frames: Int, width: Int, padding: Int) -> UnsafeMutablePointer<Float> {
    let start = reserve((frames + 2 * padding) * width)
    start.update(repeating: 0, count: padding * width)
    (start + (padding + frames) * width).update(repeating: 0, count: padding * width)
    return start + padding * width
  }
}
