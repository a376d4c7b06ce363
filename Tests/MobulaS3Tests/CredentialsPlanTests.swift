import MobulaCore
import Testing

@testable import MobulaS3

/// Which source the chain takes, by environment and files that are given here.
@Suite struct CredentialsPlanTests {
  func plan(_ environment: [String: String], config: String = "", keys: String = "") async throws -> CredentialsPlan {
    try await CredentialsPlan.make(environment) {
      SharedConfig(
        config: try SharedConfigFile(parsing: config, kind: .config, path: "/c"),
        credentials: try SharedConfigFile(parsing: keys, kind: .credentials, path: "/k"), environment: environment)
    }
  }

  func error(_ environment: [String: String], config: String = "") async -> String {
    do {
      return "no error, but \(try await plan(environment, config: config))"
    } catch {
      return (error as? MobulaError)?.message ?? "another kind of error"
    }
  }

  let all = [
    "MOBULA_VAULT_ADDR": "http://v:8200", "MOBULA_VAULT_AUTH_ROLE": "r", "MOBULA_VAULT_AWS_ROLE": "w",
    "AWS_ACCESS_KEY_ID": "EK", "AWS_SECRET_ACCESS_KEY": "es", "AWS_SESSION_TOKEN": "et",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn:r", "AWS_ROLE_SESSION_NAME": "n",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/pod",
  ]
  let keys =
    "[default]\naws_access_key_id = PK\naws_secret_access_key = ps\n[base]\naws_access_key_id = BK\naws_secret_access_key = bs"

