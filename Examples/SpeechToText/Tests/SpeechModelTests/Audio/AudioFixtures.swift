import Foundation

/// A folder that is gone when the test is.
final class TemporaryFolder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "speech-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes a file and says where.
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
    return "\(path)/\(name)"
  }
}

/// A RIFF WAVE file.
enum WAV {
  /// - Parameters:
  ///   - isFloat: 32-bit floats instead of integers.
  ///   - dataSize: What the header claims instead of the truth.
  static func file(
    _ data: [UInt8], sampleRate: Int, channels: Int = 1, bits: Int = 16, isFloat: Bool = false, dataSize: Int? = nil
  ) -> [UInt8] {
    func little(_ value: Int, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
    let size = dataSize ?? data.count
    let frame = channels * bits / 8
    var bytes = Array("RIFF".utf8) + little(36 + size, 4) + Array("WAVEfmt ".utf8) + little(16, 4)
    bytes += little(isFloat ? 3 : 1, 2) + little(channels, 2) + little(sampleRate, 4) + little(sampleRate * frame, 4)
    return bytes + little(frame, 2) + little(bits, 2) + Array("data".utf8) + little(size, 4) + data
  }

  static func integers(_ samples: [Int]) -> [UInt8] {
    samples.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
  }

  static func floats(_ samples: [Float]) -> [UInt8] {
    samples.flatMap { sample in (0..<4).map { UInt8(truncatingIfNeeded: sample.bitPattern >> (8 * UInt32($0))) } }
  }
}
