import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// Odd values for every option and every environment variable that is read: a sentence and the right exit status, and
/// never a trap, whatever they are.
@Suite struct OptionFuzzTests {
  /// A command that runs nothing for long, and the options that take a value.
  private struct Command {
    var arguments: [String]
    var options: [String]
  }

  private static let commands: [Command] = [
    // Never starts anything: there are no certificates.
    Command(
      arguments: ["start", "--head", "--tls", "/nonexistent"],
      options: [
        "--port", "--listen", "--advertise", "--resources", "--cpus", "--memory", "--capacity", "--spill",
        "--s3-endpoint", "--warm", "--spare", "--pod", "--send-limit", "--receive-limit", "--label", "--name",
        "--token-file", "--ready-fd", "--directory",
      ]),
    Command(
      arguments: ["start", "--token-file", "/nonexistent"],
      options: ["--address", "--listen", "--advertise", "--cpus", "--capacity", "--tls", "--label", "--name"]),
    Command(arguments: ["stop"], options: ["--directory"]),
    Command(arguments: ["status"], options: ["--directory"]),
    Command(arguments: ["ls"], options: ["--directory"]),
    Command(arguments: ["store"], options: ["--directory"]),
    Command(arguments: ["put", "/proc/version"], options: ["--name", "--s3-endpoint", "--directory", ""]),
    Command(arguments: ["get", "x"], options: ["--output", "--timeout", "--s3-endpoint", "--directory"]),
    Command(arguments: ["get", "-o", "/nonexistent/x"], options: ["--timeout", ""]),
    Command(arguments: ["fetch"], options: ["", "--s3-endpoint"]),
    Command(arguments: ["broadcast", "x"], options: ["--to", "--name", "--directory"]),
    Command(arguments: ["rm"], options: [""]),
    Command(arguments: ["hold"], options: [""]),
    Command(arguments: ["release"], options: [""]),
    Command(arguments: ["bench", "--cases", "none"], options: ["--size", "--nic", "--runs", "--emulation", "--json"]),
    Command(
      arguments: ["simulate", "--hosts", "2", "--size", "1MB"],
      options: ["--nic", "--fault", "--seed", "--latency", "--chunk", "--json", "--svg"]),
    Command(arguments: ["simulate", "--nic", "none"], options: ["--hosts", "--size"]),
    Command(arguments: ["microbenchmark", "--filter", "none"], options: ["--seconds", "--capacity"]),
    Command(arguments: ["certificates", "show"], options: ["--directory"]),
    Command(
      arguments: ["certificates", "create", "--directory", "/proc/none"], options: ["--cluster", "--days", "--host"]),
    Command(arguments: [], options: [""]),
  ]

  private static let variables = [
    "MOBULA_DIRECTORY", "MOBULA_LOG", "MOBULA_TOKEN", "MOBULA_TLS", "HOME", "XDG_RUNTIME_DIR", "TMPDIR", "LANG",
    "AWS_PROFILE", "AWS_REGION", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "AWS_ROLE_SESSION_NAME",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
    "no_proxy", "COLUMNS",
  ]

  private static let values = [
    "", " ", "-", "--", "nan", "inf", "-inf", "1e30", "1e308", "-1", "-0", "0", "1", "0x10", "1.5.2", "8000PB", "923TB",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616",
    "99999999999999999999",
    "\u{663}", "１２", "4\u{212A}", "cafe\u{301}", "\u{202E}abc", "a\u{7}b\u{1B}[31m", "a\nb", "%s%n", "/", "//", ".",
    "..",
    "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/none/x", "s3://", "s3:///k", "s3://b/k", "http://",
    "http://[::1",
    "https://user@h:0", ":", "::", "[::]", "[::1]:0", "0.0.0.0", "localhost:99999", "a=b", "=", "a=", "=b", "CPU=nan",
    "x:CPU=1e30", "x:memory=8000PB", ":", "1mbit", "0bit", "nanbit", "9000PB/s", "slow=1", "slow=nan,dead=inf", "1ns",
    "1e9s", "nans", "100%", String(repeating: "x", count: 300), String(repeating: "9", count: 5000),
  ]

  private func value(_ generator: inout SeededGenerator) -> String {
    if Int.random(in: 0..<8, using: &generator) > 0 { return Self.values.randomElement(using: &generator)! }
    let scalars = (0..<Int.random(in: 1...12, using: &generator)).map { _ in
      Unicode.Scalar(UInt32.random(in: 1..<0x3000, using: &generator)) ?? "?"
    }
    return String(String.UnicodeScalarView(scalars))
  }

  @Test(arguments: 1...(currentEnvironment()["MOBULA_LONG_TESTS"] == nil ? 3 : 60))
  func everythingIsSaid(seed: Int) async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    var generator = SeededGenerator(seed: UInt64(seed))
    for _ in 0..<50 {
      let command = Self.commands.randomElement(using: &generator)!
      var arguments = command.arguments
      if arguments.first == "start" { arguments += ["--directory", folder.path + "/none"] }
      for _ in 0..<Int.random(in: 1...2, using: &generator) {
        let option = command.options.randomElement(using: &generator)!
        let value = value(&generator)
        arguments += option.isEmpty ? [value] : ["\(option)=\(value)"]
      }
      var environment = [
        "MOBULA_DIRECTORY": folder.path + "/none", "HOME": folder.path, "AWS_EC2_METADATA_DISABLED": "true",
      ]
      if Int.random(in: 0..<3, using: &generator) == 0 {
        environment[Self.variables.randomElement(using: &generator)!] = value(&generator)
      }
      let shown = "seed \(seed): \(arguments) with \(environment)"
      // In a folder where what a value names may be made.
      let finished = try await run(
        "/bin/sh", ["-c", "cd \"$1\" && shift && exec \"$@\"", "sh", folder.path, Products.mobula] + arguments,
        environment: environment, within: .seconds(20))
      guard case .status(let status) = finished.status else {
        Issue.record("\(shown) ended with \(finished.status): \(finished.errors)")
        continue
      }
      #expect([0, 1, 64].contains(status), "\(shown): \(finished)")
      for text in [finished.output, finished.errors] {
        #expect(text.printableLines.isSame(as: text), "\(shown): a terminal would act on it: \(finished)")
      }
      #expect(
        status == 0 || finished.errors.contains("Error: ") && !finished.errors.contains("Fatal error"),
        "\(shown): \(finished)")
    }
  }
}
