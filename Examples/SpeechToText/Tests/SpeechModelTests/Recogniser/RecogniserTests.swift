import Foundation
import Testing

@testable import SpeechModel

@Suite("Recogniser")
struct RecogniserTests {
  static let transcripts = [
    "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do for them",
    "he was not an ill disposed young man",
    "unless to be rather cold hearted and rather selfish is to be ill disposed",
    "had he married a more a amiable woman he might have been made still more respectable than he was",
    "he might even have been made amiable himself",
  ]

  /// Whisper tiny.en in any form, where this variable says; says if not.
  static let tiny: String? = {
    let path = ProcessInfo.processInfo.environment["SPEECH_WHISPER_TINY_EN"]
    if path == nil { print("skipped: SPEECH_WHISPER_TINY_EN names no directory of Whisper tiny.en") }
    return path
  }()

  /// memorised-s2t is a fixture, not a recogniser: it memorised these five clips.
  @Test("The memorised model returns its five sentences", .enabled(if: Signals.hasClips), arguments: [1, 5])
  func memorised(beams: Int) throws {
    let recogniser = try SpeechRecogniser(FixtureModel.memorisedS2T.model())
    for (clip, transcript) in zip(Signals.clips, Self.transcripts) {
      let result = try recogniser.transcribe(
        path: Signals.path(clip), options: TranscriptionOptions(beams: beams, maxLength: 96))
      #expect(result.text == transcript)
    }
  }

