/// The variables of a CTranslate2 `model.bin`.
///
/// Format: CTranslate2's `python/ctranslate2/specs/model_spec.py`, binary versions 4 to 6. Quantised to int8 is
/// understood: a weight's row is divided by its scale; int16 is not.
struct CTranslate2Model {
  /// In place.
  let variables: [String: StoredTensor]
  /// Other names of variables.
  private let aliases: [String: String]
  let name: String

  /// - Throws: `badModel`, for a damaged file; `unsupported`, for another version or model than Whisper.
  init(_ file: ModelFile) throws(SpeechError) {
    let name = file.name
    var reader = ByteReader(file.bytes, name: name)
    let version = try reader.integer(UInt32.self)
    guard 4...6 ~= version else {
      throw SpeechError(
        .unsupported, "\(name) is not of CTranslate2's format in versions 4 to 6: convert the model anew.")
    }
    let specification = try Self.string(&reader)
    guard specification == "WhisperSpec" else {
      throw SpeechError(
        .unsupported, "\(name) holds a \(specification); only CTranslate2's WhisperSpec is known: give a Whisper.")
    }
    try reader.skip(4)
    var variables: [String: StoredTensor] = [:]
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let (variable, tensor) = try Self.variable(&reader)
      guard variables.updateValue(tensor, forKey: variable) == nil else {
        throw SpeechError(.badModel, "\(name) has \(variable) twice: fetch it again.")
      }
    }
    var aliases: [String: String] = [:]
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let alias = try Self.string(&reader)
      aliases[alias] = try Self.string(&reader)
    }
    guard reader.remaining == 0 else {
      throw SpeechError(.badModel, "\(name) has \(reader.remaining) bytes behind its end: fetch it again.")
    }
    self.variables = try Self.scaled(variables, name)
    self.aliases = aliases
    self.name = name
  }

  /// A length in 16 bits and as many bytes, the last of them 0.
  private static func string(_ reader: inout ByteReader) throws(SpeechError) -> String {
    let bytes = try reader.take(Int(try reader.integer(UInt16.self)))
    guard bytes.last == 0, let text = text(UnsafeRawBufferPointer(rebasing: bytes.dropLast())) else {
      throw SpeechError(.badModel, "\(reader.name) has a damaged name before byte \(reader.offset): fetch it again.")
    }
    return text
  }

  private static func variable(_ reader: inout ByteReader) throws(SpeechError) -> (String, StoredTensor) {
    let variable = try string(&reader)
    var shape: [Int] = []
    for _ in 0..<(try reader.integer(UInt8.self)) { shape.append(Int(try reader.integer(UInt32.self))) }
    let (element, size): (StoredTensor.Element, Int) =
      switch try reader.integer(UInt8.self) {
      case 0: (.float32, 4)
      case 1: (.int8, 1)
      case 2: (.other("int16"), 2)
      case 3: (.other("int32"), 4)
      case 4: (.float16, 2)
      case 5: (.bfloat16, 2)
      case let type:
        throw SpeechError(.unsupported, "\(reader.name) has \(variable) of the unknown type \(type): convert it anew.")
      }
    let length = Int(try reader.integer(UInt32.self))
    guard let count = elementCount(shape + [size]), count == length else {
      throw SpeechError(
        .badModel, "\(reader.name) has \(variable) of shape \(shape) in \(length) bytes: fetch it again.")
    }
    return (variable, StoredTensor(element: element, shape: shape, bytes: try reader.take(length)))
  }

  /// The variables, with each int8 one given its scales, one a row.
  private static func scaled(
    _ variables: [String: StoredTensor], _ name: String
  ) throws(SpeechError) -> [String: StoredTensor] {
    var scaled = variables
    for (variable, tensor) in variables where tensor.element == .int8 && !tensor.shape.isEmpty {
      guard let scales = variables["\(variable)_scale"], scales.element == .float32, scales.count == tensor.shape[0]
      else {
        throw SpeechError(.badModel, "\(name) has \(variable) as int8 without a scale a row: convert the model anew.")
      }
      scaled[variable]?.scales = scales.bytes
    }
    return scaled
  }

  /// A variable that is a whole number, or `nil`.
  func integer(_ variable: String) -> Int? {
    guard let tensor = variables[variable] else { return nil }
    switch (tensor.element, tensor.bytes.count) {
    case (.int8, 1): return Int(tensor.bytes.loadUnaligned(as: Int8.self))
    case (.other("int16"), 2): return Int(Int16(littleEndian: tensor.bytes.loadUnaligned(as: Int16.self)))
    case (.other("int32"), 4): return Int(Int32(littleEndian: tensor.bytes.loadUnaligned(as: Int32.self)))
    default: return nil
    }
  }

  /// A variable's shape.
  ///
  /// - Throws: `badModel`, if there is none of that many dimensions.
  func shape(_ variable: String, dimensions: Int) throws(SpeechError) -> [Int] {
    guard let shape = variables[variable]?.shape, shape.count == dimensions else {
      throw SpeechError(.badModel, "\(name) has no \(variable) of \(dimensions) dimensions: convert the model anew.")
    }
    return shape
  }
}

extension CTranslate2Model {
  /// What the parts of a layer are called by transformers; `layer_norm` has gamma and beta for weight and bias.
  private static let parts = [
    "self_attention/layer_norm": "self_attn_layer_norm", "self_attention/linear_0": "self_attn.qkv_proj",
    "self_attention/linear_1": "self_attn.out_proj", "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj", "attention/linear_1": "encoder_attn.kv_proj",
    "attention/linear_2": "encoder_attn.out_proj", "ffn/layer_norm": "final_layer_norm", "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
  ]

  private static let wholes = [
    "position_encodings/encodings": "embed_positions.weight", "embeddings/weight": "embed_tokens.weight",
    "layer_norm/gamma": "layer_norm.weight", "layer_norm/beta": "layer_norm.bias", "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias", "conv2/weight": "conv2.weight", "conv2/bias": "conv2.bias",
  ]

  /// The weights under transformers' names; what isn't one is left out.
  func renamed() -> [String: StoredTensor] {
    var renamed: [String: StoredTensor] = [:]
    for (variable, tensor) in variables { if let name = Self.rename(variable) { renamed[name] = tensor } }
    // The projection is another name of the embeddings, or has to be equal to them.
    renamed["proj_out.weight"] = variables[aliases["decoder/projection/weight"] ?? "decoder/projection/weight"]
    return renamed
  }

  private static func rename(_ variable: String) -> String? {
    guard let (side, rest) = split(variable[...]), side == "encoder" || side == "decoder" else { return nil }
    if let whole = wholes[String(rest)] { return "\(side).\(whole)" }
    guard rest.hasPrefix("layer_"), let (layer, inner) = split(rest), let slash = inner.lastIndex(of: "/"),
      let part = parts[String(inner[..<slash])]
    else { return nil }
    let kind = inner[inner.index(after: slash)...]
    let kinds = ["weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"]
    guard let kind = kinds[String(kind)] else { return nil }
    return "\(side).layers.\(layer.dropFirst("layer_".count)).\(part).\(kind)"
  }

  /// What is before and behind the first slash.
  private static func split(_ path: Substring) -> (Substring, Substring)? {
    guard let slash = path.firstIndex(of: "/") else { return nil }
    return (path[..<slash], path[path.index(after: slash)...])
  }
}
