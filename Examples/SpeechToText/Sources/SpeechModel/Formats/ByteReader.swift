/// Reads little-endian numbers and pieces of somebody else's bytes, none past their end.
struct ByteReader {
  let bytes: UnsafeRawBufferPointer
  /// What to call the bytes in an error.
  let name: String
  private(set) var offset = 0

  init(_ bytes: UnsafeRawBufferPointer, name: String) {
    self.bytes = bytes
    self.name = name
  }

  var remaining: Int { bytes.count - offset }

  mutating func integer<T: FixedWidthInteger>(_ type: T.Type) throws(SpeechError) -> T {
    T(littleEndian: try take(MemoryLayout<T>.size).loadUnaligned(as: T.self))
  }

  /// The next `count` bytes, in place.
  mutating func take(_ count: Int) throws(SpeechError) -> UnsafeRawBufferPointer {
    guard count >= 0, count <= remaining else {
      throw SpeechError(
        .badModel,
        "\(name) ends at byte \(bytes.count), where \(count) more were to follow byte \(offset): fetch it again.")
    }
    defer { offset += count }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
  }

  mutating func skip(_ count: Int) throws(SpeechError) { _ = try take(count) }

  /// Goes to an offset from the beginning.
  mutating func seek(_ offset: Int) throws(SpeechError) {
    guard 0...bytes.count ~= offset else {
      throw SpeechError(
        .badModel, "\(name) points to byte \(offset) of \(bytes.count), past its end: fetch it again.")
    }
    self.offset = offset
  }
}

/// The bytes as text, or `nil` if they aren't UTF-8.
func text(_ bytes: UnsafeRawBufferPointer) -> String? { String(validating: bytes, as: UTF8.self) }
