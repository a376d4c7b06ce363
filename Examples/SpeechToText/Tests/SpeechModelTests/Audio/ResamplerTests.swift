import Foundation
import Testing

@testable import SpeechModel

@Suite("Resampler")
struct ResamplerTests {
  private func sine(_ frequency: Double, _ sampleRate: Int, _ count: Int) -> [Float] {
    (0..<count).map { Float(sin(2 * .pi * frequency * Double($0) / Double(sampleRate))) }
  }

  @Test(
    "A tone stays the same tone, in time and loudness",
    arguments: [8000, 11025, 16000, 22050, 32000, 44100, 47999, 48000, 96000, 192_000])
  func tone(sampleRate: Int) throws {
    let result = try AudioSamples(sine(1000, sampleRate, sampleRate), sampleRate: sampleRate).samples
    #expect(result.count == 16000)
    let expected = sine(1000, 16000, 16000)
    // The first and last hundredth of a second hear the silence around the tone.
    #expect(largestDifference(Array(result[160..<15840]), Array(expected[160..<15840])) < 1e-3)
  }

  @Test("What is above the new rate's half is damped by 80 dB", arguments: [8100.0, 10000, 20000])
  func aliases(frequency: Double) throws {
    let result = try AudioSamples(sine(frequency, 48000, 48000), sampleRate: 48000).samples
    #expect(result[320..<15680].allSatisfy { abs($0) < 1e-4 })
  }

  @Test("Pieces come to the same as the whole")
  func pieces() {
    let samples = sine(700, 44100, 30000)
    var whole: [Float] = []
    var resampler = Resampler(from: 44100, to: 16000)
    resampler.resample(samples, into: &whole)
    resampler.finish(into: &whole)

    var inPieces: [Float] = []
    resampler = Resampler(from: 44100, to: 16000)
    var (start, size) = (0, 1)
    while start < samples.count {
      resampler.resample(samples[start..<min(samples.count, start + size)], into: &inPieces)
      (start, size) = (start + size, size * 3 % 4999)
    }
    resampler.finish(into: &inPieces)
    #expect(inPieces == whole)
  }
}
