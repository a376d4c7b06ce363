import FoundationEssentials
import Glibc
import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaS3

/// Containers, instances and processes as sources, against small stand-ins for the services.
@Suite struct CredentialsEndpointTests {
  /// "IAM roles for Amazon EC2", Amazon EC2 User Guide, with a later end.
  static let document = """
    {"Code":"Success","LastUpdated":"2012-04-26T16:39:16Z","Type":"AWS-HMAC","AccessKeyId":"ASIAIOSFODNN7EXAMPLE",
    "SecretAccessKey":"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY","Token":"token","Expiration":"2100-05-17T15:09:54Z"}
    """

  /// Files of a test's own.
  func surroundings(_ environment: [String: String], files: [String: String] = [:]) -> CredentialsSurroundings {
    CredentialsSurroundings(environment, readFile: { path in files[path].map { Array($0.utf8) } })
  }

  @Test func containerStandIn() async throws {
    let server = try StandInServer { request in
      request.headers["authorization"] == "pod token"
        ? answer("200 OK", [:], Self.document.utf8) : answer("401 Unauthorized")
    }
    defer { server.stop() }
    let files = Mutex(["/pod": "pod token\n"])
    var environment = [
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": "\(server.url)/v1/credentials?secret=1",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/pod",
    ]
    let chain = S3CredentialsChain(
      CredentialsSurroundings(environment, readFile: { path in files.withLock { $0[path].map { Array($0.utf8) } } }))
    let credentials = try await chain.credentials()
    #expect(credentials.accessKey == "ASIAIOSFODNN7EXAMPLE")
    #expect(credentials.sessionToken == "token")
    #expect(credentials.expiration == parseISO8601("2100-05-17T15:09:54Z"))
    #expect(try await chain.source() == .container(url: "\(server.url)/v1/credentials"))
    #expect(server.requests.map(\.path) == ["/v1/credentials?secret=1"])

    // The file is read again for every refresh.
    files.withLock { $0["/pod"] = "old token" }
    let dropped = chain.drop(credentials)
    #expect(dropped)
    await expectMobulaError(.denied, "answers with status 401") { _ = try await chain.credentials() }

    environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = nil
    environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "bad\r\nx: y"
    await expectMobulaError(.invalidArgument, "no header takes") {
      _ = try await S3CredentialsChain(surroundings(environment)).credentials()
    }
    environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "pod token"
    #expect(try await S3CredentialsChain(surroundings(environment)).credentials() == credentials)
  }

