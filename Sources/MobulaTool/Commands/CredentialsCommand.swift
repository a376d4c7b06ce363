import ArgumentParser
import FoundationEssentials
import MobulaCore
import MobulaS3
import MobulaTerminal

struct CredentialsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "credentials", abstract: "Show which credentials S3 requests from here are signed with.",
    discussion: """
      Looks where a host of a cluster would, in this order: Vault, the environment, a web identity, AWS's shared \
      files, the container, the EC2 instance. STS is asked whose they are; that it can't be asked is no failure. \
      Secrets are never shown.

      Examples:
        mobula credentials
        AWS_PROFILE=models mobula credentials --json
        mobula credentials --endpoint http://10.0.0.9:8333
      """)

  @Option(help: "Another STS than the configured one, as http://HOST:PORT; most S3 servers have one on S3's port.")
  var endpoint: String?
  @OptionGroup var json: JSONFlag

  private struct Shown: Encodable {
    var source: String
    var accessKey: String
    var temporary: Bool
    var expiration: Date?
    var stsEndpoint: String
    var account: String?
    var arn: String?
    var userID: String?
    /// Why STS did not say whose they are.
    var identityUnknown: String?
  }

  func run() async throws {
    try S3Configuration.checkTrustedRoots()
    let chain = S3CredentialsChain(stsEndpoint: try endpoint.map { try S3Endpoint($0) })
    let credentials = try await chain.credentials()
    var sts = try await chain.stsClient()
    // Somebody waits, and what is most wanted is known already.
    sts.retry.maximumAttempts = 1
    var shown = Shown(
      source: "\(try await chain.source())", accessKey: credentials.accessKey, temporary: credentials.isTemporary,
      expiration: credentials.expiration, stsEndpoint: "\(sts.endpoint)")
    // That STS can't be asked says nothing of them.
    var isRefused = false
    do {
      let identity = try await sts.callerIdentity(of: credentials)
      (shown.account, shown.arn, shown.userID) = (identity.account, identity.arn, identity.userID)
    } catch let error as MobulaError {
      shown.identityUnknown = error.message
      isRefused = error.code == .unauthenticated
    }
    try show(shown, credentials)
    if isRefused { throw ExitCode(1) }
  }

  private func show(_ shown: Shown, _ credentials: S3Credentials) throws {
    if json.json { return try printJSON(shown) }
    var table = TextTable([("", .left), ("", .left)])
    table.add(["source", shown.source])
    table.add(["access key", shown.accessKey])
    table.add(["expires", expiry(of: credentials)])
    if let arn = shown.arn {
      table.add(["account", shown.account ?? ""])
      table.add(["ARN", arn])
      table.add(["user ID", shown.userID ?? ""])
    }
    print(table.lines().dropFirst().joined(separator: "\n"))
    if let reason = shown.identityUnknown { print("Whose they are is not known: \(reason)") }
  }

  private func expiry(of credentials: S3Credentials) -> String {
    guard let expiration = credentials.expiration else {
      return credentials.isTemporary ? "at a time they don't name" : "never"
    }
    let minutes = Int(max(-1, min(1e9, expiration.timeIntervalSinceNow / 60)))
    return "\(expiration.formatted(.iso8601)) (\(minutes < 0 ? "over" : "in \(minutes) min"))"
  }
}
