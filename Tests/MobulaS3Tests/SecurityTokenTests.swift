import Crypto
import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaBench
@testable import MobulaS3

/// One SeaweedFS with STS, an issuer of tokens that it trusts, and, where it is installed, an OpenBao that it
/// trusts too.
struct SecurityTokenFixture: Sendable {
  let server: SeaweedServer
  let issuer: TokenIssuer
  let bao: TestServer?

  /// Seconds that credentials live whose request does not say.
  static let shortLife = 5

  static let reader = SeaweedIAM.Role(
    name: "ModelReader", actions: ["s3:GetObject", "s3:ListBucket"],
    resources: ["arn:aws:s3:::models", "arn:aws:s3:::models/*"], provider: "cluster")
  static let vaultReader = SeaweedIAM.Role(
    name: "VaultReader", actions: ["s3:GetObject", "s3:ListBucket"],
    resources: ["arn:aws:s3:::models", "arn:aws:s3:::models/*"], provider: "vault")

  static func start() async throws -> SecurityTokenFixture {
    let issuer = try TokenIssuer()
    var bao: TestServer?
    do {
      var providers = [
        SeaweedIAM.Provider(name: "cluster", issuer: issuer.url, clientID: "mobula", keysURL: issuer.keysURL)
      ]
      if TestServer.isInstalled("bao") {
        let started = try await OpenBao.start(trusting: issuer)
        bao = started
        let identity = "\(started.url)/v1/identity/oidc"
        providers.append(
          SeaweedIAM.Provider(
            name: "vault", issuer: identity, clientID: "mobula", keysURL: "\(identity)/.well-known/keys"))
      }
      let server = try await SeaweedServer.start(
        iam: SeaweedIAM(
          providers: providers, roles: [reader, vaultReader], tokenDuration: .seconds(shortLife)))
      let client = server.client()
      try await client.createBucket("models")
      try await client.createBucket("other")
      try await client.put(bucket: "models", key: "m", bytes: Array("weights".utf8))
      try await client.put(bucket: "other", key: "m", bytes: [1])
      return SecurityTokenFixture(server: server, issuer: issuer, bao: bao)
    } catch {
      await bao?.stop()
      issuer.stop()
      throw error
    }
  }

  func stop() async {
    await server.stop()
    await bao?.stop()
    issuer.stop()
  }

  var sts: STSClient { STSClient(endpoint: server.endpoint) }

  func client(_ provider: any S3CredentialsProvider) -> S3Client {
    S3Client(configuration: S3Configuration(endpoint: server.endpoint), credentials: provider)
  }
}

/// Runs a suite with one fixture, stopped when its last test is over.
struct WithSecurityTokens: SuiteTrait, TestScoping {
  @TaskLocal static var fixture: SecurityTokenFixture?

  func provideScope(
    for test: Test, testCase: Test.Case?, performing body: @Sendable @concurrent () async throws -> Void
  ) async throws {
    guard WithSeaweed.isInstalled else { return try await body() }
    let fixture = try await SecurityTokenFixture.start()
    do {
      try await Self.$fixture.withValue(fixture) { try await body() }
    } catch {
      await fixture.stop()
      throw error
    }
    await fixture.stop()
  }
}

extension Trait where Self == WithSecurityTokens {
  static var securityTokens: Self { Self() }
}

/// Temporary credentials against SeaweedFS's STS, and OpenBao as the vending machine.
@Suite(
  .securityTokens, .enabled(if: WithSeaweed.isInstalled, "skipped: SeaweedFS is not installed (make environment)"))
struct SecurityTokenTests {
  let fixture: SecurityTokenFixture

