import FoundationEssentials
import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaS3

/// Requests and answers of STS, by AWS's documentation and its Signature Version 4 test suite.
@Suite struct STSTests {
  /// "AssumeRole", AWS Security Token Service API Reference.
  static let assumeRole = """
    <AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
      <AssumeRoleResult>
        <SourceIdentity>Alice</SourceIdentity>
        <AssumedRoleUser>
          <Arn>arn:aws:sts::123456789012:assumed-role/demo/TestAR</Arn>
          <AssumedRoleId>ARO123EXAMPLE123:TestAR</AssumedRoleId>
        </AssumedRoleUser>
        <Credentials>
          <AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId>
          <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY</SecretAccessKey>
          <SessionToken>
            AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGd
          </SessionToken>
          <Expiration>2019-11-09T13:34:41Z</Expiration>
        </Credentials>
        <PackedPolicySize>6</PackedPolicySize>
      </AssumeRoleResult>
    </AssumeRoleResponse>
    """

  @Test func theDocumentedAnswerToAssumeRole() throws {
    let role = try #require(STSAssumedRole(Array(Self.assumeRole.utf8), action: "AssumeRole"))
    #expect(role.arn == "arn:aws:sts::123456789012:assumed-role/demo/TestAR")
    #expect(role.credentials.accessKey == "ASIAIOSFODNN7EXAMPLE")
    #expect(role.credentials.secretKey == "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    #expect(role.credentials.sessionToken?.hasPrefix("AQoDYXdzEPT///") == true)
    #expect(role.credentials.sessionToken?.hasSuffix("Pi/kMcGd") == true)
    #expect(role.credentials.expiration == Date(timeIntervalSince1970: 1_573_306_481))
    #expect(STSAssumedRole(Array(Self.assumeRole.utf8), action: "AssumeRoleWithWebIdentity") == nil)
    let incomplete = Self.assumeRole.split(separator: "\n").filter { !$0.contains("<SecretAccessKey>") }
    #expect(STSAssumedRole(Array(incomplete.joined(separator: "\n").utf8), action: "AssumeRole") == nil)
    #expect(STSAssumedRole(Array("<html>".utf8), action: "AssumeRole") == nil)
  }

  /// "GetCallerIdentity", the same reference.
  @Test func theDocumentedAnswerToGetCallerIdentity() throws {
    let text = """
      <GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
        <GetCallerIdentityResult>
          <Arn>arn:aws:iam::123456789012:user/Alice</Arn>
          <UserId>AIDACKCEVSQ6C2EXAMPLE</UserId>
          <Account>123456789012</Account>
        </GetCallerIdentityResult>
      </GetCallerIdentityResponse>
      """
    let identity = try #require(STSIdentity(Array(text.utf8)))
    #expect(identity.arn == "arn:aws:iam::123456789012:user/Alice")
    #expect(identity.userID == "AIDACKCEVSQ6C2EXAMPLE")
    #expect(identity.account == "123456789012")
  }

  /// post-x-www-form-urlencoded of aws-sig-v4-test-suite: a form as STS takes it.
  @Test func aSignedForm() {
    let signer = SigV4Signer(
      credentials: S3Credentials(accessKey: "AKIDEXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
      region: "us-east-1", service: "service")
    let authorization = signer.authorization(
      method: "POST", path: "/", query: [],
      headers: [
        ("content-type", "application/x-www-form-urlencoded"), ("host", "example.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
      ], payloadHash: SigV4Signer.payloadHash(Array("Param1=value1".utf8)),
      at: SigV4Timestamp(secondsSince1970: 1_440_938_160))
    #expect(
      authorization.hasSuffix(
        "SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
      ))
  }

  @Test func requests() throws {
    let sts = STSClient(endpoint: S3Endpoint(host: "h", port: 9), region: "r")
    let signed = sts.request(
      "AssumeRole", [("RoleArn", "arn:aws:iam::1:role/a b")],
      credentials: S3Credentials(accessKey: "AK", secretKey: "sk", sessionToken: "tok"),
      at: SigV4Timestamp(secondsSince1970: 0))
    #expect(signed.url == "http://h:9/")
    #expect(
      String(decoding: signed.body, as: UTF8.self)
        == "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%20b&Version=2011-06-15")
    let authorization = try #require(signed.headers.first { $0.0 == "authorization" }?.1)
    #expect(authorization.contains("Credential=AK/19700101/r/sts/aws4_request"))
    #expect(authorization.contains("x-amz-security-token"))
    let unsigned = sts.request("AssumeRoleWithWebIdentity", [], credentials: nil, at: .now())
    #expect(!unsigned.headers.contains { $0.0 == "authorization" })
  }

  @Test func regionalEndpoints() {
    #expect(STSClient(region: "eu-west-1").endpoint.description == "https://sts.eu-west-1.amazonaws.com")
    #expect(STSClient(region: "cn-north-1").endpoint.description == "https://sts.cn-north-1.amazonaws.com.cn")
  }

