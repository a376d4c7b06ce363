/// Kaldi's filter-bank features, as transformers' `Speech2TextFeatureExtractor` computes them: from 16 kHz,
/// frames of 25 ms every 10 ms that lie wholly in the audio, without dither.
struct KaldiFilterBank: Sendable {
  private let filters: MelFilterBank
  private let normalizeMeans: Bool
  private let normalizeVariances: Bool

  static let frameSize = 400
  static let hop = 160
  private static let transformSize = 512
  /// Of Povey's window: Hann's, zero at both ends, to the power of 0.85. One for the process, as it takes 1.6 MB.
  private static let spectrogram = Spectrogram(frameSize: frameSize, transformSize: transformSize) {
    SpeechModel.power(0.5 - 0.5 * cosine(2 * .pi * Double($0) / Double(frameSize - 1)), 0.85)
  }

  init(bands: Int, normalizeMeans: Bool, normalizeVariances: Bool) {
    self.normalizeMeans = normalizeMeans
    self.normalizeVariances = normalizeVariances
    // Triangles that are even in mels, from 20 Hz to half of the sampling rate.
    func mel(_ frequency: Double) -> Double { 1127 * logarithm(1 + frequency / 700) }
    let low = mel(20)
    let width = (mel(8000) - low) / Double(bands + 1)
    let mels = (0..<Self.spectrogram.bins).map { mel(Double($0) * 16000 / Double(Self.transformSize)) }
    filters = MelFilterBank(bands: bands, bins: Self.spectrogram.bins) { bin, band in
      guard bin < Self.transformSize / 2 else { return 0 }
      let position = (mels[bin] - low) / width - Double(band)
      return max(0, min(position, 2 - position))
    }
  }

  /// How many frames lie wholly in `samples` samples.
  static func frames(_ samples: Int) -> Int { samples < frameSize ? 0 : (samples - frameSize) / hop + 1 }

  /// The logarithm of each band's energy, normalised over all frames.
  ///
  /// - Parameter samples: At 16 kHz, between -1 and 1.
  /// - Returns: [frames(samples.count), bands]
  func callAsFunction(_ samples: UnsafeBufferPointer<Float>) -> [Float] {
    let count = Self.frames(samples.count)
    var features: [Float] = []
    features.reserveCapacity(count * filters.bands)
    var block = [Double](repeating: 0, count: Spectrogram.block * Self.frameSize)
    for start in stride(from: 0, to: count, by: Spectrogram.block) {
      let rows = min(Spectrogram.block, count - start)
      block.withUnsafeMutableBufferPointer { block in
        for row in 0..<rows {
          fill(
            UnsafeMutableBufferPointer(rebasing: block[row * Self.frameSize..<(row + 1) * Self.frameSize]),
            samples, from: (start + row) * Self.hop)
        }
      }
      let power = block.withUnsafeBufferPointer { block in
        block.baseAddress.map { Self.spectrogram.power($0, stride: Self.frameSize, count: rows) } ?? []
      }
      for energy in filters.energies(power, rows: rows) {
        features.append(Float(logarithm(max(energy, 1.192092955078125e-07))))
      }
    }
    if normalizeMeans || normalizeVariances { normalize(&features, rows: count) }
    return features
  }

  /// One frame, as of 16-bit samples: without its mean, and with the high frequencies emphasised.
  private func fill(_ frame: UnsafeMutableBufferPointer<Double>, _ samples: UnsafeBufferPointer<Float>, from start: Int)
  {
    var sum = 0.0
    for index in frame.indices {
      frame[index] = Double(samples[start + index]) * 32768
      sum += frame[index]
    }
    let mean = sum / Double(frame.count)
    var previous = frame[0] - mean
    for index in frame.indices {
      let value = frame[index] - mean
      frame[index] = value - 0.97 * previous
      previous = value
    }
  }

  /// Takes the mean off each band and divides it by its deviation. A band that doesn't vary stays at zero.
  private func normalize(_ features: inout [Float], rows: Int) {
    guard rows > 0 else { return }
    let bands = filters.bands
    for band in 0..<bands {
      let indices = stride(from: band, to: rows * bands, by: bands)
      let mean = indices.reduce(0.0) { $0 + Double(features[$1]) } / Double(rows)
      let variance = indices.reduce(0.0) { $0 + power(Double(features[$1]) - mean, 2) } / Double(rows)
      let factor = normalizeVariances ? 1 / max(variance, 1e-10).squareRoot() : 1
      let offset = normalizeMeans ? mean : 0
      for index in indices { features[index] = Float((Double(features[index]) - offset) * factor) }
    }
  }
}
