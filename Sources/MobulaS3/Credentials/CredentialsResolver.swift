internal import MobulaCore
internal import Synchronization

/// Carries out what `CredentialsPlan` says; the chain's cache calls it for every refresh.
final class CredentialsResolver: Sendable {
  private struct State {
    var source: S3CredentialsSource?
    /// Kept, as it has a login; made anew when its configuration changes.
    var vault: (configuration: VaultConfiguration, client: VaultClient)?
    var isRefused = false
  }

  let surroundings: CredentialsSurroundings
  private let stsEndpoint: S3Endpoint?
  private let state = Mutex(State())

  init(_ surroundings: CredentialsSurroundings, stsEndpoint: S3Endpoint?) {
    self.surroundings = surroundings
    self.stsEndpoint = stsEndpoint
  }

  /// Where the last credentials came from.
  var source: S3CredentialsSource? { state.withLock { $0.source } }

  /// The service refuses what was got last: a lease of it is not to be prolonged.
  func refused() { state.withLock { $0.isRefused = true } }

  func load() async throws -> S3Credentials {
    let refusing = state.withLock { state in
      defer { state.isRefused = false }
      return state.isRefused ? state.vault?.client : nil
    }
    await refusing?.forget()
    let plan = try await CredentialsPlan.make(surroundings.variables.all) { try await surroundings.sharedConfig() }
    let (credentials, source) = try await load(plan)
    // They come from files and other servers, and go into headers.
    guard
      [credentials.accessKey, credentials.sessionToken ?? ""].allSatisfy({ $0.utf8.allSatisfy { 0x21...0x7E ~= $0 } })
    else {
      throw MobulaError(
        .invalidArgument, "The credentials of \(source) have spaces or bytes that no header takes: correct them.")
    }
    state.withLock { $0.source = source }
    return credentials
  }

  private func load(_ plan: CredentialsPlan) async throws -> (S3Credentials, S3CredentialsSource) {
    switch plan {
    case .vault(let configuration):
      return (try await vault(configuration).credentials(), configuration.source)
    case .environment(let credentials): return (credentials, .environment)
    case .keys(let credentials, let profile): return (credentials, .profile(profile))
    case .process(let command, let profile):
      guard let words = wordsOfCommand(command), !words.isEmpty else {
        throw MobulaError(
          .invalidArgument, "Profile \(profile) has a credential_process without its last quote: correct it.")
      }
      let output = try await surroundings.run(words)
      let giver = "The credential_process of profile \(profile)"
      return (
        try CredentialsDocument.credentials(output, from: giver, needsVersion: true), .process(profile: profile)
      )
    case .webIdentity(let role, let tokenFile, let profile):
      let token = try await surroundings.token(in: tokenFile)
      let assumed = try await sts(try await surroundings.sharedConfig()).assumeRole(role, webIdentityToken: token)
      return (assumed.credentials, .webIdentity(roleARN: role.arn, profile: profile))
    case .assumeRole(let role, let profile, let from):
      let (credentials, source) = try await load(from)
      let assumed = try await sts(try await surroundings.sharedConfig()).assumeRole(role, credentials: credentials)
      return (assumed.credentials, .assumedRole(roleARN: role.arn, profile: profile, from: source))
    case .container(let endpoint):
      return (try await endpoint.load(surroundings), .container(url: "\(endpoint)"))
    case .instance(let metadata):
      let (credentials, role) = try await metadata.load(surroundings)
      return (credentials, .instance(role: role))
    }
  }

  func sts(_ shared: SharedConfig) async throws -> STSClient {
    let (endpoint, region) = try stsAddress(shared)
    let bundle = try shared.trustedRoots(surroundings.variables.all)
    let http = try PlainHTTPClient(for: endpoint, trusting: try await roots(bundle), surroundings.variables.all)
    return STSClient(endpoint: endpoint, region: region, http: http)
  }

  private func roots(_ path: String?) async throws -> (bytes: [UInt8], path: String)? {
    guard let path else { return nil }
    return (try await surroundings.readFile(path) ?? [], path)
  }

  private func stsAddress(_ shared: SharedConfig) throws(MobulaError) -> (S3Endpoint, region: String) {
    let variables = surroundings.variables
    let inProfile = try shared.region()
    let region = try S3Configuration.checked(
      region: variables["AWS_REGION", "AWS_DEFAULT_REGION"] ?? inProfile ?? "us-east-1")
    if let stsEndpoint { return (stsEndpoint, region) }
    let configured = try shared.endpoint(of: "sts", variables.all)
    guard let text = variables["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"] ?? configured else {
      return (STSClient.regionalEndpoint(region), region)
    }
    return (try S3Endpoint(text), region)
  }

  private func vault(_ configuration: VaultConfiguration) async throws -> VaultClient {
    if let kept = state.withLock({ $0.vault }), kept.configuration == configuration { return kept.client }
    let http = try PlainHTTPClient(
      for: configuration.address, trusting: try await roots(configuration.trustedRoots), surroundings.variables.all)
    let client = VaultClient(
      configuration, surroundings, sts: try await sts(try await surroundings.sharedConfig()), http: http)
    state.withLock { $0.vault = (configuration, client) }
    return client
  }
}
