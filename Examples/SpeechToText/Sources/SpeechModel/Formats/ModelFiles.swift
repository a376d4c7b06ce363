/// A model's files by name.
struct ModelFiles {
  private let files: [String: ModelFile]

  /// - Throws: `badModel`, if two have one name.
  init(_ files: [ModelFile]) throws(SpeechError) {
    var byName: [String: ModelFile] = [:]
    for file in files {
      guard byName.updateValue(file, forKey: file.name) == nil else {
        throw SpeechError(.badModel, "There are two files with the name \(file.name): give one directory's files.")
      }
    }
    self.files = byName
  }

  subscript(name: String) -> ModelFile? { files[name] }

  /// A JSON file, or `nil` if there is none.
  func json(_ name: String) throws(SpeechError) -> JSONValue? {
    guard let file = files[name] else { return nil }
    return try JSONValue.parse(file.bytes, name: name)
  }

  /// The files that transformers would load, whole or as shards: safetensors if there are any, as it does.
  private var huggingFaceNames: [String] {
    for (stem, end) in [("model", ".safetensors"), ("pytorch_model", ".bin")] {
      if files["\(stem)\(end)"] != nil { return ["\(stem)\(end)"] }
      let shards = files.keys.filter { $0.hasPrefix("\(stem)-0") && $0.hasSuffix(end) && $0.contains("-of-") }
      if !shards.isEmpty { return shards.sorted() }
    }
    return []
  }

  var hasHuggingFaceWeights: Bool { !huggingFaceNames.isEmpty }

  /// The tensors of Hugging Face's files, without the leading `model.`.
  ///
  /// - Throws: `badModel`, if there are none, or one is damaged; `unsupported`, for a file of another kind.
  func huggingFaceWeights() throws(SpeechError) -> (name: String, tensors: [String: StoredTensor]) {
    let names = huggingFaceNames
    guard let first = names.first else {
      let found = files.keys.sorted().joined(separator: ", ")
      throw SpeechError(
        .badModel,
        "No model.safetensors, pytorch_model.bin or model.bin is among the files (\(found)): add one of them.")
    }
    var tensors: [String: StoredTensor] = [:]
    for name in names {
      guard let file = files[name] else { continue }
      try refusePointer(file)
      let read: [String: StoredTensor]
      if name.hasSuffix(".bin") {
        read = try TorchCheckpoint.tensors(file)
      } else {
        read = try SafetensorsHeader(file.bytes, name: name).tensors(file.bytes, name: name)
      }
      for (key, tensor) in read {
        let key = key.hasPrefix("model.") ? String(key.dropFirst("model.".count)) : key
        guard tensors.updateValue(tensor, forKey: key) == nil else {
          throw SpeechError(.badModel, "\(name) has \(key) for the second time: give one checkpoint's files.")
        }
      }
    }
    return (names.count == 1 ? first : "The checkpoint from \(first) on", tensors)
  }

  /// A repository cloned without its large files has three lines of text in place of each.
  private func refusePointer(_ file: ModelFile) throws(SpeechError) {
    if file.bytes.starts(with: "version https://git-lfs".utf8) {
      throw SpeechError(.badModel, "\(file.name) is a Git LFS pointer, not the model: fetch the file itself.")
    }
  }
}
