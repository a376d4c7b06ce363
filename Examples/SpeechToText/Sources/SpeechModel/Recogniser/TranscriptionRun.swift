/// One transcription: takes windows from the audio one after the other.
final class TranscriptionRun {
  private let recogniser: SpeechRecogniser
  private let options: TranscriptionOptions
  private let source: any SampleSource
  private let workspace = Workspace()
  private let settings: SearchSettings
  /// Made for each transcription: its matrices take more than a megabyte, and a fraction of a millisecond.
  private let extractor: FeatureExtractor
  /// Samples that were read and are not transcribed yet.
  private var samples: [Float] = []
  private var hasEnded = false
  /// The language's code, given or found.
  private var language: String?
  private var timings = Transcription.Timings()

  private var configuration: SpeechConfiguration { recogniser.model.configuration }

  init(
    _ recogniser: SpeechRecogniser, _ options: TranscriptionOptions, _ source: any SampleSource
  ) throws(SpeechError) {
    self.recogniser = recogniser
    self.options = options
    self.source = source
    settings = try recogniser.settings(options)
    extractor = FeatureExtractor(recogniser.model.configuration)
    language = options.language
  }

  /// What a window brought: its segments, relative to its beginning, and how many samples are done with it.
  private typealias Result = (segments: [(start: Double, end: Double, text: String)], consumed: Int)

  func run(_ progress: (TranscriptionProgress) throws(SpeechError) -> Void) throws(SpeechError) -> Transcription {
    var segments: [Transcription.Segment] = []
    var text = ""
    var done = 0
    let window = recogniser.windowSamples
    while true {
      try fill(window + 1)
      if samples.isEmpty { break }
      let isLast = samples.count <= window
      // What is left behind the last timestamp is too short for a word.
      if done > 0, isLast, samples.count < AudioSamples.sampleRate / 10 {
        done += samples.count
        break
      }
      let timed = configuration.family == .whisper && (options.timestamps ?? (done > 0 || !isLast))
      let result = transcribe(samples.prefix(window), isLast: isLast, timed: timed)
      let start = Double(done) / Double(AudioSamples.sampleRate)
      var new: [Transcription.Segment] = []
      for segment in result.segments {
        text += segment.text
        let trimmed = trim(segment.text)
        guard !trimmed.isEmpty else { continue }
        new.append(
          Transcription.Segment(
            start: .milliseconds(Int(((start + segment.start) * 1000).rounded())),
            end: .milliseconds(Int(((start + segment.end) * 1000).rounded())), text: trimmed))
      }
      segments += new
      done += result.consumed
      samples.removeFirst(result.consumed)
      try progress(TranscriptionProgress(done: duration(done), segments: new))
    }
    return Transcription(
      text: trim(text), segments: segments, language: language, audio: duration(done), timings: timings,
      warnings: (source.warning.map { [$0] } ?? []) + (trim(text).isEmpty ? tooShort(done) : []))
  }

  /// What to say of audio that has no feature, so that no text is no surprise.
  private func tooShort(_ samples: Int) -> [String] {
    let least = extractor.leastSamples
    guard samples < least else { return [] }
    func milliseconds(_ samples: Int) -> Int { samples * 1000 / AudioSamples.sampleRate }
    return [
      "The audio has no text: it is \(milliseconds(samples)) ms long, and the model's features take \(milliseconds(least)) ms."
    ]
  }

  /// Reads until there are `count` samples, or no more.
  private func fill(_ count: Int) throws(SpeechError) {
    while samples.count < count, !hasEnded {
      let before = samples.count
      try source.read(into: &samples)
      hasEnded = samples.count == before
    }
  }

