import Foundation
import Testing

@testable import SpeechModel

/// The models among the fixtures.
///
/// memorised-s2t is a fixture, not a recogniser: it memorised five clips. The others are random.
enum FixtureModel: String, CaseIterable {
  case memorisedS2T = "memorised-s2t"
  case randomS2T = "random-s2t"
  case tinyWhisper = "tiny-whisper"
  case tinyWhisperFloat16 = "tiny-whisper-ctranslate2-float16"
  case tinyWhisperBFloat16 = "tiny-whisper-ctranslate2-bfloat16"
  case tinyWhisperInt8 = "tiny-whisper-ctranslate2-int8_float16"

  var directory: String { "\(fixtures)/\(rawValue)" }

  /// Its files; random-s2t has no vocabulary, so it is given one.
  func files() throws -> [ModelFile] {
    var files = try ModelFile.directory(directory)
    if self == .randomS2T {
      let vocabulary = (0..<60).map { "\"▁t\($0)\":\($0)" }.joined(separator: ",")
      files.append(ModelFile(name: "vocab.json", contents: "{\(vocabulary)}".utf8))
    }
    return files
  }

  /// Its files, with some in place of others or added.
  func files(replacing: [String: [UInt8]], without: Set<String> = []) throws -> [ModelFile] {
    try files().filter { replacing[$0.name] == nil && !without.contains($0.name) }
      + replacing.map { ModelFile(name: $0.key, contents: $0.value) }
  }

  /// The bytes of one of its files.
  func bytes(_ name: String) throws -> [UInt8] {
    let file = try #require(try files().first { $0.name == name })
    return withExtendedLifetime(file) { Array(file.bytes) }
  }

  /// Normalised, in memory.
  func model() throws -> NormalisedModel { try normalised(files()) }
}

let fixtures = "\(Bundle.module.bundlePath)/Fixtures"

/// A checkpoint normalised in memory.
func normalised(_ files: [ModelFile]) throws -> NormalisedModel {
  let normaliser = try ModelNormaliser(files: files)
  let owner = try blob(normaliser)
  return try NormalisedModel(bytes: owner.bytes, owner: owner)
}

/// Its bytes are valid as long as it is held, for instance by `array`.
func blob(_ normaliser: ModelNormaliser) throws -> OwnedBytes {
  try OwnedBytes(count: normaliser.size) { (memory) throws(SpeechError) in try normaliser.write(into: memory) }
}

extension OwnedBytes {
  var array: [UInt8] { withExtendedLifetime(self) { Array(bytes) } }
}

/// The error that a body throws, or `nil`: for expectations on its text.
func speechError(_ body: () throws -> Void) -> SpeechError? {
  do { try body() } catch { return error as? SpeechError }
  return nil
}
