import MobulaCore
import MobulaS3
import MobulaTransfer
import MobulaWire
import Synchronization

/// Small objects, many at a time: each by one GET, by the host that claims it first, which the others take it from. What
/// a listing says of one is all that has to be known before.
extension S3Fetcher {
  /// A small object that is to be brought.
  private struct Small: Sendable {
    var found: Found
    var version: Name
    var geometry: ChunkGeometry
    /// Its bytes before those of S3.
    var prefix: [UInt8]
    /// With its endpoint.
    var bucket: Name
  }

  /// What came, by version.
  typealias SmallOutcomes = [Name: FetchSmallReply.Outcome]

  func fetchSmall(_ request: FetchSmallRequest) async throws -> FetchSmallReply {
    guard request.entries.count <= FetchSmallRequest.mostEntries else {
      throw MobulaError(
        .invalidArgument,
        "\(request.entries.count) objects were asked for at once: ask for at most \(FetchSmallRequest.mostEntries).")
    }
    let client = try await client(request.access)
    let wanted = request.entries.map { try? object($0, client) }
    // The caller may go; a claim that nobody follows would keep all others waiting. And another caller waits for the
    // same.
    let tasks = small.withLock { tasks in
      var new: [Name: Small] = [:]
      for object in wanted { if let object, tasks[object.version] == nil { new[object.version] = object } }
      if !new.isEmpty {
        let objects = wanted.compactMap { $0.flatMap { new.removeValue(forKey: $0.version) } }
        let task = Task { await self.bring(objects, request.access, client) }
        for object in objects { tasks[object.version] = task }
      }
      return wanted.map { $0.flatMap { tasks[$0.version] } }
    }
    var outcomes: [FetchSmallReply.Outcome] = []
    for (object, task) in zip(wanted, tasks) {
      guard let object, let task else {
        outcomes.append(FetchSmallReply.Outcome())
        continue
      }
      outcomes.append(await task.value[object.version] ?? FetchSmallReply.Outcome())
    }
    return FetchSmallReply(outcomes: outcomes)
  }

  /// - Returns: `nil` for what has to come as big ones do.
  private func object(_ entry: ListS3Reply.Entry, _ client: S3Client) throws -> Small? {
    guard let etag = entry.etag, 0...FetchSmallRequest.largest ~= entry.size.bytes else { return nil }
    let url = try S3URL(entry.url.text)
    let bucket = Name("\(client.configuration.baseEndpoint)/\(url.bucket)")
    if versioned.withLock({ $0.contains(bucket) }) { return nil }
    let found = Found(object: url, info: S3ObjectInfo(size: entry.size.bytes, etag: etag))
    let (layout, prefix) = ValueLayout.blob(size: found.info.size)
    return Small(
      found: found, version: found.version(at: client.configuration.baseEndpoint),
      geometry: try ChunkGeometry(objectSize: layout.size), prefix: prefix, bucket: bucket)
  }

  /// Claims all, brings each, and names what came. What is left out has to come as big ones do, with all their patience.
  private func bring(_ objects: [Small], _ access: S3Access, _ client: S3Client) async -> SmallOutcomes {
    defer { small.withLock { tasks in for object in objects { tasks[object.version] = nil } } }
    let claims = objects.map {
      ClaimRequest(host: host, name: $0.version, geometry: $0.geometry, takesPart: true)
    }
    guard
      let answers = try? await head.call(HeadAPI.claimAll, ClaimsRequest(claims: claims)).answers,
      answers.count == objects.count
    else { return [:] }
    let came = await bring(
      zip(objects, answers).compactMap { object, answer in answer.claim.map { (object, $0) } }, client)
    defer { fetcher.unhold(came.map(\.claim.object)) }
    let names = came.map {
      NameRequest(name: $0.object.found.object.name, object: $0.claim.object, claim: $0.claim.number)
    }
    guard !came.isEmpty, let named = try? await head.call(HeadAPI.setNames, NamesRequest(names: names)).answers,
      named.count == came.count
    else { return [:] }
    var outcomes: SmallOutcomes = [:]
    for ((object, claim, bytes), answer) in zip(came, named) where answer.name?.isNamed == true {
      let url = object.found.object
      isNamed(claim, url, object.version)
      note(claim.object, FetchRequest(url: url.name.text, access: access), object.version)
      outcomes[object.version] = FetchSmallReply.Outcome(object: claim.object, bytesCopied: bytes)
    }
    // Whoever asks the head next finds them here.
    await fetcher.flushReports()
    return outcomes
  }

