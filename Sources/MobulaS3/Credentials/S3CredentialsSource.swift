/// Where credentials came from; its description is for people and shows no secret.
public indirect enum S3CredentialsSource: Hashable, Sendable, CustomStringConvertible {
  /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
  case environment
  /// The keys of a profile in AWS's shared files.
  case profile(String)
  /// What a profile's `credential_process` printed.
  case process(profile: String)
  /// A role taken on with a token, by the environment or, where it is named, by a profile.
  case webIdentity(roleARN: String, profile: String?)
  /// A role of a profile, taken on with the credentials of another source.
  case assumedRole(roleARN: String, profile: String, from: S3CredentialsSource)
  /// The container's endpoint: ECS, or EKS Pod Identity.
  case container(url: String)
  /// The metadata service of an EC2 instance.
  case instance(role: String)
  /// HashiCorp Vault's AWS secrets engine; `path` is the secret's, as in `aws/sts/reader`.
  case vault(address: String, path: String)
  /// A token of Vault's, exchanged at STS for a role.
  case vaultIdentity(address: String, path: String, roleARN: String)

  public var description: String {
    switch self {
    case .environment: "the environment (AWS_ACCESS_KEY_ID)"
    case .profile(let name): "profile \(name)"
    case .process(let profile): "profile \(profile), its credential_process"
    case .webIdentity(let role, nil): "role \(role) by the web identity token of the environment"
    case .webIdentity(let role, let profile?): "profile \(profile), role \(role) by its web identity token"
    case .assumedRole(let role, let profile, let source): "profile \(profile), role \(role) assumed from \(source)"
    case .container(let url): "the container's credentials endpoint \(url)"
    case .instance(let role): "role \(role) of this EC2 instance"
    case .vault(let address, let path): "Vault at \(address), \(path)"
    case .vaultIdentity(let address, let path, let role): "role \(role) by \(path) of Vault at \(address)"
    }
  }
}
