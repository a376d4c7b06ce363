import ArgumentParser
import FoundationEssentials
import Glibc
import Mobula
import MobulaCore
import MobulaSupervisor
import MobulaWire

struct TokenCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "token", abstract: "Make, show and replace the tokens of a cluster.",
    discussion: """
      The cluster's token is every right, and for heads and hosts. Others are made from it, for less:
        viewer   sees everything, and changes nothing
        tool     everything with objects and hosts, as this command line; no work
        driver   starts jobs, and ends its own
        worker   works for one job (--job), and is refused once that has ended
        pod      registers pods, and makes the tokens of jobs

      Examples:
        mobula token create --role viewer --expires 30d -o viewer-token
        mobula status --address 10.0.0.1:7600 --token-file viewer-token
        mobula token show viewer-token
        # A new one for the cluster, while it runs; then the old one is refused.
        mobula token rotate
        mobula token rotate --finish
      """,
    subcommands: [CreateTokenCommand.self, ShowTokenCommand.self, RotateTokenCommand.self])
}

/// What people read of a token; never its key.
private struct TokenSummary: Encodable {
  /// `cluster` for the cluster's own.
  var role: String
  var job: UInt32?
  var expires: String?
  var hasExpired: Bool
  var name: String?

  init(_ token: ClusterToken) throws {
    let authority = try token.authority()
    role = authority.role?.rawValue ?? "cluster"
    job = authority.job?.number
    expires = authority.expires.map { utcText($0) }
    hasExpired = authority.expires.map { $0 <= Int64(time(nil)) } ?? false
    name = authority.name
  }

  var lines: [String] {
    var lines = ["role     \(role)\(role == "cluster" ? ": every right, for heads and hosts" : "")"]
    if let job { lines.append("job      \(job), with which it ends") }
    if let expires { lines.append("expires  \(expires)\(hasExpired ? ", and has expired" : "")") }
    if let name { lines.append("name     \(Name(name))") }
    return lines
  }
}

/// A length of time, as in 30d.
struct TokenLifetime: ExpressibleByArgument {
  var seconds: Int64

  init?(argument: String) {
    let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800]
    guard let last = argument.last, let unit = units[last], argument.dropLast().allSatisfy({ "0"..."9" ~= $0 }),
      let number = Int64(argument.dropLast()), 1...1_000_000 ~= number, number * unit <= 3_153_600_000
    else { return nil }
    seconds = number * unit
  }

  static let help = "30s, 15m, 12h, 30d or 4w; at most 36500 days"
}

struct CreateTokenCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Make a token with fewer rights from the one of this host.",
    discussion: """
      No process has to be told of it: whoever has the cluster's token can check it. It can't be taken back before it \
      expires but by `mobula token rotate`, which ends all that were made from the old token.

      Examples:
        mobula token create --role viewer --expires 30d
        mobula token create --role driver --name ci -o ci-token
        mobula token create --from ci-token --role viewer
      """)

  @Option(help: "viewer, tool, driver, worker or pod: `mobula token --help` says what they may.") var role: String
  @Option(help: "The job that a worker's token is for.") var job: UInt32?
  @Option(
    help: ArgumentHelp(
      "For how long it is good, as in 30d, by the clocks of heads and hosts. Default: as long as the one it is made from.",
      valueName: "time")) var expires: TokenLifetime?
  @Option(help: "What people know it by; at most 64 bytes.") var name: String?
  @Option(help: "A file with the token to make it from, - for standard input. Default: this host's.") var from: String?
  @Option(name: .shortAndLong, help: "The file to make, for this user alone. Default: standard output.")
  var output: String?
  @OptionGroup var json: JSONFlag
  @OptionGroup var state: StateOption
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    guard TokenRole.all.contains(TokenRole(rawValue: role)) else {
      throw ValidationError("--role takes viewer, tool, driver, worker or pod.")
    }
    if (role == TokenRole.worker.rawValue) != (job != nil) {
      throw ValidationError("--job is for --role worker, which needs it: `mobula status` shows the jobs.")
    }
    if job == 0 { throw ValidationError("--job 0 is none: `mobula status` shows the jobs.") }
    if let name, !(1...TokenClaims.longestName ~= name.utf8.count) {
      throw ValidationError("--name takes 1 to \(TokenClaims.longestName) bytes.")
    }
    for (path, flag) in [(from, "--from"), (output, "--output")] where path == "" {
      throw ValidationError("\(flag) takes a path, which can't be empty.")
    }
  }

  func run() async throws {
    let parent = try readToken(from, directory, state)
    guard !parent.isRotating || from == nil else {
      throw MobulaError(.invalidArgument, "\(from!) has two tokens: give one of them, on a line of its own.")
    }
    var claims = TokenClaims(role: TokenRole(rawValue: role), job: job.map { JobID($0) }, name: name)
    if let expires {
      let now = Int64(time(nil))
      claims.expires = now + expires.seconds
    }
    var token = parent
    // The workers of a job know its token alone, from which this one has to be made.
    if let job, parent.claims.last?.role != .worker { token = try parent.ofJob(JobID(job)) }
    token = try token.narrowed(claims).newest
    if let output { try token.write(file: output) }
    let summary = try TokenSummary(token)
    if json.json {
      struct Report: Encodable {
        var token: String?
        var file: String?
        var summary: TokenSummary
        func encode(to encoder: any Encoder) throws {
          try summary.encode(to: encoder)
          var container = encoder.container(keyedBy: Keys.self)
          try container.encodeIfPresent(token, forKey: .token)
          try container.encodeIfPresent(file, forKey: .file)
        }
        enum Keys: String, CodingKey { case token, file }
      }
      return try printJSON(Report(token: output == nil ? token.text : nil, file: output, summary: summary))
    }
    if output == nil { print(token.text) }
  }
}

