internal import MobulaCore
internal import Synchronization

extension S3Client {
  /// Makes or replaces an object of `size` bytes that need not be in memory.
  ///
  /// From `S3Configuration.multipartThreshold` on it goes in parts, several at a time, as many as S3 takes well. The
  /// object appears whole or not at all: on failure and on cancellation the parts are given up.
  ///
  /// - Parameters:
  ///   - progress: called with the bytes that were sent since its last call, from any thread; with less than nothing for
  ///     what has to be sent again.
  ///   - waiting: called now and then while a service that does not answer is waited for.
  ///   - producer: returns the bytes of a range, at most 1 MiB. The ranges of a part come in order, from its first again
  ///     for another reading; those of different parts at the same time.
  /// - Returns: the object's ETag, with its quotes; `nil` where the end of an upload in parts does not name it.
  /// - Throws: also `S3Error` with the code `impossible` for an answer that does not say that the object is there.
  @discardableResult
  public func put(
    bucket: String, key: String, size: Int, progress: (@Sendable (Int) -> Void)? = nil,
    waiting: (@Sendable (S3Error) -> Void)? = nil,
    producer: @escaping @Sendable (Range<Int>) async throws -> [UInt8]
  ) async throws -> String? {
    guard size >= configuration.multipartThreshold.bytes, size > 0 else {
      if size == 0 { return try await put(bucket: bucket, key: key, bytes: []) }
      let pieces = S3Pieces(size: size, producer: producer, sent: progress)
      return try await stored(S3Request(method: .put, bucket: bucket, key: key, payload: .pieces(pieces))) {
        pieces.digest.values?.crc32c
      }
    }
    return try await inParts(
      bucket: bucket, key: key, size: size, leastPart: configuration.uploadPartSize.bytes, progress: progress,
      waiting: waiting
    ) { _, pieces in
      let (range, sent) = (pieces.range, pieces.sent)
      let part = S3Pieces(
        size: range.count,
        producer: { try await producer($0.lowerBound + range.lowerBound..<$0.upperBound + range.lowerBound) },
        digest: pieces.digest, sent: sent)
      return S3Request(method: .put, bucket: bucket, key: key, payload: .pieces(part))
    }
  }

  /// Copies an object within the service: the bytes don't come here.
  ///
  /// From 5 GB on (`S3Configuration.maximumCopySize`) it goes in parts. The version that is there when it begins is
  /// copied, or none.
  /// - Throws: also `S3Error` with status 412 when the source changed meanwhile.
  @discardableResult
  public func copy(from source: S3URL, to target: S3URL) async throws -> String? {
    let info = try await head(bucket: source.bucket, key: source.key)
    let headers = [
      ("x-amz-copy-source", "/\(percentEncoded(source.bucket))/\(percentEncoded(source.key, keepingSlashes: true))"),
      ("x-amz-copy-source-if-match", info.etag),
    ]
    guard info.size > configuration.maximumCopySize.bytes else {
      let request = S3Request(
        method: .put, bucket: target.bucket, key: target.key, headers: headers, expectedBytes: info.size)
      return try await document(request, named: "CopyObjectResult", having: "ETag")["ETag"]
    }
    let leastPart = min(configuration.maximumCopySize.bytes, 512 * 1_048_576)
    return try await inParts(bucket: target.bucket, key: target.key, size: info.size, leastPart: leastPart) { _, part in
      S3Request(
        method: .put, bucket: target.bucket, key: target.key,
        headers: headers + [("x-amz-copy-source-range", "bytes=\(part.range.lowerBound)-\(part.range.upperBound - 1)")],
        expectedBytes: part.range.count)
    }
  }

