import MobulaCore
import MobulaS3
import MobulaTransfer
import MobulaWire

/// Small objects, many at a time: each by one GET, by the host that claims it first. What a listing says of one is all
/// that has to be known before.
extension S3Fetcher {
  func fetchSmall(_ request: FetchSmallRequest) async throws -> FetchSmallReply {
    guard request.entries.count <= FetchSmallRequest.mostEntries else {
      throw MobulaError(
        .invalidArgument,
        "\(request.entries.count) objects were asked for at once: ask for at most \(FetchSmallRequest.mostEntries).")
    }
    let client = try await client(request.endpoint)
    return await withTaskGroup(of: (Int, FetchSmallReply.Outcome).self) { group in
      for (index, entry) in request.entries.enumerated() {
        group.addTask { (index, await self.outcome(of: entry, request.endpoint, client)) }
      }
      var outcomes = Array(repeating: FetchSmallReply.Outcome(), count: request.entries.count)
      for await (index, outcome) in group { outcomes[index] = outcome }
      return FetchSmallReply(outcomes: outcomes)
    }
  }

  private func outcome(
    of entry: ListS3Reply.Entry, _ endpoint: String?, _ client: S3Client
  ) async -> FetchSmallReply.Outcome {
    (try? await atOnce(entry, endpoint, client)) ?? FetchSmallReply.Outcome()
  }

  /// - Returns: `nil` when the object has to come as big ones do, with all their patience.
  private func atOnce(
    _ entry: ListS3Reply.Entry, _ endpoint: String?, _ client: S3Client
  ) async throws -> FetchSmallReply.Outcome? {
    guard let etag = entry.etag, 0...FetchSmallRequest.largest ~= entry.size.bytes else { return nil }
    let url = try S3URL(entry.url.text)
    let found = Found(object: url, info: S3ObjectInfo(size: entry.size.bytes, etag: etag))
    let version = found.version(at: client.configuration.baseEndpoint)
    let (layout, prefix) = ValueLayout.blob(size: found.info.size)
    let geometry = try ChunkGeometry(objectSize: layout.size)
    // The caller may go; a claim that nobody follows would keep all others waiting.
    return try await Task {
      let claim = try await self.head.call(
        HeadAPI.claim, ClaimRequest(host: self.host, name: version, geometry: geometry, takesPart: true))
      let isHere = self.fetcher.isHere(claim.object)
      guard isHere || claim.part == 0..<geometry.count else { return nil }
      return await self.fetcher.holdUntilNamed(claim.object) {
        var isWhole = isHere
        do {
          if !isHere {
            let small = try await client.small(
              bucket: url.bucket, key: url.key, info: found.info, pace: { try await self.traffic.admit($0, .get) })
            try await self.fetcher.place(
              claim.object, geometry: geometry, prefix: prefix, bytes: small.bytes, ReplicaCheck.outcome(of: small))
            isWhole = true
          }
          guard try await self.name(claim, url, version) else { return nil }
        } catch {
          if !isWhole { await self.fetcher.giveUpParts(of: claim.object) }
          return nil
        }
        self.note(claim.object, FetchRequest(url: entry.url.text, endpoint: endpoint), version)
        return FetchSmallReply.Outcome(object: claim.object, bytesCopied: isHere ? 0 : geometry.objectSize)
      }
    }.value
  }
}
