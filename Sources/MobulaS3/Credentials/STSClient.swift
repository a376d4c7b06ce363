internal import MobulaCore

/// Speaks to AWS's Security Token Service, or to what other S3 servers have for one on their own port.
///
/// Connection failures, throttling and 5xx are tried again as `retry` says; every request has a deadline. All methods
/// throw `MobulaError`: `unauthenticated` (keys or tokens that STS does not take), `denied` (the role),
/// `invalidArgument`, `unavailable`, `deadlineExceeded`; and `CancellationError`.
///
/// Source: AWS Security Token Service API Reference, version 2011-06-15.
public struct STSClient: Sendable {
  public let endpoint: S3Endpoint
  /// The region that requests are signed for.
  public let region: String
  /// 3 attempts by default.
  public var retry = S3RetryPolicy(maximumAttempts: 3)
  /// Deadline of one attempt; 10 s by default.
  public var requestTimeout = Duration.seconds(10)
  private let http: PlainHTTPClient

  /// - Parameter endpoint: AWS's own in `region` by default.
  public init(endpoint: S3Endpoint? = nil, region: String = "us-east-1") {
    self.init(endpoint: endpoint ?? Self.regionalEndpoint(region), region: region, http: .shared)
  }

  init(endpoint: S3Endpoint, region: String, http: PlainHTTPClient) {
    self.endpoint = endpoint
    self.region = region
    self.http = http
  }

  /// AWS's endpoint in a region; China's regions have a domain of their own.
  static func regionalEndpoint(_ region: String) -> S3Endpoint {
    S3Endpoint(scheme: .https, host: "sts.\(region).amazonaws.com\(region.hasPrefix("cn-") ? ".cn" : "")")
  }

  /// A role to take on.
  public struct Role: Sendable, Hashable {
    public var arn: String
    /// Names the session in logs; `mobula-` and the time by default.
    public var sessionName: String?
    /// What the role's owner demands of third parties.
    public var externalID: String?
    /// How long the credentials are to be valid; STS decides by default (1 h with AWS).
    public var duration: Duration?

    public init(arn: String, sessionName: String? = nil, externalID: String? = nil, duration: Duration? = nil) {
      self.arn = arn
      self.sessionName = sessionName
      self.externalID = externalID
      self.duration = duration
    }
  }

  /// Takes on a role with other credentials.
  public func assumeRole(_ role: Role, credentials: S3Credentials) async throws -> STSAssumedRole {
    var parameters = parameters(of: role)
    if let externalID = role.externalID { parameters.append(("ExternalId", externalID)) }
    return try await assumed("AssumeRole", parameters, credentials: credentials, secrets: [])
  }

  /// Takes on a role with the token of an identity provider that the role trusts: not signed, as the token says it all.
  public func assumeRole(_ role: Role, webIdentityToken token: String) async throws -> STSAssumedRole {
    try await assumed(
      "AssumeRoleWithWebIdentity", parameters(of: role) + [("WebIdentityToken", token)], credentials: nil,
      secrets: [token])
  }

  /// Whose credentials these are. Anyone may ask that.
  public func callerIdentity(of credentials: S3Credentials) async throws -> STSIdentity {
    let body = try await post("GetCallerIdentity", [], credentials: credentials, secrets: [])
    guard let identity = STSIdentity(body) else { throw malformed("GetCallerIdentity") }
    return identity
  }

  private func parameters(of role: Role) -> [(String, String)] {
    let name = role.sessionName ?? "mobula-\(SigV4Timestamp.now())"
    var parameters = [("RoleArn", role.arn), ("RoleSessionName", name)]
    if let duration = role.duration { parameters.append(("DurationSeconds", "\(duration.components.seconds)")) }
    return parameters
  }

  private func assumed(
    _ action: String, _ parameters: [(String, String)], credentials: S3Credentials?, secrets: [String]
  ) async throws -> STSAssumedRole {
    let body = try await post(action, parameters, credentials: credentials, secrets: secrets)
    guard let role = STSAssumedRole(body, action: action) else { throw malformed(action) }
    return role
  }

  private func malformed(_ action: String) -> MobulaError {
    MobulaError(
      .unavailable, "What answers at \(endpoint) is no STS (its answer to \(action) can't be read): check the endpoint."
    )
  }

  private func post(
    _ action: String, _ parameters: [(String, String)], credentials: S3Credentials?, secrets: [String]
  ) async throws -> [UInt8] {
    do {
      return try await retrying(retry, isRetryable: { ($0 as? STSError)?.isRetryable == true }) {
        try await attempt(action, parameters, credentials: credentials, secrets: secrets)
      }
    } catch let error as STSError {
      throw error.mobulaError
    }
  }

  private func attempt(
    _ action: String, _ parameters: [(String, String)], credentials: S3Credentials?, secrets: [String]
  ) async throws -> [UInt8] {
    let request = request(action, parameters, credentials: credentials, at: .now())
    let answer: PlainAnswer
    do {
      answer = try await http.send(request, within: requestTimeout)
    } catch let failure as PlainHTTPFailure {
      throw STSError(
        code: failure == .timedOut ? STSError.timedOut : STSError.unreachable, message: failure.reason, action: action,
        endpoint: endpoint)
    }
    guard answer.status == 200 else {
      throw STSError.answer(
        status: answer.status, body: answer.body, action: action, endpoint: endpoint,
        secrets: secrets + [credentials?.secretKey, credentials?.sessionToken].compactMap(\.self))
    }
    return answer.body
  }

  /// The request, signed where there are credentials.
  func request(
    _ action: String, _ parameters: [(String, String)], credentials: S3Credentials?, at time: SigV4Timestamp
  ) -> PlainRequest {
    let form = SigV4Signer.canonicalQuery([("Action", action), ("Version", "2011-06-15")] + parameters)
    let body = Array(form.utf8)
    var headers = [
      ("host", endpoint.authority), ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
      ("accept", "application/xml"),
    ]
    if let credentials {
      headers.append(("x-amz-date", time.description))
      if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token)) }
      let authorization = SigV4Signer(credentials: credentials, region: region, service: "sts").authorization(
        method: "POST", path: "/", query: [], headers: headers, payloadHash: SigV4Signer.payloadHash(body), at: time)
      headers.append(("authorization", authorization))
    }
    return PlainRequest(method: "POST", url: "\(endpoint)/", headers: headers, body: body)
  }
}
