/// The header of a safetensors file: 8 bytes of length, then JSON, then the tensors' bytes.
///
/// Format: <https://huggingface.co/docs/safetensors>. Gaps between tensors are let pass, overlaps are not.
struct SafetensorsHeader {
  struct Entry {
    let name: String
    /// `F32`, `BF16`, …
    let type: String
    let shape: [Int]
    /// Within the file.
    let range: Range<Int>
  }

  /// By offset.
  let entries: [Entry]
  let metadata: [String: String]
  /// Where the tensors' bytes begin.
  let dataStart: Int

  /// Each known type's size in bytes.
  private static let sizes = [
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
    "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
  ]

  /// - Parameter name: what to call the bytes in an error.
  /// - Throws: `badModel`, for anything that the format doesn't allow; `unsupported`, for an unknown type.
  init(_ bytes: UnsafeRawBufferPointer, name: String) throws(SpeechError) {
    func fail(_ what: String) -> SpeechError { SpeechError(.badModel, "\(name) is no safetensors file: \(what).") }
    var reader = ByteReader(bytes, name: name)
    let length = try reader.integer(UInt64.self)
    guard length <= UInt64(reader.remaining) else {
      throw fail("its header would be \(length) bytes long and \(reader.remaining) are there")
    }
    guard let header = try JSONValue.parse(try reader.take(Int(length)), name: "The header of \(name)").object else {
      throw fail("its header is no object")
    }
    dataStart = reader.offset
    let available = reader.remaining

    var entries: [Entry] = []
    var metadata: [String: String] = [:]
    for (key, value) in header {
      if key == "__metadata__" {
        for (key, value) in value.object ?? [] { metadata[key] = value.string }
        continue
      }
      guard let type = value["dtype"]?.string, let dimensions = value["shape"]?.array,
        let offsets = value["data_offsets"]?.array, offsets.count == 2,
        let start = offsets[0].integer, let end = offsets[1].integer
      else { throw fail("the entry of \(key) lacks dtype, shape or data_offsets") }
      guard 0 <= start, start <= end, end <= available else {
        throw fail("\(key) would lie at \(start)..<\(end) of \(available) bytes")
      }
      var shape: [Int] = []
      for dimension in dimensions {
        guard let extent = dimension.integer, extent >= 0 else { throw fail("\(key) has a bad shape") }
        shape.append(extent)
      }
      guard let size = Self.sizes[type] else {
        throw SpeechError(.unsupported, "\(name) holds \(key) as \(type), which is unknown: convert it to F32.")
      }
      guard let count = elementCount(shape + [size]), count == end - start else {
        throw fail("\(key) of shape \(shape) and type \(type) can't have \(end - start) bytes")
      }
      entries.append(Entry(name: key, type: type, shape: shape, range: dataStart + start..<dataStart + end))
    }
    entries.sort { ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound) }
    for (first, second) in zip(entries, entries.dropFirst()) where second.range.lowerBound < first.range.upperBound {
      throw fail("\(first.name) and \(second.name) overlap")
    }
    self.entries = entries
    self.metadata = metadata
  }

  /// The tensors by name, in place.
  ///
  /// - Throws: `badModel`, if two have one name.
  func tensors(_ bytes: UnsafeRawBufferPointer, name: String) throws(SpeechError) -> [String: StoredTensor] {
    var tensors: [String: StoredTensor] = [:]
    for entry in entries {
      let element: StoredTensor.Element =
        switch entry.type {
        case "F32": .float32
        case "F16": .float16
        case "BF16": .bfloat16
        default: .other(entry.type)
        }
      let tensor = StoredTensor(
        element: element, shape: entry.shape, bytes: UnsafeRawBufferPointer(rebasing: bytes[entry.range]))
      guard tensors.updateValue(tensor, forKey: entry.name) == nil else {
        throw SpeechError(.badModel, "\(name) has two tensors with the name \(entry.name): save it anew.")
      }
    }
    return tensors
  }
}

extension SafetensorsHeader {
  /// Where the data and each tensor of a blob that is used in place begin: a cache line, and enough for any vector.
  static let alignment = 64

  /// Writes the header of a file of float32 tensors, each at a multiple of `alignment`, with the bytes' length behind.
  ///
  /// Their bytes follow one another but for padding, so that other readers take the file if it needs none, that is,
  /// if every tensor's size is a multiple of 16 numbers.
  ///
  /// - Returns: The 8 bytes and the JSON, padded with spaces to the alignment; each tensor's offset behind them;
  ///   and the length of all of it.
  static func make(
    _ tensors: [TensorDescription], metadata: [(String, String)]
  ) throws(SpeechError) -> (header: [UInt8], offsets: [Int], size: Int) {
    let tooBig = SpeechError(.badModel, "The model would take more memory than there is addresses: correct its config.")
    var json = "{\"__metadata__\":{"
    json += metadata.map { "\(JSONValue.quoted($0.0)):\(JSONValue.quoted($0.1))" }.joined(separator: ",")
    json += "}"
    var (offsets, end) = ([Int](), 0)
    for tensor in tensors {
      let start = (end + alignment - 1) & ~(alignment - 1)
      guard let count = elementCount(tensor.shape + [MemoryLayout<Float>.size]), count < Int.max >> 1 - start else {
        throw tooBig
      }
      offsets.append(start)
      end = start + count
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      json += ",\(JSONValue.quoted(tensor.name)):{\"dtype\":\"F32\",\"shape\":[\(shape)],"
      json += "\"data_offsets\":[\(start),\(end)]}"
    }
    json += "}"
    var header = Array(json.utf8)
    guard header.count <= JSONValue.maximumByteCount - alignment else {
      throw SpeechError(.badModel, "The vocabulary is too long for a model's header: correct it.")
    }
    header += Array(repeating: 0x20, count: -(header.count + 8) & (alignment - 1))
    let length = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
    return (length + header, offsets, 8 + header.count + end)
  }
}
