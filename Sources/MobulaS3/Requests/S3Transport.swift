internal import AsyncHTTPClient
internal import FoundationEssentials
internal import Glibc
internal import MobulaCore
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL

/// Sends one request once; every answer that is no success becomes an `S3Error`.
struct S3Transport: Sendable {
  /// What an error's or a listing's XML may take: a page of 1000 keys of 1024 bytes, escaped, fits.
  static let maximumDocument = 16 * 1_048_576

  let configuration: S3Configuration
  let credentials: any S3CredentialsProvider
  /// For what is read.
  let http: HTTPClient
  /// For what is sent, and what S3 does by itself before it answers: what was sent may still be on its way, in the
  /// system's memory or a proxy's, and the answer to it can't be there before.
  let sender: HTTPClient
  let learned = S3Learned()

  /// That a request has succeeded.
  let hasAnswered = S3Flag()

  init(configuration: S3Configuration, credentials: any S3CredentialsProvider) {
    self.configuration = configuration
    self.credentials = credentials
    var settings = HTTPClient.Configuration(
      redirectConfiguration: .disallow,
      timeout: .init(connect: .init(configuration.connectTimeout), read: .init(configuration.idleTimeout)))
    settings.httpVersion = .http1Only
    let stall = configuration.stallTimeout
    // Pieces of up to 512 KiB instead of 64: fewer system calls and fewer turns between event loop and reader.
    let plainProxy = configuration.plainProxy
    settings.http1_1ConnectionDebugInitializer = { channel in
      let ready = channel.setOption(
        ChannelOptions.recvAllocator,
        value: AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65_536, maximum: 524_288))
      guard let plainProxy else { return ready }
      return ready.flatMap { AbsoluteForm.add(to: channel, credentials: plainProxy.credentials) }
    }
    if plainProxy == nil { settings.proxy = configuration.proxy?.tunnel }
    settings.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = configuration.maximumConnections
    if let roots = configuration.trustedRoots {
      // Read with the first connection, which fails without them.
      var tls = TLSConfiguration.makeClientConfiguration()
      tls.trustRoots = .file(roots)
      settings.tlsConfiguration = tls
    }
    // Retrying is decided in one place, by `S3RetryPolicy`.
    settings.connectionPool.retryConnectionEstablishment = false
    http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
    settings.timeout.read = nil
    settings.timeout.write = TimeAmount(stall)
    settings.http1_1ConnectionDebugInitializer = { channel in
      // What nobody confirms to have ends the connection: a link that takes no more bytes is dead.
      let ready = channel.setOption(
        ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: TCP_USER_TIMEOUT)),
        value: .init(clamping: stall.components.seconds * 1000)
      ).flatMap {
        // What is counted as sent is on its way, and does not wait in the system's memory for megabytes before it.
        channel.setOption(
          ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: TCP_NOTSENT_LOWAT)), value: 524_288)
      }
      guard let plainProxy else { return ready }
      return ready.flatMap { AbsoluteForm.add(to: channel, credentials: plainProxy.credentials) }
    }
    sender = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
  }

  func shutdown() async {
    try? await http.shutdown()
    try? await sender.shutdown()
  }

  /// Sends a request; once more where the answer says how to sign it right.
  ///
  /// - Throws: `S3Error`, `CancellationError`, what the provider of credentials or a payload's producer threw.
  func send(_ request: S3Request) async throws -> S3Body {
    let signing = learned.signing(configuration, for: request.bucket)
    try await request.prepare(signing.configuration)
    do {
      return try await sendOnce(request, signing)
    } catch let error as S3Error where learned.learn(from: error, signedWith: signing) {
      return try await sendOnce(request, learned.signing(configuration, for: request.bucket))
    }
  }

  /// Sends with credentials that are valid now; once more with new ones where the service says that they are not.
  private func sendOnce(_ request: S3Request, _ signing: S3Learned.Signing) async throws -> S3Body {
    guard configuration.signsRequests else { return try await send(request, with: nil, signing) }
    let used = try await credentials.credentials()
    do {
      return try await send(request, with: used, signing)
    } catch let error as S3Error where error.refusesToken(of: used) && credentials.drop(used) {
      let fresh = try await credentials.credentials()
      guard fresh != used else {
        var error = error
        if let end = used.expiration, end < Date() {
          error.message = "their source gives none that are valid: these ended at \(end.formatted(.iso8601))"
        }
        throw error
      }
      return try await send(request, with: fresh, signing)
    }
  }

  private func send(
    _ request: S3Request, with credentials: S3Credentials?, _ signing: S3Learned.Signing
  ) async throws -> S3Body {
    let isRead = request.method == .get || request.method == .head
    // To the head of the answer; what follows is read for as long as bytes come.
    let allowed =
      isRead
      ? configuration.requestTimeout : configuration.deadline(sent: request.sentBytes, moved: request.expectedBytes)
    let deadline = ContinuousClock.now + allowed + configuration.requestTimeout
    let response: HTTPClientResponse
    do {
      response = try await (isRead ? http : sender).execute(
        request.httpRequest(
          credentials: credentials, configuration: signing.configuration, at: .now(offset: signing.clockOffset)),
        timeout: TimeAmount(allowed))
    } catch {
      throw failure(error, of: request)
    }
    var body = S3Body(
      status: Int(response.status.code), headers: response.headers, body: response.body,
      failure: { failure($0, of: request) }, deadline: isRead ? nil : deadline)
    // The answer to a range may name the whole object's.
    if body.status == 200, body.header("content-range") == nil, request.method == .get,
      let checksum = S3Checksum(headers: body.header),
      checksum.parts == nil
    {
      body.checksum = checksum
    }
    if 200...299 ~= body.status {
      hasAnswered.value = true
      return body
    }
    // An error without its text is still an error; HEAD has none.
    let text = request.method == .head ? [] : (try? await body.collect(upTo: Self.maximumDocument)) ?? []
    try Task.checkCancellation()
    var error = S3Error.answer(
      body.errorHead, body: text, endpoint: configuration.baseEndpoint, bucket: request.bucket, key: request.key)
    error.isUnsigned = credentials == nil
    throw error
  }

  /// What went wrong below HTTP, as an `S3Error`; errors that say it themselves stay as they are.
  private func failure(_ error: any Error, of request: S3Request) -> any Error {
    func failed(_ code: String, _ message: String) -> S3Error {
      S3Error(
        code: code, message: message, endpoint: configuration.baseEndpoint, bucket: request.bucket, key: request.key)
    }
    switch error {
    case is CancellationError, is MobulaError, is S3Error: return error
    case let error as S3ProducerFailure: return error.cause
    case let error as S3ChecksumIsWrong:
      return failed(S3Error.wrongChecksum, "they should be those of \(error.checksum)")
    case let error as NIOConnectionError:
      return failed(S3Error.unreachable, byProxy(Self.reason(of: error)))
    case let error as HTTPClientError:
      switch error {
      case .cancelled: return CancellationError()
      case .deadlineExceeded, .readTimeout, .writeTimeout:
        return failed(S3Error.timedOut, byProxy(error.shortDescription))
      case .connectTimeout: return failed(S3Error.unreachable, byProxy("no connection within the time allowed"))
      default: return failed(S3Error.interrupted, error.shortDescription)
      }
    case let error as IOError:
      let code = Self.connectFailures.contains(error.errnoCode) ? S3Error.unreachable : S3Error.interrupted
      return failed(code, byProxy(errnoText(error.errnoCode)))
    case is NIOSSLError where "\(error)".contains("CERTIFICATE_VERIFY_FAILED"):
      return failed(S3Error.unreachable, "its certificate is not trusted here, for which AWS_CA_BUNDLE can name others")
    case is NIOSSLError where "\(error)".contains("WRONG_VERSION_NUMBER"):
      return failed(S3Error.unreachable, "what answers there speaks no TLS: http:// may be meant")
    default: return failed(S3Error.interrupted, "\(error)")
    }
  }

  /// A proxy is what a connection is made to, and so what does not answer.
  private func byProxy(_ reason: String) -> String {
    configuration.proxy.map { "\(S3Error.byProxy)\($0): \(reason)" } ?? reason
  }

  /// What `connect` fails with; an established connection meets other errors.
  private static let connectFailures: Set<CInt> = [
    ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EADDRNOTAVAIL, ETIMEDOUT,
  ]

  private static func reason(of error: NIOConnectionError) -> String {
    if let failure = error.connectionErrors.first?.error {
      return (failure as? IOError).map { errnoText($0.errnoCode) } ?? "\(failure)"
    }
    return "the name \(error.host) can't be resolved"
  }
}
