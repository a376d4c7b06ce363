/// Turns a checkpoint, as it was published, into the bytes of a `NormalisedModel`.
///
/// It reads Speech2Text and Whisper from Hugging Face's directories (`model.safetensors` or `pytorch_model.bin`,
/// also in shards, with `config.json` and the vocabulary's files) and Whisper from CTranslate2's (`model.bin`).
/// Nothing of a checkpoint is executed. Beside the mapped checkpoint and the output it needs 4 MiB.
public struct ModelNormaliser: @unchecked Sendable {
  /// A piece of work: some numbers of one part of one tensor.
  private struct Step {
    let tensor: Int
    /// Where the numbers go, from the blob's beginning.
    let offset: Int
    let part: TensorPart
    /// The first number, within the part.
    let start: Int
    let count: Int
  }

  public let configuration: SpeechConfiguration
  /// Sentences about what was left out of the checkpoint, and makes no difference to what the model can say.
  public let warnings: [String]
  /// Of the blob, in bytes.
  public let size: Int
  /// What keeps the parts' bytes, which nobody writes to: the reason that this may be `Sendable`.
  private let files: [ModelFile]
  private let header: [UInt8]
  private let tensors: [(name: String, offset: Int, parts: [TensorPart])]

  /// The longest piece that `write(_:)` hands out, in bytes.
  public static let maximumPiece = 4 << 20
  private static let numbersPerStep = 1 << 17

  /// Reads all but the weights.
  ///
  /// - Parameter files: A model's directory; files that don't matter are ignored.
  /// - Throws: `badModel`, if a file is missing, damaged or contradicts another; `unsupported`, for a family, format
  ///   or number type that isn't known.
  public init(files: [ModelFile]) throws(SpeechError) {
    let checkpoint = try Checkpoint(files)
    let layout = checkpoint.configuration.layout
    var parts: [[TensorPart]] = []
    for tensor in layout { parts.append(try checkpoint.parts(of: tensor)) }
    try checkpoint.refuseOthers()
    let vocabulary = "[" + checkpoint.vocabulary.map(JSONValue.quoted).joined(separator: ",") + "]"
    let (header, offsets, size) = try SafetensorsHeader.make(
      layout,
      metadata: [
        ("format", NormalisedModel.format), ("family", checkpoint.configuration.family.rawValue),
        ("config", checkpoint.configuration.json), ("vocabulary", vocabulary),
      ])
    tensors = layout.indices.map { (layout[$0].name, header.count + offsets[$0], parts[$0]) }
    configuration = checkpoint.configuration
    warnings = checkpoint.warnings
    self.size = size
    self.files = files
    self.header = header
  }

  /// Writes the blob to memory, from its beginning.
  ///
  /// - Parameter memory: At least `size` bytes, from an address that is a multiple of 64.
  /// - Throws: `badModel`, naming a tensor with a number that is infinite or NaN; `system`, if the memory won't do.
  public func write(into memory: UnsafeMutableRawBufferPointer) throws(SpeechError) {
    guard let base = memory.baseAddress, memory.count >= size,
      Int(bitPattern: base) % SafetensorsHeader.alignment == 0
    else {
      throw SpeechError(.system, "\(memory.count) bytes were given for a model of \(size), or not 64-byte aligned.")
    }
    memory.copyBytes(from: header)
    var end = header.count
    try forEachStep { (step) throws(SpeechError) in
      // Steps follow one another within `size`, to which the memory was just compared.
      UnsafeMutableRawBufferPointer(rebasing: memory[end..<step.offset]).initializeMemory(as: UInt8.self, repeating: 0)
      let numbers = (base + step.offset).bindMemory(to: Float.self, capacity: step.count)
      try fill(UnsafeMutableBufferPointer(start: numbers, count: step.count), step)
      end = step.offset + 4 * step.count
    }
  }

  /// Writes the blob piece by piece, in order.
  ///
  /// - Parameter emit: Takes each piece, of `maximumPiece` bytes at most; the memory is used again for the next.
  /// - Throws: `SpeechError`, as `write(into:)`, and whatever `emit` throws.
  public func write(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
    let piece = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Self.maximumPiece, alignment: SafetensorsHeader.alignment)
    defer { piece.deallocate() }
    var (emitted, filled) = (0, 0)
    func flush() throws {
      if filled > 0 { try emit(UnsafeRawBufferPointer(rebasing: piece[..<filled])) }
      (emitted, filled) = (emitted + filled, 0)
    }
    while emitted < header.count {
      let slice = header[emitted..<min(header.count, emitted + piece.count)]
      piece.copyBytes(from: slice)
      filled = slice.count
      try flush()
    }
    try forEachStep { (step) throws in
      let bytes = 4 * step.count
      if step.offset + bytes - emitted > piece.count { try flush() }
      let place = step.offset - emitted
      UnsafeMutableRawBufferPointer(rebasing: piece[filled..<place]).initializeMemory(as: UInt8.self, repeating: 0)
      // A step and the padding before it are shorter than a piece, so they fit in one that is empty.
      let numbers = UnsafeMutableRawBufferPointer(rebasing: piece[place..<place + bytes]).bindMemory(to: Float.self)
      try fill(numbers, step)
      filled = place + bytes
    }
    try flush()
  }

  private func fill(_ numbers: UnsafeMutableBufferPointer<Float>, _ step: Step) throws(SpeechError) {
    step.part.fill(numbers, from: step.start)
    guard isFinite(numbers) else {
      throw SpeechError(
        .badModel, "\(tensors[step.tensor].name) has a number that is infinite or NaN: get the checkpoint anew.")
    }
  }

  private func forEachStep<E: Error>(_ body: (Step) throws(E) -> Void) throws(E) {
    for (index, tensor) in tensors.enumerated() {
      var offset = tensor.offset
      for part in tensor.parts {
        var start = 0
        while start < part.count {
          let count = min(Self.numbersPerStep, part.count - start)
          try body(Step(tensor: index, offset: offset, part: part, start: start, count: count))
          (offset, start) = (offset + 4 * count, start + count)
        }
      }
    }
  }

  /// Whether a file of that name can hold weights.
  static func isWeights(_ name: String) -> Bool { name.hasSuffix(".safetensors") || name.hasSuffix(".bin") }
}
