internal import Foundation

/// What a WAV file's header says of its length, and what is there.
///
/// Who writes a WAV into a pipe can't go back to write its length, and leaves 0 or a number that is none; and a
/// recording that was cut still claims what it was to have. libsndfile takes the one for an empty file, and the other
/// for a whole one.
struct WaveHeader {
  /// Where the file has the length of its samples, 4 bytes.
  let lengthOffset: Int
  /// Bytes of samples that the header tells of.
  let claimed: Int
  /// Bytes that follow it.
  let available: Int
  let isBigEndian: Bool

  private static let mostChunks = 1000

  /// `nil` for any other file, and one that can't be read.
  init?(path: String) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
    let size = Int(status.st_size)
    guard let first = Self.read(descriptor, at: 0, 12), first[8...].elementsEqual("WAVE".utf8) else { return nil }
    isBigEndian = first[..<4].elementsEqual("RIFX".utf8)
    guard isBigEndian || first[..<4].elementsEqual("RIFF".utf8) else { return nil }
    var offset = 12
    for _ in 0..<Self.mostChunks {
      guard let chunk = Self.read(descriptor, at: offset, 8) else { return nil }
      let length = Self.number(chunk[4...], isBigEndian)
      if chunk[..<4].elementsEqual("data".utf8) {
        lengthOffset = offset + 4
        let available = size - offset - 8
        // A recording without a sample may have other chunks behind it.
        let isEmpty = length == 0 && Self.areChunks(descriptor, from: offset + 8, to: size, isBigEndian)
        (claimed, self.available) = (length, isEmpty ? 0 : available)
        return
      }
      offset += 8 + length + length % 2
    }
    return nil
  }

  /// Whether it was written as a stream, whose length its writer didn't know. What follows is samples to the end.
  var isStream: Bool { claimed == 0 && available > 0 || claimed >= 0x7FFF_0000 && available < claimed }

  /// Whether less is there than the header tells of.
  var isCut: Bool { !isStream && available < claimed }

  private static func areChunks(_ descriptor: CInt, from start: Int, to end: Int, _ isBigEndian: Bool) -> Bool {
    var offset = start
    for _ in 0..<mostChunks where offset < end {
      guard let chunk = read(descriptor, at: offset, 8), chunk[..<4].allSatisfy({ 32...126 ~= $0 }) else {
        return false
      }
      let length = number(chunk[4...], isBigEndian)
      offset += 8 + length + length % 2
    }
    return offset == end || offset == end + 1
  }

  private static func read(_ descriptor: CInt, at offset: Int, _ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    return pread(descriptor, &bytes, count, off_t(offset)) == count ? bytes : nil
  }

  private static func number(_ bytes: ArraySlice<UInt8>, _ isBigEndian: Bool) -> Int {
    let ordered = isBigEndian ? Array(bytes) : bytes.reversed()
    return ordered.reduce(0) { $0 << 8 | Int($1) }
  }
}
