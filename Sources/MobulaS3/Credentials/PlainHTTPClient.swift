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
  /// For servers whose certificates the system trusts.
  static let shared = PlainHTTPClient(tls: nil)

  /// The most that an answer may have: 1 MiB.
  static let maximumAnswer = 1_048_576

  private let http: HTTPClient

  /// - Parameters:
  ///   - roots: certificates to trust instead of the system's, as PEM.
  ///   - path: the file that they are from, for the error.
  /// - Throws: `MobulaError` (`invalidArgument`) when there are none.
  convenience init(trusting roots: [UInt8], of path: String) throws(MobulaError) {
    guard let certificates = try? NIOSSLCertificate.fromPEMBytes(roots), !certificates.isEmpty else {
      throw MobulaError(.invalidArgument, "\(path) has no certificates that can be read: name a PEM file of them.")
    }
    var tls = TLSConfiguration.makeClientConfiguration()
    tls.trustRoots = .certificates(certificates)
    self.init(tls: tls)
  }

  private init(tls: TLSConfiguration?) {
    var settings = HTTPClient.Configuration(
      redirectConfiguration: .disallow, timeout: .init(connect: .seconds(5), read: .seconds(10)))
    settings.httpVersion = .http1Only
    settings.connectionPool.retryConnectionEstablishment = false
    settings.tlsConfiguration = tls
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
    var message = HTTPClientRequest(url: request.url)
    message.method = HTTPMethod(rawValue: request.method)
    message.headers = HTTPHeaders(request.headers)
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
      throw Self.failure(error)
    }
  }

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