  @Test func instanceMetadataStandIn() async throws {
    let server = try StandInServer { request in
      let hasToken = request.headers["x-aws-ec2-metadata-token"] == "the-token"
      switch (request.method, request.path) {
      case ("PUT", "/latest/api/token"):
        return request.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
          ? answer("200 OK", [:], "the-token".utf8) : answer("400 Bad Request")
      case ("GET", "/latest/meta-data/iam/security-credentials/") where hasToken:
        return answer("200 OK", [:], "model reader\n".replacing(" ", with: "-").utf8)
      case ("GET", "/latest/meta-data/iam/security-credentials/model-reader") where hasToken:
        return answer("200 OK", [:], Self.document.utf8)
      default: return answer("401 Unauthorized")
      }
    }
    defer { server.stop() }
    let chain = S3CredentialsChain(surroundings(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url]))
    #expect(try await chain.credentials().sessionToken == "token")
    #expect(try await chain.source() == .instance(role: "model-reader"))
    #expect(server.requests.map(\.method) == ["PUT", "GET", "GET"])
  }

  @Test func anInstanceStandInWithoutARole() async throws {
    let server = try StandInServer { request in
      request.method == "PUT" ? answer("200 OK", [:], "t".utf8) : answer("404 Not Found")
    }
    defer { server.stop() }
    let chain = S3CredentialsChain(surroundings(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url]))
    await expectMobulaError(.unauthenticated, "attach an instance profile") { _ = try await chain.credentials() }
  }

  @Test func nowhereAnyCredentials() async throws {
    let silent = try SilentPort()
    let chain = S3CredentialsChain(
      surroundings(["AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:\(silent.port)"]))
    await expectMobulaError(.unauthenticated, "this host is no EC2 instance") { _ = try await chain.credentials() }
    withExtendedLifetime(silent) {}
  }

  @Test func aStandInThatIsSilentIsGivenUpWithinSeconds() async throws {
    let silent = try SilentPort()
    try silent.listen("silent")
    let began = ContinuousClock.now
    let chain = S3CredentialsChain(
      surroundings(["AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:\(silent.port)"]))
    await expectMobulaError(.unauthenticated, "no EC2 instance") { _ = try await chain.credentials() }
    #expect(ContinuousClock.now - began < .seconds(4))
    withExtendedLifetime(silent) {}
  }

  @Test(arguments: [
    (#"{"AccessKeyId":"a","SecretAccessKey":"hush","Version":2}"#, true, "Version is not 1"),
    (#"{"AccessKeyId":"a","SecretAccessKey":"hush"}"#, true, "Version is not 1"),
    (#"{"AccessKeyId":"a"}"#, false, "SecretAccessKey is missing"),
    (#"{"AccessKeyId":"a","SecretAccessKey":"hush","Expiration":"soon"}"#, false, "no time of ISO 8601"),
    (#"{"Code":"AssumeRoleUnauthorizedAccess","AccessKeyId":"a"}"#, false, "AssumeRoleUnauthorizedAccess"),
    ("hush", false, "no JSON"),
  ])
  func documentsThatAreNone(text: String, needsVersion: Bool, part: String) {
    #expect {
      try CredentialsDocument.credentials(Array(text.utf8), from: "It", needsVersion: needsVersion)
    } throws: { error in
      let said = (error as? MobulaError)?.message ?? ""
      return said.contains(part) && !said.contains("hush")
    }
  }

  @Test func credentialsThatFitNoHeader() async throws {
    let chain = S3CredentialsChain(
      surroundings(["AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "hush\r\nx: y"]))
    do {
      _ = try await chain.credentials()
      Issue.record("no error")
    } catch let error as MobulaError {
      #expect(error.code == .invalidArgument)
      #expect(!error.message.contains("hush"))
    }
  }

  @Test func nothingThatHoldsSecretsShowsThem() throws {
    let variables = EnvironmentVariables([
      "MOBULA_VAULT_ADDR": "v:1", "MOBULA_VAULT_AUTH": "token", "VAULT_TOKEN": "hush", "MOBULA_VAULT_AWS_ROLE": "r",
      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "hush",
    ])
    let credentials = S3Credentials(accessKey: "a", secretKey: "hush", sessionToken: "hush")
    let json = #"{"auth":{"client_token":"hush"},"data":{"secret_key":"hush","token":"hush"}}"#
    let document = CredentialsDocument(accessKey: "a", secretKey: "hush", token: "hush")
    let values: [Any] = [
      variables, try VaultConfiguration(variables) as Any, try ContainerEndpoint(variables) as Any, document,
      VaultDocument(Array(json.utf8)) as Any, CredentialsPlan.keys(credentials, profile: "p"),
      CredentialsPlan.environment(credentials),
      STSAssumedRole(Array(STSTests.assumeRole.utf8), action: "AssumeRole") as Any,
      try SharedConfigFile(parsing: "[p]\nk = hush\ns3 =\n x = hush", kind: .credentials, path: "/k"),
      PlainRequest(url: "http://h", headers: [("x-vault-token", "hush")], body: Array("hush".utf8)),
      STSClient(endpoint: S3Endpoint(host: "h")).request(
        "A", [("WebIdentityToken", "hush")], credentials: credentials, at: .now()),
      CredentialsRefreshStateMachine.Ask.use(credentials), CachedCredentials(credentials),
    ]
    for value in values {
      var shown = "\(value) \(String(reflecting: value))"
      dump(value, to: &shown)
      #expect(!shown.contains("hush") && !shown.contains("wJalrXU"), "\(type(of: value))")
    }
  }

  // Processes, real ones.

  func chain(process command: String) -> S3CredentialsChain {
    let config = "[default]\ncredential_process = \(command)\n"
    return S3CredentialsChain(surroundings(["HOME": "/h"], files: ["/h/.aws/config": config]))
  }

  func script(_ text: String, in folder: String) throws -> String {
    let path = "\(folder)/tool"
    try Data("#!/bin/sh\n\(text)\n".utf8).write(to: URL(filePath: path))
    try systemCall("chmod") { chmod(path, 0o700) }
    return path
  }

  @Test func credentialProcess() async throws {
    let folder = try makeTemporaryDirectory("process")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let tool = try script(
      #"printf '{"Version":1,"AccessKeyId":"%s","SecretAccessKey":"s","SessionToken":"t","Expiration":"2100-01-01T00:00:00Z"}' "$(echo "$2" | tr " " -)""#,
      in: folder)
    let chain = chain(process: "\"\(tool)\" --name \"A K\"")
    #expect(try await chain.credentials().accessKey == "A-K")
    #expect(try await chain.credentials().sessionToken == "t")
    #expect(try await chain.source() == .process(profile: "default"))
  }

  @Test func credentialProcessesThatFail() async throws {
    let folder = try makeTemporaryDirectory("process")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let failing = try script("echo hush; echo hush >&2; exit 3", in: folder)
    await expectMobulaError(.unavailable, "ended with exit status 3") {
      _ = try await chain(process: failing).credentials()
    }
    await expectMobulaError(.inputOutput, "/nowhere/tool can't be started") {
      _ = try await chain(process: "/nowhere/tool").credentials()
    }
    await expectMobulaError(.invalidArgument, "without its last quote") {
      _ = try await chain(process: "tool \"x").credentials()
    }
    let endless = try script("cat /dev/zero", in: folder)
    await expectMobulaError(.unavailable, "prints more than 65536 bytes") {
      _ = try await chain(process: endless).credentials()
    }
    let silent = try script("sleep 100", in: folder)
    await expectMobulaError(.deadlineExceeded, "did not end in time") {
      _ = try await outputOfCredentialProcess([silent], deadline: .milliseconds(100))
    }
  }

  @Test func realFilesAndTokens() async throws {
    let folder = try makeTemporaryDirectory("files")
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let path = "\(folder)/credentials"
    try Data("[m]\naws_access_key_id = FK\naws_secret_access_key = fs\n".utf8).write(to: URL(filePath: path))
    let environment = ["HOME": folder, "AWS_PROFILE": "m", "AWS_SHARED_CREDENTIALS_FILE": path]
    #expect(try await S3CredentialsChain(environment: environment).credentials().accessKey == "FK")
    let surroundings = CredentialsSurroundings([:])
    await expectMobulaError(.notFound, "no token file") { _ = try await surroundings.token(in: "\(folder)/none") }
    try Data("\n \n".utf8).write(to: URL(filePath: "\(folder)/empty"))
    await expectMobulaError(.invalidArgument, "is empty") { _ = try await surroundings.token(in: "\(folder)/empty") }
    try Data([UInt8](repeating: 65, count: 1_048_577)).write(to: URL(filePath: "\(folder)/big"))
    await expectMobulaError(.invalidArgument, "more than 1048576 bytes") {
      _ = try await surroundings.token(in: "\(folder)/big")
    }
  }
}
