/// Audio in memory: 16 kHz, mono, samples between -1 and 1.
public struct AudioSamples: Sendable, Hashable {
  /// In Hz.
  public static let sampleRate = 16000

  public let samples: [Float]
  /// What is wrong with the file that they are from, and did not keep it from being read: that it was cut.
  public let warnings: [String]

  /// Takes mono samples at any usual rate.
  ///
  /// - Parameter sampleRate: In Hz, from 8000 to 192000.
  /// - Throws: `badAudio` for no samples, another rate, or samples that are no numbers.
  public init(_ samples: [Float], sampleRate: Int = AudioSamples.sampleRate) throws(SpeechError) {
    guard !samples.isEmpty else { throw SpeechError(.badAudio, "The audio holds no samples: record it again.") }
    guard 8000...192_000 ~= sampleRate else {
      throw SpeechError(
        .badAudio, "The audio has a sampling rate of \(sampleRate) Hz: convert it to one from 8000 to 192000 Hz.")
    }
    guard samples.allSatisfy({ abs($0) < 1e6 }) else {
      throw SpeechError(.badAudio, "The audio has samples that are no numbers or enormous: encode it again.")
    }
    warnings = []
    guard sampleRate != Self.sampleRate else {
      self.samples = samples
      return
    }
    var resampler = Resampler(from: sampleRate, to: Self.sampleRate)
    var result: [Float] = []
    resampler.resample(samples, into: &result)
    resampler.finish(into: &result)
    self.samples = result
  }

  /// Reads a whole file in any format that libsndfile reads, mixes its channels and converts its rate.
  ///
  /// An hour takes 230 MB: `SpeechRecogniser.transcribe(path:)` needs no such memory.
  ///
  /// - Throws: `badAudio` for a file that is no audio, empty, damaged, or longer than 6 hours.
  public init(path: String) throws(SpeechError) {
    let file = try AudioFile(path: path)
    var samples: [Float] = []
    var count = -1
    while samples.count != count {
      count = samples.count
      try file.read(into: &samples)
    }
    self.samples = samples
    warnings = file.warning.map { [$0] } ?? []
  }

  /// How long it is.
  public var duration: Duration { .microseconds(samples.count * 1_000_000 / Self.sampleRate) }
}
