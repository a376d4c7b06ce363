import Mobula

/// What a program does with objects; on a host of a cluster, as the host's user.
struct Weights: Codable, Sendable {
  var name: String
  var layers: [String: BlobArray<Float>]
}

@main struct Objects {
  static func main() async throws {
    let cluster = try await Cluster.connect()

    // snippet.put
    let weights = Weights(name: "small", layers: ["first": BlobArray([0.5, 0.25])])
    let reference = try await cluster.put(weights)
    // Views of shared memory: nothing was copied.
    let first = try await reference.value.layers["first"]?.first
    // snippet.end
    print(first ?? 0)

    // snippet.name
    // The object outlives this job under its name, until `mobula rm`.
    try await cluster.name(reference, "weights/small")
    let again: ObjectRef<Weights> = try await cluster.object(named: "weights/small")
    // snippet.end
    print(again.id)

    // snippet.write
    var writer = try await cluster.blobWriter(size: 1_000_000)
    while writer.remaining > 0 {
      let piece = [UInt8](repeating: 7, count: min(65_536, writer.remaining))
      piece.withUnsafeBytes { writer.append($0) }
    }
    let blob = try writer.finish()
    // snippet.end

    // snippet.broadcast
    try await blob.broadcast(to: .label("zone", "eu-1")) { states in
      print(states.filter(\.isComplete).count, "of", states.count, "hosts have it")
    }
    // snippet.end

    // snippet.fetch
    // Each byte leaves S3 once, however many hosts ask.
    let model = try await cluster.fetchDirectory("s3://models/whisper/")
    print(model["config.json"]?.count ?? 0)
    // snippet.end
    await cluster.close()
  }
}