  init() throws { fixture = try #require(WithSecurityTokens.fixture) }

  /// The object can be read, and nothing else is allowed.
  func expectReader(_ provider: any S3CredentialsProvider) async throws {
    let client = fixture.client(provider)
    #expect(try await client.get(bucket: "models", key: "m").bytes(upTo: 100) == Array("weights".utf8))
    #expect(try await client.head(bucket: "models", key: "m").size == 7)
    #expect(try await client.list(bucket: "models").map(\.key) == ["m"])
    await expectMobulaError(.denied, "denies access") { try await client.put(bucket: "models", key: "n", bytes: [1]) }
    await expectMobulaError(.denied, "denies access") { _ = try await client.get(bucket: "other", key: "m") }
  }

  @Test func assumeRole() async throws {
    let role = STSClient.Role(arn: SecurityTokenFixture.reader.arn, sessionName: "tests", duration: .seconds(900))
    let assumed = try await fixture.sts.assumeRole(role, credentials: fixture.server.credentials)
    let left = try #require(assumed.credentials.expiration).timeIntervalSinceNow
    #expect(880...910 ~= left)
    try await expectReader(assumed.credentials)
    let identity = try await fixture.sts.callerIdentity(of: assumed.credentials)
    #expect(identity.arn.contains("ModelReader"), "\(identity)")
  }

  @Test func whoTheServersOwnKeysAre() async throws {
    let identity = try await fixture.sts.callerIdentity(of: fixture.server.credentials)
    #expect(identity.arn.contains("mobula"), "\(identity)")
    #expect(!identity.account.isEmpty)
  }

  @Test func refusals() async throws {
    let (sts, keys) = (fixture.sts, fixture.server.credentials)
    let wrong = S3Credentials(accessKey: keys.accessKey, secretKey: "wrong")
    do {
      _ = try await sts.assumeRole(.init(arn: SecurityTokenFixture.reader.arn), credentials: wrong)
      Issue.record("a wrong secret was taken")
    } catch let error as MobulaError {
      #expect([.denied, .unauthenticated].contains(error.code), "\(error)")
    }
    do {
      _ = try await sts.assumeRole(.init(arn: "arn:aws:iam::role/Nobody"), credentials: keys)
      Issue.record("an unknown role was given")
    } catch let error as MobulaError {
      #expect([.denied, .invalidArgument].contains(error.code), "\(error)")
    }
  }

  @Test func webIdentity() async throws {
    let role = STSClient.Role(arn: SecurityTokenFixture.reader.arn, sessionName: "tests", duration: .seconds(900))
    let assumed = try await fixture.sts.assumeRole(role, webIdentityToken: try fixture.issuer.token())
    try await expectReader(assumed.credentials)
    // Another issuer's key, another audience, and one that is over.
    for token in [
      try fixture.issuer.token(key: P256.Signing.PrivateKey()), try fixture.issuer.token(audience: "other"),
      try fixture.issuer.token(life: -60),
    ] {
      do {
        _ = try await fixture.sts.assumeRole(role, webIdentityToken: token)
        Issue.record("a wrong token was taken")
      } catch let error as MobulaError {
        #expect([.denied, .unauthenticated, .invalidArgument].contains(error.code), "\(error)")
        #expect(!error.message.contains(token))
      }
    }
    // Trust is a role's own: this one names another provider.
    await #expect(throws: MobulaError.self) {
      _ = try await fixture.sts.assumeRole(
        .init(arn: SecurityTokenFixture.vaultReader.arn), webIdentityToken: try fixture.issuer.token())
    }
  }

