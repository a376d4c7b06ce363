import MobulaCore

/// Credentials from where the AWS SDKs find them, kept and renewed as `CachedCredentials` says.
///
/// The first of these that is configured is taken; it has to work, and the next is not tried instead:
/// 1. HashiCorp Vault, where `MOBULA_VAULT_ADDR` is set: see docs/Credentials.md.
/// 2. The environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
/// 3. A web identity: the token in `AWS_WEB_IDENTITY_TOKEN_FILE`, exchanged at STS for the role `AWS_ROLE_ARN`.
/// 4. The shared files `~/.aws/config` and `~/.aws/credentials`, in the profile `AWS_PROFILE` or `default`: keys,
///    `credential_process`, or a `role_arn` with `source_profile`, `credential_source` or `web_identity_token_file`.
/// 5. The container: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` (ECS) or `_FULL_URI` (EKS Pod Identity).
/// 6. The metadata service of an EC2 instance, version 2 only, unless `AWS_EC2_METADATA_DISABLED` is `true`.
///
/// Steps 2 to 6 are in the order of AWS's SDKs for Java 2.x ("Default credentials provider chain") and PHP
/// ("Understanding the default credential provider chain"). The configuration is read again for every renewal.
///
/// STS is asked at `AWS_ENDPOINT_URL_STS`, `AWS_ENDPOINT_URL`, the profile's `endpoint_url`, or AWS's own in the
/// region.
public final class S3CredentialsChain: S3CredentialsProvider {
  private let resolver: CredentialsResolver
  private let cache: CachedCredentials

  /// - Parameters:
  ///   - environment: this process's by default.
  ///   - stsEndpoint: asked instead of the one configured.
  package convenience init(
    environment: [String: String] = currentEnvironment(), stsEndpoint: S3Endpoint? = nil
  ) {
    self.init(CredentialsSurroundings(environment), stsEndpoint: stsEndpoint)
  }

  init(_ surroundings: CredentialsSurroundings, stsEndpoint: S3Endpoint? = nil) {
    let resolver = CredentialsResolver(surroundings, stsEndpoint: stsEndpoint)
    self.resolver = resolver
    cache = CachedCredentials { try await resolver.load() }
  }

  public func credentials() async throws -> S3Credentials { try await cache.credentials() }

  public func drop(_ refused: S3Credentials) -> Bool {
    resolver.refused()
    return cache.drop(refused)
  }

  /// Where the credentials came from; gets them first if need be.
  ///
  /// - Throws: as `credentials()`.
  public func source() async throws -> S3CredentialsSource {
    _ = try await credentials()
    guard let source = resolver.source else {
      preconditionFailure("credentials come with their source")
    }
    return source
  }

  /// Region, endpoint and the rest, from the environment, then the profile.
  ///
  /// - Throws: `MobulaError` for an endpoint, a profile or a file that can't be used.
  func configuration(endpoint: String? = nil) async throws -> S3Configuration {
    try .fromEnvironment(
      endpoint: endpoint, resolver.surroundings.variables.all, shared: try await resolver.surroundings.sharedConfig())
  }

  /// The STS that the chain asks.
  public func stsClient() async throws -> STSClient {
    try await resolver.sts(try await resolver.surroundings.sharedConfig())
  }
}
