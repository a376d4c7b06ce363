/// All memory that a transcription computes in, beside the model: one a call, reused from window to window.
final class Workspace {
  /// What goes into a layer, and what comes out of it: [rows, width].
  let x = FloatBuffer()
  let normed = FloatBuffer()
  /// Queries, keys and values beside each other: [rows, 3 width].
  let projected = FloatBuffer()
  let scores = FloatBuffer()
  /// What attention found: [rows, width].
  let found = FloatBuffer()
  let hidden = FloatBuffer()
  /// What goes into a convolution and what comes out, by turns, with zero rows around it.
  let convolutions = [FloatBuffer(), FloatBuffer()]
  let encoded = FloatBuffer()
  /// The encoder's keys and values for each layer of the decoder: [layers, 2 width, frames].
  let crossKeysValues = FloatBuffer()
  /// The keys and values of what was decoded: [layers, positions, beams, 2 width].
  let keysValues = FloatBuffer()
  let logits = FloatBuffer()

  init() { _ = oneThreadEach }
}
