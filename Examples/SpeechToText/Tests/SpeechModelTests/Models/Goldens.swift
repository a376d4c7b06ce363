import Foundation

@testable import SpeechModel

/// What the scripts in Tests/Goldens wrote with transformers 4.40.2.
enum Goldens {
  static let speech2text = GoldenTensors("speech2text")
  static let whisper = GoldenTensors("whisper")

  /// The tokens that searches find, by model and signal.
  static func searches(_ name: String) throws -> [String: [String: [GoldenSearch]]] {
    let data = try Data(contentsOf: URL(fileURLWithPath: "\(Bundle.module.bundlePath)/Fixtures/goldens/\(name).json"))
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode([String: [String: [GoldenSearch]]].self, from: data)
  }
}

/// One search: `generate`'s arguments and its result without start and end token.
struct GoldenSearch: Decodable {
  let numBeams: Int
  let maxLength: Int?
  let earlyStopping: Bool?
  let lengthPenalty: Double?
  let returnTimestamps: Bool?
  let language: String?
  let task: String?
  /// What Whisper is prompted with, the detected language included.
  let prompt: [Int]?
  let tokens: [Int]
}

/// Float32 tensors of a safetensors file.
struct GoldenTensors {
  private let file: MappedFile?
  private let header: SafetensorsHeader?

  init(_ name: String) {
    file = try? MappedFile(path: "\(Bundle.module.bundlePath)/Fixtures/goldens/\(name).safetensors")
    header = file.flatMap { try? SafetensorsHeader($0.bytes, name: name) }
  }

  /// Its numbers; none if there is no such tensor.
  subscript(_ name: String) -> [Float] {
    guard let file, let entry = header?.entries.first(where: { $0.name == name }) else { return [] }
    let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[entry.range])
    return (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
  }

  func shape(_ name: String) -> [Int] { header?.entries.first { $0.name == name }?.shape ?? [] }
}

/// The largest difference; infinite for different lengths.
func largestDifference(_ a: [Float], _ b: [Float]) -> Float {
  guard a.count == b.count else { return .infinity }
  return zip(a, b).reduce(0) { $1.0.isFinite && $1.1.isFinite ? max($0, abs($1.0 - $1.1)) : .infinity }
}