  /// Makes an object of parts, each by the request that `request` returns for it.
  private func inParts(
    bucket: String, key: String, size: Int, leastPart: Int, progress: (@Sendable (Int) -> Void)? = nil,
    waiting: (@Sendable (S3Error) -> Void)? = nil,
    request: @escaping @Sendable (Int, S3Upload.Part) -> S3Request
  ) async throws -> String? {
    let layout = S3PartLayout(size: size, leastPart: leastPart)
    let create = S3Request(
      method: .post, bucket: bucket, key: key, query: [("uploads", "")],
      headers: configuration.uploadChecksums
        ? [("x-amz-checksum-algorithm", "CRC32C"), ("x-amz-checksum-type", "FULL_OBJECT")] : [])
    // Also where this task is cancelled, its answer is waited for: without the name in it nobody can end what has begun.
    let beginning = Task {
      try await document(create, named: "InitiateMultipartUploadResult", having: "UploadId")["UploadId"]
    }
    let begun = try await withTaskCancellationHandler {
      try await beginning.value
    } onCancel: {
      Task {
        try? await Task.sleep(for: .seconds(2))
        beginning.cancel()
      }
    }
    guard let id = begun, !id.isEmpty else {
      throw malformed("its answer to an upload's begin has no UploadId", bucket: bucket, key: key)
    }
    var settings = configuration.concurrency(
      of: nil, partSize: ByteCount(layout.partSize), smallestPart: layout.partSize)
    // Each reads its part, twice.
    settings.maximum = min(settings.maximum, layout.count, 16)
    let upload = S3Upload(
      client: self, bucket: bucket, key: key, id: id, layout: layout, gate: S3RequestGate(settings),
      progress: progress, waiting: waiting, request: request)
    do {
      return try await upload.run(tasks: settings.maximum)
    } catch {
      // Also where this task was cancelled: parts that nobody ends are stored, and paid for, for good.
      await Task {
        try? await self.done(upload.whole(.delete))
        // A part that was on its way may have come after it: where the upload is there again, it is given up once more.
        for pause in [300, 700] {
          try? await Task.sleep(for: .milliseconds(pause))
          do { try await self.done(upload.whole(.delete)) } catch { break }
        }
      }.value
      throw error
    }
  }

  /// The answer's XML; an error that comes with status 200 is one, too.
  ///
  /// - Parameters:
  ///   - name: its root's.
  ///   - element: what it has in any case: with that, services may call the root what they like.
  func document(_ request: S3Request, named name: String, having element: String? = nil) async throws -> XMLTree {
    try await retrying {
      let answer = try await self.transport.send(request)
      let bytes = try await answer.collect(upTo: S3Transport.maximumDocument)
      guard let tree = XMLTree.parse(bytes) else {
        throw self.malformed("its answer is not XML", bucket: request.bucket, key: request.key)
      }
      if tree.name == name || tree.name != "Error" && element.map({ tree[$0] != nil }) == true { return tree }
      guard tree.name == "Error" else {
        throw self.malformed("its answer is no \(name)", bucket: request.bucket, key: request.key)
      }
      throw S3Error.answer(
        answer.errorHead, body: bytes, endpoint: self.configuration.baseEndpoint, bucket: request.bucket,
        key: request.key)
    }
  }
}

/// How an object is cut into the parts of an upload: all of `partSize` bytes but the last.
struct S3PartLayout: Sendable, Hashable {
  /// S3 takes no more.
  static let maximumCount = 10_000

  let size: Int
  let partSize: Int

  /// Parts of `leastPart` bytes, or of as many MiB as it takes to need no more than 10,000.
  init(size: Int, leastPart: Int) {
    precondition(size > 0)
    let least = (size + Self.maximumCount - 1) / Self.maximumCount
    let rounded = (least + 1_048_575) / 1_048_576 * 1_048_576
    self.size = size
    partSize = least <= max(1, leastPart) ? max(1, leastPart) : rounded
  }

  var count: Int { (size + partSize - 1) / partSize }

  /// The bytes of part `number`, from 1.
  func range(of number: Int) -> Range<Int> { (number - 1) * partSize..<min(size, number * partSize) }
}

/// A multipart upload that has begun.
struct S3Upload: Sendable {
  struct Part: Sendable {
    let range: Range<Int>
    let digest: S3PayloadDigest
    let sent: @Sendable (Int) -> Void
  }