struct ShowTokenCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Say what a token is good for, without showing it.",
    discussion: """
      Examples:
        # This host's.
        mobula token show
        mobula token show viewer-token
        mobula token show - < viewer-token
      """)

  @Argument(help: "The token's file, - for standard input. Default: this host's.") var file: String?
  @OptionGroup var json: JSONFlag
  @OptionGroup var state: StateOption
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    let token = try readToken(file, directory, state)
    let summaries = try token.each.map { try TokenSummary($0) }
    if json.json { return try printJSON(summaries) }
    for (index, summary) in summaries.enumerated() {
      if index > 0 { print("the older one, which is taken as well until `mobula token rotate --finish`:") }
      print(summary.lines.joined(separator: "\n"))
    }
  }
}

struct RotateTokenCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate", abstract: "Give the cluster a new token while it runs, and drop the old one later.",
    discussion: """
      The head and all hosts that are there get the new token and use it from then on; hosts that are away get it when \
      they come back. The old one is taken as well until `mobula token rotate --finish`. Tokens that were made from the \
      old one are refused then: make them anew, and let jobs that were started before the new one end first.

      The new token travels encrypted under the old one. Where the old one is known to somebody who can hear the network, \
      use TLS, or stop the cluster and start it with another token.

      Examples:
        mobula token rotate
        mobula token rotate --finish
      """)

  @Flag(help: "Refuse the old token from now on.") var finish = false
  @Flag(help: "Finish although hosts are away: they will need the file `token` copied to them.") var force = false
  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if force, !finish { throw ValidationError("--force is for --finish.") }
  }

  private struct Report: Encodable {
    var isFinished: Bool
    var hosts: [String]
    var without: [String: String]
  }

  func run() async throws {
    let directory = directory.runDirectory
    let started = try directory.readConfiguration()
    let token = try directory.token()
    let new = finish ? try token.finishingRotation() : token.isRotating ? token : try token.rotated()
    let head = RemoteHead(endpoint: started.head, token: token, tls: try directory.tls())
    try await head.withConnection { connection in
      if finish, !force { try await checkEverybodyIsThere(connection, token) }
      let reply = try await connection.call(
        HeadAPI.rotateToken, TokenNews(sealed: connection.seal(new.text)), deadline: .seconds(60))
      let without = Dictionary(
        reply.failed.map { ("\($0.key)", $0.value) }, uniquingKeysWith: { first, _ in first })
      if json.json { return try printJSON(Report(isFinished: finish, hosts: reply.taken, without: without)) }
      print(
        finish
          ? "The old token is refused from now on."
          : "The cluster has a new token, which its head and these hosts use: \(reply.taken.joined(separator: ", "))."
      )
      for (host, why) in without.sorted(by: { $0.key < $1.key }) { print("Host \(host) has not: \(why)") }
      if !finish { print("The old one is taken as well until `mobula token rotate --finish`.") }
    }
  }

  /// Who has not the new token would be locked out.
  private func checkEverybodyIsThere(_ connection: RPCConnection, _ token: ClusterToken) async throws {
    let status = try await RemoteHead.status(connection)
    let away = status.hosts.filter { !$0.connected }.map(\.name) + (status.absent ?? []).map(\.name)
    guard away.isEmpty else {
      throw MobulaError(
        .unavailable,
        "These hosts are away and may not have the new token: \(away.map(\.description).joined(separator: ", ")). Wait for them, forget them (`mobula host forget`), or give --force and copy the file \(directory.runDirectory.tokenFile) to them."
      )
    }
    let reply = try await connection.call(
      HeadAPI.rotateToken, TokenNews(sealed: connection.seal(token.text)), deadline: .seconds(60))
    guard let (host, why) = reply.failed.min(by: { $0.key < $1.key }) else { return }
    throw MobulaError(.unavailable, "Host \(host) has not the new token (\(why)): mend that, or give --force.")
  }
}

/// The token of a file, of standard input (`-`), or of the host here.
private func readToken(_ file: String?, _ directory: DirectoryOption, _ state: StateOption) throws -> ClusterToken {
  if file == "-" {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var filled = 0
    while filled < bytes.count {
      let count = try systemCall("Standard input can't be read") {
        bytes.withUnsafeMutableBytes { read(0, $0.baseAddress! + filled, $0.count - filled) }
      }
      if count == 0 { break }
      filled += count
    }
    return try ClusterToken(String(decoding: bytes[..<filled], as: UTF8.self))
  }
  if let file { return try ClusterToken.read(file: file) }
  let known = [directory.runDirectory.tokenFile, state.chosen(directory).tokenFile]
  guard let own = known.first(where: { access($0, F_OK) == 0 }) else {
    throw MobulaError(
      .notFound, "No host was started here, which would have the cluster's token: give a file with one.")
  }
  return try ClusterToken.read(file: own)
}
