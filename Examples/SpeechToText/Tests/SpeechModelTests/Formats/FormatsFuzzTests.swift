import Foundation
import Testing

@testable import SpeechModel

/// SplitMix64 (Steele, Lea, Flood 2014).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }
}

/// Checkpoints with random damage. Each ends in a model or in an error; nothing is known of which.
///
/// `SPEECH_FUZZ_SEED` repeats a run, `SPEECH_FUZZ_ROUNDS` sets its length; both are printed.
struct FormatsFuzzTests {
  private static let environment = ProcessInfo.processInfo.environment
  private static let seed = environment["SPEECH_FUZZ_SEED"].flatMap(UInt64.init) ?? 20_261_123
  private static let rounds = environment["SPEECH_FUZZ_ROUNDS"].flatMap(Int.init) ?? 400

  private static let numbers: [UInt64] = [
    0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000, .max, .max - 63,
  ]

  private static func generator(_ test: String) -> SeededGenerator {
    print("FormatsFuzzTests.\(test): SPEECH_FUZZ_SEED=\(seed), \(rounds) rounds")
    return SeededGenerator(state: test.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
  }

  /// One to four changes: a bit, a number at the edge of its range, bytes gone, doubled, moved or random, or the end cut off.
  ///
  /// - Parameter focus: Where three of four changes are made: what describes the rest.
  private static func damage(
    _ file: inout [UInt8], focus: Range<Int>, _ generator: inout SeededGenerator
  ) {
    for _ in 0..<Int.random(in: 1...4, using: &generator) where !file.isEmpty {
      let focus = focus.clamped(to: 0..<file.count)
      let range = focus.isEmpty || Int.random(in: 0..<4, using: &generator) == 0 ? 0..<file.count : focus
      let position = Int.random(in: range, using: &generator)
      let count = min(Int.random(in: 1...16, using: &generator), file.count - position)
      switch Int.random(in: 0..<8, using: &generator) {
      case 0, 1: file[position] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      case 2: file[position] = UInt8.random(in: 0...255, using: &generator)
      case 3:
        let width = [1, 2, 4, 8].randomElement(using: &generator) ?? 1
        let number = bytes(numbers.randomElement(using: &generator) ?? 0).prefix(min(width, file.count - position))
        file.replaceSubrange(position..<position + number.count, with: number)
      case 4: file.removeSubrange(position..<position + count)
      case 5: file.insert(contentsOf: file[position..<position + count], at: position)
      case 6:
        let source = Int.random(in: 0...file.count - count, using: &generator)
        file.replaceSubrange(position..<position + count, with: Array(file[source..<source + count]))
      default:
        if Int.random(in: 0..<4, using: &generator) == 0 { file.removeSubrange(position...) }
      }
    }
  }

  /// Damages one file in each round, and goes as far with it as it goes.
  private func fuzz(
    _ fixture: FixtureModel, _ name: String, focus: (Int) -> Range<Int> = { 0..<$0 }, rounds: Int = rounds
  ) throws {
    var generator = Self.generator("\(fixture.rawValue)/\(name)")
    let original = try fixture.bytes(name)
    let others = try fixture.files(replacing: [:], without: [name])
    // Else all that follows would be refused for another reason than the damage.
    _ = try normalised(others + [ModelFile(name: name, contents: original)])
    var models = 0
    for round in 0..<rounds {
      var file = original
      Self.damage(&file, focus: focus(original.count), &generator)
      do {
        let model = try normalised(others + [ModelFile(name: name, contents: file)])
        // Every weight is where it is said to be, and a number.
        for tensor in model.configuration.layout {
          #expect(try model.numbers(tensor.name, tensor.shape).allSatisfy(\.isFinite), "round \(round)")
        }
        models += 1
      } catch let error as SpeechError {
        #expect(error.code == .badModel || error.code == .unsupported, "round \(round): \(error)")
        #expect(!error.message.isEmpty)
      }
    }
    print("FormatsFuzzTests: \(fixture.rawValue)/\(name): \(models) of \(rounds) were models")
  }

  @Test func safetensors() throws { try fuzz(.randomS2T, "model.safetensors", focus: { _ in 0..<11_000 }) }
  @Test func safetensorsOfBFloat16() throws { try fuzz(.tinyWhisper, "model.safetensors", focus: { _ in 0..<14_000 }) }

  /// The pickle comes first in the file, the directory last.
  @Test func pickle() throws { try fuzz(.memorisedS2T, "pytorch_model.bin", focus: { _ in 0..<11_600 }) }
  @Test func zipDirectory() throws { try fuzz(.memorisedS2T, "pytorch_model.bin", focus: { $0 - 9000..<$0 }) }
  @Test func endOfZip() throws { try fuzz(.memorisedS2T, "pytorch_model.bin", focus: { $0 - 120..<$0 }) }

  @Test(arguments: [FixtureModel.tinyWhisperFloat16, .tinyWhisperBFloat16, .tinyWhisperInt8])
  func ctranslate2(_ fixture: FixtureModel) throws { try fuzz(fixture, "model.bin") }
  @Test func beginningOfCTranslate2() throws { try fuzz(.tinyWhisperInt8, "model.bin", focus: { _ in 0..<400 }) }

  @Test(arguments: [
    (FixtureModel.memorisedS2T, "config.json"), (.memorisedS2T, "vocab.json"),
    (.memorisedS2T, "preprocessor_config.json"),
    (.tinyWhisper, "config.json"), (.tinyWhisper, "generation_config.json"), (.tinyWhisper, "vocab.json"),
    (.tinyWhisper, "added_tokens.json"), (.tinyWhisperInt8, "config.json"), (.tinyWhisperInt8, "vocabulary.json"),
    (.tinyWhisperInt8, "tokenizer.json"), (.tinyWhisperFloat16, "generation_config.json"),
  ])
  func json(_ fixture: FixtureModel, _ name: String) throws { try fuzz(fixture, name) }

  /// Numbers of configurations, each replaced by others.
  @Test(arguments: [
    (FixtureModel.memorisedS2T, "config.json"), (.tinyWhisper, "config.json"), (.tinyWhisper, "generation_config.json"),
  ])
  func numbersOfJSON(_ fixture: FixtureModel, _ name: String) throws {
    var generator = Self.generator("numbers/\(fixture.rawValue)/\(name)")
    let text = String(decoding: try fixture.bytes(name), as: UTF8.self)
    let others = try fixture.files(replacing: [:], without: [name])
    let values = [
      "0", "-1", "1", "2", "3", "7", "16", "64", "65537", "1048576", "4194304", "2147483648", "4611686018427387904",
      "9223372036854775807", "-9223372036854775808", "1e999", "-1e999", "0.5", "null", "true", "\"1\"", "[]", "{}",
    ]
    for _ in 0..<Self.rounds {
      var changed = text
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let ranges = changed.ranges(of: /-?[0-9]+(\.[0-9]+)?/)
        guard let range = ranges.randomElement(using: &generator) else { continue }
        changed.replaceSubrange(range, with: values.randomElement(using: &generator) ?? "0")
      }
      let error = speechError { _ = try normalised(others + [ModelFile(name: name, contents: changed.utf8)]) }
      if let error { #expect(error.code == .badModel || error.code == .unsupported, "\(error)") }
    }
  }

  @Test(arguments: [FixtureModel.randomS2T, .tinyWhisper])
  func normalisedModel(_ fixture: FixtureModel) throws {
    var generator = Self.generator("blob/\(fixture.rawValue)")
    let original = try blob(ModelNormaliser(files: fixture.files())).array
    let length = Int(original[0]) | Int(original[1]) << 8 | Int(original[2]) << 16
    var models = 0
    for _ in 0..<Self.rounds {
      var file = original
      Self.damage(&file, focus: 0..<8 + length, &generator)
      let owner = OwnedBytes(file)
      do {
        let model = try NormalisedModel(bytes: owner.bytes, owner: owner)
        for tensor in model.configuration.layout { _ = try model.numbers(tensor.name, tensor.shape).reduce(0, +) }
        models += 1
      } catch let error as SpeechError {
        #expect(error.code == .badModel || error.code == .unsupported, "\(error)")
      }
    }
    print("FormatsFuzzTests: blob of \(fixture.rawValue): \(models) of \(Self.rounds) were models")
  }
}
