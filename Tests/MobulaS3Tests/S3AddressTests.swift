import Foundation
import MobulaCore
import MobulaWire
import Testing

@testable import MobulaS3

@Suite struct S3AddressTests {
  @Test(arguments: ["us east", "eu-west-1\n", "é", "a/b", ""]) func whatIsNoRegionIsSaid(region: String) throws {
    guard !region.isEmpty else {
      // An empty variable counts as none.
      return #expect(try S3Configuration.fromEnvironment(["AWS_REGION": ""]).region == "us-east-1")
    }
    let error = #expect(throws: MobulaError.self) {
      try S3Configuration.fromEnvironment(["AWS_REGION": region])
    }
    #expect(error?.message.contains("is no region: correct AWS_REGION") == true)
  }

  @Test func addresses() throws {
    #expect(try S3URL("s3://models/whisper/small v2.bin").key == "whisper/small v2.bin")
    #expect(try S3URL("s3://models").key == "")
    #expect(try S3URL("s3://models/a//b") == S3URL(bucket: "models", key: "a//b"))
    for text in ["models/x", "s3://", "s3:///x", "s3://a b/x", "https://h/b"] {
      #expect(throws: MobulaError.self) { try S3URL(text) }
    }
  }

  /// A URL that ends in a version may still be a key of its own, so the key stays as it is written.
  @Test func versions() throws {
    let url = try S3URL(
      "s3://models/a?b/model.bin?versionId=3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo")
    #expect(url.namedVersion == nil, "a slash is in no version's name")
    let named = try S3URL("s3://models/a?b/model.bin?versionId=_A-z.0+=")
    #expect(named.key == "a?b/model.bin?versionId=_A-z.0+=")
    #expect(named.namedVersion?.object == S3URL(bucket: "models", key: "a?b/model.bin"))
    #expect(named.namedVersion?.versionID == "_A-z.0+=")
    #expect(try S3URL("s3://models/a?versionId=b?versionId=c").namedVersion?.object.key == "a?versionId=b")
    for key in ["a", "a?versionId=", "?versionId=x", "a?versionId=x/b", "a?versionId=x y", "a?versionid=x", "a?x=1"] {
      #expect(S3URL(bucket: "models", key: key).namedVersion == nil, "\(key)")
    }
    #expect(S3URL(bucket: "b", key: "a?versionId=" + String(repeating: "x", count: 1025)).namedVersion == nil)
  }

  @Test func endpoints() throws {
    #expect(try S3Endpoint("http://127.0.0.1:8333/").description == "http://127.0.0.1:8333")
    #expect(try S3Endpoint("https://s3.example.com") == S3Endpoint(scheme: .https, host: "s3.example.com", port: 443))
    #expect(try S3Endpoint("https://s3.example.com:443").authority == "s3.example.com")
    #expect(try S3Endpoint("host:9000") == S3Endpoint(host: "host", port: 9000))
    #expect(try S3Endpoint("http://[::1]:9000").authority == "[::1]:9000")
    #expect(try S3Endpoint("http://[::1]").host == "::1")
    for text in ["", "ftp://h", "http://", "http://h/bucket", "http://h:x", "http://u@h", "h:0", "h:70000"] {
      #expect(throws: MobulaError.self) { try S3Endpoint(text) }
    }
  }

  @Test func configurationFromTheEnvironment() throws {
    #expect(try S3Configuration.fromEnvironment([:]).endpoint == nil)
    #expect(try S3Configuration.fromEnvironment([:]).region == "us-east-1")
    let both = ["AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": "http://b:2", "AWS_DEFAULT_REGION": "r"]
    #expect(try S3Configuration.fromEnvironment(both).endpoint == S3Endpoint(host: "b", port: 2))
    #expect(try S3Configuration.fromEnvironment(endpoint: "http://c:3", both).endpoint?.host == "c")
    #expect(try S3Configuration.fromEnvironment(both).region == "r")
    #expect(throws: MobulaError.self) { try S3Configuration.fromEnvironment(endpoint: "nonsense//", both) }
    #expect(try S3Configuration.fromEnvironment(both).trustedRoots == nil)
  }

  /// What names no certificates is said before the first request would fail with it.
  @Test func aBundleOfCertificatesIsLookedAt() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "roots-\(UUID())").path()
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let (certificates, now) = (CertificateFolder(folder), SigV4Timestamp.secondsSince1970())
    _ = try certificates.createAuthority(cluster: "s3", validity: now - 3600..<now + 3600)
    let roots = certificates.authority
    #expect(try S3Configuration.fromEnvironment(["AWS_CA_BUNDLE": roots]).trustedRoots == roots)
    for wrong in ["/roots.pem", "/dev/null", "/etc/hostname"] {
      let error = #expect(throws: MobulaError.self) { try S3Configuration.fromEnvironment(["AWS_CA_BUNDLE": wrong]) }
      #expect(error?.message.contains("AWS_CA_BUNDLE names \(wrong)") == true)
      let vault = ["VAULT_CACERT": wrong, "MOBULA_VAULT_ADDR": "https://v:1"]
      #expect(throws: MobulaError.self) { try S3Configuration.checkTrustedRoots(vault) }
    }
    try S3Configuration.checkTrustedRoots(["AWS_CA_BUNDLE": "", "VAULT_CACERT": roots])
  }

  @Test func whereBucketsAnswer() {
    let aws = S3Configuration(region: "eu-west-1")
    #expect(aws.address(of: "models").endpoint.description == "https://models.s3.eu-west-1.amazonaws.com")
    #expect(aws.address(of: "models").inPath == false)
    #expect(aws.address(of: "my.models").endpoint.host == "s3.eu-west-1.amazonaws.com")
    #expect(aws.address(of: "my.models").inPath)
    #expect(S3Configuration(endpoint: S3Endpoint(host: "h")).address(of: "models").inPath)
    let china = S3Configuration(region: "cn-north-1").address(of: "models").endpoint
    #expect(china.host == "models.s3.cn-north-1.amazonaws.com.cn")
  }

  @Test func whereBucketsAreNamedCanBeChosen() {
    var own = S3Configuration(endpoint: S3Endpoint(host: "s3.example.com", port: 9000))
    own.addressing = .virtualHosted
    #expect(own.address(of: "models").endpoint.description == "http://models.s3.example.com:9000")
    #expect(own.address(of: "my.models").endpoint.host == "my.models.s3.example.com")
    for bucket in ["My_Models", "a..b", ""] { #expect(own.address(of: bucket).inPath) }
    for host in ["127.0.0.1", "::1"] {
      own.endpoint = S3Endpoint(host: host)
      #expect(own.address(of: "models").inPath)
    }
    var aws = S3Configuration(region: "eu-west-1")
    aws.addressing = .path
    #expect(aws.address(of: "models").inPath && aws.address(of: "models").endpoint == aws.baseEndpoint)
  }

  @Test func credentialsFromTheEnvironment() throws {
    let credentials = try S3Credentials.fromEnvironment([
      "AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_SESSION_TOKEN": "whisper",
    ])
    #expect(credentials.secretKey == "hush")
    // As read from a file, with its line end.
    let padded = ["AWS_ACCESS_KEY_ID": " AK\n", "AWS_SECRET_ACCESS_KEY": "hush\r\n", "AWS_SESSION_TOKEN": " \n"]
    #expect(try S3Credentials.fromEnvironment(padded) == S3Credentials(accessKey: "AK", secretKey: "hush"))
    #expect(credentials.sessionToken == "whisper")
    var dumped = "\(credentials) \(String(reflecting: credentials))"
    dump(credentials, to: &dumped)
    #expect(!dumped.contains("hush"))
    #expect(!dumped.contains("whisper"))
    #expect {
      try S3Credentials.fromEnvironment(["AWS_ACCESS_KEY_ID": "AK"])
    } throws: { error in
      let error = error as? MobulaError
      return error?.code == .unauthenticated
        && error?.message.contains("set AWS_SECRET_ACCESS_KEY (and") == true
    }
  }

  @Test func pausesGrowAndHaveJitter() {
    struct Constant: RandomNumberGenerator {
      var value: UInt64
      mutating func next() -> UInt64 { value }
    }
    let policy = S3RetryPolicy(maximumAttempts: 4, firstPause: .milliseconds(100), maximumPause: .milliseconds(250))
    var longest = Constant(value: .max)
    var shortest = Constant(value: 0)
    #expect(policy.pause(after: 1, using: &shortest) == .zero)
    #expect(policy.pause(after: 1, using: &longest)! <= .milliseconds(100))
    #expect(policy.pause(after: 2, using: &longest)! > .milliseconds(190))
    #expect(policy.pause(after: 3, using: &longest)! <= .milliseconds(250))
    #expect(policy.pause(after: 4, using: &longest) == nil)
  }

  @Test func deadlinesAllowForThePayload() {
    let configuration = S3Configuration()
    #expect(configuration.deadline(sent: 0) == .seconds(30))
    // What a slow link takes, and what S3 copies by itself.
    #expect(configuration.deadline(sent: 10_000_000) == .seconds(1030))
    #expect(configuration.deadline(sent: 0, moved: 10_000_000) == .seconds(40))
  }
}
