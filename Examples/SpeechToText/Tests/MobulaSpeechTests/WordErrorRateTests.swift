import Testing

@testable import MobulaSpeech

@Suite struct WordErrorRateTests {
  @Test(arguments: [
    ("He was not an ill-disposed young man.", "he was not an ill disposed young man", 0, 8),
    ("he was not an old-sposed young man", "he was not an ill disposed young man", 2, 8),
    ("", "two words", 2, 2),
    ("one two three", "one three", 1, 2),
    ("I don’t know", "i don't know", 0, 3),
    ("And Mr. Dashwood", "and mister dashwood", 0, 3),
  ]) func countsWrongWords(text: String, reference: String, errors: Int, words: Int) {
    let rate = WordErrorRate(text, reference: reference)
    #expect(rate.errors == errors)
    #expect(rate.words == words)
  }

  @Test(arguments: [(0, "00:00:00,000"), (62.3456, "00:01:02,346"), (36_000.001, "10:00:00,001")])
  func timesOfSubtitles(seconds: Double, text: String) { #expect(subRipTime(seconds) == text) }

  @Test func oneFormatOfTheWeightsIsEnough() {
    let all = ["s3://m/model.safetensors", "s3://m/pytorch_model.bin", "s3://m/config.json", "s3://m/tf_model.h5"]
    #expect(DownloadModel.needed(all, under: "s3://m/") == ["s3://m/model.safetensors", "s3://m/config.json"])
    let bin = ["s3://m/model.bin", "s3://m/vocabulary.txt"]
    let others = ["s3://m/README.md", "s3://m/old/model.safetensors", "s3://m/old/config.json", "s3://m/train.tar"]
    #expect(DownloadModel.needed(bin + others, under: "s3://m/") == bin)
    let adapter = ["s3://m/adapter.safetensors", "s3://m/pytorch_model.bin"]
    #expect(DownloadModel.needed(adapter, under: "s3://m/") == adapter)
  }
}
