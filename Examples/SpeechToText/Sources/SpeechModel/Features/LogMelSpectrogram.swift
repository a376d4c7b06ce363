/// Whisper's features: the logarithm of the energy in mel bands, every 10 ms of 16 kHz audio that is filled up with
/// silence to a whole window. As OpenAI's `log_mel_spectrogram` and transformers' `WhisperFeatureExtractor`.
struct LogMelSpectrogram: Sendable {
  private let filters: MelFilterBank

  static let frameSize = 400
  static let hop = 160
  /// Of Hann's window, periodic. One for the process, as it takes 1.3 MB.
  private static let spectrogram = Spectrogram(frameSize: frameSize, transformSize: frameSize) {
    0.5 - 0.5 * cosine(2 * .pi * Double($0) / Double(frameSize))
  }

  init(bands: Int) {
    // Slaney's triangles, even in mels from 0 Hz to half of the sampling rate, each of area one.
    let top = Self.mel(8000)
    let edges = (0..<bands + 2).map { Self.frequency(top * Double($0) / Double(bands + 1)) }
    filters = MelFilterBank(bands: bands, bins: Self.spectrogram.bins) { bin, band in
      let frequency = Double(bin) * 16000 / Double(Self.frameSize)
      let rise = (frequency - edges[band]) / (edges[band + 1] - edges[band])
      let fall = (edges[band + 2] - frequency) / (edges[band + 2] - edges[band + 1])
      return max(0, min(rise, fall)) * 2 / (edges[band + 2] - edges[band])
    }
  }

  /// - Parameters:
  ///   - samples: At 16 kHz, between -1 and 1; at most `frames` · `hop`.
  ///   - frames: The window's length, in frames.
  /// - Returns: [frames, bands]
  func callAsFunction(_ samples: UnsafeBufferPointer<Float>, frames: Int) -> [Float] {
    let padded = reflected(samples, frames: frames)
    // What lies behind the audio is silence; only the last frames may see the reflected end.
    let half = Self.frameSize / 2
    let count = samples.count + half >= frames * Self.hop - half ? frames : (samples.count + half) / Self.hop + 1
    var features: [Float] = []
    features.reserveCapacity(frames * filters.bands)
    padded.withUnsafeBufferPointer { padded in
      guard let base = padded.baseAddress else { return }
      for start in stride(from: 0, to: count, by: Spectrogram.block) {
        let rows = min(Spectrogram.block, count - start)
        let power = Self.spectrogram.power(base + start * Self.hop, stride: Self.hop, count: rows)
        for energy in filters.energies(power, rows: rows) { features.append(Float(logarithm10(max(energy, 1e-10)))) }
      }
    }
    features += repeatElement(-10, count: frames * filters.bands - features.count)
    let least = (features.max() ?? 0) - 8
    for index in features.indices { features[index] = (max(features[index], least) + 4) / 4 }
    return features
  }

  /// The audio and its silence, with half a frame of its mirror image on either side.
  private func reflected(_ samples: UnsafeBufferPointer<Float>, frames: Int) -> [Double] {
    let half = Self.frameSize / 2
    let length = frames * Self.hop
    var padded = [Double](repeating: 0, count: length + 2 * half)
    for (index, sample) in samples.prefix(length).enumerated() { padded[half + index] = Double(sample) }
    for index in 1...half {
      padded[half - index] = padded[half + min(index, length - 1)]
      padded[half + length - 1 + index] = padded[half + max(0, length - 1 - index)]
    }
    return padded
  }

  /// Slaney's scale: even below 1000 Hz, 27 steps for each factor of 6.4 above.
  private static func mel(_ frequency: Double) -> Double {
    frequency < 1000 ? frequency * 3 / 200 : 15 + logarithm(frequency / 1000) * 27 / logarithm(6.4)
  }

  private static func frequency(_ mel: Double) -> Double {
    mel < 15 ? mel * 200 / 3 : 1000 * power(6.4, (mel - 15) / 27)
  }
}
