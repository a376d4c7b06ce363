import Foundation
import Testing

@testable import SpeechModel

@Suite("Audio files")
struct AudioFileTests {
  private let folder: TemporaryFolder
  private let flac = "\(Bundle.module.bundlePath)/Fixtures/goldens/tones.flac"

  init() throws { folder = try TemporaryFolder() }

  private func refusal(_ path: String) throws -> SpeechError {
    let error = try #require(throws: SpeechError.self) { try AudioSamples(path: path) }
    #expect(error.code == .badAudio)
    #expect(error.message.hasPrefix(path))
    return error
  }

  @Test("16-bit samples at 16 kHz come through unchanged")
  func plain() throws {
    let samples = Signals.tones(20, 5000)
    let path = try folder.file("a.wav", WAV.file(WAV.integers(samples), sampleRate: 16000))
    let audio = try AudioSamples(path: path)
    #expect(audio.samples == samples.map { Float($0) / 32768 })
    #expect(audio.duration == .microseconds(312_500))
  }

  @Test("FLAC: channels are mixed and the rate is converted")
  func losslessStereo() throws {
    let mixed = zip(Signals.tones(11, 12000), Signals.tones(12, 12000)).map { (Float($0) + Float($1)) / 65536 }
    let expected = try AudioSamples(mixed, sampleRate: 24000)
    let audio = try AudioSamples(path: flac)
    #expect(audio.samples.count == 8000)
    #expect(largestDifference(audio.samples, expected.samples) < 1e-6)
  }

  @Test("96 kHz, stereo and float")
  func highResolution() throws {
    let tone = (0..<96000).flatMap { index -> [Float] in
      let value = Float(sin(2 * .pi * 500 * Double(index) / 96000))
      return [value, 0.5 * value]
    }
    let bytes = WAV.file(WAV.floats(tone), sampleRate: 96000, channels: 2, bits: 32, isFloat: true)
    let audio = try AudioSamples(path: folder.file("a.wav", bytes))
    let expected = (0..<16000).map { Float(0.75 * sin(2 * .pi * 500 * Double($0) / 16000)) }
    #expect(largestDifference(Array(audio.samples[160..<15840]), Array(expected[160..<15840])) < 1e-3)
  }

  @Test("A truncated file gives what is there")
  func truncated() throws {
    let samples = Signals.tones(21, 5000)
    let bytes = WAV.file(WAV.integers(samples), sampleRate: 16000).dropLast(4000)
    let audio = try AudioSamples(path: folder.file("a.wav", Array(bytes)))
    #expect(audio.samples == samples.prefix(3000).map { Float($0) / 32768 })
    let warning = try #require(audio.warnings.first)
    #expect(warning.contains("a.wav was cut") && warning.contains("0.3 s") && warning.contains("0.2 s"))
  }

  @Test("A truncated FLAC is said to be one, or refused")
  func truncatedFLAC() throws {
    let whole = try Array(Data(contentsOf: URL(fileURLWithPath: flac)))
    #expect(try AudioSamples(path: flac).warnings.isEmpty)
    do {
      let audio = try AudioSamples(path: folder.file("a.flac", Array(whole.prefix(whole.count / 2))))
      #expect(audio.samples.count < 8000)
      #expect(audio.warnings.first?.contains("a.flac was cut") == true)
    } catch let error as SpeechError {
      #expect(error.code == .badAudio)
    }
  }

  @Test(
    "A WAV that was written into a pipe has the samples that follow its header",
    arguments: [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFDB, 0x7FFF_F000])
  func streamed(claimed: Int) throws {
    let samples = Signals.tones(23, 50_000)
    let bytes = WAV.file(WAV.integers(samples), sampleRate: 16000, dataSize: claimed)
    let audio = try AudioSamples(path: folder.file("a.wav", bytes))
    #expect(audio.samples == samples.map { Float($0) / 32768 })
    #expect(audio.warnings.isEmpty)
    // Half a sample at its end.
    let odd = try AudioSamples(path: folder.file("b.wav", Array(bytes.dropLast())))
    #expect(odd.samples == samples.dropLast().map { Float($0) / 32768 })
  }

