import FoundationEssentials
import MobulaCore
import Testing

@testable import MobulaS3

/// moto's STS as a second opinion: it checks signatures too, once it is told to.
@Suite(.enabled(if: TestServer.isInstalled("moto_server"), "skipped: moto is not installed (make environment)"))
struct MotoTests {
  @Test func assumeRole() async throws {
    let server = try await TestServer.start("moto_server", ready: "/moto-api/data.json") { port in
      ["-H", "127.0.0.1", "-p", "\(port)"]
    }
    do {
      try await assumeRole(server)
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  private func assumeRole(_ server: TestServer) async throws {
    let sts = STSClient(endpoint: server.endpoint)
    let keys = S3Credentials(accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    let role = STSClient.Role(
      arn: "arn:aws:iam::123456789012:role/reader", sessionName: "tests", externalID: "x", duration: .seconds(900))
    let assumed = try await sts.assumeRole(role, credentials: keys)
    #expect(assumed.arn == "arn:aws:sts::123456789012:assumed-role/reader/tests")
    #expect(880...910 ~= (assumed.credentials.expiration?.timeIntervalSinceNow ?? 0))
    let identity = try await sts.callerIdentity(of: assumed.credentials)
    #expect(identity.arn == "arn:aws:sts::123456789012:assumed-role/reader/tests")
    #expect(identity.account == "123456789012")
    let web = try await sts.assumeRole(role, webIdentityToken: "any")
    #expect(web.arn == "arn:aws:sts::123456789012:assumed-role/reader/tests")

    // From here on it checks signatures.
    let reset = PlainRequest(
      method: "POST", url: "\(server.url)/moto-api/reset-auth", headers: [("content-type", "text/plain")],
      body: Array("0".utf8))
    #expect(try await PlainHTTPClient.shared.send(reset, within: .seconds(5)).status == 200)
    await #expect(throws: MobulaError.self) { _ = try await sts.callerIdentity(of: keys) }
    #expect(try await sts.callerIdentity(of: assumed.credentials).account == "123456789012")
    let wrong = S3Credentials(
      accessKey: assumed.credentials.accessKey, secretKey: "wrong", sessionToken: assumed.credentials.sessionToken)
    await #expect(throws: MobulaError.self) { _ = try await sts.callerIdentity(of: wrong) }
  }
}