  func sts(_ server: StandInServer) -> STSClient {
    var sts = STSClient(endpoint: S3Endpoint(host: "127.0.0.1", port: server.port))
    sts.retry = S3RetryPolicy(maximumAttempts: 3, firstPause: .milliseconds(1), maximumPause: .milliseconds(2))
    sts.requestTimeout = .seconds(2)
    return sts
  }

  static func error(_ code: String, _ message: String) -> String {
    "<ErrorResponse><Error><Type>Sender</Type><Code>\(code)</Code><Message>\(message)</Message></Error><RequestId>r</RequestId></ErrorResponse>"
  }

  @Test func faultsOfAStandInAreTriedAgain() async throws {
    let failures = 2
    let server = try StandInServer { [counter = Counter()] _ in
      counter.next() < failures ? answer("503 Slow Down") : answer("200 OK", [:], STSTests.assumeRole.utf8)
    }
    defer { server.stop() }
    let keys = S3Credentials(accessKey: "AK", secretKey: "sk")
    let role = try await sts(server).assumeRole(
      .init(arn: "arn:r", sessionName: "s", externalID: "e", duration: .seconds(900)), credentials: keys)
    #expect(role.credentials.accessKey == "ASIAIOSFODNN7EXAMPLE")
    #expect(server.requests.count == 3)
    #expect(
      server.requests[2].body
        == "Action=AssumeRole&DurationSeconds=900&ExternalId=e&RoleArn=arn%3Ar&RoleSessionName=s&Version=2011-06-15")
  }

  @Test(arguments: [
    ("403 Forbidden", "AccessDenied", MobulaError.Code.denied, "refuses AssumeRole"),
    ("400 Bad Request", "ValidationError", .invalidArgument, "check the role"),
    ("403 Forbidden", "InvalidClientTokenId", .unauthenticated, "check the keys"),
    ("400 Bad Request", "ExpiredTokenException", .unauthenticated, "have expired"),
    ("418 Teapot", "Odd", .denied, "status 418"),
  ])
  func refusalsOfAStandIn(status: String, code: String, expected: MobulaError.Code, part: String) async throws {
    let server = try StandInServer { _ in
      answer(status, [:], STSTests.error(code, "you said hush-hush,\n and more").utf8)
    }
    defer { server.stop() }
    let keys = S3Credentials(accessKey: "AK", secretKey: "hush-hush")
    do {
      _ = try await sts(server).assumeRole(.init(arn: "arn:r"), credentials: keys)
      Issue.record("no error")
    } catch let error as MobulaError {
      #expect(error.code == expected)
      #expect(error.message.contains(part), "\(error)")
      #expect(!error.message.contains("hush-hush"))
    }
    #expect(server.requests.count == 1)
  }

  @Test func aWebIdentityTokenIsNeverShown() async throws {
    let server = try StandInServer { request in
      answer("400 Bad Request", [:], STSTests.error("InvalidIdentityToken", "bad token eyJ.secret.sig").utf8)
    }
    defer { server.stop() }
    await expectMobulaError(.unauthenticated, "(InvalidIdentityToken: bad token …)") {
      _ = try await sts(server).assumeRole(.init(arn: "arn:r"), webIdentityToken: "eyJ.secret.sig")
    }
    #expect(server.requests[0].headers["authorization"] == nil)
    #expect(server.requests[0].body.contains("WebIdentityToken=eyJ.secret.sig"))
  }

  @Test func redirectsOfAStandInAreNotFollowed() async throws {
    let other = try StandInServer { _ in answer("200 OK", [:], STSTests.assumeRole.utf8) }
    defer { other.stop() }
    let place = "\(other.url)/"
    let server = try StandInServer { _ in answer("307 Temporary Redirect", ["Location": place]) }
    defer { server.stop() }
    await expectMobulaError(.denied, "status 307") {
      _ = try await sts(server).assumeRole(.init(arn: "arn:r"), webIdentityToken: "t")
    }
    #expect(other.requests.isEmpty)
  }

  @Test func answersOfAStandInHaveALimit() async throws {
    let server = try StandInServer { _ in answer("200 OK", [:], [UInt8](repeating: 32, count: 1_048_577)) }
    defer { server.stop() }
    await expectMobulaError(.unavailable, "more than 1048576 bytes") {
      _ = try await sts(server).assumeRole(.init(arn: "arn:r"), webIdentityToken: "t")
    }
  }

  @Test func nobodyListens() async throws {
    let silent = try SilentPort()
    var sts = STSClient(endpoint: S3Endpoint(host: "127.0.0.1", port: silent.port))
    sts.retry = S3RetryPolicy(maximumAttempts: 1)
    await expectMobulaError(
      .unavailable, "STS at http://127.0.0.1:\(silent.port) can't be reached (Connection refused)"
    ) {
      _ = try await sts.callerIdentity(of: S3Credentials(accessKey: "a", secretKey: "s"))
    }
    withExtendedLifetime(silent) {}
  }
}
