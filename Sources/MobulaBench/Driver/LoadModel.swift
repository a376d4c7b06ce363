import Distributed
import Glibc
import Mobula
import MobulaCore
import MobulaS3

/// Makes the model in its host's store: the maker of the comparison.
struct MakeModel: RemoteTask {
  var model: SyntheticModel

  func run(in context: TaskContext) async throws -> Blob { Blob(model.bytes(in: 0..<model.size)) }
}

/// Makes the same model again as a new object, which no other host has yet.
struct RemakeModel: RemoteTask {
  var model: ObjectRef<Blob>

  func run(in context: TaskContext) async throws -> Blob { try await model.value }
}

/// A reference inside a value: decoding it fetches nothing.
struct ModelReference: Codable, Sendable {
  var model: ObjectRef<Blob>
}

/// How long one loader took.
struct LoadTimes: Codable, Sendable {
  /// From the common start until every byte could be read in its address space.
  var seconds: Double
  /// A pass over one byte of every page after that.
  var touched: Double
  var bytesCopied: Int
  /// Why there is none; `seconds` are those until then.
  var error: MobulaError?
}

/// Loads the model the way it is told to, and keeps it until `unload`.
distributed actor LoadModel: RemoteActor {
  typealias ActorSystem = Cluster

  private var model: Blob?

  init(configuration: String, actorSystem: Cluster) async throws { self.actorSystem = actorSystem }

  /// Bytes of the object that this host's store has before the clock runs.
  distributed func bytesHere(_ reference: ModelReference) async throws -> Int {
    try await actorSystem.progress(of: reference.model.id).verified.bytes
  }

  distributed func bytesOf(_ object: ObjectID) async throws -> Int {
    try await actorSystem.progress(of: object).verified.bytes
  }

  /// From the stores of the cluster.
  distributed func load(_ reference: ModelReference, from sources: SourcePolicy, at start: Double) async throws
    -> LoadTimes
  {
    try await measure(start) {
      let fetched = try await reference.model.fetched(within: .seconds(120), sources: sources)
      return (fetched.value, fetched.bytesCopied)
    }
  }

  /// From S3, into this process's own memory.
  distributed func download(_ url: String, s3Endpoint: String, at start: Double) async throws -> LoadTimes {
    try await measure(start) {
      let blob = try await S3Model(url: url, endpoint: s3Endpoint).download()
      return (blob, blob.count)
    }
  }

  /// From S3, through the stores.
  distributed func fetch(_ url: String, s3Endpoint: String, at start: Double) async throws -> LoadTimes {
    try await measure(start) {
      let (reference, bytesCopied) = try await actorSystem.fetchCounted(url, access: S3Access(endpoint: s3Endpoint))
      return (try await reference.value, bytesCopied)
    }
  }

  /// - Throws: `MobulaError` (`corrupted`) when what it holds is not the model.
  distributed func verify(_ expected: SyntheticModel.Digest) async throws {
    guard let model else { throw MobulaError(.notFound, "This loader has no model: load one first.") }
    try await onThread(named: "verify") {
      try model.withUnsafeBytes { try SyntheticModel.verify($0, against: expected) }
    }
  }

  distributed func unload() { model = nil }

  private func measure(_ start: Double, _ load: () async throws -> (Blob, Int)) async throws -> LoadTimes {
    model = nil
    try await Task.sleep(for: .seconds(max(0, start - monotonicSeconds())))
    let (blob, bytesCopied) = try await load()
    let loaded = monotonicSeconds()
    let sum = blob.withUnsafeBytes { bytes in
      var sum: UInt64 = 0
      for offset in stride(from: 0, to: bytes.count, by: pageSize) { sum &+= UInt64(bytes[offset]) }
      return sum
    }
    let touched = monotonicSeconds()
    // Keeps the pass from being optimised away.
    precondition(sum != .max)
    model = blob
    return LoadTimes(seconds: loaded - start, touched: touched - loaded, bytesCopied: bytesCopied)
  }
}

/// A model in S3, downloaded with the credentials of this process's environment.
struct S3Model {
  var url: String
  var endpoint: String

  func download() async throws -> Blob {
    let location = try S3URL(url)
    let client = try await S3Client.fromEnvironment(S3Access(endpoint: endpoint))
    do {
      let memory = try await S3Error.asMobulaError {
        try await client.downloadIntoMemory(bucket: location.bucket, key: location.key)
      }
      await client.shutdown()
      return Blob(bytes: memory.bytes, owner: memory)
    } catch {
      await client.shutdown()
      throw error
    }
  }
}

/// The machine's monotonic clock, the same in every process of every emulated host.
func monotonicSeconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
