internal import FoundationEssentials
internal import MobulaCore

/// Logs in to HashiCorp Vault (or OpenBao) and gets credentials there, as `VaultConfiguration` says.
///
/// Its token is used for two thirds of its life, then it logs in again. A lease that can be renewed is, as long as
/// Vault grants at least half of it; else new credentials are asked for. Attempts: 3, of 10 s each.
actor VaultClient {
  private let configuration: VaultConfiguration
  private let surroundings: CredentialsSurroundings
  private let sts: STSClient
  private let http: PlainHTTPClient
  private let now: @Sendable () -> Date
  private var login: (token: String, until: Date)?
  private var leased: (lease: VaultLease, credentials: S3Credentials)?

  /// - Parameters:
  ///   - sts: where identity tokens are exchanged.
  ///   - http: for the certificates that the configuration trusts.
  init(
    _ configuration: VaultConfiguration, _ surroundings: CredentialsSurroundings, sts: STSClient,
    http: PlainHTTPClient = .shared, now: @escaping @Sendable () -> Date = { Date() }
  ) {
    self.configuration = configuration
    self.surroundings = surroundings
    self.sts = sts
    self.http = http
    self.now = now
  }

  /// New credentials, or the old ones for longer.
  ///
  /// - Throws: `MobulaError`: `denied` and `unauthenticated` when Vault or STS refuses, `notFound` for a role or a
  ///   file that is not there, `unavailable`, `deadlineExceeded`; `CancellationError`.
  func credentials() async throws -> S3Credentials {
    switch configuration.secret {
    case .aws(let mount, let role):
      if let renewed = try await renewed() { return renewed }
      return try await leasedCredentials("\(mount)/sts/\(role)")
    case .identity(let role, let assumed):
      let path = "identity/oidc/token/\(role)"
      guard let token = try await read(path).data?.token else { throw malformed(path) }
      return try await sts.assumeRole(assumed, webIdentityToken: token).credentials
    }
  }

  /// The credentials are not to be renewed: their service refuses them.
  func forget() { leased = nil }

  private func leasedCredentials(_ path: String) async throws -> S3Credentials {
    let document = try await read(path)
    guard let data = document.data, let accessKey = data.accessKey, let secretKey = data.secretKey,
      let seconds = document.leaseDuration, seconds > 0
    else { throw malformed(path) }
    let token = data.securityToken ?? data.sessionToken
    let credentials = S3Credentials(
      accessKey: accessKey, secretKey: secretKey, sessionToken: token.flatMap { $0.isEmpty ? nil : $0 },
      expiration: now().addingTimeInterval(Double(seconds)))
    let lease = VaultLease(
      id: document.leaseID ?? "", isRenewable: document.renewable ?? false, duration: seconds)
    leased = lease.isRenewable && !lease.id.isEmpty ? (lease, credentials) : nil
    return credentials
  }

  /// The credentials of a lease that Vault has prolonged; `nil` where new ones are to be asked for.
  private func renewed() async throws -> S3Credentials? {
    guard let (lease, old) = leased else { return nil }
    // Whatever comes of it, the next time begins anew unless this one succeeds.
    leased = nil
    struct Renewal: Encodable {
      enum CodingKeys: String, CodingKey {
        case leaseID = "lease_id"
        case increment
      }
      var leaseID: String
      var increment: Int
    }
    let body = try JSONEncoder().encode(Renewal(leaseID: lease.id, increment: lease.duration))
    let answer = try await authenticated("PUT", "sys/leases/renew", body: Array(body))
    guard answer.status == 200, let document = VaultDocument(answer.body), let granted = document.leaseDuration,
      lease.isWorthRenewing(granted: granted)
    else { return nil }
    let credentials = S3Credentials(
      accessKey: old.accessKey, secretKey: old.secretKey, sessionToken: old.sessionToken,
      expiration: now().addingTimeInterval(Double(granted)))
    if document.renewable ?? true { leased = (lease, credentials) }
    return credentials
  }

  private func read(_ path: String) async throws -> VaultDocument {
    let answer = try await authenticated("GET", path)
    guard answer.status == 200 else { throw refusal(answer, of: "to read \(path)") }
    guard let document = VaultDocument(answer.body) else { throw malformed(path) }
    return document
  }

  /// A request with the token; once more after another login where Vault no longer takes it.
  private func authenticated(_ method: String, _ path: String, body: [UInt8] = []) async throws -> PlainAnswer {
    let hadToken = login != nil
    let answer = try await send(method, path, token: try await token(), body: body)
    guard answer.status == 403, hadToken, case .login = configuration.authentication else { return answer }
    login = nil
    return try await send(method, path, token: try await token(), body: body)
  }

  private func token() async throws -> String {
    if let login, now() < login.until { return login.token }
    switch configuration.authentication {
    case .token(let token): return token
    case .tokenFile(let file): return try await surroundings.token(in: file)
    case .login(let mount, let role, let tokenFile):
      struct Login: Encodable {
        var role: String
        var jwt: String
      }
      let jwt = try await surroundings.token(in: tokenFile)
      let body = try JSONEncoder().encode(Login(role: role, jwt: jwt))
      let path = "auth/\(mount)/login"
      let answer = try await send("POST", path, token: nil, body: Array(body))
      guard answer.status == 200 else { throw refusal(answer, of: "the login at \(path) as \(role)", secrets: [jwt]) }
      guard let auth = VaultDocument(answer.body)?.auth else { throw malformed(path) }
      let life = auth.leaseDuration.flatMap { $0 > 0 ? Double($0) : nil } ?? 3600
      login = (auth.clientToken, now().addingTimeInterval(life * 2 / 3))
      return auth.clientToken
    }
  }

  private func send(_ method: String, _ path: String, token: String?, body: [UInt8]) async throws -> PlainAnswer {
    var headers = [("x-vault-request", "true"), ("accept", "application/json")]
    if let token { headers.append(("x-vault-token", token)) }
    if let namespace = configuration.namespace { headers.append(("x-vault-namespace", namespace)) }
    if !body.isEmpty { headers.append(("content-type", "application/json")) }
    guard headers.allSatisfy({ $0.1.utf8.allSatisfy { 0x20...0x7E ~= $0 } }) else {
      throw MobulaError(
        .invalidArgument, "Vault's token or VAULT_NAMESPACE has bytes that no header takes: correct it.")
    }
    var surroundings = surroundings
    surroundings.http = http
    return try await surroundings.send(
      PlainRequest(method: method, url: "\(configuration.address)/v1/\(path)", headers: headers, body: body),
      attempts: 3, within: .seconds(10), giver: "Vault at \(configuration.address)")
  }

  private func refusal(_ answer: PlainAnswer, of what: String, secrets: [String] = []) -> MobulaError {
    let known = secrets + [login?.token].compactMap(\.self)
    let said = VaultDocument(answer.body)?.errors?.joined(separator: "; ") ?? ""
    let reason = said.isEmpty ? "status \(answer.status)" : "status \(answer.status), \(redacted(said, known))"
    let remedy: String
    let code: MobulaError.Code
    switch answer.status {
    case 300...399: (code, remedy) = (.unavailable, "name its active server in MOBULA_VAULT_ADDR")
    case 400, 401, 403: (code, remedy) = (.denied, "check the role, its policy and the token's audience")
    case 404: (code, remedy) = (.notFound, "check the mount and the role")
    case 503: (code, remedy) = (.unavailable, "it is sealed or starting: try again when it is not")
    default: (code, remedy) = (.unavailable, "try again later")
    }
    return MobulaError(code, "Vault at \(configuration.address) refuses \(what) (\(reason)): \(remedy).")
  }

  private func malformed(_ path: String) -> MobulaError {
    MobulaError(
      .unavailable,
      "Vault at \(configuration.address) answers \(path) with something else than credentials: check the mount and the role."
    )
  }
}
