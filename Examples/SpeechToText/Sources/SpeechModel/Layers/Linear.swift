/// A linear map `y = W x + b` whose weights lie in the model.
struct Linear {
  /// [outputs, inputs]
  private let weight: UnsafePointer<Float>
  private let bias: UnsafePointer<Float>?
  let outputs: Int
  let inputs: Int

  /// Few rows are multiplied one by one: OpenBLAS would copy the whole matrix for them.
  private static let fewRows = 8
  /// What the second-level cache keeps of a matrix while each of the few rows is multiplied with it, in numbers.
  private static let blockSize = 65536

  /// - Parameter name: The tensors' name without `.weight` and `.bias`.
  init(
    _ model: NormalisedModel, _ name: String, outputs: Int, inputs: Int, hasBias: Bool = true
  ) throws(SpeechError) {
    weight = try model.tensor("\(name).weight", [outputs, inputs]).base
    bias = hasBias ? try model.tensor("\(name).bias", [outputs]).base : nil
    self.outputs = outputs
    self.inputs = inputs
  }

  /// Maps `rows` rows of `inputs` numbers to as many of `outputs`.
  ///
  /// - Parameter adding: Whether the result is added to what `output` holds, as for a residual connection.
  func apply(
    _ input: UnsafePointer<Float>, rows: Int, into output: UnsafeMutablePointer<Float>, adding: Bool = false
  ) {
    for row in 0..<rows {
      let first = output + row * outputs
      if let bias {
        if adding { add(1, times: bias, to: first, outputs) } else { first.update(from: bias, count: outputs) }
      } else if !adding {
        first.update(repeating: 0, count: outputs)
      }
    }
    guard rows <= Self.fewRows else {
      return multiply(
        Rows(base: input, stride: inputs), transposed: Rows(base: weight, stride: inputs), into: output,
        stride: outputs, rows: rows, columns: outputs, inner: inputs, beta: 1)
    }
    let block = rows == 1 ? outputs : max(8, Self.blockSize / inputs)
    for start in stride(from: 0, to: outputs, by: block) {
      let part = Rows(base: weight + start * inputs, stride: inputs)
      for row in 0..<rows {
        multiply(
          part, vector: input + row * inputs, into: output + row * outputs + start, rows: min(block, outputs - start),
          columns: inputs, beta: 1)
      }
    }
  }

  /// Maps `rows` rows to the transposed of what `apply` gives: [outputs, rows], so that each output is contiguous.
  func applyTransposed(_ input: UnsafePointer<Float>, rows: Int, into output: UnsafeMutablePointer<Float>) {
    for index in 0..<outputs { (output + index * rows).update(repeating: bias?[index] ?? 0, count: rows) }
    multiply(
      Rows(base: weight, stride: inputs), transposed: Rows(base: input, stride: inputs), into: output, stride: rows,
      rows: outputs, columns: rows, inner: inputs, beta: 1)
  }
}
