internal import AsyncHTTPClient
internal import MobulaCore
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL

/// An unsigned or already signed request of a few kilobytes.
struct PlainRequest: Sendable {
  var method = "GET"
  var url: String
  var headers: [(String, String)] = []
  var body: [UInt8] = []
}

/// Its whole answer, whatever the status.
struct PlainAnswer: Sendable {
  var status: Int
  var headers: HTTPHeaders
  var body: [UInt8]
}

/// Why there is no answer. The reason names no secret: it is the system's or the HTTP client's.
enum PlainHTTPFailure: Error, Equatable {
  case unreachable(String)
  case interrupted(String)
  case timedOut

  var reason: String {
    switch self {
    case .unreachable(let reason), .interrupted(let reason): reason
    case .timedOut: "it did not answer in time"
    }
  }
}

/// Makes the small requests that credentials need: no redirects, since a credential must not follow them to another
/// server, an answer of bounded size, and a deadline.
final class PlainHTTPClient: Sendable {
  /// For servers whose certificates the system trusts, asked directly.
  static let shared = PlainHTTPClient(tls: nil, proxy: nil, isPlain: false)

  /// The most that an answer may have: 1 MiB.
  static let maximumAnswer = 1_048_576

  private let http: HTTPClient
  /// What is asked goes through it.
  private let proxy: S3Proxy?
  /// Asked in the server's place, where there is no TLS.
  private let plainProxy: S3Proxy?

  /// - Parameters:
  ///   - endpoint: what is asked.
  ///   - roots: certificates to trust instead of the system's, as PEM, with the file that they are from.
  ///   - environment: whose proxies are used.
  /// - Throws: `MobulaError` (`invalidArgument`) when there are no such certificates, or a variable names no proxy.
  convenience init(
    for endpoint: S3Endpoint, trusting roots: (bytes: [UInt8], path: String)?, _ environment: [String: String]
  ) throws(MobulaError) {
    var tls: TLSConfiguration?
    if let roots {
      tls = TLSConfiguration.makeClientConfiguration()
      tls?.trustRoots = .certificates(try TrustedRoots.certificates(roots.bytes, of: roots.path))
    }
    self.init(tls: tls, proxy: try S3Proxy.of(endpoint, environment), isPlain: endpoint.scheme == .http)
  }

  private init(tls: TLSConfiguration?, proxy: S3Proxy?, isPlain: Bool) {
    var settings = HTTPClient.Configuration(
      redirectConfiguration: .disallow, timeout: .init(connect: .seconds(5), read: .seconds(10)))
    settings.httpVersion = .http1Only
    settings.connectionPool.retryConnectionEstablishment = false
    settings.tlsConfiguration = tls
    self.proxy = proxy
    plainProxy = isPlain ? proxy : nil
    if let plainProxy {
      settings.http1_1ConnectionDebugInitializer = { AbsoluteForm.add(to: $0, credentials: plainProxy.credentials) }
    } else if let proxy {
      settings.proxy = proxy.tunnel
    }
    http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
  }

  deinit {
    let http = http
    Task { try? await http.shutdown() }
  }

  /// - Parameter limit: the deadline, for the whole answer.
  /// - Throws: `PlainHTTPFailure`; `CancellationError`.
  func send(_ request: PlainRequest, within limit: Duration) async throws -> PlainAnswer {
    let deadline = ContinuousClock.now + limit
    var message = HTTPClientRequest(url: plainProxy.map { Self.url(request.url, at: $0) } ?? request.url)
    message.method = HTTPMethod(rawValue: request.method)
    message.headers = HTTPHeaders(request.headers)
    if plainProxy != nil, !message.headers.contains(name: "host") {
      // It names whom the request is for.
      message.headers.add(name: "host", value: String(Self.parts(of: request.url).authority))
    }
    if !request.body.isEmpty { message.body = .bytes(ByteBuffer(bytes: request.body)) }
    do {
      let response = try await http.execute(message, timeout: TimeAmount(limit))
      var body: [UInt8] = []
      for try await piece in response.body {
        guard ContinuousClock.now < deadline else { throw PlainHTTPFailure.timedOut }
        guard piece.readableBytes <= Self.maximumAnswer - body.count else {
          throw PlainHTTPFailure.interrupted("its answer has more than \(Self.maximumAnswer) bytes")
        }
        body.append(contentsOf: piece.readableBytesView)
      }
      try Task.checkCancellation()
      return PlainAnswer(status: Int(response.status.code), headers: response.headers, body: body)
    } catch {
      let failure = Self.failure(error)
      guard let proxy else { throw failure }
      switch failure as? PlainHTTPFailure {
      case .unreachable(let reason): throw PlainHTTPFailure.unreachable("\(S3Error.byProxy)\(proxy): \(reason)")
      case .interrupted(let reason): throw PlainHTTPFailure.interrupted("\(S3Error.byProxy)\(proxy): \(reason)")
      case .timedOut, nil: throw failure
      }
    }
  }

  private static func parts(of url: String) -> (authority: Substring, target: Substring) {
    let rest = url.firstRange(of: "://").map { url[$0.upperBound...] } ?? url[...]
    let end = rest.firstIndex(of: "/") ?? rest.endIndex
    return (rest[..<end], rest[end...])
  }

  private static func url(_ url: String, at proxy: S3Proxy) -> String { "\(proxy)\(parts(of: url).target)" }

  private static func failure(_ error: any Error) -> any Error {
    switch error {
    case is CancellationError, is PlainHTTPFailure: return error
    case let error as NIOConnectionError:
      guard let first = error.connectionErrors.first?.error else {
        return PlainHTTPFailure.unreachable("the name \(error.host) can't be resolved")
      }
      return PlainHTTPFailure.unreachable((first as? IOError).map { errnoText($0.errnoCode) } ?? "\(first)")
    case let error as HTTPClientError:
      switch error {
      case .cancelled: return CancellationError()
      case .deadlineExceeded, .readTimeout, .writeTimeout: return PlainHTTPFailure.timedOut
      case .connectTimeout: return PlainHTTPFailure.unreachable("no connection within the time allowed")
      default: return PlainHTTPFailure.interrupted(error.shortDescription)
      }
    case let error as IOError: return PlainHTTPFailure.interrupted(errnoText(error.errnoCode))
    case is NIOSSLError, is BoringSSLError:
      return PlainHTTPFailure.unreachable("no TLS connection: its certificate is not trusted here")
    default: return PlainHTTPFailure.interrupted("\(type(of: error))")
    }
  }
}

/// Makes attempts as `policy` says while `isRetryable` answers true to their error.
func retrying<Value: Sendable>(
  _ policy: S3RetryPolicy, isRetryable: (any Error) -> Bool, _ attempt: () async throws -> Value
) async throws -> Value {
  var generator = SystemRandomNumberGenerator()
  var number = 1
  while true {
    do {
      return try await attempt()
    } catch {
      guard isRetryable(error), let pause = policy.pause(after: number, using: &generator) else { throw error }
      try await Task.sleep(for: pause)
      number += 1
    }
  }
}
