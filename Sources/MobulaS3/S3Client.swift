internal import AsyncHTTPClient
package import MobulaCore

/// An object as HEAD shows it.
public struct S3ObjectInfo: Hashable, Sendable {
  /// Bytes.
  public let size: Int
  /// With its quotes, as `If-Match` takes it.
  public let etag: String
  /// As HTTP writes it: `Fri, 24 May 2013 00:00:00 GMT`.
  public let lastModified: String?
  /// Where the bucket keeps versions: this one's, which is what `download` reads whatever becomes of the key.
  public let versionID: String?
  /// Of those that S3 keeps, the one that is quickest to compute.
  public let checksum: S3Checksum?

  public init(
    size: Int, etag: String, lastModified: String? = nil, versionID: String? = nil, checksum: S3Checksum? = nil
  ) {
    self.checksum = checksum
    self.size = size
    self.etag = etag
    self.lastModified = lastModified
    self.versionID = versionID
  }
}

extension S3ObjectInfo {
  /// The version that an answer names. "null" is that of a bucket that keeps none, and other bytes may take its place.
  static func versionID(in answer: S3Body) -> String? {
    answer.header("x-amz-version-id").flatMap { $0 == "null" || $0.isEmpty ? nil : $0 }
  }
}

/// Speaks to one S3 service with the credentials of one provider.
///
/// What fails for the moment (connections, 5xx, 429) is tried again as
/// `S3Configuration.retry` says; every request has a deadline. All methods throw
/// `S3Error` for what the service or the way to it refused, `MobulaError`
/// (`invalidArgument`) for what can't be asked at all, and `CancellationError`.
public final class S3Client: Sendable {
  public let configuration: S3Configuration
  let transport: S3Transport
  /// Objects of a service that answers all of one to a range of it.
  let wholes = S3WholeStreams()

  /// - Parameter credentials: asked before every request; an `S3Credentials` for fixed ones, else an
  ///   `S3CredentialsChain` or another provider.
  public init(configuration: S3Configuration, credentials: any S3CredentialsProvider) {
    self.configuration = configuration
    transport = S3Transport(configuration: configuration, credentials: credentials)
  }

  deinit {
    // Its connections are closed in the background; after `shutdown` there are none.
    let transport = transport
    Task { await transport.shutdown() }
  }

  /// Configuration and credentials from where the AWS SDKs find them: see `S3CredentialsChain`.
  ///
  /// - Parameters:
  ///   - credentials: a chain that several clients share; one of its own by default.
  ///   - patience: for how long a service that goes away in the middle of an object is waited for; as the configuration
  ///     says by default.
  /// - Throws: `MobulaError` (`invalidArgument`) for an endpoint, a profile or a file that can't be used. Credentials
  ///   are looked for with the first request.
  package static func fromEnvironment(
    _ access: S3Access = S3Access(), credentials: S3CredentialsChain = S3CredentialsChain(), patience: Duration? = nil
  ) async throws -> S3Client {
    var configuration = try await credentials.configuration(endpoint: access.endpoint)
    configuration.signsRequests = !access.isUnsigned
    configuration.paysForRequests = access.paysForRequests
    if let patience { configuration.retry.patience = patience }
    return S3Client(configuration: configuration, credentials: credentials)
  }

  /// Whether the service has taken a request so far.
  package var hasAnswered: Bool { transport.hasAnswered.value }

  /// Closes all connections; requests made later fail. Without it they are closed when the client goes.
  public func shutdown() async {
    await transport.shutdown()
  }

