import Testing

@testable import SpeechModel

@Suite("Features")
struct FeatureTests {
  @Test("Kaldi's filter bank is that of transformers", arguments: ["tones", "burst"])
  func kaldi(signal: String) throws {
    let features = KaldiFilterBank(bands: 80, normalizeMeans: true, normalizeVariances: true)
    let result = try Signals.named(signal).samples.withUnsafeBufferPointer { features($0) }
    let difference = largestDifference(result, Goldens.speech2text["features.\(signal)"])
    print("kaldi \(signal): \(difference)")
    #expect(difference < 1e-3)
  }
}
