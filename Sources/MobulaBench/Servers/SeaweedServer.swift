internal import MobulaCore
public import MobulaS3
public import MobulaWire

/// A SeaweedFS of our own, with credentials made for it, that is gone with this process.
///
/// A guard process waits for this one to end, however it ends, and then kills
/// the server and removes its folder; `stop` does the same at once.
public final class SeaweedServer: Sendable {
  public let endpoint: S3Endpoint
  public let credentials: S3Credentials
  private let metrics: String
  private let trustedRoots: String?
  private let running: SeaweedProcess

  /// Starts one and waits until it has stored an object.
  ///
  /// - Parameters:
  ///   - address: the IPv4 address that it binds; 127.0.0.1 by default. This process must reach it too.
  ///   - pythonEnvironment: where it is installed; see `SeaweedBinary.locate`.
  ///   - iam: roles that its STS, on the same port, gives out; no STS by default.
  ///   - tls: the certificate that it shows, and the CA's that `client()` trusts; plain http by default.
  ///   - deadline: 30 s by default; it takes 3 to 10 s.
  /// - Throws: `MobulaError`: `notFound` when it is not installed, `unavailable` with the end of its log when it
  ///   does not start, `deadlineExceeded`.
  public static func start(
    address: String = "127.0.0.1", pythonEnvironment: String? = nil, iam: SeaweedIAM? = nil,
    tls: CertificateFolder? = nil,
    deadline: Duration = .seconds(30)
  ) async throws -> SeaweedServer {
    let program = try SeaweedBinary.locate(pythonEnvironment: pythonEnvironment)
    let end = ContinuousClock.now + deadline
    // It exits at once when a port was taken meanwhile; others are tried then.
    for attempt in 1...3 {
      let server = try SeaweedServer(program: program, address: address, ports: try .free(), iam: iam, tls: tls)
      do {
        try await server.waitUntilReady(until: end)
        return server
      } catch {
        await server.stop()
        if attempt == 3 || (error as? MobulaError)?.code != .unavailable { throw error }
      }
    }
    preconditionFailure("the last attempt returns or throws")
  }

  /// Whether SeaweedFS is installed; see `SeaweedBinary.locate`.
  public static func isInstalled(pythonEnvironment: String? = nil) -> Bool {
    (try? SeaweedBinary.locate(pythonEnvironment: pythonEnvironment)) != nil
  }

  private init(
    program: String, address: String, ports: SeaweedPorts, iam: SeaweedIAM?, tls: CertificateFolder?
  ) throws(MobulaError) {
    var generator = SystemRandomNumberGenerator()
    func secret() -> String { hexadecimal((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }) }
    let (accessKey, secretKey) = (secret(), secret())
    credentials = S3Credentials(accessKey: accessKey, secretKey: secretKey)
    endpoint = S3Endpoint(scheme: tls == nil ? .http : .https, host: address, port: ports.s3)
    trustedRoots = tls?.authority
    metrics = "http://\(address):\(ports.metrics)/metrics"
    running = try SeaweedProcess(
      program: program, address: address, ports: ports, accessKey: accessKey, secretKey: secretKey, iam: iam,
      tls: tls)
  }

  /// A client with the server's credentials.
  public func client() -> S3Client { S3Client(configuration: configuration, credentials: credentials) }

  /// Where it is, and what certificates to trust there.
  public var configuration: S3Configuration {
    var configuration = S3Configuration(endpoint: endpoint)
    configuration.trustedRoots = trustedRoots
    return configuration
  }

  /// Bytes of objects that GETs on `bucket` have sent since the start, by the server's own count.
  public func bytesSent(bucket: String) async throws -> Int {
    let text = try await plainHTTPGet(metrics)
    return SeaweedMetrics.bytesSent(bucket: bucket, in: text)
  }

  /// Kills the server, whose data stay, and starts it again on the same ports; what it stores is there again
  /// some seconds later.
  public func restart() async throws {
    await running.kill()
    try running.startAgain()
  }

  /// Kills the server, whose data stay, for the length of `body`, and starts it again on the same ports.
  public func pause(_ body: () async throws -> Void) async throws {
    await running.kill()
    do {
      try await body()
    } catch {
      try? running.startAgain()
      throw error
    }
    try running.startAgain()
  }

  /// Waits until the server has ended, by `stop` or otherwise.
  func waitForExit() async -> ChildProcess.Exit { await running.server.waitForExit() }

  /// Kills the server and removes its folder.
  public func stop() async { await running.stop() }

  /// Stores an object as soon as the server can.
  private func waitUntilReady(until end: ContinuousClock.Instant) async throws {
    var configuration = configuration
    configuration.retry = S3RetryPolicy(maximumAttempts: 1)
    configuration.requestTimeout = .seconds(5)
    let client = S3Client(configuration: configuration, credentials: credentials)
    let bucket = "mobula-ready"
    var last: (any Error)?
    while ContinuousClock.now < end {
      if let exit = running.exit {
        throw MobulaError(.unavailable, "SeaweedFS ended with \(exit) instead of starting: \(running.endOfLog()).")
      }
      do {
        do {
          try await client.createBucket(bucket)
        } catch let error as S3Error where error.mobulaError.code == .alreadyExists {}
        try await client.put(bucket: bucket, key: "ready", bytes: [1])
        return await client.shutdown()
      } catch let error as S3Error {
        last = error
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    throw MobulaError(
      .deadlineExceeded,
      "SeaweedFS at \(endpoint) did not store an object in time (\(last.map { "\($0)" } ?? "")): try again on a machine with less load."
    )
  }
}