  /// As a pod has it: a token in a file, which is written anew now and then.
  @Test func theChainWithATokenFile() async throws {
    let folder = try makeTemporaryDirectory("token")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let file = "\(folder)/token"
    try Data("\(try fixture.issuer.token())\n".utf8).write(to: URL(filePath: file))
    let chain = S3CredentialsChain(environment: [
      "AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_ROLE_ARN": SecurityTokenFixture.reader.arn,
      "AWS_ENDPOINT_URL": "\(fixture.server.endpoint)", "HOME": folder,
    ])
    let client = try await S3Client.fromEnvironment(credentials: chain)
    #expect(client.configuration.endpoint == fixture.server.endpoint)
    try await expectReader(chain)
    #expect(
      try await chain.source() == .webIdentity(roleARN: SecurityTokenFixture.reader.arn, profile: nil))
    await client.shutdown()
  }

  @Test func theChainWithARoleOfAProfile() async throws {
    let folder = try makeTemporaryDirectory("profile")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let keys = fixture.server.credentials
    try systemCall("mkdir") { mkdir("\(folder)/.aws", 0o700) }
    try Data(
      """
      [profile reader]
      role_arn = \(SecurityTokenFixture.reader.arn)
      source_profile = base
      duration_seconds = 900
      services = here
      [services here]
      sts =
        endpoint_url = \(fixture.server.endpoint)
      s3 =
        endpoint_url = \(fixture.server.endpoint)
      """.utf8
    ).write(to: URL(filePath: "\(folder)/.aws/config"))
    try Data("[base]\r\naws_access_key_id=\(keys.accessKey)\r\naws_secret_access_key=\(keys.secretKey)\r\n".utf8)
      .write(to: URL(filePath: "\(folder)/.aws/credentials"))
    let chain = S3CredentialsChain(environment: ["HOME": folder, "AWS_PROFILE": "reader"])
    let client = try await S3Client.fromEnvironment(credentials: chain)
    #expect(try await client.get(bucket: "models", key: "m").bytes(upTo: 100) == Array("weights".utf8))
    #expect(
      try await chain.source().description
        == "profile reader, role \(SecurityTokenFixture.reader.arn) assumed from profile base")
    await client.shutdown()
  }

  @Test func wrongSessionTokens() async throws {
    let role = STSClient.Role(arn: SecurityTokenFixture.reader.arn, duration: .seconds(900))
    let good = try await fixture.sts.assumeRole(role, credentials: fixture.server.credentials).credentials
    for token in [nil, "wrong", good.sessionToken.map { String($0.dropLast(4)) + "AAAA" }] {
      let wrong = S3Credentials(accessKey: good.accessKey, secretKey: good.secretKey, sessionToken: token)
      await #expect {
        _ = try await fixture.client(wrong).get(bucket: "models", key: "m")
      } throws: { mobulaError($0)?.code == .denied }
    }
  }

  @Test func expiredSessionTokens() async throws {
    let role = STSClient.Role(arn: SecurityTokenFixture.reader.arn)
    let loads = Counter()
    let fixture = fixture
    // Says nothing of its end: only S3 can say when it has come.
    let endless = CachedCredentials {
      _ = loads.next()
      let new = try await fixture.sts.assumeRole(role, credentials: fixture.server.credentials).credentials
      return S3Credentials(accessKey: new.accessKey, secretKey: new.secretKey, sessionToken: new.sessionToken)
    }
    let client = fixture.client(endless)
    let old = try await endless.credentials()
    #expect(try await client.head(bucket: "models", key: "m").size == 7)
    try await Task.sleep(for: .seconds(SecurityTokenFixture.shortLife + 2))
    await #expect {
      _ = try await fixture.client(old).get(bucket: "models", key: "m")
    } throws: { mobulaError($0)?.code == .denied }
    #expect(try await client.head(bucket: "models", key: "m").size == 7)
    #expect(try await client.get(bucket: "models", key: "m").bytes(upTo: 100) == Array("weights".utf8))
    #expect(loads.next() >= 2)
  }

  /// Renewed before they end: requests meet no refusal for longer than one life.
  @Test func renewalInTime() async throws {
    let folder = try makeTemporaryDirectory("token")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let file = "\(folder)/token"
    try Data(try fixture.issuer.token().utf8).write(to: URL(filePath: file))
    let chain = S3CredentialsChain(environment: [
      "AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_ROLE_ARN": SecurityTokenFixture.reader.arn,
      "AWS_ENDPOINT_URL": "\(fixture.server.endpoint)", "HOME": folder,
    ])
    let first = try await chain.credentials()
    #expect(try #require(first.expiration).timeIntervalSinceNow <= Double(SecurityTokenFixture.shortLife))
    let client = fixture.client(chain)
    let end = ContinuousClock.now + .seconds(SecurityTokenFixture.shortLife + 3)
    while ContinuousClock.now < end {
      #expect(try await client.get(bucket: "models", key: "m").bytes(upTo: 100) == Array("weights".utf8))
      try await Task.sleep(for: .milliseconds(100))
    }
    #expect(try await chain.credentials() != first)
  }

  /// The service says that the token is wrong, and the provider has another.
  @Test func aRefusedTokenIsReplaced() async throws {
    let role = STSClient.Role(arn: SecurityTokenFixture.reader.arn, duration: .seconds(900))
    let good = try await fixture.sts.assumeRole(role, credentials: fixture.server.credentials).credentials
    let loads = Counter()
    let cache = CachedCredentials {
      loads.next() > 0
        ? good : S3Credentials(accessKey: good.accessKey, secretKey: good.secretKey, sessionToken: "wrong")
    }
    let client = fixture.client(cache)
    #expect(try await client.get(bucket: "models", key: "m").bytes(upTo: 100) == Array("weights".utf8))
    #expect(loads.next() == 2)
  }

  /// A service account's token, exchanged at OpenBao for a token of its own, and this at STS for a role.
  @Test(.enabled(if: TestServer.isInstalled("bao"), "skipped: OpenBao is not installed (make environment)"))
  func theWholeChainThroughOpenBao() async throws {
    let bao = try #require(fixture.bao)
    let folder = try makeTemporaryDirectory("vault")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let file = "\(folder)/token"
    try Data(try fixture.issuer.token(audience: "vault").utf8).write(to: URL(filePath: file))
    let environment = [
      "MOBULA_VAULT_ADDR": bao.url, "MOBULA_VAULT_AUTH": "jwt", "MOBULA_VAULT_AUTH_ROLE": "mobula",
      "MOBULA_VAULT_JWT_FILE": file, "MOBULA_VAULT_OIDC_ROLE": "s3",
      "MOBULA_VAULT_ROLE_ARN": SecurityTokenFixture.vaultReader.arn, "HOME": folder,
      "AWS_ENDPOINT_URL": "\(fixture.server.endpoint)",
      // Comes later in the chain.
      "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "x",
    ]
    let chain = S3CredentialsChain(environment: environment)
    try await expectReader(chain)
    #expect(
      try await chain.source()
        == .vaultIdentity(
          address: bao.url, path: "identity/oidc/token/s3", roleARN: SecurityTokenFixture.vaultReader.arn))

    // A service account that Vault does not know.
    try Data(try fixture.issuer.token(subject: "system:serviceaccount:other:other", audience: "vault").utf8)
      .write(to: URL(filePath: file))
    await expectMobulaError(.denied, "refuses the login at auth/jwt/login as mobula") {
      _ = try await S3CredentialsChain(environment: environment).credentials()
    }
    // A role that its policy does not allow.
    try Data(try fixture.issuer.token(audience: "vault").utf8).write(to: URL(filePath: file))
    await expectMobulaError(.denied, "refuses to read identity/oidc/token/more") {
      _ = try await S3CredentialsChain(environment: environment.merging(["MOBULA_VAULT_OIDC_ROLE": "more"]) { $1 })
        .credentials()
    }
  }
}
