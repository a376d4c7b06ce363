import FoundationEssentials
import MobulaCore
import Testing

@testable import MobulaS3

/// AWS's shared files, odd ones too. Rules: "Shared config and credentials files", AWS SDKs and Tools Reference Guide.
@Suite struct SharedConfigTests {
  func config(_ text: String) throws -> SharedConfigFile {
    try SharedConfigFile(parsing: text, kind: .config, path: "/c")
  }

  func keys(_ text: String) throws -> SharedConfigFile {
    try SharedConfigFile(parsing: text, kind: .credentials, path: "/k")
  }

  @Test func profilesOfBothFiles() throws {
    let file = try config("[default]\nregion = eu-west-1\n[profile dev]\nregion=us-west-2\n\n[dev2]\nregion = no\n")
    #expect(Set(file.profiles.keys) == ["default", "dev"])
    #expect(file.profiles["dev"]?["region"] == "us-west-2")
    let secrets = try keys("[default]\naws_access_key_id = AK\n[dev]\naws_access_key_id = DK\n[profile x]\na = b\n")
    #expect(Set(secrets.profiles.keys) == ["default", "dev"])
  }

  /// As the AWS command line takes them, which reads the words of a section as a shell does.
  @Test func namesInQuotesAndInOtherScripts() throws {
    let file = try config(
      "[profile \"my team\"]\nregion = a\n[profile 'x y']\nregion = b\n[profile büro]\nregion = c\n[profile a b]\nregion = d\n"
    )
    #expect(file.profiles.mapValues { $0["region"] } == ["my team": "a", "x y": "b", "büro": "c"])
    let secrets = try keys(
      "[my team]\naws_access_key_id = A\n[\"x y\"]\naws_access_key_id = B\n[büro]\naws_access_key_id = C\n")
    #expect(Set(secrets.profiles.keys) == ["my team", "x y", "büro"])
  }

  @Test(arguments: ["\n", "\r\n", "\r"])
  func lineEnds(end: String) throws {
    let file = try config(
      ["\u{FEFF}[profile a]", "x = 1", "", "\t ", "s3 =", "  y = 2", "z = 3"].joined(separator: end))
    #expect(file.profiles["a"]?.values == ["x": "1", "s3": "", "z": "3"])
    #expect(file.profiles["a"]?.nested == ["s3": ["y": "2"]])
  }

