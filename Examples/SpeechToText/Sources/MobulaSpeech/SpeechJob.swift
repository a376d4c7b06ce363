import ArgumentParser
import Foundation
import Mobula
import SpeechModel

/// What all commands ask for.
struct ModelOptions: ParsableArguments {
  @Option(help: "The model: s3://BUCKET/PREFIX/ or a folder, of Hugging Face (Speech2Text, Whisper) or CTranslate2.")
  var model: String

  @Option(help: "Another S3 than the one in the host's environment, as http://HOST:PORT.")
  var s3Endpoint: String?

  @Option(help: "The directory of this machine's host. Default: $MOBULA_DIRECTORY, else where `mobula start` puts it.")
  var directory: String?

  @Option(help: "Memory that each actor asks for, in GB.")
  var memory = 2.0

  @Option(name: .customLong("resource"), help: "What else each actor asks for, as NAME=AMOUNT; may be repeated.")
  var resources: [String] = []

  func options(_ placement: PlacementStrategy) throws -> ActorOptions {
    var custom = Resources()
    for resource in resources {
      let parts = resource.split(separator: "=", maxSplits: 1)
      guard parts.count == 2, let amount = Double(parts[1]), amount > 0, amount < 1e6 else {
        throw ValidationError("\(resource) is no resource: give NAME=AMOUNT, as in speech=1.")
      }
      custom[Name(parts[0])] = ResourceAmount(amount)
    }
    guard memory > 0, memory < 25_000 else { throw ValidationError("--memory is in GB, above 0.") }
    return .resources(custom, cpu: 1, memory: ByteCount(Int(memory * 1e9)), placement: placement)
  }

  /// Connects to this machine's host.
  func connect() async throws -> Cluster { try await Cluster.connect(ClusterOptions(directory: directory)) }

  /// The model in the store: fetched by a task on a worker where it is in S3, read here where it is a folder.
  func prepare(on cluster: Cluster) async throws -> PreparedModel {
    let prepared = try await preparedModel(on: cluster)
    for warning in prepared.warnings { warn(warning) }
    return prepared
  }

  private func preparedModel(on cluster: Cluster) async throws -> PreparedModel {
    if model.hasPrefix("s3://") {
      return try await cluster.submit(DownloadModel(url: model, endpoint: s3Endpoint), .resources(cpu: 1)).value
    }
    let begin = ContinuousClock.now
    let files = try ModelFile.directory(model)
    let versions = try files.map { file in
      let attributes = try FileManager.default.attributesOfItem(atPath: model + "/" + file.name)
      return "\(file.name)=\(file.bytes.count),\(attributes[.modificationDate] ?? "")"
    }
    let path = URL(fileURLWithPath: model).path
    let name = "speech\(path)#\(stableHash(versions.sorted().joined(separator: ";")))"
    if let there = try await existing(name, on: cluster) {
      return PreparedModel(blob: there, name: name, bytes: try await there.value.count, fetch: 0, normalise: 0)
    }
    let blob = try await normalise(files, name: name, on: cluster)
    return PreparedModel(
      blob: blob.reference, name: name, bytes: blob.bytes, fetch: 0, normalise: seconds(since: begin),
      warnings: blob.warnings)
  }
}

/// Says something on standard error that is no failure.
func warn(_ text: String) { FileHandle.standardError.write(Data("Warning: \(text)\n".utf8)) }

/// Why nothing can be started on a cluster without workers.
let noHosts = SpeechError(
  .unsupported, "No host of the cluster is connected: look at `mobula status`, then start one with `mobula start`.")

/// One actor on each of so many hosts, in turn.
func spawn(
  _ count: Int, of model: PreparedModel, _ options: ModelOptions, on cluster: Cluster
) async throws -> [LoadAndRunModel] {
  let hosts = try await cluster.status().hosts.filter(\.connected).sorted { $0.name < $1.name }
  guard !hosts.isEmpty else { throw noHosts }
  return try await withThrowingTaskGroup(of: (Int, LoadAndRunModel).self) { group in
    for index in 0..<count {
      let host = hosts[index % hosts.count]
      group.addTask {
        let actor = try await cluster.spawn(
          LoadAndRunModel.self, with: .init(model: model.blob, host: host.name.text), options.options(.host(host.host)))
        return (index, actor)
      }
    }
    var actors: [Int: LoadAndRunModel] = [:]
    for try await (index, actor) in group { actors[index] = actor }
    return (0..<count).map { actors[$0]! }
  }
}

/// Transcribes files on actors: whoever is done takes the next one. An actor that can't be reached takes no more.
///
/// - Parameter progress: Shows what is done of all audio, until this returns.
/// - Returns: For each file its transcript, or what went wrong with it.
func transcribe(
  _ files: [String], on actors: [LoadAndRunModel], _ requested: RequestedOptions, cluster: Cluster,
  progress: ProgressLine
) async throws -> [Result<Transcript, any Error>] {
  defer { progress.end() }
  let queue = Queue(files.count)
  return try await withThrowingTaskGroup(of: [Int: Result<Transcript, any Error>].self) { group in
    for actor in actors {
      group.addTask {
        var done: [Int: Result<Transcript, any Error>] = [:]
        while let index = await queue.next() {
          do {
            done[index] = .success(
              try await transcribe(index, files[index], on: actor, requested, cluster: cluster, progress: progress))
          } catch {
            try Task.checkCancellation()
            done[index] = .failure(error)
            // Else an actor that is gone would take all files, and fail at once with each.
            if let error = error as? MobulaError, [.actorDied, .actorUnavailable].contains(error.code) { break }
          }
        }
        return done
      }
    }
    var all: [Int: Result<Transcript, any Error>] = [:]
    for try await done in group { all.merge(done) { first, _ in first } }
    let untaken = SpeechError(.system, "No actor was left for it: look at `mobula status`, and try again.")
    return files.indices.map { all[$0] ?? .failure(untaken) }
  }
}

private func transcribe(
  _ index: Int, _ file: String, on actor: LoadAndRunModel, _ requested: RequestedOptions, cluster: Cluster,
  progress: ProgressLine
) async throws -> Transcript {
  let read = try AudioSamples(path: file)
  let (audio, length) = (try await cluster.put(BlobArray(read.samples)), read.duration / .seconds(1))
  progress.begins(index, seconds: length)
  let watch = Task {
    while !Task.isCancelled {
      try await Task.sleep(for: .milliseconds(500))
      let done = try await actor.progress()
      // The answer may be of the actor's next file.
      if !Task.isCancelled { progress.update(index, done: done) }
    }
  }
  defer { watch.cancel() }
  var transcript = try await actor.transcribe(audio, requested)
  progress.update(index, done: length)
  transcript.warnings = read.warnings + transcript.warnings
  return transcript
}

/// Numbers below a count, each once.
private actor Queue {
  private let count: Int
  private var position = 0

  init(_ count: Int) { self.count = count }

  func next() -> Int? {
    guard position < count else { return nil }
    position += 1
    return position - 1
  }
}
