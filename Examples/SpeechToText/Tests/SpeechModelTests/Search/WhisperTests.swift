import Foundation
import Testing

@testable import SpeechModel

@Suite("Whisper")
struct WhisperTests {
  private let samples = 48000
  private let frames = 300

  private func model() throws -> NormalisedModel {
    try normalised(ModelFile.directory("\(Bundle.module.bundlePath)/Fixtures/random-whisper"))
  }

  private func features(_ signal: String) throws -> [Float] {
    let features = LogMelSpectrogram(bands: 80)
    return try Signals.named(signal).samples.prefix(samples).withUnsafeBufferPointer { features($0, frames: frames) }
  }

  @Test("The log-mel spectrogram is that of transformers", arguments: ["tones", "burst"])
  func logMel(signal: String) throws {
    let difference = largestDifference(try features(signal), Goldens.whisper["features.\(signal)"])
    print("log-mel \(signal): \(difference)")
    #expect(difference < 1e-3)
  }

  @Test("Encoder and logits of a random model are those of transformers")
  func random() throws {
    let model = try model()
    let workspace = Workspace()
    let (encoded, count) = try Goldens.whisper["features.tones"].withUnsafeBufferPointer {
      try AudioEncoder(model).encode($0.baseAddress!, frames: frames, workspace)
    }
    let width = model.configuration.dModel
    let difference = largestDifference(
      Array(UnsafeBufferPointer(start: encoded, count: count * width)), Goldens.whisper["encoder"])
    print("random-whisper encoder: \(difference)")
    #expect(difference < 1e-4)

    let decoding = Decoding(
      try TokenDecoder(model), encoded: encoded, frames: count, beams: 1, capacity: 8, workspace)
    let tokens = Goldens.whisper["tokens"].map { Int($0) }
    let golden = Goldens.whisper["logits"]
    let size = model.configuration.vocabularySize
    let together = decoding.step(tokens.enumerated().map { .init(token: $1, position: $0, beam: 0) })
    let all = largestDifference(Array(UnsafeBufferPointer(start: together, count: tokens.count * size)), golden)
    print("random-whisper logits: \(all)")
    #expect(all < 1e-4)
  }

  @Test("Searches find what transformers finds in synthetic audio", arguments: Signals.synthetic)
  func synthetic(signal: String) throws { try compare(signal) }

  @Test(
    "Searches find what transformers finds in cut and mixed recordings", .enabled(if: Signals.hasClips),
    arguments: Signals.recorded)
  func recorded(signal: String) throws { try compare(signal) }

  private func compare(_ signal: String) throws {
    let recogniser = try SpeechRecogniser(model())
    let whisper = try #require(recogniser.model.configuration.whisper)
    let values = try features(signal)
    for golden in try #require(Goldens.searches("whisper")["random-whisper"]?[signal]) {
      let workspace = Workspace()
      let (encoded, count) = values.withUnsafeBufferPointer {
        recogniser.encoder.encode($0.baseAddress!, frames: frames, workspace)
      }
      var settings = try recogniser.settings(
        TranscriptionOptions(beams: golden.numBeams, language: golden.language, maxLength: golden.maxLength))
      settings.earlyStopping = golden.earlyStopping ?? false
      settings.lengthPenalty = golden.lengthPenalty ?? 1
      let decoding = Decoding(
        recogniser.decoder, encoded: encoded, frames: count, beams: settings.beams, capacity: settings.maxLength,
        workspace)
      let prompt = try #require(golden.prompt)
      if golden.language == nil {
        let language = decoding.likeliestLanguage(whisper, start: prompt[0])
        #expect(whisper.languages[language] == prompt[1])
      }
      if golden.returnTimestamps ?? false {
        settings.timestamps = TimestampRules(
          noTimestampsToken: whisper.noTimestampsToken, firstTimestamp: whisper.timestampBeginToken,
          endToken: settings.endToken)
      }
      let tokens =
        golden.numBeams == 1 ? decoding.greedySearch(prompt, settings) : decoding.beamSearch(prompt, settings)
      #expect(tokens == golden.tokens, "\(signal) \(golden)")
    }
  }
}
