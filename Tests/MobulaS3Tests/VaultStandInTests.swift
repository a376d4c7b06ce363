import FoundationEssentials
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Vault's AWS secrets engine, which OpenBao has not: a stand-in answers as Vault's API documentation says.
@Suite struct VaultStandInTests {
  /// What the stand-in is told, and the time.
  struct Settings: Sendable {
    var isRenewable = false
    var grants = 3600
    var refusesToken: String?
    var logins = 0
    var secrets = 0
    var now = Date(timeIntervalSince1970: 1_700_000_000)
  }

  final class World: Sendable {
    let settings = Mutex(Settings())
    func change(_ body: (inout Settings) -> Void) { settings.withLock { body(&$0) } }
  }

  let world = World()
  let server: StandInServer

  init() throws {
    let world = world
    server = try StandInServer { request in
      world.settings.withLock { Self.reply(to: request, &$0) }
    }
  }

  private static func reply(to request: StandInServer.Request, _ settings: inout Settings) -> [UInt8] {
    func ok(_ text: String) -> [UInt8] { answer("200 OK", [:], text.utf8) }
    guard request.headers["x-vault-request"] == "true", request.headers["x-vault-namespace"] == "ns" else {
      return answer("400 Bad Request", [:], #"{"errors":["no namespace"]}"#.utf8)
    }
    let token = request.headers["x-vault-token"]
    let denied = answer("403 Forbidden", [:], #"{"errors":["permission denied for \#(token ?? "")"]}"#.utf8)
    switch (request.method, request.path) {
    case ("POST", "/v1/auth/kubernetes/login"):
      guard request.body.contains(#""jwt":"jwt-1""#), request.body.contains(#""role":"mobula""#) else {
        return answer("400 Bad Request", [:], #"{"errors":["bad jwt jwt-bad"]}"#.utf8)
      }
      settings.logins += 1
      return ok(#"{"auth":{"client_token":"hvs.\#(settings.logins)","lease_duration":1800,"renewable":true}}"#)
    case ("GET", "/v1/aws/sts/reader"):
      guard token?.hasPrefix("hvs.") == true, token != settings.refusesToken else { return denied }
      settings.secrets += 1
      return ok(
        """
        {"request_id":"x","lease_id":"aws/sts/reader/L\(settings.secrets)","renewable":\(settings.isRenewable),
        "lease_duration":3600,"data":{"access_key":"ASIA\(settings.secrets)","secret_key":"sk","security_token":"st",
        "arn":"arn:aws:sts::1:assumed-role/reader/x"},"warnings":null}
        """)
    case ("PUT", "/v1/sys/leases/renew"):
      guard request.body.contains("aws/sts/reader/L") || request.body.contains(#"aws\/sts\/reader\/L"#) else {
        return denied
      }
      return ok(#"{"lease_id":"l","renewable":true,"lease_duration":\#(settings.grants)}"#)
    default: return answer("404 Not Found", [:], #"{"errors":[]}"#.utf8)
    }
  }

  func vault(role: String = "reader", jwt: String = "jwt-1\n") throws -> VaultClient {
    let configuration = try #require(
      try VaultConfiguration(
        EnvironmentVariables([
          "MOBULA_VAULT_ADDR": server.url, "MOBULA_VAULT_AUTH_ROLE": "mobula", "MOBULA_VAULT_AWS_ROLE": role,
          "VAULT_NAMESPACE": "ns", "MOBULA_VAULT_JWT_FILE": "/jwt",
        ])))
    return VaultClient(
      configuration, CredentialsSurroundings([:], readFile: { $0 == "/jwt" ? Array(jwt.utf8) : nil }),
      sts: STSClient(), now: { [world] in world.settings.withLock { $0.now } })
  }

  @Test func credentialsOfTheStandIn() async throws {
    defer { server.stop() }
    let credentials = try await vault().credentials()
    #expect(credentials.accessKey == "ASIA1")
    #expect(credentials.secretKey == "sk")
    #expect(credentials.sessionToken == "st")
    #expect(credentials.expiration == Date(timeIntervalSince1970: 1_700_003_600))
  }

  @Test func theLoginOfTheStandInIsUsedForTwoThirdsOfItsLife() async throws {
    defer { server.stop() }
    let vault = try vault()
    _ = try await vault.credentials()
    world.change { $0.now += 1199 }
    _ = try await vault.credentials()
    #expect(world.settings.withLock { $0.logins } == 1)
    world.change { $0.now += 2 }
    #expect(try await vault.credentials().accessKey == "ASIA3")
    #expect(world.settings.withLock { $0.logins } == 2)
  }

  @Test func aRevokedLoginOfTheStandInIsMadeAgain() async throws {
    defer { server.stop() }
    let vault = try vault()
    _ = try await vault.credentials()
    world.change { $0.refusesToken = "hvs.1" }
    #expect(try await vault.credentials().accessKey == "ASIA2")
    #expect(world.settings.withLock { $0.logins } == 2)
  }

  @Test func aLeaseOfTheStandInIsRenewedWhileItIsWorthIt() async throws {
    defer { server.stop() }
    world.change { $0.isRenewable = true }
    let vault = try vault()
    #expect(try await vault.credentials().accessKey == "ASIA1")
    world.change { $0.now += 3000 }
    let renewed = try await vault.credentials()
    #expect(renewed.accessKey == "ASIA1")
    #expect(renewed.expiration == Date(timeIntervalSince1970: 1_700_006_600))
    // Near its longest life Vault grants less.
    world.change { $0.grants = 1700 }
    #expect(try await vault.credentials().accessKey == "ASIA2")
    // A lease that S3 refuses is not renewed.
    world.change { $0.grants = 3600 }
    await vault.forget()
    #expect(try await vault.credentials().accessKey == "ASIA3")
  }

  @Test func refusalsOfTheStandIn() async throws {
    defer { server.stop() }
    await expectMobulaError(.notFound, "refuses to read aws/sts/other (status 404): check the mount and the role") {
      _ = try await vault(role: "other").credentials()
    }
    world.change { $0.refusesToken = "hvs.2" }
    await expectMobulaError(.denied, "permission denied for …") { _ = try await vault().credentials() }
    await expectMobulaError(.denied, "the login at auth/kubernetes/login as mobula (status 400, bad jwt …)") {
      _ = try await vault(jwt: "jwt-bad").credentials()
    }
  }

  @Test func aSealedStandIn() async throws {
    let sealed = try StandInServer { _ in
      answer("503 Service Unavailable", [:], #"{"errors":["Vault is sealed"]}"#.utf8)
    }
    defer { sealed.stop() }
    let chain = S3CredentialsChain(
      CredentialsSurroundings(
        [
          "MOBULA_VAULT_ADDR": sealed.url, "MOBULA_VAULT_AUTH": "token", "VAULT_TOKEN": "t",
          "MOBULA_VAULT_AWS_ROLE": "r",
        ], readFile: { _ in nil }))
    await expectMobulaError(.unavailable, "Vault is sealed): it is sealed or starting") {
      _ = try await chain.credentials()
    }
    #expect(sealed.requests.count == 3)
  }

  @Test func leasesNearTheirEndAreNotWorthRenewing() {
    let lease = VaultLease(id: "l", isRenewable: true, duration: 3600)
    #expect(lease.isWorthRenewing(granted: 1800))
    #expect(!lease.isWorthRenewing(granted: 1799))
    #expect(!VaultLease(id: "l", isRenewable: true, duration: 1).isWorthRenewing(granted: 0))
  }
}
