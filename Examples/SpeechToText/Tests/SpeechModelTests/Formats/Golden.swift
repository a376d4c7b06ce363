import Foundation
import Testing

@testable import SpeechModel

/// What Tests/Goldens/formats.py read with torch, safetensors and its own few lines for CTranslate2.
struct Golden: Decodable {
  struct Tensor: Decodable {
    let shape: [Int]
    /// Of the float32 bytes.
    let crc: UInt32

    init(from decoder: any Decoder) throws {
      var container = try decoder.unkeyedContainer()
      shape = try container.decode([Int].self)
      crc = try container.decode(UInt32.self)
    }
  }

  private enum Key: String, CodingKey { case vocabulary, tensors }
  private struct Name: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  /// Of the tiny Whisper.
  let vocabulary: [String]
  let models: [String: [String: Tensor]]
  /// Of the variants of torch's files, as they are there.
  let torch: [String: [String: Tensor]]

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    vocabulary = try container.decode([String].self, forKey: .vocabulary)
    let tensors = try container.nestedContainer(keyedBy: Name.self, forKey: .tensors)
    var models: [String: [String: Tensor]] = [:]
    for key in tensors.allKeys where key.stringValue != "torch" {
      models[key.stringValue] = try tensors.decode([String: Tensor].self, forKey: key)
    }
    self.models = models
    torch = try tensors.decode([String: [String: Tensor]].self, forKey: Name(stringValue: "torch"))
  }

  static func read() throws -> Golden {
    try JSONDecoder().decode(
      Golden.self, from: Data(contentsOf: URL(fileURLWithPath: "\(fixtures)/formats-golden.json")))
  }
}

/// A model has the golden's tensors and no others, number for number; those that are generated are left out.
func expect(_ model: NormalisedModel, equals golden: [String: Golden.Tensor]) throws {
  let names = Set(model.configuration.layout.map(\.name))
  #expect(names == Set(golden.keys))
  try withExtendedLifetime(model) {
    for (name, expected) in golden {
      let tensor = try model.tensor(name, expected.shape)
      #expect(Int(bitPattern: tensor.base) % 64 == 0)
      let bytes = UnsafeRawBufferPointer(start: tensor.base, count: 4 * tensor.count)
      #expect(crc32(bytes) == expected.crc, "\(name)")
    }
  }
}

extension NormalisedModel {
  /// A tensor's numbers, copied.
  func numbers(_ name: String, _ shape: [Int]) throws -> [Float] {
    let tensor = try tensor(name, shape)
    return withExtendedLifetime(self) { Array(UnsafeBufferPointer(start: tensor.base, count: tensor.count)) }
  }
}

private let crcTable: [UInt32] = (0..<256).map { byte in
  (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0xEDB8_8320 : value >> 1 }
}

/// The CRC-32 of ZIP and zlib.
func crc32(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
  crcTable.withUnsafeBufferPointer { table in
    ~bytes.reduce(~UInt32(0)) { $0 >> 8 ^ table[Int(($0 ^ UInt32($1)) & 0xFF)] }
  }
}
