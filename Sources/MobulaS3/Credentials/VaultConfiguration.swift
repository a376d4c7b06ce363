internal import MobulaCore

/// How credentials come from HashiCorp Vault (or OpenBao), the token vending machine of many clusters.
///
/// In the environment:
/// - `MOBULA_VAULT_ADDR`: where Vault is, as `https://vault.example:8200`. Setting it puts Vault before all other
///   sources. `VAULT_ADDR` stands for it where `MOBULA_VAULT_AUTH` is set.
/// - `VAULT_NAMESPACE`, `VAULT_CACERT` (a PEM file): as for Vault's own tools.
/// - `MOBULA_VAULT_AUTH`: `kubernetes` (the default), `jwt` or `token`.
/// - `MOBULA_VAULT_AUTH_MOUNT`: where the method is mounted; `kubernetes` or `jwt`, as the method, by default.
/// - `MOBULA_VAULT_AUTH_ROLE`: the role to log in as, for `kubernetes` and `jwt`.
/// - `MOBULA_VAULT_JWT_FILE`: the token to log in with; `/var/run/secrets/kubernetes.io/serviceaccount/token` by
///   default. Read again for every login.
/// - `VAULT_TOKEN`, or `MOBULA_VAULT_TOKEN_FILE` (`~/.vault-token` by default): for `token`.
///
/// And one of
/// - `MOBULA_VAULT_AWS_ROLE`: credentials are `MOUNT/sts/ROLE` of the AWS secrets engine, with
///   `MOBULA_VAULT_AWS_MOUNT` (`aws` by default).
/// - `MOBULA_VAULT_OIDC_ROLE`: `identity/oidc/token/ROLE` is exchanged at STS, by AssumeRoleWithWebIdentity, for the
///   role `MOBULA_VAULT_ROLE_ARN` (or `AWS_ROLE_ARN`).
struct VaultConfiguration: Sendable, Equatable {
  enum Authentication: Sendable, Equatable {
    case login(mount: String, role: String, tokenFile: String)
    case token(String)
    case tokenFile(String)
  }

  enum Secret: Sendable, Equatable {
    case aws(mount: String, role: String)
    case identity(role: String, assuming: STSClient.Role)
  }

  var address: S3Endpoint
  var namespace: String?
  /// A PEM file of the certificates to trust.
  var trustedRoots: String?
  var authentication: Authentication
  var secret: Secret

  static let serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

  init(address: S3Endpoint, authentication: Authentication, secret: Secret, namespace: String? = nil) {
    self.address = address
    self.authentication = authentication
    self.secret = secret
    self.namespace = namespace
  }

  /// `nil` where the environment does not ask for Vault.
  ///
  /// - Throws: `MobulaError` (`invalidArgument`) that names the variable to set or to correct.
  init?(_ variables: EnvironmentVariables) throws(MobulaError) {
    let own = variables["MOBULA_VAULT_ADDR"]
    guard let text = own ?? (variables["MOBULA_VAULT_AUTH"] == nil ? nil : variables["VAULT_ADDR"]) else { return nil }
    do { address = try S3Endpoint(text) } catch {
      let name = own == nil ? "VAULT_ADDR" : "MOBULA_VAULT_ADDR"
      throw MobulaError(.invalidArgument, "\(name) is no address: give it as https://HOST:PORT.")
    }
    namespace = variables["VAULT_NAMESPACE"]
    trustedRoots = variables["VAULT_CACERT"]
    authentication = try Self.authentication(variables)
    secret = try Self.secret(variables)
  }

  private static func authentication(_ variables: EnvironmentVariables) throws(MobulaError) -> Authentication {
    let method = variables["MOBULA_VAULT_AUTH"] ?? "kubernetes"
    switch method {
    case "kubernetes", "jwt":
      guard let role = variables["MOBULA_VAULT_AUTH_ROLE"] else {
        throw MobulaError(
          .invalidArgument, "Vault's \(method) login needs a role: set MOBULA_VAULT_AUTH_ROLE.")
      }
      return .login(
        mount: try path(variables["MOBULA_VAULT_AUTH_MOUNT"] ?? method, "MOBULA_VAULT_AUTH_MOUNT"), role: role,
        tokenFile: variables["MOBULA_VAULT_JWT_FILE"] ?? serviceAccountToken)
    case "token":
      if let token = variables["VAULT_TOKEN"] { return .token(token) }
      return .tokenFile(variables["MOBULA_VAULT_TOKEN_FILE"] ?? "\(variables["HOME"] ?? "")/.vault-token")
    default:
      throw MobulaError(.invalidArgument, "MOBULA_VAULT_AUTH is unknown: take kubernetes, jwt or token.")
    }
  }

  private static func secret(_ variables: EnvironmentVariables) throws(MobulaError) -> Secret {
    switch (variables["MOBULA_VAULT_AWS_ROLE"], variables["MOBULA_VAULT_OIDC_ROLE"]) {
    case (let role?, nil):
      return .aws(
        mount: try path(variables["MOBULA_VAULT_AWS_MOUNT"] ?? "aws", "MOBULA_VAULT_AWS_MOUNT"),
        role: try path(role, "MOBULA_VAULT_AWS_ROLE"))
    case (nil, let role?):
      guard let arn = variables["MOBULA_VAULT_ROLE_ARN", "AWS_ROLE_ARN"] else {
        throw MobulaError(
          .invalidArgument, "MOBULA_VAULT_OIDC_ROLE is set without a role to take on: set MOBULA_VAULT_ROLE_ARN.")
      }
      return .identity(
        role: try path(role, "MOBULA_VAULT_OIDC_ROLE"),
        assuming: STSClient.Role(arn: arn, sessionName: variables["AWS_ROLE_SESSION_NAME"]))
    case (nil, nil):
      throw MobulaError(
        .invalidArgument,
        "Vault is to give credentials, but not which: set MOBULA_VAULT_AWS_ROLE or MOBULA_VAULT_OIDC_ROLE.")
    case (_?, _?):
      throw MobulaError(
        .invalidArgument, "MOBULA_VAULT_AWS_ROLE and MOBULA_VAULT_OIDC_ROLE are both set: keep one of them.")
    }
  }

  /// A path without slashes at its ends and without steps upwards, encoded.
  private static func path(_ text: String, _ variable: String) throws(MobulaError) -> String {
    let parts = text.split(separator: "/")
    guard !parts.isEmpty, !parts.contains(".."), !parts.contains(".") else {
      throw MobulaError(.invalidArgument, "\(variable) is no path in Vault: correct it.")
    }
    return percentEncoded(parts.joined(separator: "/"), keepingSlashes: true)
  }

  var source: S3CredentialsSource {
    switch secret {
    case .aws(let mount, let role): .vault(address: "\(address)", path: "\(mount)/sts/\(role)")
    case .identity(let role, let assumed):
      .vaultIdentity(address: "\(address)", path: "identity/oidc/token/\(role)", roleARN: assumed.arn)
    }
  }
}