  private func transcribe(_ window: ArraySlice<Float>, isLast: Bool, timed: Bool) -> Result {
    // Half a step of 16 bits: nobody speaks below it, and a model would make up words.
    guard window.contains(where: { abs($0) > 1 / 65536 }) else { return ([], window.count) }
    let piece = isLast || timed ? window : window.prefix(quietestPlace(window))
    let seconds = Double(piece.count) / Double(AudioSamples.sampleRate)
    let bins = configuration.melBins
    let clock = ContinuousClock()
    var features: [Float] = []
    timings.features += clock.measure { features = piece.withUnsafeBufferPointer { extractor($0) } }
    guard features.count >= bins else { return ([], piece.count) }

    let began = clock.now
    let encoded = features.withUnsafeBufferPointer { features in
      // There is at least one frame.
      recogniser.encoder.encode(features.baseAddress!, frames: features.count / bins, workspace)
    }
    let isEncoded = clock.now
    timings.encode += isEncoded - began
    var settings = settings
    if let whisper = configuration.whisper, timed {
      settings.timestamps = TimestampRules(
        noTimestampsToken: whisper.noTimestampsToken, firstTimestamp: whisper.timestampBeginToken,
        endToken: configuration.eosToken)
    }
    let decoding = Decoding(
      recogniser.decoder, encoded: encoded.base, frames: encoded.frames, beams: settings.beams,
      capacity: settings.maxLength, workspace)
    let prompt = prompt(decoding, timed: timed)
    let tokens =
      settings.beams == 1 ? decoding.greedySearch(prompt, settings) : decoding.beamSearch(prompt, settings)
    timings.decode += clock.now - isEncoded
    if timed, let whisper = configuration.whisper {
      return TimedTokens(tokens, firstTimestamp: whisper.timestampBeginToken, seconds: seconds).result(
        samples: piece.count, recogniser.detokeniser)
    }
    return ([(0, seconds, recogniser.detokeniser(tokens))], piece.count)
  }

  /// What the decoder begins with. Finds the language out, once, if it is needed and was not given.
  private func prompt(_ decoding: Decoding, timed: Bool) -> [Int] {
    guard let whisper = configuration.whisper else { return [configuration.decoderStartToken] }
    var prompt = [configuration.decoderStartToken]
    if whisper.isMultilingual, !whisper.languages.isEmpty {
      let language = language ?? decoding.likeliestLanguage(whisper, start: configuration.decoderStartToken)
      self.language = language
      if let token = whisper.languages[language] { prompt.append(token) }
      let task = options.task == .translate ? whisper.translateToken : whisper.transcribeToken
      if let task { prompt.append(task) }
    }
    if !timed { prompt.append(whisper.noTimestampsToken) }
    return prompt
  }

  private func duration(_ samples: Int) -> Duration {
    .microseconds(samples * 1_000_000 / AudioSamples.sampleRate)
  }

  private func trim(_ text: String) -> String {
    guard let first = text.firstIndex(where: { !$0.isWhitespace }),
      let last = text.lastIndex(where: { !$0.isWhitespace })
    else { return "" }
    return String(text[first...last])
  }
}

extension Decoding {
  /// The code of the language whose token is the likeliest one after `start`; the first in the alphabet of equals.
  func likeliestLanguage(_ whisper: SpeechConfiguration.Whisper, start: Int) -> String {
    let logits = self.start([start])
    let codes = whisper.languages.keys.sorted()
    return codes.max { logits[whisper.languages[$0] ?? start] < logits[whisper.languages[$1] ?? start] } ?? ""
  }
}

/// Where a window is best cut that is followed by another: in the middle of the quietest fifth of a second of its
/// last third.
private func quietestPlace(_ window: ArraySlice<Float>) -> Int {
  let step = AudioSamples.sampleRate / 100
  let first = window.count * 2 / 3 / step
  let energies = (first..<window.count / step).map { index in
    window[(window.startIndex + index * step)..<(window.startIndex + (index + 1) * step)].reduce(0) { $0 + $1 * $1 }
  }
  guard energies.count > 20 else { return window.count }
  let sums = (0...energies.count - 20).map { energies[$0..<$0 + 20].reduce(0, +) }
  let quietest = sums.indices.min { sums[$0] < sums[$1] } ?? 0
  return (first + quietest + 10) * step
}
