internal import CSndfile
internal import Foundation

/// A WAV file that was written as a stream, with the length that its samples have: what libsndfile reads of it.
final class StreamedWave {
  private let descriptor: CInt
  private let size: Int
  /// What stands in the file's place of the length.
  private let patch: [UInt8]
  private let patchOffset: Int
  private var position = 0

  /// - Throws: `badAudio`, if the file can't be opened.
  init(path: String, header: WaveHeader) throws(SpeechError) {
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SpeechError(.badAudio, "\(path) can't be opened: look at its rights.") }
    size = header.lengthOffset + 4 + header.available
    // A longer one is refused for its length in hours.
    let length = UInt32(clamping: header.available)
    patch = withUnsafeBytes(of: header.isBigEndian ? length.bigEndian : length.littleEndian) { Array($0) }
    patchOffset = header.lengthOffset
  }

  deinit { close(descriptor) }

  /// The file for libsndfile, which must be closed before this goes; `nil` when it is no audio.
  func opened(_ information: inout SF_INFO) -> OpaquePointer? {
    var functions = SF_VIRTUAL_IO(
      get_filelen: { sf_count_t(StreamedWave.of($0).size) },
      seek: { offset, whence, user in
        let wave = StreamedWave.of(user)
        let base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? wave.position : wave.size
        wave.position = min(max(0, base + Int(offset)), wave.size)
        return sf_count_t(wave.position)
      },
      read: { target, count, user in
        guard let target else { return 0 }
        return sf_count_t(StreamedWave.of(user).read(UnsafeMutableRawBufferPointer(start: target, count: Int(count))))
      },
      write: { _, _, _ in 0 },
      tell: { sf_count_t(StreamedWave.of($0).position) })
    return sf_open_virtual(&functions, Int32(SFM_READ), &information, Unmanaged.passUnretained(self).toOpaque())
  }

  /// The pointer is the one that `opened` passed, and its owner keeps the object.
  private static func of(_ user: UnsafeMutableRawPointer?) -> StreamedWave {
    Unmanaged<StreamedWave>.fromOpaque(user!).takeUnretainedValue()
  }

  private func read(_ target: UnsafeMutableRawBufferPointer) -> Int {
    var done = 0
    while done < target.count {
      let count = pread(descriptor, target.baseAddress! + done, target.count - done, off_t(position + done))
      if count < 0, errno == EINTR { continue }
      if count <= 0 { break }
      done += count
    }
    for (index, byte) in patch.enumerated() {
      let place = patchOffset + index - position
      if 0..<done ~= place { target[place] = byte }
    }
    position += done
    return done
  }
}