  /// What came of what was claimed, and how many bytes of it came now.
  private typealias Came = (object: Small, claim: ClaimReply, bytes: Int)

  /// What comes from S3 is held from then on: a head that is started again before it is named would drop it.
  private func bring(_ claimed: [(Small, ClaimReply)], _ client: S3Client) async -> [Came] {
    var came: [Came] = []
    var fromHosts: [TransferPeer: [ObjectID: (Small, ClaimReply)]] = [:]
    var fromS3: [(Small, ClaimReply)] = []
    for (object, claim) in claimed {
      if fetcher.isHere(claim.object) {
        came.append((object, claim, 0))
      } else if claim.part == 0..<object.geometry.count {
        fromS3.append((object, claim))
      } else if let source = claim.source {
        fromHosts[source, default: [:]][claim.object] = (object, claim)
      }
    }
    return await withTaskGroup(of: [Came].self) { group in
      for (object, claim) in fromS3 {
        group.addTask {
          do {
            try await self.bring(object, claim, client)
            return [(object, claim, object.geometry.objectSize)]
          } catch {
            return []
          }
        }
      }
      for (source, objects) in fromHosts { group.addTask { await self.take(objects, from: source) } }
      return await group.reduce(into: came) { $0 += $1 }
    }
  }

  private func bring(_ object: Small, _ claim: ClaimReply, _ client: S3Client) async throws {
    _ = reading.withLock { $0.insert(claim.object) }
    defer { _ = reading.withLock { $0.remove(claim.object) } }
    fetcher.hold(claim.object)
    do {
      try await readFromS3(claim.object, object, client)
    } catch {
      fetcher.unhold([claim.object])
      throw error
    }
  }

  /// Whether an object that another host asks for is being read here.
  func isReading(_ object: ObjectID) -> Bool { reading.withLock { $0.contains(object) } }

  private func readFromS3(_ object: ObjectID, _ small: Small, _ client: S3Client) async throws {
    let url = small.found.object
    do {
      let answer = try await client.small(
        bucket: url.bucket, key: url.key, info: small.found.info,
        pace: { try await self.traffic.admit($0, .get) })
      guard answer.versionID == nil else {
        _ = versioned.withLock { $0.insert(small.bucket) }
        throw MobulaError(.mismatch, "\(url) has versions.")
      }
      try await fetcher.place(
        object, geometry: small.geometry, bytes: small.prefix + answer.bytes,
        from: .s3(ReplicaCheck.outcome(of: answer)))
    } catch {
      // Where another call of this host's reads it, what that reads is not to be given away.
      if !fetcher.isFilling(object) { await fetcher.giveUpParts(of: object) }
      throw error
    }
  }

  private func take(_ objects: [ObjectID: (Small, ClaimReply)], from source: TransferPeer) async -> [Came] {
    let came = Mutex<[Came]>([])
    // On the thread that receives them: each thread more that one passes through takes as long as its bytes.
    await sources.take(Array(objects.keys), from: source) { [fetcher] id, answer in
      guard case .success(let arrival) = answer, let (object, claim) = objects[id], arrival.geometry == object.geometry,
        (try? fetcher.placeNow(id, geometry: arrival.geometry, bytes: arrival.bytes, from: .host(source.host))) != nil
      else { return }
      came.withLock { $0.append((object, claim, object.geometry.objectSize)) }
    }
    return came.withLock { $0 }
  }
}
