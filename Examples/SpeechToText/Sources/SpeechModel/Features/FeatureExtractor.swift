/// The features that a family's encoder wants.
enum FeatureExtractor: Sendable {
  case kaldi(KaldiFilterBank)
  /// With the window's length, in frames.
  case logMel(LogMelSpectrogram, frames: Int)

  init(_ configuration: SpeechConfiguration) {
    if let own = configuration.speech2text {
      self = .kaldi(
        KaldiFilterBank(
          bands: configuration.melBins, normalizeMeans: own.normalizeMeans, normalizeVariances: own.normalizeVariances))
    } else {
      self = .logMel(LogMelSpectrogram(bands: configuration.melBins), frames: 2 * configuration.maxSourcePositions)
    }
  }

  /// What is shorter has no features that mean something: a frame.
  var leastSamples: Int {
    switch self {
    case .kaldi: KaldiFilterBank.frameSize
    case .logMel: LogMelSpectrogram.frameSize
    }
  }

  /// - Parameter samples: At 16 kHz; no more than a window.
  /// - Returns: Rows of as many numbers as there are mel bins; none for audio shorter than a frame.
  func callAsFunction(_ samples: UnsafeBufferPointer<Float>) -> [Float] {
    switch self {
    case .kaldi(let features): features(samples)
    case .logMel(let features, let frames): features(samples, frames: frames)
    }
  }
}
