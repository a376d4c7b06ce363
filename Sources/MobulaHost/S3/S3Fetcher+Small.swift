import MobulaCore
import MobulaS3
import MobulaTransfer
import MobulaWire
import Synchronization

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
    let bucket = Name("\(client.configuration.baseEndpoint)/\(url.bucket)")
    if versioned.withLock({ $0.contains(bucket) }) { return nil }
    // The caller may go; a claim that nobody follows would keep all others waiting. And another caller waits for the same.
    let task = small.withLock { tasks in
      if let task = tasks[version] { return task }
      let task = Task { () -> FetchSmallReply.Outcome? in
        defer { _ = self.small.withLock { $0.removeValue(forKey: version) } }
        guard
          let (claim, bytesCopied) = try? await self.read(
            found, as: version, geometry: geometry, prefix: prefix, client: client, bucket: bucket)
        else { return nil }
        self.note(claim.object, FetchRequest(url: entry.url.text, endpoint: endpoint), version)
        return FetchSmallReply.Outcome(object: claim.object, bytesCopied: bytesCopied)
      }
      tasks[version] = task
      return task
    }
    return await task.value
  }

  /// - Returns: the claim, and bytes that came; `nil` where another host reads it.
  /// - Throws: why it has to come as big ones do; what was claimed is given up then.
  private func read(
    _ found: Found, as version: Name, geometry: ChunkGeometry, prefix: [UInt8], client: S3Client, bucket: Name
  ) async throws -> (ClaimReply, bytesCopied: Int)? {
    let url = found.object
    let claim = try await head.call(
      HeadAPI.claim, ClaimRequest(host: host, name: version, geometry: geometry, takesPart: true))
    let isHere = fetcher.isHere(claim.object)
    guard isHere || claim.part == 0..<geometry.count else { return nil }
    return try await fetcher.holdUntilNamed(claim.object) {
      if !isHere {
        do {
          let small = try await client.small(
            bucket: url.bucket, key: url.key, info: found.info, pace: { try await self.traffic.admit($0, .get) })
          guard small.versionID == nil else {
            _ = versioned.withLock { $0.insert(bucket) }
            throw MobulaError(.mismatch, "\(url) has versions.")
          }
          try await fetcher.place(
            claim.object, geometry: geometry, prefix: prefix, bytes: small.bytes, ReplicaCheck.outcome(of: small))
        } catch {
          // Where another call of this host's reads it, what that reads is not to be given away.
          if !fetcher.isFilling(claim.object) { await fetcher.giveUpParts(of: claim.object) }
          throw error
        }
      }
      guard try await name(claim, url, version) else { return nil }
      return (claim, isHere ? 0 : geometry.objectSize)
    }
  }
}
