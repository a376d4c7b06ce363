import ArgumentParser
import Glibc
import Mobula
import MobulaBench
import MobulaSupervisor

/// The `mobula` command-line tool; in worker mode, a worker of the bench.
@main struct MobulaCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mobula",
    abstract: "Moves models and other big objects into every process of a cluster that needs them.",
    discussion: """
      Examples:
        # A cluster of one host, on this machine, for every process of it.
        mobula start --head
        mobula put model.safetensors
        mobula get model.safetensors -o copy
        # Another machine joins; so do its stores.
        mobula start --address 10.0.0.1:7600 --token-file token
        mobula broadcast model.safetensors
        # From S3 into the cluster, each byte once, and back.
        mobula fetch s3://models/whisper/
        mobula put model.safetensors s3://models/
        # What there is, and the end of it.
        mobula status
        mobula ls
        mobula stop
      """,
    version: ToolVersion.text,
    subcommands: [
      StartCommand.self, StopCommand.self, StatusCommand.self, PutCommand.self, GetCommand.self, ListCommand.self,
      RemoveCommand.self, HoldCommand.self, ReleaseCommand.self, StoreCommand.self, CertificatesCommand.self,
      TokenCommand.self, LogsCommand.self, ActorCommand.self,
      FetchCommand.self, CredentialsCommand.self, BroadcastCommand.self, BenchCommand.self, MicrobenchmarkCommand.self,
      SimulateCommand.self, SuperviseCommand.self, HeadCommand.self, HostCommand.self, PodCommand.self,
    ])

  static func main() async {
    Interruption.openStandardStreams()
    Interruption.prepare()
    ProgramInput.refuseWhatIsNoText()
    if Worker.isRequested { await Worker.main() }
    let arguments = CommandLine.arguments.dropFirst()
    if arguments.first == LineRateProbe.argument { Glibc.exit(LineRateProbe.run(Array(arguments.dropFirst()))) }
    if let orders = BenchDriver.takeOrders() {
      do { Glibc.exit(try await BenchDriver.run(orders)) } catch {
        Log.error("\(error)")
        Glibc.exit(1)
      }
    }
    // What is asked for, or asked about.
    let asked = arguments.first == "help" ? arguments.dropFirst().first : arguments.first
    if let word = asked, let problem = CommandNames.problem(of: word) {
      Log.error(problem)
      Glibc.exit(64)
    }
    if let problem = OptionNames.shortProblem(in: Array(arguments)) {
      Log.error(problem)
      Glibc.exit(64)
    }
    await runCommand()
  }
}

/// The commands there are, for those who mistype one.
enum CommandNames {
  private static var all: [String] {
    MobulaCommand.configuration.subcommands.compactMap { $0.configuration.commandName } + ["help"]
  }

  /// What other tools call it.
  private static let synonyms = [
    "list": "ls", "dir": "ls", "delete": "rm", "del": "rm", "remove": "rm", "version": "--version", "cp": "put",
    "upload": "put", "download": "get", "cat": "get -o - NAME", "up": "start", "down": "stop", "run": "start",
    "ps": "status", "info": "status", "sync": "fetch", "pull": "fetch", "push": "broadcast",
  ]

  /// What is wrong with a command's name; `nil` where there is such a command, or the word is an option.
  static func problem(of word: String) -> String? {
    guard !word.hasPrefix("-"), !all.contains(word) else { return nil }
    let shown = MobulaCommand.configuration.subcommands.filter { $0.configuration.shouldDisplay }.compactMap {
      $0.configuration.commandName
    }
    if let meant = synonyms[word.lowercased()] {
      return
        "There is no command \"\(word)\": did you mean `mobula \(meant)`? `mobula --help` lists those that there are."
    }
    let near = shown.map { (name: $0, distance: distance(Array($0.utf8), Array(word.lowercased().utf8))) }.filter {
      $0.distance <= max(1, min(3, $0.name.utf8.count / 2)) || word.utf8.count > 1 && $0.name.hasPrefix(word)
    }.min { $0.distance < $1.distance }
    let suggestion = near.map { ": did you mean `mobula \($0.name)`?" } ?? "."
    return
      "There is no command \"\(String(word.prefix(60)).printable)\"\(suggestion) `mobula --help` lists those that there are."
  }

  /// Letters to insert, remove or exchange, two neighbours for each other counting once.
  static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    if a.isEmpty || b.isEmpty || b.count > 40 { return max(a.count, b.count) }
    var before = [Int]()
    var last = Array(0...b.count)
    for i in 1...a.count {
      var row = [i]
      for j in 1...b.count {
        var cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
        if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { cost = min(cost, before[j - 2] + 1) }
        row.append(cost)
      }
      (before, last) = (last, row)
    }
    return last[b.count]
  }
}
