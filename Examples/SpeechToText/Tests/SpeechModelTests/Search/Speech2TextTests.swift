import Testing

@testable import SpeechModel

@Suite("Speech2Text")
struct Speech2TextTests {
  @Test("Encoder and logits of a random model are those of transformers")
  func random() throws {
    let model = try FixtureModel.randomS2T.model()
    let workspace = Workspace()
    let features = Goldens.speech2text["random.feat"]
    let frames = Goldens.speech2text.shape("random.feat")[0]
    let (encoded, count) = features.withUnsafeBufferPointer { features in
      try! AudioEncoder(model).encode(features.baseAddress!, frames: frames, workspace)
    }
    let width = model.configuration.dModel
    let difference = largestDifference(
      Array(UnsafeBufferPointer(start: encoded, count: count * width)), Goldens.speech2text["random.enc"])
    print("random-s2t encoder: \(difference)")
    #expect(difference < 1e-4)

    let tokens = [2, 5, 9, 7]
    let decoding = Decoding(
      try TokenDecoder(model), encoded: encoded, frames: count, beams: 1, capacity: 8, workspace)
    let golden = Goldens.speech2text["random.logits"]
    let size = model.configuration.vocabularySize
    let together = decoding.step(tokens.enumerated().map { .init(token: $1, position: $0, beam: 0) })
    let all = largestDifference(Array(UnsafeBufferPointer(start: together, count: tokens.count * size)), golden)
    print("random-s2t logits: \(all)")
    #expect(all < 1e-4)
    for (position, token) in tokens.enumerated() {
      let row = decoding.step([.init(token: token, position: position, beam: 0)])
      let part = Array(golden[position * size..<(position + 1) * size])
      #expect(largestDifference(Array(UnsafeBufferPointer(start: row, count: size)), part) < 1e-4)
    }
  }

  @Test(
    "Searches find what transformers finds in synthetic audio",
    arguments: [FixtureModel.randomS2T, .memorisedS2T], Signals.synthetic)
  func synthetic(model: FixtureModel, signal: String) throws { try compare(model, signal) }

  @Test(
    "Searches find what transformers finds in cut and mixed recordings", .enabled(if: Signals.hasClips),
    arguments: [FixtureModel.randomS2T, .memorisedS2T], Signals.recorded)
  func recorded(model: FixtureModel, signal: String) throws { try compare(model, signal) }

  private func compare(_ fixture: FixtureModel, _ signal: String) throws {
    let model = try fixture.model()
    let features = KaldiFilterBank(bands: 80, normalizeMeans: true, normalizeVariances: true)
    let values = try Signals.named(signal).samples.withUnsafeBufferPointer { features($0) }
    for golden in try #require(Goldens.searches("speech2text")[fixture.rawValue]?[signal]) {
      let workspace = Workspace()
      let (encoded, frames) = try values.withUnsafeBufferPointer {
        try AudioEncoder(model).encode($0.baseAddress!, frames: values.count / 80, workspace)
      }
      let settings = SearchSettings(
        beams: golden.numBeams, maxLength: golden.maxLength ?? 20, earlyStopping: golden.earlyStopping ?? false,
        lengthPenalty: golden.lengthPenalty ?? 1, endToken: 2)
      let decoding = Decoding(
        try TokenDecoder(model), encoded: encoded, frames: frames, beams: settings.beams, capacity: settings.maxLength,
        workspace)
      let tokens =
        golden.numBeams == 1 ? decoding.greedySearch([2], settings) : decoding.beamSearch([2], settings)
      #expect(tokens == golden.tokens, "\(fixture) \(signal) \(golden)")
    }
  }
}
