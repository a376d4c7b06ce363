/// Attention of every row to every row, as in an encoder's layer: `x + Wₒ attention(norm(x)) + bₒ`.
struct SelfAttention {
  private let norm: LayerNorm
  private let projections: Linear
  private let output: Linear
  private let heads: Int

  /// Queries that are compared with all keys before the next ones, so that their scores stay in the cache.
  private static let block = 256

  /// - Parameter name: The layer's: `encoder.layers.0`.
  init(_ model: NormalisedModel, _ name: String, width: Int, heads: Int) throws(SpeechError) {
    norm = try LayerNorm(model, "\(name).self_attn_layer_norm", width: width)
    projections = try Linear(model, "\(name).self_attn.qkv_proj", outputs: 3 * width, inputs: width)
    output = try Linear(model, "\(name).self_attn.out_proj", outputs: width, inputs: width)
    self.heads = heads
  }

  /// Changes `rows` rows of `x` in place.
  func apply(_ x: UnsafeMutablePointer<Float>, rows: Int, _ workspace: Workspace) {
    let width = output.inputs
    let head = width / heads
    let normed = workspace.normed.reserve(rows * width)
    norm.apply(x, rows: rows, into: normed)
    let projected = workspace.projected.reserve(rows * 3 * width)
    projections.apply(normed, rows: rows, into: projected)

    let found = workspace.found.reserve(rows * width)
    let scores = workspace.scores.reserve(min(rows, Self.block) * rows)
    let scale = 1 / Float(head).squareRoot()
    for index in 0..<heads {
      let keys = Rows(base: projected + width + index * head, stride: 3 * width)
      let values = Rows(base: projected + 2 * width + index * head, stride: 3 * width)
      for start in stride(from: 0, to: rows, by: Self.block) {
        let count = min(Self.block, rows - start)
        let queries = Rows(base: projected + start * 3 * width + index * head, stride: 3 * width)
        let result = found + start * width + index * head
        multiply(
          queries, transposed: keys, into: scores, stride: rows, rows: count, columns: rows, inner: head, alpha: scale)
        // Dividing what was found by the sum is less work than dividing the scores.
        let sums = normed + start
        for row in 0..<count {
          let score = scores + row * rows
          sums[row] = exponentials(score, minus: maximum(score, rows), rows)
        }
        multiply(
          Rows(base: scores, stride: rows), values, into: result, stride: width, rows: count, columns: head,
          inner: rows)
        for row in 0..<count {
          let factor = 1 / sums[row]
          let part = result + row * width
          inLanes(head) {
            (part + $0).lanes *= factor
          } rest: {
            part[$0] *= factor
          }
        }
      }
    }
    output.apply(found, rows: rows, into: x, adding: true)
  }
}