  /// Size and ETag of an object.
  ///
  /// - Parameter versionID: which of its versions; by default the current one.
  public func head(bucket: String, key: String, versionID: String? = nil) async throws -> S3ObjectInfo {
    let version = versionID.map { [("versionId", $0)] } ?? []
    let request = S3Request(
      method: .head, bucket: bucket, key: key, query: version, headers: [("x-amz-checksum-mode", "ENABLED")])
    let answer = try await retrying {
      do {
        return try await self.transport.send(request)
      } catch let error as S3Error where 300...499 ~= error.httpStatus || error.httpStatus == 501 {
        // A HEAD's error has no text; the same question as a GET of one byte
        // tells a missing bucket from a missing key, or a wrong secret.
        let byte = try await self.transport.send(
          S3Request(method: .get, bucket: bucket, key: key, query: version, headers: [("range", "bytes=0-0")]))
        // It may have taught the right time or region, too.
        do { return try await self.transport.send(request) } catch let again as S3Error
          where [401, 403, 405, 501].contains(again.httpStatus) && byte.etag != nil
        {
          // Whoever may read an object need not be allowed to ask for its head.
          return byte
        }
      }
    }
    if answer.status == 206 {
      // The length is the range's, and not the object's.
      guard let size = answer.total, let etag = answer.etag else {
        throw impossible(
          "it refuses HEAD, and its answer to a range does not say how long the object is", bucket: bucket, key: key)
      }
      return S3ObjectInfo(
        size: size, etag: etag, lastModified: answer.header("last-modified"),
        versionID: versionID ?? S3ObjectInfo.versionID(in: answer))
    }
    if let text = answer.header("content-length"), answer.size == nil {
      throw impossible(S3Size.refusal(text, of: "its answer to HEAD"), bucket: bucket, key: key)
    }
    guard let size = answer.size, let etag = answer.etag else {
      throw malformed("its answer to HEAD has no Content-Length or no ETag", bucket: bucket, key: key)
    }
    return S3ObjectInfo(
      size: size, etag: etag, lastModified: answer.header("last-modified"),
      versionID: versionID ?? S3ObjectInfo.versionID(in: answer), checksum: S3Checksum { answer.header($0) })
  }

  /// All objects whose key begins with `prefix`, in the service's order, fetched `pageSize` (1 to 1000) a request.
  public func list(bucket: String, prefix: String = "", pageSize: Int = 1000) async throws -> [S3ListedObject] {
    var result: [S3ListedObject] = []
    var total = 0
    var continuation: String?
    repeat {
      let page = try await page(bucket: bucket, prefix: prefix, after: continuation, pageSize: pageSize)
      for object in page.objects { total += min(object.size, .max - total) }
      guard total < .max else {
        throw impossible("its listing names more bytes than can be counted", bucket: bucket, key: nil)
      }
      result += page.objects
      continuation = page.continuation
    } while continuation != nil
    return result
  }

  /// One page of a listing, and where the next one begins; `nil` there on the last.
  ///
  /// - Parameter continuation: what the page before said of this one.
  public func page(
    bucket: String, prefix: String, after continuation: String?, pageSize: Int = 1000
  ) async throws -> (objects: [S3ListedObject], continuation: String?) {
    var query = [("list-type", "2"), ("max-keys", "\(pageSize)"), ("prefix", prefix)]
    if let continuation { query.append(("continuation-token", continuation)) }
    // Plainly first, since some services get the encoding wrong.
    let page = try await retrying {
      let encoded = query + [("encoding-type", "url")]
      guard let page = try await self.page(bucket: bucket, query: query) else {
        guard let page = try await self.page(bucket: bucket, query: encoded) else {
          throw self.malformed("its listing can't be read", bucket: bucket, key: nil)
        }
        return page
      }
      return page.isDoubtful ? try await self.page(bucket: bucket, query: encoded) ?? page : page
    }
    if let (key, text) = page.impossible {
      throw impossible(S3Size.refusal(text, of: "its listing"), bucket: bucket, key: key)
    }
    guard page.continuation == nil || page.continuation != continuation else {
      throw malformed("its listing does not end", bucket: bucket, key: nil)
    }
    return (page.objects, page.continuation)
  }

  /// `nil` when the answer is no page.
  private func page(bucket: String, query: [(String, String)]) async throws -> S3ListingPage? {
    let request = S3Request(method: .get, bucket: bucket, query: query)
    return try S3ListingPage(try await transport.send(request).collect(upTo: S3Transport.maximumDocument))
  }

  /// The objects to fetch for `s3://bucket/prefix`: those under it, without the
  /// markers of folders (keys that end in `/` and have no bytes).
  ///
  /// - Throws: also `S3Error` with the code `emptyPrefix` when there are none.
  public func objects(at url: S3URL) async throws -> [S3ListedObject] {
    var objects: [S3ListedObject] = []
    var continuation: String?
    repeat {
      let page = try await self.objects(at: url, after: continuation)
      objects += page.objects
      continuation = page.continuation
    } while continuation != nil
    return objects
  }

