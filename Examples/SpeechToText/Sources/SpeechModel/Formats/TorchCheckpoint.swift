/// A state dict as `torch.save` writes it since torch 1.6: a ZIP archive of a pickle and one entry a storage.
enum TorchCheckpoint {
  /// The tensors by name, in place.
  ///
  /// - Throws: `badModel`, if the archive or the pickle isn't one of a state dict; `unsupported`, for other ways to save.
  static func tensors(_ file: ModelFile) throws(SpeechError) -> [String: StoredTensor] {
    let name = file.name
    guard file.bytes.starts(with: [0x50, 0x4B]) else {
      if file.bytes.first == 0x80 {
        throw SpeechError(
          .unsupported,
          "\(name) is a pickle from before torch 1.6: load it with torch and save it again, best as safetensors.")
      }
      throw SpeechError(.badModel, "\(name) is no file of torch.save's, which begins with PK: fetch it again.")
    }
    let archive = try ZipArchive(file.bytes, name: name)
    let end = "/data.pkl"
    let pickles = archive.entries.keys.filter { $0.hasSuffix(end) }
    guard pickles.count == 1, let pickle = pickles.first, let program = archive.entries[pickle] else {
      throw SpeechError(.badModel, "\(name) has \(pickles.count) entries data.pkl, not one: save it anew with torch.")
    }
    let prefix = pickle.dropLast(end.utf8.count)
    if let order = archive.entries["\(prefix)/byteorder"], !order.elementsEqual("little".utf8) {
      throw SpeechError(.unsupported, "\(name) was written on a big-endian machine: save it anew on another.")
    }
    var machine = try PickleMachine(program, name: name) { key in archive.entries["\(prefix)/data/\(key)"] }
    let tensors = try machine.run()
    // Views of one storage may be many, and each becomes numbers of its own; a tied output layer becomes none.
    let size = tensors.reduce(0) { Checkpoint.heads.contains($1.key) ? $0 : $0 + $1.value.bytes.count }
    guard size <= file.bytes.count else {
      throw SpeechError(
        .unsupported,
        "\(name) has \(file.bytes.count) bytes for tensors of \(size): save it anew, without shared ones.")
    }
    return tensors
  }
}

/// Numbers that tensors of a state dict are views of.
struct TorchStorage {
  let element: StoredTensor.Element
  /// Of an element, in bytes.
  let size: Int
  let bytes: UnsafeRawBufferPointer

  /// torch's classes, with what they hold and its size in bytes.
  static let types: [String: (StoredTensor.Element, Int)] = [
    "FloatStorage": (.float32, 4), "HalfStorage": (.float16, 2), "BFloat16Storage": (.bfloat16, 2),
    "DoubleStorage": (.other("float64"), 8), "LongStorage": (.other("int64"), 8), "IntStorage": (.other("int32"), 4),
    "ShortStorage": (.other("int16"), 2), "CharStorage": (.other("int8"), 1), "ByteStorage": (.other("uint8"), 1),
    "BoolStorage": (.other("bool"), 1),
  ]

  /// The tensor that `_rebuild_tensor_v2` would make of (storage, offset, shape, strides, …), its numbers in one piece.
  static func tensor(_ arguments: [PickleMachine.Value], _ name: String) throws(SpeechError) -> StoredTensor {
    guard arguments.count >= 4, case .storage(let storage) = arguments[0], case .integer(let offset) = arguments[1],
      let shape = integers(arguments[2]), let strides = integers(arguments[3]), shape.count == strides.count
    else { throw SpeechError(.badModel, "\(name) describes a tensor otherwise than torch does: fetch it again.") }
    guard let count = elementCount(shape), offset >= 0, let length = elementCount([count, storage.size]),
      let start = elementCount([offset, storage.size]), start <= storage.bytes.count,
      length <= storage.bytes.count - start
    else {
      throw SpeechError(
        .badModel, "\(name) has a tensor of shape \(shape) that lies outside its storage: fetch it again.")
    }
    // No product of trailing extents is above `count`, unless that is 0.
    var expected = 1
    for (extent, stride) in zip(shape, strides).reversed() where count > 0 {
      guard extent == 1 || stride == expected else {
        throw SpeechError(
          .unsupported, "\(name) has a transposed tensor of shape \(shape): save it anew, made contiguous.")
      }
      expected *= extent
    }
    return StoredTensor(
      element: storage.element, shape: shape,
      bytes: UnsafeRawBufferPointer(rebasing: storage.bytes[start..<start + length]))
  }

  /// More than any weight has; bounds what a tuple that is meant again and again makes us allocate.
  private static let maximumRank = 8

  private static func integers(_ value: PickleMachine.Value) -> [Int]? {
    guard case .tuple(let values, _) = value, values.count <= maximumRank else { return nil }
    var integers: [Int] = []
    for case .integer(let integer) in values { integers.append(integer) }
    return integers.count == values.count ? integers : nil
  }
}