  @Test("A WAV of no sample is empty, whatever follows")
  func emptyWithChunks() throws {
    let list = Array("LIST".utf8) + [4, 0, 0, 0] + Array("INFO".utf8)
    #expect(try refusal(folder.file("a.wav", WAV.file([], sampleRate: 16000) + list)).message.contains("no samples"))
    #expect(try refusal(folder.file("b.wav", WAV.file([], sampleRate: 16000))).message.contains("no samples"))
    // Of a right length, with a chunk behind it.
    let samples = Signals.tones(24, 1000)
    let audio = try AudioSamples(
      path: folder.file("c.wav", WAV.file(WAV.integers(samples), sampleRate: 16000) + list))
    #expect(audio.samples.count == 1000 && audio.warnings.isEmpty)
  }

  @Test("What is no audio is refused")
  func refused() throws {
    _ = try refusal("\(folder.path)/missing.wav")
    _ = try refusal(folder.file("empty.wav", []))
    _ = try refusal(folder.file("text.wav", Array("no audio at all".utf8)))
    _ = try refusal(folder.file("header.wav", WAV.file([], sampleRate: 16000)))
    let tone = WAV.integers(Signals.tones(1, 100))
    #expect(try refusal(folder.file("slow.wav", WAV.file(tone, sampleRate: 4000))).message.contains("4000 Hz"))
    #expect(try refusal(folder.file("fast.wav", WAV.file(tone, sampleRate: 400_000))).message.contains("400000 Hz"))
    for bad in [Float.nan, .infinity, 1e30] {
      let bytes = WAV.file(WAV.floats([0, bad, 0]), sampleRate: 16000, bits: 32, isFloat: true)
      _ = try refusal(folder.file("bad.wav", bytes))
    }
  }

  @Test("Ten hours are refused before they are read")
  func tenHours() throws {
    let size = 10 * 3600 * 8000
    let path = try folder.file("long.wav", WAV.file([], sampleRate: 8000, bits: 8, dataSize: size))
    let file = try #require(FileHandle(forWritingAtPath: path))
    // A hole, so that it takes no space.
    try file.truncate(atOffset: UInt64(44 + size))
    try file.close()
    #expect(try refusal(path).message.contains("6 hours"))
  }

  @Test("Damage is refused or read, and never worse", arguments: ["wav", "flac"])
  func damaged(format: String) throws {
    let whole =
      format == "wav"
      ? WAV.file(WAV.integers(Signals.tones(22, 4000)), sampleRate: 22050, channels: 2)
      : try Array(Data(contentsOf: URL(fileURLWithPath: flac)))
    let seed = UInt64.random(in: 0 ... .max)
    print("seed \(seed)")
    var generator = SeededGenerator(state: seed)
    for _ in 0..<150 {
      var bytes = whole
      for _ in 0...Int.random(in: 0..<4, using: &generator) {
        // Half of the damage goes to the header.
        let end = Bool.random(using: &generator) ? min(64, bytes.count) : bytes.count
        bytes[Int.random(in: 0..<end, using: &generator)] = .random(in: 0...255, using: &generator)
      }
      if Int.random(in: 0..<4, using: &generator) == 0 {
        bytes.removeLast(.random(in: 0..<bytes.count, using: &generator))
      }
      let path = try folder.file("damaged.\(format)", bytes)
      do {
        let audio = try AudioSamples(path: path)
        #expect(audio.samples.allSatisfy { $0.isFinite })
      } catch {
        #expect(error.code == .badAudio)
      }
    }
  }

  @Test("Samples in memory are checked, too")
  func memory() {
    #expect(throws: SpeechError.self) { try AudioSamples([]) }
    #expect(throws: SpeechError.self) { try AudioSamples([.nan]) }
    #expect(throws: SpeechError.self) { try AudioSamples([0], sampleRate: 0) }
  }
}
