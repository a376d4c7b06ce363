import Foundation
import Testing

@testable import SpeechModel

@Suite("Timed tokens")
struct TimedTokensTests {
  private struct Cut: Decodable {
    struct Segment: Decodable {
      let start: Double
      let end: Double
      let tokens: [Int]
    }
    let tokens: [Int]
    /// Of features, 10 ms each.
    let frames: Int
    let segments: [Segment]
  }

  @Test("A window is cut as transformers does")
  func cuts() throws {
    let path = "\(Bundle.module.bundlePath)/Fixtures/goldens/timed-tokens.json"
    let cuts = try JSONDecoder().decode([Cut].self, from: Data(contentsOf: URL(fileURLWithPath: path)))
    let model = try normalised(ModelFile.directory("\(Bundle.module.bundlePath)/Fixtures/random-whisper"))
    for cut in cuts {
      let timed = TimedTokens(cut.tokens, firstTimestamp: 100, seconds: 30)
      let result = timed.result(samples: 480_000, Detokeniser(model))
      // Two differences: nothing ends behind its window, and a window of which nothing is used isn't repeated.
      #expect(result.consumed == (cut.frames == 0 ? 480_000 : cut.frames * 160), "\(cut)")
      #expect(result.segments.map(\.start) == cut.segments.map(\.start), "\(cut)")
      for (segment, golden) in zip(result.segments, cut.segments) {
        #expect(abs(segment.end - min(30, golden.end)) < 1e-9, "\(cut)")
        #expect(segment.text == Detokeniser(model)(golden.tokens))
      }
    }
  }
}