  @Test func comments() throws {
    let file = try config(
      """
      # first
      ; second
      [profile a] # after a section
      [profile b]; directly after
      one = 1 # a comment
      two = 2 ; a comment
      three = 3#no comment
      four = 4;no comment
        # indented, and no continuation
      five =\t5\t# tab
      six = # nothing but a comment
      """)
    #expect(
      file.profiles["b"]?.values == [
        "one": "1", "two": "2", "three": "3#no comment", "four": "4;no comment", "five": "5", "six": "",
      ])
    #expect(file.profiles["a"]?.values == [:])
  }

  /// As in files that people lay out: settings further in than their section, and continued further in than themselves.
  @Test func settingsMayBeIndented() throws {
    let file = try config(
      """
      [profile a]
        one = 1
        two = 2
          and more
        s3 =
          endpoint_url = http://localhost:9
        three = 3
        [profile b]
      \tfour = 4
      five = 5
      """)
    #expect(file.profiles["a"]?.values == ["one": "1", "two": "2\nand more", "s3": "", "three": "3"])
    #expect(file.profiles["a"]?.nested == ["s3": ["endpoint_url": "http://localhost:9"]])
    #expect(file.profiles["b"]?.values == ["four": "4", "five": "5"])
  }

  @Test func valuesAndNames() throws {
    let file = try config(
      """
      [profile  spaced ]
      Mixed_Case = a=b=c
      empty =
      unicode = 模型
      twice = 1
      twice = 2
      in valid = left out
      [\tprofile\tsome-thing:long/the_one%only.foo@bar+\t]
      [profile not valid]
      a = b
      [preview]
      c = d
      [profile spaced]
      later = yes
      """)
    #expect(Set(file.profiles.keys) == ["spaced", "some-thing:long/the_one%only.foo@bar+"])
    let spaced = try #require(file.profiles["spaced"])
    #expect(spaced["mixed_case"] == "a=b=c")
    #expect(spaced["empty"] == nil)
    #expect(spaced["unicode"] == "模型")
    #expect(spaced["twice"] == "2")
    #expect(spaced["later"] == "yes")
    #expect(spaced.values["in valid"] == nil)
  }

  @Test func continuedValues() throws {
    let file = try config("[profile a]\nx = one\n  two # kept\n\n\tthree\ny = z\n")
    #expect(file.profiles["a"]?.values == ["x": "one\ntwo # kept\nthree", "y": "z"])
  }

  @Test func theDefaultProfileWithItsPrefixHidesTheOther() throws {
    #expect(try config("[profile default]\na = 1\n[default]\nb = 2").profiles["default"]?.values == ["a": "1"])
    #expect(try config("[default]\nb = 2\n[profile default]\na = 1").profiles["default"]?.values == ["a": "1"])
  }

  /// The example of "Service-specific endpoints", AWS SDKs and Tools Reference Guide, in its form.
  @Test func nestedServices() throws {
    let shared = SharedConfig(
      config: try config(
        """
        [services testing-s3]
        s3 =
          endpoint_url = http://localhost:4567
          # a comment in between
          addressing_style = path
        elastic_beanstalk =
          endpoint_url = http://localhost:8000

        [profile dev]
        services = testing-s3
        endpoint_url = http://localhost:1

        [profile nested]
        s3 =
            endpoint_url = http://localhost:3

        [profile off]
        ignore_configured_endpoint_urls = TRUE
        endpoint_url = http://localhost:2

        [profile lost]
        services = nowhere
        """), environment: ["AWS_PROFILE": "dev"])
    #expect(try shared.endpoint(of: "s3", [:]) == "http://localhost:4567")
    #expect(try shared.endpoint(of: "sts", [:]) == "http://localhost:1")
    #expect(try shared.endpoint(of: "s3", ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"]) == nil)
    func other(_ profile: String) -> SharedConfig {
      var file = SharedConfigFile()
      (file.profiles, file.services) = (shared.profiles, shared.services)
      return SharedConfig(config: file, environment: ["AWS_PROFILE": profile])
    }
    #expect(try other("nested").endpoint(of: "s3", [:]) == "http://localhost:3")
    #expect(try other("off").endpoint(of: "s3", [:]) == nil)
    #expect(throws: MobulaError.self) { try other("lost").endpoint(of: "s3", [:]) }
    #expect(throws: MobulaError.self) { try other("missing").region() }
  }

  @Test(arguments: [
    ("a = b", "Line 1 of /c is before the first [section]"),
    ("[profile x]\nno equals", "Line 2 of /c has no ="),
    ("[profile x]\n= hush", "Line 2 of /c has no name"),
    ("[profile x", "Line 1 of /c begins a [section] without its ]"),
    ("[profile x]\na = 1\n[profile x]\n  hush", "Line 4 of /c has no ="),
    ("[profile x]\ns3 =\n  hush", "Line 3 of /c has no ="),
    ("[profile x]\ns3 =\n  = hush", "Line 3 of /c has no name"),
  ])
  func malformedLinesAreNamedByNumber(text: String, message: String) {
    #expect {
      try config(text)
    } throws: { error in
      let said = (error as? MobulaError)?.message ?? ""
      return said.hasPrefix(message) && !said.contains("hush")
    }
  }

  @Test func credentialsGoBeforeConfig() throws {
    let shared = SharedConfig(
      config: try config("[default]\naws_access_key_id = old\nregion = r"),
      credentials: try keys("[default]\naws_access_key_id = new"))
    #expect(try shared.profile()?["aws_access_key_id"] == "new")
    #expect(try shared.region() == "r")
  }

  @Test func pathsOfTheFiles() {
    #expect(SharedConfig.paths(["HOME": "/h"]) == ("/h/.aws/config", "/h/.aws/credentials"))
    #expect(
      SharedConfig.paths(["HOME": "/h", "AWS_CONFIG_FILE": "~/c", "AWS_SHARED_CREDENTIALS_FILE": "/x/k"])
        == ("/h/c", "/x/k"))
  }

  @Test func regionAndEndpointOfAClient() throws {
    let shared = SharedConfig(config: try config("[default]\nregion = eu-west-3\nendpoint_url = http://p:1"))
    let plain = try S3Configuration.fromEnvironment(endpoint: nil, [:], shared: shared)
    #expect(plain.region == "eu-west-3")
    #expect(plain.endpoint == S3Endpoint(host: "p", port: 1))
    let environment = ["AWS_REGION": "r", "AWS_ENDPOINT_URL": "http://e:2"]
    let other = try S3Configuration.fromEnvironment(endpoint: nil, environment, shared: shared)
    #expect(other.region == "r")
    #expect(other.endpoint?.host == "e")
    #expect(
      try S3Configuration.fromEnvironment(endpoint: "http://a:3", environment, shared: shared).endpoint?.host == "a")
  }

  @Test(arguments: [
    ("/opt/bin/tool --user helen", ["/opt/bin/tool", "--user", "helen"]),
    (#""/path with/spaces" "a parameter"  last"#, ["/path with/spaces", "a parameter", "last"]),
    (#"tool 'single "inside"' """#, ["tool", #"single "inside""#, ""]),
    (#"tool --x="a b" $HOME \n"#, ["tool", "--x=a b", "$HOME", #"\n"#]),
  ])
  func wordsOfACredentialProcess(command: String, words: [String]) {
    #expect(wordsOfCommand(command) == words)
    #expect(wordsOfCommand(command + #" "open"#) == nil)
  }

  /// Seconds by `date -d TEXT +%s`.
  @Test(arguments: [
    ("2019-11-09T13:34:41Z", 1_573_306_481.0), ("1970-01-01T00:00:00Z", 0), ("2000-02-29T23:59:59Z", 951_868_799),
    ("2026-11-23T13:02:32.250Z", 1_795_438_952.25), ("2026-11-23T14:02:32+01:00", 1_795_438_952),
    ("2026-11-23T08:02:32-0500", 1_795_438_952), ("2100-03-01T00:00:00Z", 4_107_542_400),
  ])
  func times(text: String, seconds: Double) {
    #expect(parseISO8601(text)?.timeIntervalSince1970 == seconds)
  }

  @Test(arguments: [
    "", "2019-11-09", "2019-11-09T13:34:41", "2019-13-09T13:34:41Z", "2019-11-09T24:34:41Z", "2019-11-09T13:34:41Zx",
    "+019-11-09T13:34:41Z", "2019-11-09T13:34:41.Z", "1573306481",
  ])
  func noTimes(text: String) { #expect(parseISO8601(text) == nil) }
}