  /// As `objects(at:)`, at least `least` of them at a time as long as there are so many, and where the next begin.
  public func objects(
    at url: S3URL, after first: String?, least: Int = 1
  ) async throws -> (objects: [S3ListedObject], continuation: String?) {
    var objects: [S3ListedObject] = []
    var continuation = first
    repeat {
      let page: (objects: [S3ListedObject], continuation: String?)
      do {
        page = try await self.page(bucket: url.bucket, prefix: url.key, after: continuation)
      } catch var error as S3Error where error.key == nil && !url.key.isEmpty {
        // What is asked for, rather than what is asked.
        error.key = url.key
        throw error
      }
      objects += page.objects.filter { !$0.key.hasSuffix("/") || $0.size > 0 }
      continuation = page.continuation
    } while continuation != nil && objects.count < least
    guard !objects.isEmpty || first != nil else {
      throw S3Error(
        code: S3Error.emptyPrefix, endpoint: configuration.baseEndpoint, bucket: url.bucket, key: url.key)
    }
    return (objects, continuation)
  }

  /// An object or a range of it; with `ifMatch`, only while its ETag is that one.
  ///
  /// The bytes of a whole object are compared with the checksum that S3 keeps of them, where there is one, while
  /// they are read: reading them ends in an `S3Error` with the code `wrongChecksum` when they are not its.
  /// - Throws: also `S3Error` with status 412 when the ETag is another.
  public func get(
    bucket: String, key: String, range: Range<Int>? = nil, ifMatch etag: String? = nil
  ) async throws -> S3Body {
    try await retrying { try await self.transport.send(.get(bucket: bucket, key: key, range: range, ifMatch: etag)) }
  }

  /// The bytes of an object or of a range of it, at most `limit`; what broke off, or has another checksum than S3
  /// says, is fetched again.
  public func bytes(bucket: String, key: String, range: Range<Int>? = nil, upTo limit: Int) async throws -> [UInt8] {
    var isSecond = false
    while true {
      do {
        return try await retrying {
          try await self.transport.send(.get(bucket: bucket, key: key, range: range, ifMatch: nil)).collect(upTo: limit)
        }
      } catch let error as S3Error where error.code == S3Error.wrongChecksum && !isSecond {
        isSecond = true
      }
    }
  }

  /// Makes or replaces an object.
  ///
  /// - Returns: its ETag, with its quotes.
  /// - Throws: also `S3Error` with the code `impossible` for an answer without one: it is none of S3's.
  @discardableResult
  public func put(bucket: String, key: String, bytes: [UInt8]) async throws -> String {
    var request = S3Request(method: .put, bucket: bucket, key: key, payload: .bytes(bytes))
    let checksum = bytes.withUnsafeBytes { crc32c($0) }
    if configuration.uploadChecksums { request.headers.append(S3Request.checksum(checksum)) }
    return try await stored(request) { checksum }
  }

  /// The ETag of what a PUT has made, which is compared with what was sent.
  ///
  /// - Parameter checksum: the CRC32C of what was sent, asked for afterwards.
  func stored(_ request: S3Request, _ checksum: () -> UInt32?) async throws -> String {
    let answer = try await answered(request)
    guard let etag = answer.etag else {
      throw impossible(
        "its answer to a PUT has no ETag, and so does not say that the object is there", bucket: request.bucket,
        key: request.key)
    }
    guard let key = request.key else { return etag }
    let isOfParts = answer.header("x-amz-checksum-type")?.uppercased() == "COMPOSITE"
    var sent = checksum().map { [bigEndian(UInt64($0), count: 4)] } ?? []
    if case .pieces(let pieces) = request.payload, let crc32 = pieces.digest.values?.crc32 {
      sent.append(bigEndian(UInt64(crc32), count: 4))
    }
    try await check(
      isOfParts ? nil : S3Checksum(.crc32c, text: answer.header(S3ChecksumAlgorithm.crc32c.header)), sent,
      request.sentBytes, etag: etag, bucket: request.bucket, key: key)
    return etag
  }

