/// Where 16 kHz mono samples come from, a piece at a time.
protocol SampleSource: AnyObject {
  /// Appends more samples: at least one, or none if there are no more.
  ///
  /// - Throws: `badAudio`.
  func read(into samples: inout [Float]) throws(SpeechError)
  /// What is wrong with the audio, and did not keep it from being read; known once all of it was.
  var warning: String? { get }
}

/// Samples that are in memory.
final class ArraySource: SampleSource {
  private let samples: [Float]
  private var position = 0
  let warning: String? = nil

  init(_ samples: [Float]) { self.samples = samples }

  func read(into result: inout [Float]) {
    let end = min(samples.count, position + 16384)
    result.append(contentsOf: samples[position..<end])
    position = end
  }
}
