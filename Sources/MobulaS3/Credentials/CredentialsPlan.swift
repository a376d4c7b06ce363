internal import MobulaCore

/// Where the chain will get credentials: what the environment and the shared files say, before anything is asked.
indirect enum CredentialsPlan: Sendable, Equatable {
  case vault(VaultConfiguration)
  case environment(S3Credentials)
  /// A role by the token in a file that somebody renews.
  case webIdentity(role: STSClient.Role, tokenFile: String, profile: String?)
  case keys(S3Credentials, profile: String)
  case process(command: String, profile: String)
  case assumeRole(role: STSClient.Role, profile: String, from: CredentialsPlan)
  case container(ContainerEndpoint)
  case instance(InstanceMetadata)

  /// The first source that is configured. It has to work: a fault there is an error, and the next is not tried.
  ///
  /// - Parameter shared: AWS's shared files; not read where the environment decides.
  /// - Throws: `MobulaError`: `unauthenticated` when there is none, `invalidArgument` or `notFound` for a
  ///   configuration that can't be used.
  static func make(
    _ environment: [String: String], shared: () async throws -> SharedConfig
  ) async throws -> CredentialsPlan {
    let variables = EnvironmentVariables(environment)
    if let vault = try VaultConfiguration(variables) { return .vault(vault) }
    if variables["AWS_ACCESS_KEY_ID"] != nil || variables["AWS_SECRET_ACCESS_KEY"] != nil {
      return .environment(try S3Credentials.fromEnvironment(environment))
    }
    if let tokenFile = variables["AWS_WEB_IDENTITY_TOKEN_FILE"] {
      guard let arn = variables["AWS_ROLE_ARN"] else {
        throw MobulaError(
          .invalidArgument, "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN: set the role's ARN too.")
      }
      let role = STSClient.Role(arn: arn, sessionName: variables["AWS_ROLE_SESSION_NAME"])
      return .webIdentity(role: role, tokenFile: tokenFile, profile: nil)
    }
    let shared = try await shared()
    if try shared.profile() != nil, let plan = try profile(shared.profileName, shared, variables, visited: []) {
      return plan
    }
    if let container = try ContainerEndpoint(variables) { return .container(container) }
    if let instance = try InstanceMetadata(variables, profile: shared.profile()) { return .instance(instance) }
    throw MobulaError(
      .unauthenticated,
      "There are no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or see docs/Credentials.md for other sources."
    )
  }

  /// What a profile says; `nil` when it says nothing of credentials.
  private static func profile(
    _ name: String, _ shared: SharedConfig, _ variables: EnvironmentVariables, visited: [String]
  ) throws(MobulaError) -> CredentialsPlan? {
    guard let profile = shared.profiles[name] else {
      throw MobulaError(
        .notFound, "Profile \(visited.last ?? name) names the source_profile \(name), which is not there: add it.")
    }
    if let arn = profile["role_arn"] {
      return try role(arn, of: profile, name, shared, variables, visited: visited)
    }
    return try base(profile, name)
  }

  private static func role(
    _ arn: String, of profile: SharedConfigFile.Section, _ name: String, _ shared: SharedConfig,
    _ variables: EnvironmentVariables, visited: [String]
  ) throws(MobulaError) -> CredentialsPlan {
    func unusable(_ what: String) -> MobulaError { MobulaError(.invalidArgument, "Profile \(name) \(what).") }
    if visited.contains(name) {
      throw unusable("takes on its role from itself (\((visited + [name]).joined(separator: " → "))): end the circle")
    }
    if profile["mfa_serial"] != nil {
      throw unusable(
        "demands a code (mfa_serial), which can't be asked for here: let a credential_process get the credentials")
    }
    let role = STSClient.Role(
      arn: arn, sessionName: profile["role_session_name"], externalID: profile["external_id"],
      duration: try duration(profile, name))
    switch (profile["source_profile"], profile["credential_source"], profile["web_identity_token_file"]) {
    case (let source?, nil, nil):
      if source == name {
        // Its own keys are meant, which a role of its own would hide.
        guard let keys = try keys(profile, name) else {
          throw unusable("is its own source_profile and has no keys: add them, or name another")
        }
        return .assumeRole(role: role, profile: name, from: keys)
      }
      guard let from = try Self.profile(source, shared, variables, visited: visited + [name]) else {
        throw unusable("takes on its role from profile \(source), which has no credentials: add them")
      }
      return .assumeRole(role: role, profile: name, from: from)
    case (nil, let source?, nil):
      return .assumeRole(
        role: role, profile: name, from: try named(source, profile, name, variables))
    case (nil, nil, let file?):
      return .webIdentity(role: role, tokenFile: file, profile: name)
    case (nil, nil, nil):
      throw unusable("has a role_arn and nothing to take it on with: add source_profile or credential_source")
    default:
      throw unusable(
        "has more than one of source_profile, credential_source and web_identity_token_file: keep one of them")
    }
  }

  private static func duration(
    _ profile: SharedConfigFile.Section, _ name: String
  ) throws(MobulaError) -> Duration? {
    guard let text = profile["duration_seconds"] else { return nil }
    guard let seconds = Int(text), 1...43_200 ~= seconds else {
      throw MobulaError(
        .invalidArgument, "Profile \(name) has a duration_seconds that is no number from 900 to 43200: correct it.")
    }
    return .seconds(seconds)
  }

  /// What `credential_source` means.
  private static func named(
    _ source: String, _ profile: SharedConfigFile.Section, _ name: String, _ variables: EnvironmentVariables
  ) throws(MobulaError) -> CredentialsPlan {
    switch source {
    case "Environment": return .environment(try S3Credentials.fromEnvironment(variables.all))
    case "EcsContainer":
      if let container = try ContainerEndpoint(variables) { return .container(container) }
    case "Ec2InstanceMetadata":
      if let instance = try InstanceMetadata(variables, profile: profile) { return .instance(instance) }
    default:
      throw MobulaError(
        .invalidArgument,
        "Profile \(name) has an unknown credential_source: take Environment, EcsContainer or Ec2InstanceMetadata.")
    }
    throw MobulaError(
      .unauthenticated, "Profile \(name) has credential_source \(source), which is not here: run it where it is.")
  }

  /// A profile without a role.
  private static func base(
    _ profile: SharedConfigFile.Section, _ name: String
  ) throws(MobulaError) -> CredentialsPlan? {
    if let keys = try keys(profile, name) { return keys }
    if let command = profile["credential_process"] { return .process(command: command, profile: name) }
    if profile["sso_session"] != nil || profile["sso_start_url"] != nil || profile["login_session"] != nil {
      throw MobulaError(
        .invalidArgument,
        "Profile \(name) signs in with a browser, which Mobula does not do: use a profile with credential_process = aws configure export-credentials --profile \(name)."
      )
    }
    return nil
  }

  private static func keys(
    _ profile: SharedConfigFile.Section, _ name: String
  ) throws(MobulaError) -> CredentialsPlan? {
    let (accessKey, secretKey) = (profile["aws_access_key_id"], profile["aws_secret_access_key"])
    guard accessKey != nil || secretKey != nil else { return nil }
    guard let accessKey, let secretKey else {
      let missing = accessKey == nil ? "aws_access_key_id" : "aws_secret_access_key"
      throw MobulaError(.unauthenticated, "Profile \(name) has no \(missing): add it.")
    }
    for (setting, value) in [("aws_access_key_id", accessKey), ("aws_secret_access_key", secretKey)] {
      try S3Credentials.checkQuotes(of: value, "Profile \(name)'s \(setting)")
    }
    let credentials = S3Credentials(
      accessKey: accessKey, secretKey: secretKey, sessionToken: profile["aws_session_token"])
    return .keys(credentials, profile: name)
  }
}

/// Variables, where an empty one counts as none.
struct EnvironmentVariables: Sendable {
  let all: [String: String]

  init(_ all: [String: String]) { self.all = all }

  subscript(_ names: String...) -> String? {
    names.lazy.compactMap { all[$0] }.first { !$0.isEmpty }
  }
}
