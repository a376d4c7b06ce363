internal import Foundation

/// A model in the one format that is computed with: a safetensors file of 64-byte-aligned float32 tensors
/// under transformers' names, with its configuration and vocabulary in the metadata.
///
/// Its tensors are used where they lie, so any number of recognisers share one mapping. `ModelNormaliser` writes it.
public final class NormalisedModel: @unchecked Sendable {
  /// The value of `format` in the metadata.
  static let format = "mobula-speech-1"

  public let configuration: SpeechConfiguration
  /// The text of each token, by its number, as in the checkpoint: Speech2Text's pieces with `▁`,
  /// Whisper's bytes in GPT-2's alphabet. "" where there is none; `configuration.vocabularySize` long.
  public let vocabulary: [String]
  /// Of the whole blob.
  public let byteCount: Int
  /// Every tensor, at an offset that was checked. The bytes belong to the owner and aren't written to by anybody:
  /// the reason that this may be `Sendable`.
  private let tensors: [String: (offset: Int, shape: [Int])]
  private let bytes: UnsafeRawBufferPointer
  private let owner: any AnyObject & Sendable

  /// Checks a blob, without reading its weights: every offset and shape, the alignment, the configuration.
  ///
  /// - Parameters:
  ///   - bytes: The blob, from an address that is a multiple of 64 (a page is); unchanged as long as `owner` lives.
  ///   - owner: What keeps the bytes.
  /// - Throws: `badModel`, saying what is wrong with it.
  public init(bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) throws(SpeechError) {
    // First, so that the bytes are kept while they are read.
    self.owner = owner
    self.bytes = bytes
    byteCount = bytes.count
    let name = "The normalised model"
    let header = try SafetensorsHeader(bytes, name: name)
    guard header.metadata["format"] == Self.format else {
      throw SpeechError(
        .badModel, "\(name) is not of the format \(Self.format): normalise the checkpoint with ModelNormaliser.")
    }
    guard header.dataStart % SafetensorsHeader.alignment == 0,
      Int(bitPattern: bytes.baseAddress) % SafetensorsHeader.alignment == 0
    else {
      throw SpeechError(.badModel, "\(name) doesn't begin at a multiple of 64 bytes: map it or copy it to one.")
    }
    configuration = try Self.configuration(header.metadata, name)
    vocabulary = try Self.vocabulary(header.metadata, configuration.vocabularySize, name)

    var tensors: [String: (offset: Int, shape: [Int])] = [:]
    for entry in header.entries {
      guard entry.type == "F32", entry.range.lowerBound % SafetensorsHeader.alignment == 0 else {
        throw SpeechError(.badModel, "\(name) has \(entry.name) not as aligned F32: normalise the checkpoint again.")
      }
      guard tensors.updateValue((entry.range.lowerBound, entry.shape), forKey: entry.name) == nil else {
        throw SpeechError(.badModel, "\(name) has two tensors with the name \(entry.name): normalise it again.")
      }
    }
    for tensor in configuration.layout {
      guard let found = tensors[tensor.name] else {
        throw SpeechError(.badModel, "\(name) lacks \(tensor.name): normalise the checkpoint again.")
      }
      guard found.shape == tensor.shape else {
        throw SpeechError(
          .badModel,
          "\(name) has \(tensor.name) of shape \(found.shape), and its configuration wants \(tensor.shape).")
      }
    }
    self.tensors = tensors
  }

  /// Maps a file of it read-only.
  ///
  /// - Throws: `system`, if it can't be mapped, and as `init(bytes:owner:)`.
  public static func open(path: String) throws(SpeechError) -> NormalisedModel {
    let file = try MappedFile(path: path)
    return try NormalisedModel(bytes: file.bytes, owner: file)
  }

  /// A tensor in place, valid as long as this model.
  ///
  /// - Throws: `badModel`, if there is none of that name, or of another shape.
  public func tensor(_ name: String, _ shape: [Int]) throws(SpeechError) -> Tensor {
    guard let found = tensors[name], let base = bytes.baseAddress else {
      throw SpeechError(.badModel, "The normalised model has no tensor with the name \(name): normalise it again.")
    }
    guard found.shape == shape else {
      throw SpeechError(.badModel, "The normalised model has \(name) of shape \(found.shape), not \(shape).")
    }
    // `init` checked that the tensor lies within the bytes, aligned; nobody uses the memory as another type.
    return Tensor(base: (base + found.offset).assumingMemoryBound(to: Float.self), shape: shape)
  }

  private static func configuration(
    _ metadata: [String: String], _ name: String
  ) throws(SpeechError) -> SpeechConfiguration {
    let configuration: SpeechConfiguration
    do {
      configuration = try JSONDecoder().decode(SpeechConfiguration.self, from: Data((metadata["config"] ?? "").utf8))
    } catch {
      throw SpeechError(.badModel, "\(name) has no readable config in its metadata: normalise the checkpoint again.")
    }
    guard metadata["family"] == configuration.family.rawValue else {
      throw SpeechError(.badModel, "\(name) names two families in its metadata: normalise the checkpoint again.")
    }
    return try configuration.checked(name)
  }

  private static func vocabulary(
    _ metadata: [String: String], _ size: Int, _ name: String
  ) throws(SpeechError) -> [String] {
    let text = OwnedBytes(Array((metadata["vocabulary"] ?? "").utf8))
    let value = try withExtendedLifetime(text) { () throws(SpeechError) in
      try JSONValue.parse(text.bytes, name: "The vocabulary of \(name)")
    }
    guard let tokens = value.array, tokens.count == size else {
      throw SpeechError(.badModel, "\(name) has no vocabulary of \(size) tokens: normalise the checkpoint again.")
    }
    return tokens.map { $0.string ?? "" }
  }
}