  /// Compares what S3 says that it has stored with what was sent: the checksum where it names one, else the size, which
  /// it is asked for. That is a second look: where it fails, what S3 has said before counts.
  ///
  /// - Parameters:
  ///   - sent: what is right: the CRC32C of what was sent, and what some services say in its place; empty where it is not
  ///     known.
  ///   - etag: of what was stored, as far as it is known.
  /// - Throws: `S3Error` (`impossible`) where they are not the same; `CancellationError`.
  func check(
    _ said: S3Checksum?, _ sent: [[UInt8]], _ size: Int, etag: String?, bucket: String, key: String
  ) async throws {
    if let said, said.parts == nil, !sent.isEmpty { return try check(said, sent, bucket: bucket, key: key) }
    let info: S3ObjectInfo
    do { info = try await head(bucket: bucket, key: key) } catch let error as S3Error {
      guard error.httpStatus == 404 else { return }
      throw impossible("it is not there after it was taken", bucket: bucket, key: key)
    }
    guard info.size == size else {
      let others = etag != nil && info.etag != etag ? ", or another has written there meanwhile" : ""
      throw impossible(
        "it has stored \(info.size) bytes of the \(size) that were sent\(others)", bucket: bucket, key: key)
    }
    guard etag == nil || info.etag == etag, let said = info.checksum, said.algorithm == .crc32c, said.parts == nil,
      !sent.isEmpty
    else { return }
    try check(said, sent, bucket: bucket, key: key)
  }

  /// As above, of an answer that may name no checksum.
  func check(_ answer: S3Body, _ sent: [[UInt8]], bucket: String, key: String) throws {
    guard let said = S3Checksum(.crc32c, text: answer.header(S3ChecksumAlgorithm.crc32c.header)), said.parts == nil
    else { return }
    try check(said, sent, bucket: bucket, key: key)
  }

  private func check(_ said: S3Checksum, _ sent: [[UInt8]], bucket: String, key: String) throws {
    guard sent.contains(said.bytes) else {
      throw impossible(
        "it has stored other bytes than were sent, by its own checksum", bucket: bucket, key: key)
    }
  }

  public func createBucket(_ bucket: String) async throws {
    var payload = S3Request.Payload.none
    // AWS wants the region named, in its first region only by saying nothing.
    if configuration.endpoint == nil, configuration.region != "us-east-1" {
      payload = .bytes(
        Array(
          "<CreateBucketConfiguration><LocationConstraint>\(configuration.region)</LocationConstraint></CreateBucketConfiguration>"
            .utf8))
    }
    try await done(S3Request(method: .put, bucket: bucket, payload: payload))
  }

  /// Deletes an object; one that is not there is no error.
  public func delete(bucket: String, key: String) async throws {
    try await done(S3Request(method: .delete, bucket: bucket, key: key))
  }

  func done(_ request: S3Request) async throws { _ = try await answered(request) }

  /// The answer, of which the payload was read and does not matter.
  func answered(_ request: S3Request) async throws -> S3Body {
    try await retrying {
      let answer = try await self.transport.send(request)
      _ = try await answer.collect(upTo: S3Transport.maximumDocument)
      return answer
    }
  }

  func malformed(_ message: String, bucket: String, key: String?) -> S3Error {
    S3Error(
      code: S3Error.malformed, message: message, endpoint: configuration.baseEndpoint, bucket: bucket, key: key)
  }

  func impossible(_ message: String, bucket: String, key: String?) -> S3Error {
    S3Error(
      code: S3Error.impossible, message: message, endpoint: configuration.baseEndpoint, bucket: bucket, key: key)
  }

  /// Makes attempts until one succeeds, fails for good, or was the last.
  func retrying<Value>(_ attempt: () async throws -> Value) async throws -> Value {
    var generator = SystemRandomNumberGenerator()
    var number = 1
    var since: ContinuousClock.Instant?
    while true {
      do {
        return try await attempt()
      } catch let error as S3Error {
        let start = since ?? .now
        since = start
        guard error.isRetryable, !S3Persistence.isOver(error, since: start, configuration.retry),
          let pause = configuration.retry.pause(after: number, retryAfter: error.retryAfter, using: &generator)
        else { throw error }
        try await Task.sleep(for: pause)
        number += 1
      }
    }
  }
}

extension S3Request {
  static func get(bucket: String, key: String, range: Range<Int>?, ifMatch etag: String?) -> S3Request {
    var request = S3Request(method: .get, bucket: bucket, key: key)
    if let range {
      request.headers.append(("range", "bytes=\(range.lowerBound)-\(range.upperBound - 1)"))
    } else {
      request.headers.append(("x-amz-checksum-mode", "ENABLED"))
    }
    if let etag { request.headers.append(("if-match", etag)) }
    return request
  }
}
