import Foundation

@testable import SpeechModel

/// The audio of Tests/Goldens/signals.py: 16-bit samples.
enum Signals {
  static let librivox = "/usr/share/pocketsphinx/test/data/librivox"
  static let clips = ["0870", "0880", "0890", "0920", "0930"].map { "sense_and_sensibility_01_austen_64kb-\($0)" }

  /// Whether Debian's pocketsphinx-testdata is there; says if not.
  static let hasClips: Bool = {
    let found = clips.allSatisfy { FileManager.default.fileExists(atPath: path($0)) }
    if !found { print("skipped: pocketsphinx-testdata is not installed") }
    return found
  }()

  static func path(_ clip: String) -> String { "\(librivox)/\(clip).wav" }

  static func noise(_ seed: UInt32, _ count: Int, shift: Int = 2) -> [Int] {
    var state = seed
    return (0..<count).map { _ in
      state = state &* 1_664_525 &+ 1_013_904_223
      return (Int(state >> 16) - 32768) >> shift
    }
  }

  static func tones(_ seed: UInt32, _ count: Int) -> [Int] {
    var (state, phase, step, loudness) = (seed, 0, 0, 0)
    let hiss = noise(seed + 1, count, shift: 7)
    return (0..<count).map { index in
      if index % 1600 == 0 {
        state = state &* 1_664_525 &+ 1_013_904_223
        (step, loudness) = (200 + Int(state >> 16) % 6000, Int(state >> 8) % 8)
      }
      phase = (phase + step) % 65536
      return ((abs(phase - 32768) - 16384) >> loudness) + hiss[index]
    }
  }

  static func mixture(_ a: [Int], _ b: [Int]) -> [Int] { zip(a, b).map { ($0 + $1) >> 1 } }

  static func clip(_ number: Int) throws -> [Int] {
    try AudioSamples(path: path(clips[number])).samples.map { Int($0 * 32768) }
  }

  /// The signal with a name; those from recordings are there if the clips are.
  static func named(_ name: String) throws -> AudioSamples {
    let samples: [Int] =
      switch name {
      case "noise": noise(1, 24000)
      case "quiet": noise(2, 32000, shift: 9)
      case "tones": tones(3, 40000)
      case "tones-2": tones(4, 30011)
      case "mixture": mixture(tones(5, 36000), noise(6, 36000, shift: 4))
      case "burst": Array(repeating: 0, count: 8000) + tones(7, 9000) + Array(repeating: 0, count: 8000)
      case "cut-1": Array(try clip(0)[..<24000])
      case "cut-2": Array(try clip(1)[16000...])
      case "cut-3": Array(try clip(2)[8000..<56000])
      case "mixture-1": mixture(try clip(0), try clip(3))
      case "mixture-2": mixture(try clip(2), try clip(4))
      case "noisy": mixture(try clip(3), noise(8, try clip(3).count, shift: 3))
      case "joined": Array(try clip(4)[..<30000] + clip(1)[..<40000])
      default: []
      }
    return try AudioSamples(samples.map { Float($0) / 32768 })
  }

  static let synthetic = ["noise", "quiet", "tones", "tones-2", "mixture", "burst"]
  static let recorded = ["cut-1", "cut-2", "cut-3", "mixture-1", "mixture-2", "noisy", "joined"]
}
