import ArgumentParser
import COpenBLAS
import Mobula
import SpeechModel

struct BenchmarkCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "benchmark",
    abstract: "Measure Whisper's encoder beside plain matrix multiplication, on one thread and without a cluster.")

  @Option(help: "A folder with a Whisper model.")
  var model: String

  @Option(help: "An audio file of at most 30 s.")
  var clip = "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"

  @Option(help: "How often each is run; the best counts.")
  var rounds = 10

  func validate() throws {
    guard 1...1000 ~= rounds else { throw ValidationError("--rounds is from 1 to 1000.") }
  }

  @concurrent func run() async throws {
    let normaliser = try ModelNormaliser(files: ModelFile.directory(model))
    let memory = OwnedMemory(size: normaliser.size)
    try normaliser.write(into: memory.bytes)
    let recogniser = try SpeechRecogniser(
      NormalisedModel(bytes: UnsafeRawBufferPointer(memory.bytes), owner: memory))
    let configuration = recogniser.model.configuration
    guard configuration.family == .whisper else { throw ValidationError("\(model) is no Whisper model.") }
    let audio = try AudioSamples(path: clip)
    guard audio.duration <= .seconds(30) else { throw ValidationError("\(clip) is longer than 30 s.") }
    var encode = Duration.seconds(3600)
    var multiply = Duration.seconds(3600)
    for _ in 0..<rounds {
      encode = min(encode, try recogniser.transcribe(audio, options: .init(beams: 1)).timings.encode)
      multiply = min(multiply, Self.multiplication())
    }
    let work = Self.encoderOperations(configuration)
    let encoder = work / (encode / .seconds(1)) / 1e9
    let plain = 2 * Double(Self.side * Self.side * Self.side) / (multiply / .seconds(1)) / 1e9
    print(
      """
      Encoder: \(short(work / 1e9)) GFLOP in \(short(encode / .seconds(1))) s: \(short(encoder)) GFLOP/s
      cblas_sgemm of \(Self.side) x \(Self.side) x \(Self.side): \(short(plain)) GFLOP/s
      The encoder reaches \(short(100 * encoder / plain)) % of it
      """)
  }

  /// Of the matrices that are multiplied.
  private static let side = 1024

  private static func multiplication() -> Duration {
    let numbers = [Float](repeating: 0.5, count: side * side)
    var result = numbers
    return ContinuousClock().measure {
      cblas_sgemm(
        CblasRowMajor, CblasNoTrans, CblasTrans, blasint(side), blasint(side), blasint(side), 1, numbers,
        blasint(side), numbers, blasint(side), 0, &result, blasint(side))
    }
  }

  /// Multiplications and additions of the encoder's matrix products, for one window: both convolutions, the
  /// projections, attention and the feed-forward layers.
  private static func encoderOperations(_ configuration: SpeechConfiguration) -> Double {
    let (frames, width) = (Double(configuration.maxSourcePositions), Double(configuration.dModel))
    let convolutions = 2 * (2 * frames) * width * 3 * Double(configuration.melBins) + 2 * frames * width * 3 * width
    let projections = 2 * frames * 4 * width * width
    let attention = 4 * frames * frames * width
    let feedForward = 4 * frames * width * Double(configuration.encoderFFN)
    return convolutions + Double(configuration.encoderLayers) * (projections + attention + feedForward)
  }
}

/// Memory of this process, 64-byte aligned.
///
/// `@unchecked Sendable`: written before anybody else has it.
private final class OwnedMemory: @unchecked Sendable {
  let bytes: UnsafeMutableRawBufferPointer

  init(size: Int) { bytes = .allocate(byteCount: size, alignment: 64) }

  deinit { bytes.deallocate() }
}
