internal import CSndfile

/// An audio file in any format that libsndfile reads (WAV, FLAC, Ogg, AIFF, …), as 16 kHz mono.
///
/// It is read a piece at a time, so that its length costs no memory.
final class AudioFile: SampleSource {
  /// What is longer is refused: the longest recording that somebody waits for, and that a broken header may claim.
  static let maxHours = 6
  private static let sampleRates = 8000...192_000
  private static let maxChannels = 32
  private static let block = 8192

  private let name: String
  private let file: OpaquePointer
  /// What `file` reads from, where that is not the file as it is.
  private let stream: StreamedWave?
  private let header: WaveHeader?
  /// As the header says; `nil` where it doesn't.
  private let frames: Int?
  private let channels: Int
  private let sampleRate: Int
  private var resampler: Resampler
  private var buffer: [Float]
  private var framesRead = 0
  private var isFinished = false

  /// - Throws: `badAudio`, if there is no such file, or it is none of audio, or of a kind that can't be used.
  init(path: String) throws(SpeechError) {
    var information = SF_INFO()
    let header = WaveHeader(path: path)
    let stream: StreamedWave? =
      if let header, header.isStream { try StreamedWave(path: path, header: header) } else { nil }
    let opened = stream.map { $0.opened(&information) } ?? sf_open(path, Int32(SFM_READ), &information)
    guard let file = opened else {
      let reason = String(cString: sf_strerror(nil))
      throw SpeechError(.badAudio, "\(path) can't be read as audio (\(reason)): use WAV or FLAC.")
    }
    do {
      try Self.check(information, path)
    } catch {
      sf_close(file)
      throw error
    }
    self.file = file
    self.stream = stream
    self.header = header
    frames = information.frames < Int64.max && stream == nil ? Int(information.frames) : nil
    name = path
    channels = Int(information.channels)
    sampleRate = Int(information.samplerate)
    resampler = Resampler(from: sampleRate, to: AudioSamples.sampleRate)
    buffer = Array(repeating: 0, count: Self.block * channels)
  }

  // `stream` goes after it.
  deinit { sf_close(file) }

  /// What is wrong with the file, and did not keep it from being read; known once all of it was.
  var warning: String? {
    guard isFinished else { return nil }
    let there = Double(framesRead) / Double(sampleRate)
    var whole: Double?
    if let header, header.isCut, header.available > 0 {
      whole = there * Double(header.claimed) / Double(header.available)
    } else if let frames, frames > framesRead {
      whole = Double(frames) / Double(sampleRate)
    }
    return whole.map {
      "\(name) was cut: of \(tenths($0)) s that its header tells of, the first \(tenths(there)) s are there."
    }
  }

  private static func check(_ information: SF_INFO, _ path: String) throws(SpeechError) {
    guard sampleRates ~= Int(information.samplerate) else {
      throw SpeechError(
        .badAudio,
        "\(path) has a sampling rate of \(information.samplerate) Hz: convert it to one from 8000 to 192000 Hz.")
    }
    guard 1...maxChannels ~= Int(information.channels) else {
      throw SpeechError(.badAudio, "\(path) has \(information.channels) channels: mix them down to 1 or 2.")
    }
    // A stream's length may be unknown, and is then given as the largest number: it is counted while reading.
    if information.frames < Int64.max { try check(frames: Int(information.frames), Int(information.samplerate), path) }
  }

  private static func check(frames: Int, _ sampleRate: Int, _ path: String) throws(SpeechError) {
    guard frames / sampleRate < maxHours * 3600 else {
      throw SpeechError(.badAudio, "\(path) is longer than \(maxHours) hours: split it.")
    }
  }

  func read(into samples: inout [Float]) throws(SpeechError) {
    let before = samples.count
    while samples.count == before, !isFinished {
      let frames = Int(sf_readf_float(file, &buffer, sf_count_t(Self.block)))
      guard sf_error(file) == 0, 0...Self.block ~= frames else {
        let reason = String(cString: sf_strerror(file))
        throw SpeechError(
          .badAudio, "\(name) is damaged after \(framesRead / sampleRate) s (\(reason)): encode it again.")
      }
      framesRead += frames
      try Self.check(frames: framesRead, sampleRate, name)
      if frames == 0 {
        guard framesRead > 0 else { throw SpeechError(.badAudio, "\(name) holds no samples: record it again.") }
        isFinished = true
        resampler.finish(into: &samples)
      } else {
        resampler.resample(try mixed(frames), into: &samples)
      }
    }
  }

  private func tenths(_ seconds: Double) -> String {
    let tenths = Int((seconds * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }

  /// The mean of all channels.
  private func mixed(_ frames: Int) throws(SpeechError) -> [Float] {
    let factor = 1 / Float(channels)
    var sum: Float = 0
    let mono = [Float](unsafeUninitializedCapacity: frames) { mono, count in
      for frame in 0..<frames {
        var value: Float = 0
        for channel in 0..<channels { value += buffer[frame * channels + channel] }
        mono[frame] = value * factor
        sum += abs(mono[frame])
      }
      count = frames
    }
    // A sum is finite only if every part of it is; 10⁶ is far above any sample that means something.
    guard sum < 1e6 * Float(frames) else {
      throw SpeechError(.badAudio, "\(name) has samples that are no numbers or enormous: encode it again.")
    }
    return mono
  }
}