  private struct Done: Sendable {
    var etag: String
    var checksum: UInt32?
    var crc32: UInt32?
  }

  private final class Progress: Sendable {
    struct State {
      /// The next part that nobody has begun.
      var next = 1
      var done: [Int: Done] = [:]
    }
    let state = Mutex(State())
  }

  let client: S3Client
  let bucket: String
  let key: String
  let id: String
  let layout: S3PartLayout
  let gate: S3RequestGate
  let progress: (@Sendable (Int) -> Void)?
  let waiting: (@Sendable (S3Error) -> Void)?
  let request: @Sendable (Int, Part) -> S3Request

  /// Sends all parts, and makes them the object.
  func run(tasks: Int) async throws -> String? {
    let progress = Progress()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<tasks { group.addTask { try await sendParts(progress) } }
      try await group.waitForAll()
    }
    let done = progress.state.withLock { $0.done }
    return try await complete((1...layout.count).map { done[$0]! })
  }

  /// A request about the upload as a whole.
  func whole(_ method: S3Request.Method) -> S3Request {
    S3Request(method: method, bucket: bucket, key: key, query: [("uploadId", id)])
  }

  private func sendParts(_ progress: Progress) async throws {
    while true {
      let number = progress.state.withLock { state in
        defer { state.next += 1 }
        return state.next
      }
      guard number <= layout.count else { return }
      var persistence = S3Persistence(client.configuration.retry, waiting: waiting)
      // What is sent again need not be read again for its checksums.
      let digest = S3PayloadDigest()
      while true {
        let turn = try await gate.turn()
        do {
          let part = try await send(number, digest)
          gate.finished(turn, bytes: layout.range(of: number).count)
          progress.state.withLock { $0.done[number] = part }
          break
        } catch {
          guard let error = error as? S3Error else {
            gate.failed()
            throw error
          }
          if error.isThrottling { gate.throttled(turn) } else { gate.failed() }
          guard
            let pause = persistence.pause(after: error, isRetryable: error.isRetryable, hasProgressed: false)
          else { throw error }
          try await Task.sleep(for: pause)
        }
      }
    }
  }

  private func send(_ number: Int, _ digest: S3PayloadDigest) async throws -> Done {
    let sent: @Sendable (Int) -> Void = { [gate, progress] bytes in
      gate.received(max(0, bytes))
      progress?(bytes)
    }
    var request = request(number, Part(range: layout.range(of: number), digest: digest, sent: sent))
    request.query += [("partNumber", "\(number)"), ("uploadId", id)]
    let answer = try await client.transport.send(request)
    let bytes = try await answer.collect(upTo: S3Transport.maximumDocument)
    // A part that S3 copies has its ETag in a document, which may be an error.
    let tree = bytes.isEmpty ? nil : XMLTree.parse(bytes)
    if tree?.name == "Error" {
      throw S3Error.answer(
        answer.errorHead, body: bytes, endpoint: client.configuration.baseEndpoint, bucket: bucket, key: key)
    }
    if let values = digest.values {
      let right = [values.crc32c, values.crc32].map { bigEndian(UInt64($0), count: 4) }
      try client.check(answer, right, bucket: bucket, key: key)
    }
    guard let etag = answer.etag ?? tree?["ETag"] else {
      throw client.malformed("its answer to part \(number) has no ETag", bucket: bucket, key: key)
    }
    var done = Done(etag: etag)
    if let values = digest.values {
      (done.checksum, done.crc32) = (values.crc32c, values.crc32)
    } else if let text = tree?["ChecksumCRC32C"],
      let value = MobulaS3.bytes(base64: text), value.count == 4
    {
      done.checksum = value.reduce(0) { $0 << 8 | UInt32($1) }
    }
    return done
  }

  private func complete(_ parts: [Done]) async throws -> String? {
    var text = "<CompleteMultipartUpload>"
    for (index, part) in parts.enumerated() {
      text += "<Part><PartNumber>\(index + 1)</PartNumber><ETag>\(xmlEscaped(part.etag))</ETag>"
      if client.configuration.uploadChecksums, let checksum = part.checksum {
        text += "<ChecksumCRC32C>\(base64(checksum))</ChecksumCRC32C>"
      }
      text += "</Part>"
    }
    text += "</CompleteMultipartUpload>"
    var request = whole(.post)
    request.payload = .bytes(Array(text.utf8))
    // S3 puts the parts together before it answers.
    request.expectedBytes = layout.size / 16
    if client.configuration.uploadChecksums, let whole = checksum(of: parts) {
      request.headers = [("x-amz-checksum-crc32c", base64(whole)), ("x-amz-checksum-type", "FULL_OBJECT")]
    }
    do {
      let answer = try await waitingOut { [request] in
        try await client.document(request, named: "CompleteMultipartUploadResult", having: "ETag")
      }
      let said = S3Checksum(.crc32c, text: answer["ChecksumCRC32C"])
      let isOfParts = answer["ChecksumType"]?.uppercased() == "COMPOSITE"
      try await client.check(
        isOfParts ? nil : said, right(parts), layout.size, etag: answer["ETag"], bucket: bucket, key: key)
      return answer["ETag"]
    } catch let error as S3Error where error.code == "NoSuchUpload" {
      // It may have been completed by an attempt of which the answer was lost.
      let info = try await client.head(bucket: bucket, key: key)
      let whole = checksum(of: parts).map { bigEndian(UInt64($0), count: 4) }
      guard info.size == layout.size, info.etag.hasSuffix("-\(layout.count)\""),
        info.checksum?.algorithm != .crc32c || info.checksum?.parts != nil || info.checksum?.bytes == whole
      else { throw error }
      return info.etag
    }
  }

  /// What S3 may say of the object: its CRC32C, or what some services give for that: the CRC32C of the parts' CRC32Cs, or
  /// the CRC32.
  private func right(_ parts: [Done]) -> [[UInt8]] {
    guard let whole = checksum(of: parts) else { return [] }
    let all = parts.compactMap(\.checksum).flatMap { bigEndian(UInt64($0), count: 4) }
    var crc32: UInt64? = 0
    for (index, part) in parts.enumerated() {
      guard let before = crc32, let own = part.crc32 else {
        crc32 = nil
        break
      }
      crc32 = S3ChecksumAlgorithm.crc32.combine(before, UInt64(own), length: layout.range(of: index + 1).count)
    }
    let others = [UInt64(all.withUnsafeBytes { crc32c($0) }), crc32].compactMap(\.self)
    return ([UInt64(whole)] + others).map { bigEndian($0, count: 4) }
  }

  /// All has been sent: a service that goes away now is waited for as before.
  private func waitingOut<Value>(_ attempt: () async throws -> Value) async throws -> Value {
    var persistence = S3Persistence(client.configuration.retry, waiting: waiting)
    while true {
      do { return try await attempt() } catch let error as S3Error {
        guard let pause = persistence.pause(after: error, isRetryable: error.isRetryable, hasProgressed: false)
        else { throw error }
        try await Task.sleep(for: pause)
      }
    }
  }

  /// The CRC32C of all parts together; `nil` where one's is not known.
  private func checksum(of parts: [Done]) -> UInt32? {
    var whole: UInt32 = 0
    for (index, part) in parts.enumerated() {
      guard let checksum = part.checksum else { return nil }
      whole = UInt32(
        S3ChecksumAlgorithm.crc32c.combine(
          UInt64(whole), UInt64(checksum), length: layout.range(of: index + 1).count)!)
    }
    return whole
  }
}

/// `text` as it stands inside of an XML element.
func xmlEscaped(_ text: String) -> String {
  text.reduce(into: "") { result, character in
    switch character {
    case "&": result += "&amp;"
    case "<": result += "&lt;"
    case ">": result += "&gt;"
    default: result.append(character)
    }
  }
}
