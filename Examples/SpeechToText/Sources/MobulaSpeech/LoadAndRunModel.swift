import CMalloc
import Distributed
import Foundation
import Mobula
import SpeechModel
import Synchronization

/// How a file is to be transcribed: `TranscriptionOptions` on the wire.
struct RequestedOptions: Codable, Sendable {
  var beams: Int?
  var language: String?
  var translates = false
  var timestamps: Bool?

  var options: TranscriptionOptions {
    TranscriptionOptions(
      beams: beams, language: language, task: translates ? .translate : .transcribe, timestamps: timestamps)
  }
}

/// What an actor makes of one file. Times are seconds.
struct Transcript: Codable, Sendable {
  struct Segment: Codable, Sendable {
    var start: Double
    var end: Double
    var text: String
  }

  /// Where the time went; `wait` and `map` were spent once, before the actor's first file.
  struct Timings: Codable, Sendable {
    /// Until the model was on the actor's host, and to map it and find its tensors.
    var wait = 0.0
    var map = 0.0
    var features = 0.0
    var encode = 0.0
    var decode = 0.0
  }

  var text: String
  var segments: [Segment]
  var language: String?
  /// How long the audio is.
  var audio: Double
  var timings: Timings
  var host: String
  /// Sentences about the audio: that it was cut, or is too short.
  var warnings: [String] = []
}

/// A speech model on some worker, which uses the weights where they lie: in the shared memory of its host.
///
/// Several on one host share them; each has only its activations for itself.
distributed actor LoadAndRunModel: RemoteActor {
  typealias ActorSystem = Cluster

  struct Configuration: Codable, Sendable {
    var model: ObjectRef<Blob>
    /// The name of the host that it runs on, for reports.
    var host: String
  }

  private let recogniser: SpeechRecogniser
  private let host: String
  private let wait: Double
  private let map: Double
  private let before: MemoryUse
  private let done = Atomic<Int>(0)

  init(configuration: Configuration, actorSystem: Cluster) async throws {
    self.actorSystem = actorSystem
    host = configuration.host
    before = try MemoryUse()
    let start = ContinuousClock.now
    let owner = BlobOwner(try await configuration.model.value)
    wait = seconds(since: start)
    let mapping = ContinuousClock.now
    recogniser = try SpeechRecogniser(NormalisedModel(bytes: owner.bytes, owner: owner))
    map = seconds(since: mapping)
    // What reading the vocabulary took goes back to the system: many actors may be on one host.
    malloc_trim(0)
  }

  /// - Parameter audio: 16 kHz, mono.
  distributed func transcribe(
    _ audio: ObjectRef<BlobArray<Float>>, _ requested: RequestedOptions
  ) async throws -> Transcript {
    done.store(0, ordering: .relaxed)
    // The one copy: the recogniser uses 16 kHz as it is.
    let samples = try AudioSamples(Array(try await audio.value))
    let recogniser = recogniser
    let result = try await onThread {
      try recogniser.transcribe(samples, options: requested.options) { progress in
        self.done.store(Int(progress.done / .milliseconds(1)), ordering: .relaxed)
      }
    }
    return Transcript(
      text: result.text,
      segments: result.segments.map {
        .init(start: $0.start / .seconds(1), end: $0.end / .seconds(1), text: $0.text)
      },
      language: result.language, audio: result.audio / .seconds(1),
      timings: .init(
        wait: wait, map: map, features: result.timings.features / .seconds(1),
        encode: result.timings.encode / .seconds(1), decode: result.timings.decode / .seconds(1)),
      host: host, warnings: result.warnings)
  }

  /// Seconds of the present file's audio that are transcribed.
  distributed func progress() -> Double { Double(done.load(ordering: .relaxed)) / 1000 }

  /// This process's memory before it had the model, and now.
  distributed func memory() throws -> [MemoryUse] { [before, try MemoryUse()] }
}

/// Runs `body` on a thread of its own: it computes for seconds, and the threads of Swift's tasks are few.
private func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    let thread = Thread { continuation.resume(with: Result { try body() }) }
    thread.stackSize = 8 << 20
    thread.start()
  }
}

/// A process's memory, in bytes.
struct MemoryUse: Codable, Sendable {
  /// What is its own alone.
  var own: Int
  /// What it has mapped, shared or not.
  var resident: Int

  init() throws {
    let text = try String(contentsOfFile: "/proc/self/smaps_rollup", encoding: .utf8)
    func kilobytes(_ field: String) -> Int {
      text.split(separator: "\n").first { $0.hasPrefix(field) }?.split(separator: " ").dropFirst().first
        .flatMap { Int($0) } ?? 0
    }
    own = (kilobytes("Private_Clean:") + kilobytes("Private_Dirty:")) * 1024
    resident = kilobytes("Rss:") * 1024
  }
}
