internal import Foundation

/// A model as it was published, read but for the weights, which are described under transformers' names.
struct Checkpoint {
  let configuration: SpeechConfiguration
  let vocabulary: [String]
  /// Without the leading `model.`; CTranslate2's, renamed, are fused already.
  let tensors: [String: StoredTensor]
  /// What to call the weights in an error.
  let name: String
  /// Sentences about what was left out.
  let warnings: [String]

  /// What the output layer is called, which is tied to the token embeddings.
  static let heads = ["lm_head.weight", "proj_out.weight"]
  private static let embeddings = "decoder.embed_tokens.weight"
  /// Of generated position embeddings, which no file's size bounds.
  private static let maximumGeneratedPositions = 1 << 14

  /// - Throws: as `ModelNormaliser.init`.
  init(_ files: [ModelFile]) throws(SpeechError) {
    let files = try ModelFiles(files)
    if let file = files["model.bin"], !files.hasHuggingFaceWeights {
      let model = try CTranslate2Model(file)
      name = file.name
      let config = try CTranslate2Configuration(model, files)
      (configuration, vocabulary) = (config.configuration, config.vocabulary.tokens)
      warnings = config.vocabulary.warnings
      tensors = Self.tied(model.renamed())
    } else {
      let weights = try files.huggingFaceWeights()
      name = weights.name
      let config = try HuggingFaceConfiguration(files)
      (configuration, vocabulary) = (config.configuration, config.vocabulary.tokens)
      warnings = config.vocabulary.warnings
      tensors = Self.tied(weights.tensors)
    }
  }

  /// A tied weight under the name of the embeddings: some tools store it once, under that of the output layer.
  private static func tied(_ tensors: [String: StoredTensor]) -> [String: StoredTensor] {
    guard tensors[embeddings] == nil, let head = heads.lazy.compactMap({ tensors[$0] }).first else { return tensors }
    return tensors.merging([embeddings: head]) { own, _ in own }
  }

  /// Where the numbers of a normalised tensor come from.
  ///
  /// - Throws: `badModel`, if one is missing or has another shape than the configuration says.
  func parts(of tensor: TensorDescription) throws(SpeechError) -> [TensorPart] {
    if tensor.name.contains("conv"), tensor.shape.count == 3 {
      let (outputs, kernel, inputs) = (tensor.shape[0], tensor.shape[1], tensor.shape[2])
      return [.convolution(try stored(tensor.name, [outputs, inputs, kernel]))]
    }
    if tensors[tensor.name] != nil { return [.stored(try stored(tensor.name, tensor.shape))] }
    for (fused, names) in [("qkv_proj", ["q_proj", "k_proj", "v_proj"]), ("kv_proj", ["k_proj", "v_proj"])] {
      guard let range = tensor.name.range(of: ".\(fused).") else { continue }
      let shape = [tensor.shape[0] / names.count] + tensor.shape.dropFirst()
      var parts: [TensorPart] = []
      for name in names {
        let source = tensor.name[..<range.lowerBound] + ".\(name)." + tensor.name[range.upperBound...]
        // Whisper's keys have no bias.
        if name == "k_proj", shape.count == 1, configuration.family == .whisper, tensors[String(source)] == nil {
          parts.append(.zeros(count: shape[0]))
        } else {
          parts.append(.stored(try stored(String(source), shape)))
        }
      }
      return parts
    }
    if configuration.family == .speech2text, tensor.name.hasSuffix(".embed_positions.weights") {
      guard tensor.shape[0] - SpeechConfiguration.sinusoidOffset <= Self.maximumGeneratedPositions else {
        throw SpeechError(
          .badModel,
          "\(name) lacks \(tensor.name), and its config wants more than \(Self.maximumGeneratedPositions) positions: "
            + "correct it.")
      }
      return [.sinusoids(rows: tensor.shape[0], width: tensor.shape[1], padding: configuration.padToken)]
    }
    return [.stored(try stored(tensor.name, tensor.shape))]
  }

  private func stored(_ tensorName: String, _ shape: [Int]) throws(SpeechError) -> StoredTensor {
    guard let tensor = tensors[tensorName] else {
      throw SpeechError(.badModel, "\(name) lacks \(tensorName): it isn't the checkpoint that its config describes.")
    }
    guard tensor.shape == shape else {
      throw SpeechError(
        .badModel, "\(name) has \(tensorName) of shape \(tensor.shape), and its config wants \(shape): correct it.")
    }
    if case .other(let type) = tensor.element {
      throw SpeechError(
        .unsupported, "\(name) holds \(tensorName) as \(type): convert it to float32, float16 or bfloat16.")
    }
    guard let count = elementCount(shape), tensor.count == count else {
      throw SpeechError(.badModel, "\(name) has \(tensorName) with a length that isn't its shape's: fetch it again.")
    }
    return tensor
  }

  /// Refuses weights that the configuration doesn't know of, but would change what the model computes.
  func refuseOthers() throws(SpeechError) {
    for head in Self.heads {
      guard let head = tensors[head], let tokens = tensors[Self.embeddings] else { continue }
      guard head.shape == tokens.shape, head.element == tokens.element, head.bytes.elementsEqual(to: tokens.bytes),
        (head.scales ?? tokens.bytes).elementsEqual(to: tokens.scales ?? tokens.bytes)
      else {
        throw SpeechError(
          .unsupported, "\(name) has an output layer of its own; only one tied to the token embeddings is known.")
      }
    }
    for (side, layers) in [("encoder", configuration.encoderLayers), ("decoder", configuration.decoderLayers)] {
      let prefix = "\(side).layers."
      for name in tensors.keys.sorted() where name.hasPrefix(prefix) {
        guard let index = name.dropFirst(prefix.count).split(separator: ".").first, let number = Int(index),
          number < layers
        else {
          throw SpeechError(.badModel, "\(self.name) has \(name), and its config wants \(layers) layers: correct it.")
        }
      }
    }
  }
}

extension UnsafeRawBufferPointer {
  /// Whether the bytes are the same, or equal.
  fileprivate func elementsEqual(to other: UnsafeRawBufferPointer) -> Bool {
    guard count == other.count else { return false }
    guard let own = baseAddress, let others = other.baseAddress else { return true }
    return own == others || memcmp(own, others, count) == 0
  }
}
