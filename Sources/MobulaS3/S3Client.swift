internal import AsyncHTTPClient
internal import MobulaCore

/// An object as HEAD shows it.
public struct S3ObjectInfo: Hashable, Sendable {
  /// Bytes.
  public let size: Int
  /// With its quotes, as `If-Match` takes it.
  public let etag: String
  /// As HTTP writes it: `Fri, 24 May 2013 00:00:00 GMT`.
  public let lastModified: String?
  /// Where the bucket keeps versions.
  public let versionID: String?

  public init(size: Int, etag: String, lastModified: String? = nil, versionID: String? = nil) {
    self.size = size
    self.etag = etag
    self.lastModified = lastModified
    self.versionID = versionID
  }
}

/// Speaks to one S3 service with the credentials of one provider.
///
/// What fails for the moment (connections, 5xx, 429) is tried again as
/// `S3Configuration.retry` says; every request has a deadline. All methods throw
/// `MobulaError`: `notFound`, `denied`, `mismatch` (the object changed),
/// `unavailable`, `deadlineExceeded`; and `CancellationError`.
public final class S3Client: Sendable {
  public let configuration: S3Configuration
  let transport: S3Transport

  /// - Parameter credentials: asked before every request; an `S3Credentials` for fixed ones, else an
  ///   `S3CredentialsChain` or another provider.
  public init(configuration: S3Configuration, credentials: any S3CredentialsProvider) {
    self.configuration = configuration
    transport = S3Transport(configuration: configuration, credentials: credentials)
  }

  deinit {
    // Its connections are closed in the background; after `shutdown` there are none.
    let http = transport.http
    Task { try? await http.shutdown() }
  }

  /// Configuration and credentials from where the AWS SDKs find them: see `S3CredentialsChain`.
  ///
  /// - Parameter credentials: a chain that several clients share; one of its own by default.
  /// - Throws: `MobulaError` (`invalidArgument`) for an endpoint, a profile or a file that can't be used. Credentials
  ///   are looked for with the first request.
  public static func fromEnvironment(
    endpoint: String? = nil, credentials: S3CredentialsChain = S3CredentialsChain()
  ) async throws -> S3Client {
    S3Client(configuration: try await credentials.configuration(endpoint: endpoint), credentials: credentials)
  }

  /// Closes all connections; requests made later fail. Without it they are closed when the client goes.
  public func shutdown() async {
    try? await transport.http.shutdown()
  }

  /// Size and ETag of an object.
  public func head(bucket: String, key: String) async throws -> S3ObjectInfo {
    try await retrying {
      do {
        return try await self.headOnce(bucket: bucket, key: key)
      } catch let error as S3Error where 400...499 ~= error.httpStatus {
        // A HEAD's error has no text; the same question as a GET of one byte
        // tells a missing bucket from a missing key, or a wrong secret.
        _ = try await self.transport.send(
          S3Request(method: .get, bucket: bucket, key: key, headers: [("range", "bytes=0-0")]))
        // It may have shown that the session token had expired, and brought new credentials.
        guard [400, 401, 403].contains(error.httpStatus) else { throw error }
        return try await self.headOnce(bucket: bucket, key: key)
      }
    }
  }

  private func headOnce(bucket: String, key: String) async throws -> S3ObjectInfo {
    let answer = try await transport.send(S3Request(method: .head, bucket: bucket, key: key))
    guard let size = answer.size, let etag = answer.etag else {
      throw malformed("its answer to HEAD has no Content-Length or no ETag", bucket: bucket, key: key)
    }
    return S3ObjectInfo(
      size: size, etag: etag, lastModified: answer.header("last-modified"),
      versionID: answer.header("x-amz-version-id"))
  }

  /// All objects whose key begins with `prefix`, in the service's order, fetched `pageSize` (1 to 1000) a request.
  public func list(bucket: String, prefix: String = "", pageSize: Int = 1000) async throws -> [S3ListedObject] {
    var result: [S3ListedObject] = []
    var continuation: String?
    repeat {
      var query = [("list-type", "2"), ("max-keys", "\(pageSize)"), ("prefix", prefix)]
      if let continuation { query.append(("continuation-token", continuation)) }
      let request = S3Request(method: .get, bucket: bucket, query: query)
      let page = try await retrying {
        let bytes = try await self.transport.send(request).collect(upTo: S3Transport.maximumDocument)
        guard let page = S3ListingPage(bytes) else {
          throw self.malformed("its listing can't be read", bucket: bucket, key: nil)
        }
        return page
      }
      guard page.continuation == nil || page.continuation != continuation else {
        throw malformed("its listing does not end", bucket: bucket, key: nil).mobulaError
      }
      result += page.objects
      continuation = page.continuation
    } while continuation != nil
    return result
  }

  /// The objects to fetch for `s3://bucket/prefix`: those under it, without the
  /// markers of folders (keys that end in `/`).
  ///
  /// - Throws: also `notFound` when there are none.
  public func objects(at url: S3URL) async throws -> [S3ListedObject] {
    let objects = try await list(bucket: url.bucket, prefix: url.key).filter { !$0.key.hasSuffix("/") }
    guard !objects.isEmpty else {
      throw MobulaError(
        .notFound, "There is nothing under \(url) at \(configuration.baseEndpoint): check the prefix.")
    }
    return objects
  }

  /// An object or a range of it; with `ifMatch`, only while its ETag is that one.
  ///
  /// - Throws: also `mismatch` when the ETag is another.
  public func get(
    bucket: String, key: String, range: Range<Int>? = nil, ifMatch etag: String? = nil
  ) async throws -> S3Body {
    try await retrying { try await self.transport.send(.get(bucket: bucket, key: key, range: range, ifMatch: etag)) }
  }

  /// Makes or replaces an object.
  public func put(bucket: String, key: String, bytes: [UInt8]) async throws {
    try await done(S3Request(method: .put, bucket: bucket, key: key, payload: .bytes(bytes)))
  }

  /// Makes or replaces an object of `size` bytes (5 GB at most, as S3 has it) that need not be in memory.
  ///
  /// - Parameter producer: returns the bytes of a range, at most 1 MiB; ranges come in order, from 0 again for
  ///   another attempt.
  public func put(
    bucket: String, key: String, size: Int, producer: @escaping @Sendable (Range<Int>) async throws -> [UInt8]
  ) async throws {
    try await done(S3Request(method: .put, bucket: bucket, key: key, payload: .pieces(size: size, producer)))
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

  private func done(_ request: S3Request) async throws {
    try await retrying { _ = try await self.transport.send(request).collect(upTo: S3Transport.maximumDocument) }
  }

  private func malformed(_ message: String, bucket: String, key: String?) -> S3Error {
    S3Error(
      code: S3Error.interrupted, message: message, endpoint: configuration.baseEndpoint, bucket: bucket, key: key)
  }

  /// Makes attempts until one succeeds, fails for good, or was the last.
  private func retrying<Value>(_ attempt: () async throws -> Value) async throws -> Value {
    var generator = SystemRandomNumberGenerator()
    var number = 1
    while true {
      do {
        return try await attempt()
      } catch let error as S3Error {
        guard error.isRetryable, let pause = configuration.retry.pause(after: number, using: &generator) else {
          throw error.mobulaError
        }
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
      request.expectedBytes = range.count
    }
    if let etag { request.headers.append(("if-match", etag)) }
    return request
  }
}