  @Test(
    "tiny.en makes at most 5% word errors", .enabled(if: Signals.hasClips && RecogniserTests.tiny != nil),
    arguments: [1, 5])
  func tinyEnglish(beams: Int) throws {
    let recogniser = try SpeechRecogniser(normalised(ModelFile.directory(try #require(Self.tiny))))
    var (errors, count) = (0, 0)
    for (clip, transcript) in zip(Signals.clips, Self.transcripts) {
      let result = try recogniser.transcribe(path: Signals.path(clip), options: TranscriptionOptions(beams: beams))
      print(result.text, result.timings)
      errors += wordErrors(result.text.replacing("Mr.", with: "mister"), transcript)
      count += words(transcript).count
    }
    print("tiny.en, \(beams) beams: \(errors) errors in \(count) words")
    #expect(errors * 20 <= count)
  }

  /// The random model's windows are of 3 s, so that everything about windows but their text is seen.
  @Test("Long audio is taken in windows that cover it", arguments: [true, false])
  func windows(timestamps: Bool) throws {
    let recogniser = try SpeechRecogniser(randomWhisper())
    let samples = Signals.tones(31, 200_123)
    let audio = try AudioSamples(samples.map { Float($0) / 32768 })
    var done: [Duration] = []
    var segments: [Transcription.Segment] = []
    let options = TranscriptionOptions(beams: 1, timestamps: timestamps)
    let result = try recogniser.transcribe(audio, options: options) { progress in
      done.append(progress.done)
      segments += progress.segments
    }
    #expect(result.audio == audio.duration)
    #expect(done == done.sorted() && Set(done).count == done.count && done.count > 4)
    #expect(!segments.isEmpty)
    #expect(segments == result.segments)
    #expect(zip(segments, segments.dropFirst()).allSatisfy { $0.start <= $1.start })
    #expect(segments.allSatisfy { $0.start <= $0.end && $0.end <= audio.duration + .milliseconds(1) })
    if !timestamps { #expect(zip(segments, segments.dropFirst()).allSatisfy { $0.end == $1.start }) }

    let folder = try TemporaryFolder()
    let path = try folder.file("a.wav", WAV.file(WAV.integers(samples), sampleRate: 16000))
    let fromFile = try recogniser.transcribe(path: path, options: options)
    #expect(fromFile.segments == result.segments && fromFile.text == result.text)
  }

  @Test("What progress throws ends the transcription")
  func cancelled() throws {
    let recogniser = try SpeechRecogniser(randomWhisper())
    let audio = try AudioSamples(Signals.tones(32, 200_000).map { Float($0) / 32768 })
    var calls = 0
    let error = #expect(throws: SpeechError.self) {
      try recogniser.transcribe(audio, options: TranscriptionOptions(beams: 1)) { (_) throws(SpeechError) in
        calls += 1
        throw SpeechError(.system, "Cancelled.")
      }
    }
    #expect(calls == 1 && error?.message == "Cancelled.")
  }

  @Test("Silence and a click have no text")
  func silence() throws {
    for model in [try randomWhisper(), try FixtureModel.memorisedS2T.model()] {
      let recogniser = try SpeechRecogniser(model)
      let silent = try recogniser.transcribe(AudioSamples(Array(repeating: 0, count: 16000 * 40)))
      #expect(silent.text.isEmpty && silent.segments.isEmpty && silent.audio == .seconds(40))
    }
    let recogniser = try SpeechRecogniser(FixtureModel.memorisedS2T.model())
    let click = try recogniser.transcribe(AudioSamples(Array(repeating: 1, count: 399)))
    #expect(click.text.isEmpty)
    #expect(click.warnings == ["The audio has no text: it is 24 ms long, and the model's features take 25 ms."])
    #expect(try recogniser.transcribe(AudioSamples(Array(repeating: 0, count: 400))).warnings.isEmpty)
    #expect(try recogniser.transcribe(AudioSamples(Array(repeating: 0.5, count: 16000))).audio == .seconds(1))
  }

  @Test("Several transcriptions at once come to the same as one")
  func concurrent() async throws {
    let recogniser = try SpeechRecogniser(randomWhisper())
    let audio = try AudioSamples(Signals.tones(33, 150_000).map { Float($0) / 32768 })
    let options = TranscriptionOptions(beams: 3)
    let alone = try recogniser.transcribe(audio, options: options)
    try await withThrowingTaskGroup(of: Transcription.self) { group in
      for _ in 0..<4 { group.addTask { try recogniser.transcribe(audio, options: options) } }
      for try await result in group { #expect(result.text == alone.text && result.segments == alone.segments) }
    }
  }

  @Test("The language is found out, or taken as given")
  func language() throws {
    let recogniser = try SpeechRecogniser(randomWhisper())
    // As in goldens/whisper.json: 260 is German's token.
    #expect(try recogniser.transcribe(Signals.named("tones")).language == "de")
    let options = TranscriptionOptions(language: "yue", task: .translate)
    #expect(try recogniser.transcribe(Signals.named("tones"), options: options).language == "yue")
  }

  @Test("Options that a model can't follow are refused")
  func options() throws {
    let whisper = try SpeechRecogniser(randomWhisper())
    let speech2text = try SpeechRecogniser(FixtureModel.memorisedS2T.model())
    func refused(_ recogniser: SpeechRecogniser, _ options: TranscriptionOptions, _ part: String) throws {
      let error = try #require(throws: SpeechError.self) {
        try recogniser.transcribe(Signals.named("tones"), options: options)
      }
      #expect(error.code == .unsupported)
      #expect(error.message.contains(part))
    }
    for beams in [0, -1, 33, Int.max] { try refused(whisper, TranscriptionOptions(beams: beams), "beams") }
    for length in [0, -1, 4, 65, Int.max, Int.min] {
      try refused(whisper, TranscriptionOptions(maxLength: length), "tokens")
    }
    try refused(whisper, TranscriptionOptions(language: "xx"), "de, en, es, ru, yue, zh")
    try refused(speech2text, TranscriptionOptions(language: "de"), "de")
    try refused(speech2text, TranscriptionOptions(task: .translate), "translate")
  }

  @Test(
    "tiny.en transcribes and times audio that is longer than a window",
    .enabled(if: Signals.hasClips && RecogniserTests.tiny != nil))
  func long() throws {
    let recogniser = try SpeechRecogniser(normalised(ModelFile.directory(try #require(Self.tiny))))
    let order = [0, 3, 2, 1, 4, 0, 3, 2]
    var samples: [Float] = []
    for clip in order {
      samples += try AudioSamples(path: Signals.path(Signals.clips[clip])).samples
      samples += Array(repeating: 0, count: 8000)
    }
    for timestamps in [nil, false] as [Bool?] {
      let audio = try AudioSamples(samples)
      let result = try recogniser.transcribe(
        audio, options: TranscriptionOptions(beams: 5, timestamps: timestamps))
      let reference = order.map { Self.transcripts[$0] }.joined(separator: " ")
      let errors = wordErrors(result.text.replacing("Mr.", with: "mister"), reference)
      print("\(audio.duration), timestamps \(timestamps as Any): \(errors) errors in \(words(reference).count) words")
      for segment in result.segments { print(segment.start, segment.end, segment.text) }
      #expect(errors * 10 <= words(reference).count)
    }
  }

  private func randomWhisper() throws -> NormalisedModel {
    try normalised(ModelFile.directory("\(Bundle.module.bundlePath)/Fixtures/random-whisper"))
  }
}
