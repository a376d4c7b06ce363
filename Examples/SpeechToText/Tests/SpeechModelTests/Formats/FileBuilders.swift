import Foundation

@testable import SpeechModel

/// Little-endian bytes of a number.
func bytes(_ number: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: number.littleEndian) { Array($0) } }

/// A safetensors file of any header.
func safetensors(_ header: String, data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
  bytes(length ?? UInt64(header.utf8.count)) + Array(header.utf8) + data
}

/// A ZIP archive, of which a test may make any field lie.
struct ZipBuilder {
  struct Entry {
    var name: String
    var data: [UInt8]
    var method: UInt16 = 0
    var flags: UInt16 = 0
    /// What the directory says; `nil` for the truth.
    var packed: UInt32?
    var size: UInt32?
    var offset: UInt32?
    var extra: [UInt8] = []
  }

  var entries: [Entry]
  var comment: [UInt8] = []
  /// What the last record says; `nil` for the truth.
  var count: UInt16?
  var directorySize: UInt32?
  var directoryOffset: UInt32?
  /// Whether a 64-bit record precedes the last one, which then says nothing.
  var isZip64 = false

  var file: [UInt8] {
    var (file, directory) = ([UInt8](), [UInt8]())
    for entry in entries {
      let offset = UInt32(file.count)
      let name = Array(entry.name.utf8)
      let (packed, size) = (entry.packed ?? UInt32(entry.data.count), entry.size ?? UInt32(entry.data.count))
      file += bytes(UInt32(0x0403_4B50)) + bytes(UInt16(20)) + bytes(entry.flags) + bytes(entry.method)
      file += bytes(UInt64(0)) + bytes(packed) + bytes(size) + bytes(UInt16(name.count)) + bytes(UInt16(0)) + name
      file += entry.data
      directory += bytes(UInt32(0x0201_4B50)) + bytes(UInt16(20)) + bytes(UInt16(20)) + bytes(entry.flags)
      directory += bytes(entry.method) + bytes(UInt64(0)) + bytes(packed) + bytes(size) + bytes(UInt16(name.count))
      directory += bytes(UInt16(entry.extra.count)) + bytes(UInt16(0)) + bytes(UInt64(0))
      directory += bytes(entry.offset ?? offset) + name + entry.extra
    }
    let start = UInt64(file.count)
    file += directory
    if isZip64 {
      let record = UInt64(file.count)
      file += bytes(UInt32(0x0606_4B50)) + bytes(UInt64(44)) + bytes(UInt32(0x2D_002D)) + bytes(UInt64(0))
      file += bytes(UInt64(entries.count)) + bytes(UInt64(entries.count)) + bytes(UInt64(directory.count))
      file += bytes(start) + bytes(UInt32(0x0706_4B50)) + bytes(UInt32(0)) + bytes(record) + bytes(UInt32(1))
    }
    let number = count ?? (isZip64 ? .max : UInt16(entries.count))
    file += bytes(UInt32(0x0605_4B50)) + bytes(UInt32(0)) + bytes(number) + bytes(number)
    file += bytes(directorySize ?? (isZip64 ? .max : UInt32(directory.count)))
    file += bytes(directoryOffset ?? (isZip64 ? .max : UInt32(start)))
    return file + bytes(UInt16(comment.count)) + comment
  }
}

/// A file of `torch.save`'s with any pickle and storages.
func torchFile(_ pickle: [UInt8], storages: [String: [UInt8]] = [:]) -> [UInt8] {
  var entries = [ZipBuilder.Entry(name: "m/data.pkl", data: pickle)]
  for (key, data) in storages.sorted(by: { $0.key < $1.key }) {
    entries.append(ZipBuilder.Entry(name: "m/data/\(key)", data: data))
  }
  return ZipBuilder(entries: entries).file
}

/// Pieces of a pickle of protocol 2.
enum Pickle {
  static func text(_ text: String) -> [UInt8] { [0x58] + bytes(UInt32(text.utf8.count)) + Array(text.utf8) }
  static func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }
  static func integer(_ value: Int) -> [UInt8] { [0x8A, 8] + bytes(Int64(value)) }
  static func tuple(_ parts: [[UInt8]]) -> [UInt8] { [0x28] + parts.flatMap { $0 } + [0x74] }
  static func integers(_ values: [Int]) -> [UInt8] { tuple(values.map(integer)) }

  static func storage(_ type: String = "FloatStorage", _ key: String, _ count: Int) -> [UInt8] {
    tuple([text("storage"), global("torch", type), text(key), text("cpu"), integer(count)]) + [0x51]
  }

  static func tensor(_ storage: [UInt8], _ offset: Int, _ shape: [Int], _ strides: [Int]) -> [UInt8] {
    let hooks = global("collections", "OrderedDict") + [0x29, 0x52]
    return global("torch._utils", "_rebuild_tensor_v2")
      + tuple([storage, integer(offset), integers(shape), integers(strides), [0x89], hooks]) + [0x52]
  }

  /// A dictionary of one item.
  static func stateDict(_ name: String, _ value: [UInt8]) -> [UInt8] {
    [0x80, 2, 0x7D] + text(name) + value + [0x73, 0x2E]
  }
}

/// A CTranslate2 file of any variables.
struct CTranslate2Builder {
  struct Variable {
    var name: String
    var shape: [UInt32]
    var type: UInt8
    var data: [UInt8]
    var length: UInt32?
  }

  var version: UInt32 = 6
  var specification = "WhisperSpec"
  var variables: [Variable] = []
  var count: UInt32?
  var aliases: [(String, String)] = []

  static func text(_ text: String) -> [UInt8] { bytes(UInt16(text.utf8.count + 1)) + Array(text.utf8) + [0] }

  var file: [UInt8] {
    var file = bytes(version) + Self.text(specification) + bytes(UInt32(3))
    file += bytes(count ?? UInt32(variables.count))
    for variable in variables {
      file += Self.text(variable.name) + [UInt8(variable.shape.count)] + variable.shape.flatMap { bytes($0) }
      file += [variable.type] + bytes(variable.length ?? UInt32(variable.data.count)) + variable.data
    }
    file += bytes(UInt32(aliases.count))
    for (alias, name) in aliases { file += Self.text(alias) + Self.text(name) }
    return file
  }
}