  /// Each source in its turn, as those before it are taken away.
  @Test func theOrder() async throws {
    var environment = all
    let vault = try await plan(environment, keys: keys)
    guard case .vault = vault else { return #expect(Bool(false), "\(vault)") }
    environment["MOBULA_VAULT_ADDR"] = nil
    #expect(
      try await plan(environment, keys: keys)
        == .environment(S3Credentials(accessKey: "EK", secretKey: "es", sessionToken: "et")))
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] { environment[name] = "" }
    #expect(
      try await plan(environment, keys: keys)
        == .webIdentity(role: .init(arn: "arn:r", sessionName: "n"), tokenFile: "/token", profile: nil))
    environment["AWS_WEB_IDENTITY_TOKEN_FILE"] = nil
    #expect(
      try await plan(environment, keys: keys)
        == .keys(S3Credentials(accessKey: "PK", secretKey: "ps"), profile: "default"))
    let container = try await plan(environment)
    #expect(container == .container(try #require(try ContainerEndpoint(EnvironmentVariables(all)))))
    environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = nil
    guard case .instance(let metadata) = try await plan(environment) else { return #expect(Bool(false)) }
    #expect(metadata.endpoint.description == "http://169.254.169.254")
    #expect(metadata.timeout == .seconds(1) && metadata.attempts == 2)
    environment["AWS_EC2_METADATA_DISABLED"] = "TRUE"
    #expect(await error(environment).contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"))
    let quoted = ["AWS_ACCESS_KEY_ID": "\"A\"", "AWS_SECRET_ACCESS_KEY": "s"]
    #expect(await error(quoted).hasPrefix("AWS_ACCESS_KEY_ID begins with a quote"))
  }

  /// A fault of the files does not matter where the environment decides.
  @Test func filesAreNotReadBeforeTheirTurn() async throws {
    let plan = try await CredentialsPlan.make(["AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"]) {
      throw MobulaError(.invalidArgument, "read")
    }
    #expect(plan == .environment(S3Credentials(accessKey: "a", secretKey: "s")))
  }

  @Test func halfOfAConfigurationIsAnError() async {
    #expect(await error(["AWS_ACCESS_KEY_ID": "a"]).contains("set AWS_SECRET_ACCESS_KEY (and"))
    #expect(await error(["AWS_WEB_IDENTITY_TOKEN_FILE": "/t"]).contains("without AWS_ROLE_ARN"))
    #expect(await error([:], config: "[default]\naws_access_key_id = a").contains("no aws_secret_access_key: add it"))
    #expect(
      await error(["AWS_PROFILE": "x"])
        == "There is no profile x in AWS's config and credentials files: check AWS_PROFILE.")
  }

  @Test func profilesWithRoles() async throws {
    let config = """
      [profile dev]
      role_arn = arn:aws:iam::123456789012:role/dev
      source_profile = base
      external_id = x1
      role_session_name = me
      duration_seconds = 900
      [profile chained]
      role_arn = arn:chained
      source_profile = dev
      [profile self]
      role_arn = arn:self
      source_profile = self
      aws_access_key_id = SK
      aws_secret_access_key = ss
      [profile env]
      role_arn = arn:env
      credential_source = Environment
      [profile pod]
      role_arn = arn:pod
      web_identity_token_file = /pod-token
      [profile tool]
      credential_process = /bin/tool --json
      [profile ecs]
      role_arn = arn:ecs
      credential_source = EcsContainer
      """
    func named(_ name: String, _ more: [String: String] = [:]) async throws -> CredentialsPlan {
      try await plan(["AWS_PROFILE": name].merging(more) { $1 }, config: config, keys: keys)
    }
    let base = CredentialsPlan.keys(S3Credentials(accessKey: "BK", secretKey: "bs"), profile: "base")
    let dev = CredentialsPlan.assumeRole(
      role: .init(
        arn: "arn:aws:iam::123456789012:role/dev", sessionName: "me", externalID: "x1", duration: .seconds(900)),
      profile: "dev", from: base)
    #expect(try await named("base") == base)
    #expect(try await named("dev") == dev)
    #expect(try await named("chained") == .assumeRole(role: .init(arn: "arn:chained"), profile: "chained", from: dev))
    #expect(
      try await named("self")
        == .assumeRole(
          role: .init(arn: "arn:self"), profile: "self",
          from: .keys(S3Credentials(accessKey: "SK", secretKey: "ss"), profile: "self")))
    #expect(
      try await named("pod") == .webIdentity(role: .init(arn: "arn:pod"), tokenFile: "/pod-token", profile: "pod"))
    #expect(try await named("tool") == .process(command: "/bin/tool --json", profile: "tool"))
    guard
      case .assumeRole(_, "ecs", .container) = try await named(
        "ecs",
        [
          "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"
        ])
    else { return #expect(Bool(false)) }
    #expect(
      await error(["AWS_PROFILE": "ecs"], config: config).contains("credential_source EcsContainer, which is not here"))
    // With AWS_ACCESS_KEY_ID set, the environment itself comes first.
    #expect(await error(["AWS_PROFILE": "env"], config: config).contains("set AWS_ACCESS_KEY_ID"))
  }

  @Test(arguments: [
    (
      "[profile p]\nrole_arn=a\nsource_profile=q\n[profile q]\nrole_arn=b\nsource_profile=p",
      "takes on its role from itself (p → q → p)"
    ),
    ("[profile p]\nrole_arn=a", "nothing to take it on with"),
    ("[profile p]\nrole_arn=a\nsource_profile=gone", "source_profile gone, which is not there"),
    ("[profile p]\nrole_arn=a\nsource_profile=q\n[profile q]\nregion=x", "profile q, which has no credentials"),
    ("[profile p]\nrole_arn=a\nsource_profile=p", "is its own source_profile and has no keys"),
    ("[profile p]\nrole_arn=a\nsource_profile=q\ncredential_source=Environment", "keep one of them"),
    ("[profile p]\nrole_arn=a\ncredential_source=Moon", "unknown credential_source"),
    ("[profile p]\nrole_arn=a\nsource_profile=p\nmfa_serial=x", "demands a code (mfa_serial)"),
    ("[profile p]\nrole_arn=a\nsource_profile=p\nduration_seconds=1h", "duration_seconds that is no number"),
    ("[profile p]\nsso_session=x", "credential_process = aws configure export-credentials --profile p"),
  ])
  func profilesThatCannotBeUsed(config: String, message: String) async {
    let said = await error(["AWS_PROFILE": "p"], config: config)
    #expect(said.contains(message), "\(said)")
  }

  @Test(arguments: [
    ("http://127.0.0.1:5/x?y=z", true), ("http://127.9.8.7/x", true), ("http://localhost/x", true),
    ("http://[::1]:80/x", true), ("http://169.254.170.2/x", true), ("http://169.254.170.23/v1/credentials", true),
    ("http://[fd00:ec2::23]/v1/credentials", true), ("https://example.com/x", true),
    ("http://example.com/x", false), ("http://169.254.169.254/x", false), ("http://10.0.0.1/x", false),
    ("http://127.0.0.1.example.com/x", false), ("http://127.0.0.1@example.com/x", false), ("ftp://127.0.0.1/x", false),
    ("127.0.0.1/x", false), ("http://127.0.0.256/x", false), ("http://127.0.0.1/a b", false),
  ])
  func hostsThatContainersMayBeAskedOf(url: String, isAllowed: Bool) {
    let variables = EnvironmentVariables(["AWS_CONTAINER_CREDENTIALS_FULL_URI": url])
    if isAllowed {
      #expect(throws: Never.self) { try ContainerEndpoint(variables) }
    } else {
      #expect(throws: MobulaError.self) { try ContainerEndpoint(variables) }
    }
  }

  @Test func vaultByTheEnvironment() async throws {
    func vault(_ environment: [String: String]) throws -> VaultConfiguration? {
      try VaultConfiguration(EnvironmentVariables(environment))
    }
    #expect(try vault(["VAULT_ADDR": "http://v:1", "MOBULA_VAULT_AWS_ROLE": "r"]) == nil)
    let token = try vault([
      "VAULT_ADDR": "https://v", "MOBULA_VAULT_AUTH": "token", "HOME": "/h", "MOBULA_VAULT_AWS_ROLE": "r",
    ])
    #expect(token?.authentication == .tokenFile("/h/.vault-token"))
    #expect(token?.secret == .aws(mount: "aws", role: "r"))
    #expect(token?.address.port == 443)
    let identity = try vault([
      "MOBULA_VAULT_ADDR": "http://v:8200", "MOBULA_VAULT_AUTH": "jwt", "MOBULA_VAULT_AUTH_MOUNT": "/jwt/k8s/",
      "MOBULA_VAULT_AUTH_ROLE": "a b", "MOBULA_VAULT_OIDC_ROLE": "s3", "AWS_ROLE_ARN": "arn:r",
      "VAULT_NAMESPACE": "ns", "VAULT_TOKEN": "t",
    ])
    #expect(
      identity?.authentication
        == .login(mount: "jwt/k8s", role: "a b", tokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token"))
    #expect(identity?.secret == .identity(role: "s3", assuming: .init(arn: "arn:r")))
    #expect(identity?.namespace == "ns")
    for (environment, message) in [
      (["MOBULA_VAULT_ADDR": "ftp://v"], "MOBULA_VAULT_ADDR is no address"),
      (["MOBULA_VAULT_ADDR": "v:1"], "set MOBULA_VAULT_AUTH_ROLE"),
      (["MOBULA_VAULT_ADDR": "v:1", "MOBULA_VAULT_AUTH": "x"], "take kubernetes, jwt or token"),
      (["MOBULA_VAULT_ADDR": "v:1", "MOBULA_VAULT_AUTH": "token"], "set MOBULA_VAULT_AWS_ROLE or"),
      (
        ["MOBULA_VAULT_ADDR": "v:1", "MOBULA_VAULT_AUTH": "token", "MOBULA_VAULT_OIDC_ROLE": "r"],
        "set MOBULA_VAULT_ROLE_ARN"
      ),
      (
        ["MOBULA_VAULT_ADDR": "v:1", "MOBULA_VAULT_AUTH": "token", "MOBULA_VAULT_AWS_ROLE": "../sys"],
        "MOBULA_VAULT_AWS_ROLE is no path"
      ),
    ] {
      #expect(await error(environment).contains(message))
    }
  }

  @Test func descriptions() {
    let source = S3CredentialsSource.assumedRole(roleARN: "arn:x", profile: "dev", from: .profile("base"))
    #expect(source.description == "profile dev, role arn:x assumed from profile base")
    #expect(S3CredentialsSource.environment.description == "the environment (AWS_ACCESS_KEY_ID)")
  }
}
