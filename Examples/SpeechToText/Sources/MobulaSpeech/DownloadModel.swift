import Mobula
import SpeechModel

/// A model's blob in the store, and how it came there.
struct PreparedModel: Codable, Sendable {
  /// The normalised model: float32 in safetensors layout, 64-byte aligned.
  var blob: ObjectRef<Blob>
  var name: String
  /// Of the blob.
  var bytes: Int
  /// Seconds until the files were on this host, and to normalise them; 0 where the blob was there already.
  var fetch: Double
  var normalise: Double
  /// Sentences about what was left out; none where the blob was there already.
  var warnings: [String] = []
}

/// Fetches a model's directory from S3 through the cluster's plan, and leaves it in the store, normalised, under a name.
///
/// The name changes with the versions of the files: whoever asks again for the same ones gets the blob that is there.
struct DownloadModel: RemoteTask {
  /// `s3://bucket/prefix/`.
  var url: String
  /// Another S3 than the one in the host's environment, as `http://HOST:PORT`.
  var endpoint: String?

  func run(in context: TaskContext) async throws -> PreparedModel {
    let cluster = context.cluster
    let start = ContinuousClock.now
    let prefix = url.hasSuffix("/") ? url : url + "/"
    let found = try await cluster.listS3(prefix, endpoint: endpoint).map(\.url)
    let urls = Self.needed(found, under: prefix)
    let references = try await withThrowingTaskGroup(of: (String, ObjectRef<Blob>).self) { group in
      var all: [String: ObjectRef<Blob>] = [:]
      for (index, url) in urls.enumerated() {
        if index >= Self.maximumFetches, let (name, reference) = try await group.next() { all[name] = reference }
        group.addTask { (String(url.dropFirst(prefix.count)), try await cluster.fetch(url, endpoint: endpoint)) }
      }
      for try await (name, reference) in group { all[name] = reference }
      return all
    }
    // An object is one version of a file.
    let versions = references.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.id)" }
    let name = "speech/\(prefix)#\(stableHash(versions.joined(separator: ",")))"
    if let there = try await existing(name, on: cluster) {
      return PreparedModel(
        blob: there, name: name, bytes: try await there.value.count, fetch: seconds(since: start), normalise: 0)
    }
    var files: [ModelFile] = []
    for (name, reference) in references { files.append(modelFile(name, try await reference.value)) }
    let fetched = seconds(since: start)
    let begin = ContinuousClock.now
    let blob = try await normalise(files, name: name, on: cluster)
    return PreparedModel(
      blob: blob.reference, name: name, bytes: blob.bytes, fetch: fetched, normalise: seconds(since: begin),
      warnings: blob.warnings)
  }

  /// At a time.
  private static let maximumFetches = 8

  /// The files right under the prefix that can be a model's, as of a folder. A model's repository may have the same
  /// weights in several formats: one of them is enough.
  static func needed(_ urls: [String], under prefix: String) -> [String] {
    let children = urls.filter { url in
      let name = url.dropFirst(prefix.count)
      return url.hasPrefix(prefix) && !name.contains("/") && ModelFile.canMatter(String(name))
    }
    let isSafe = children.contains { $0.hasPrefix(prefix + "model") && $0.hasSuffix(".safetensors") }
    return children.filter { !(isSafe && $0.hasSuffix(".bin")) }
  }
}

/// Normalises a model's files straight into shared memory, and names the blob.
func normalise(
  _ files: [ModelFile], name: String, on cluster: Cluster
) async throws -> (reference: ObjectRef<Blob>, bytes: Int, warnings: [String]) {
  let normaliser = try ModelNormaliser(files: files)
  var writer = try await cluster.blobWriter(size: normaliser.size)
  try normaliser.write { writer.append($0) }
  let reference = try writer.finish()
  do {
    try await cluster.name(reference, name)
  } catch let error as MobulaError where error.code == .alreadyExists {
    // Another task was as fast, with the same bytes.
    if let there = try await existing(name, on: cluster) { return (there, normaliser.size, normaliser.warnings) }
    throw error
  }
  return (reference, normaliser.size, normaliser.warnings)
}

/// The blob of that name, if there is one.
func existing(_ name: String, on cluster: Cluster) async throws -> ObjectRef<Blob>? {
  do {
    return try await cluster.object(named: name, as: Blob.self)
  } catch let error as MobulaError where error.code == .notFound {
    return nil
  }
}

/// A file of a model that lies in shared memory, used in place.
func modelFile(_ name: String, _ blob: Blob) -> ModelFile {
  let owner = BlobOwner(blob)
  return ModelFile(name: name, bytes: owner.bytes, owner: owner)
}

/// Keeps a blob mapped for those who have its address.
final class BlobOwner: Sendable {
  private let blob: Blob

  init(_ blob: Blob) { self.blob = blob }

  /// Valid as long as this owner is: a blob's bytes don't move.
  var bytes: UnsafeRawBufferPointer { blob.withUnsafeBytes { $0 } }
}

/// FNV-1a of 64 bits (Fowler, Noll and Vo), as text.
func stableHash(_ text: String) -> String {
  let hash = text.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  return String(hash, radix: 16)
}

func seconds(since start: ContinuousClock.Instant) -> Double { (ContinuousClock.now - start) / .seconds(1) }
