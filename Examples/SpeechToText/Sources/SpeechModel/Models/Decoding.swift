/// One window's decoding: a decoder with the audio's keys and values, and those of the tokens so far, for some beams.
///
/// The keys and values of a token stay where they were first written: `slots` says for each beam in which row of each
/// position its own ones are, so that choosing among beams copies small numbers only. Nothing is allocated per step.
final class Decoding {
  /// A token whose successor is asked for, or that only has to be there.
  struct Input {
    let token: Int
    let position: Int
    /// The beam that it belongs to.
    let beam: Int
  }

  private let decoder: TokenDecoder
  private let workspace: Workspace
  private let frames: Int
  let beams: Int
  /// Tokens that fit, the prompt included.
  let capacity: Int
  /// For beam and position, the row of the position that holds its keys and values.
  private var slots: [Int32]
  private var spareSlots: [Int32]

  var vocabularySize: Int { decoder.vocabularySize }

  /// - Parameter encoded: [frames, width]; read here only.
  init(
    _ decoder: TokenDecoder, encoded: UnsafePointer<Float>, frames: Int, beams: Int, capacity: Int,
    _ workspace: Workspace
  ) {
    self.decoder = decoder
    self.workspace = workspace
    self.frames = frames
    self.beams = beams
    self.capacity = min(capacity, decoder.maxLength)
    slots = Array(repeating: 0, count: beams * self.capacity)
    spareSlots = slots
    let size = 2 * decoder.width * frames
    let crossKeysValues = workspace.crossKeysValues.reserve(decoder.layers.count * size)
    for (index, layer) in decoder.layers.enumerated() {
      layer.crossKeysValues.applyTransposed(encoded, rows: frames, into: crossKeysValues + index * size)
    }
    _ = workspace.keysValues.reserve(decoder.layers.count * self.capacity * beams * 2 * decoder.width)
  }

  /// Lets beam i go on from what beam `origins[i]` has, for the first `length` positions.
  func reorder(_ origins: [Int], length: Int) {
    for (beam, origin) in origins.enumerated() {
      for position in 0..<length { spareSlots[beam * capacity + position] = slots[origin * capacity + position] }
    }
    swap(&slots, &spareSlots)
  }

  /// Decodes the beginning that all beams share.
  ///
  /// - Returns: The logits of the token that follows: one row.
  func start(_ prompt: [Int]) -> UnsafeMutablePointer<Float> {
    step(prompt.enumerated().map { Input(token: $1, position: $0, beam: 0) }, onlyLast: true)
  }

  /// Runs the decoder over some tokens: those of one beam in their order, or one of each beam.
  ///
  /// - Returns: A row of logits for each of them, or for the last one only; until the next call.
  func step(_ inputs: [Input], onlyLast: Bool = false) -> UnsafeMutablePointer<Float> {
    let width = decoder.width
    let x = workspace.x.reserve(inputs.count * width)
    for (row, input) in inputs.enumerated() {
      decoder.embed(input.token, at: input.position, into: x + row * width)
      slots[input.beam * capacity + input.position] = Int32(truncatingIfNeeded: input.beam)
    }
    let normed = workspace.encoded.reserve(inputs.count * width)
    for (index, layer) in decoder.layers.enumerated() {
      layer.selfNorm.apply(x, rows: inputs.count, into: normed)
      let found = attendToTokens(inputs, layer, index, normed)
      layer.selfOutput.apply(found, rows: inputs.count, into: x, adding: true)
      layer.crossNorm.apply(x, rows: inputs.count, into: normed)
      attendToAudio(inputs.count, layer, index, normed)
      layer.crossOutput.apply(found, rows: inputs.count, into: x, adding: true)
      layer.feedForward.apply(x, rows: inputs.count, workspace)
    }
    let skipped = onlyLast ? inputs.count - 1 : 0
    let rows = inputs.count - skipped
    decoder.norm.apply(x + skipped * width, rows: rows, into: normed)
    let logits = workspace.logits.reserve(rows * vocabularySize)
    decoder.logits.apply(normed, rows: rows, into: logits)
    return logits
  }

  /// - Returns: What was found, a row each, in the workspace.
  private func attendToTokens(
    _ inputs: [Input], _ layer: DecoderLayer, _ index: Int, _ normed: UnsafePointer<Float>
  ) -> UnsafeMutablePointer<Float> {
    let width = decoder.width
    let head = width / decoder.heads
    let projected = workspace.projected.reserve(inputs.count * 3 * width)
    layer.projections.apply(normed, rows: inputs.count, into: projected)
    let perLayer = capacity * beams * 2 * width
    let cache = workspace.keysValues.reserve(decoder.layers.count * perLayer) + index * perLayer
    for (row, input) in inputs.enumerated() {
      (cache + (input.position * beams + input.beam) * 2 * width).update(
        from: projected + row * 3 * width + width, count: 2 * width)
    }
    let found = workspace.found.reserve(inputs.count * width)
    let scores = workspace.scores.reserve(capacity)
    let scale = 1 / Float(head).squareRoot()
    slots.withUnsafeBufferPointer { slots in
      for (row, input) in inputs.enumerated() {
        let own = input.beam * capacity
        for index in 0..<decoder.heads {
          let query = projected + row * 3 * width + index * head
          for position in 0...input.position {
            let key = cache + (position * beams + Int(slots[own + position])) * 2 * width + index * head
            scores[position] = dot(query, key, head) * scale
          }
          softmax(scores, input.position + 1)
          let result = found + row * width + index * head
          result.update(repeating: 0, count: head)
          for position in 0...input.position {
            let key = cache + (position * beams + Int(slots[own + position])) * 2 * width + index * head
            add(scores[position], times: key + width, to: result, head)
          }
        }
      }
    }
    return found
  }

  /// Puts what was found where `attendToTokens` did.
  private func attendToAudio(_ rows: Int, _ layer: DecoderLayer, _ index: Int, _ normed: UnsafePointer<Float>) {
    let width = decoder.width
    let head = width / decoder.heads
    let queries = workspace.projected.reserve(rows * 3 * width)
    layer.crossQuery.apply(normed, rows: rows, into: queries)
    let found = workspace.found.reserve(rows * width)
    let scores = workspace.scores.reserve(frames)
    let size = 2 * width * frames
    let keys = UnsafePointer(workspace.crossKeysValues.reserve(decoder.layers.count * size)) + index * size
    let scale = 1 / Float(head).squareRoot()
    for index in 0..<decoder.heads {
      let keys = Rows(base: keys + index * head * frames, stride: frames)
      let values = Rows(base: keys.base + width * frames, stride: frames)
      for row in 0..<rows {
        let offset = row * width + index * head
        multiply(transposed: keys, vector: queries + offset, into: scores, rows: head, columns: frames, alpha: scale)
        softmax(scores, frames)
        multiply(values, vector: scores, into: found + offset, rows: head, columns: frames)
      }
    }
  }
}
