import ArgumentParser
import Glibc
import Logging
import Mobula
import MobulaCore
import MobulaHost
import MobulaPod
import MobulaStore
import MobulaSupervisor
import MobulaWire

// The processes that `mobula start` starts; not for people.

struct DirectoryOption: ParsableArguments {
  @Option(
    name: .long,
    help:
      "The directory of this machine's host. Default: $MOBULA_DIRECTORY, /run/mobula for root, ~/.mobula for others.")
  var directory: String?

  func validate() throws {
    if directory == "" { throw ValidationError("--directory takes a path, which can't be empty.") }
  }

  /// Relative paths are below the current folder.
  var runDirectory: RunDirectory {
    RunDirectory(path: directory.map { HostPaths.absolute($0) } ?? ClusterOptions.defaultDirectory())
  }
  var options: ClusterOptions { ClusterOptions(directory: runDirectory.path) }
}

struct StateOption: ParsableArguments {
  @Option(
    name: .customLong("state"),
    help: ArgumentHelp(
      "Where what outlives a reboot is kept: token, certificates, identity, the head's journal. Default: $MOBULA_STATE; DIRECTORY/state with --directory; else /var/lib/mobula for root, $XDG_STATE_HOME/mobula or ~/.local/state/mobula for others.",
      valueName: "folder"))
  var path: String?

  func chosen(_ directory: DirectoryOption) -> StateDirectory { .choose(path, directory: directory.directory) }
}

struct SuperviseCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "supervise", shouldDisplay: false)
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    SharedEnvironment.hideSecrets()
    Log.bootstrap()
    try await Supervisor(
      directory: directory.runDirectory, configuration: directory.runDirectory.readConfiguration(),
      log: Logger(label: "supervisor")
    ).run()
  }
}

struct ServeHostCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "serve", shouldDisplay: false)
  @OptionGroup var directory: DirectoryOption
  @Argument(help: .hidden) var rest: [String] = []

  func validate() throws { try ServiceInput.check(rest, of: HostCommand.self) }

  func run() async throws {
    // Only the supervisor starts it, and says where; everybody else wants to know what there is.
    if directory.directory == nil { throw CleanExit.helpRequest(HostCommand.self) }
    SharedEnvironment.hideSecrets()
    let keeper = KeeperConnection.fromEnvironment()
    Log.bootstrap()
    let started = try directory.runDirectory.readConfiguration()
    let directory = directory.runDirectory
    try await ServiceProcess.run { process in
      var configuration = HostConfiguration(
        host: started.host, name: started.name, head: started.head,
        token: try directory.token(), directory: directory.path, address: started.address,
        capacity: started.capacity)
      configuration.listen = started.listen
      configuration.spillDirectories = started.spill.filter { !StartConfiguration.isS3($0) }
      configuration.spillURL = started.spill.first { StartConfiguration.isS3($0) }
      configuration.spillEndpoint = started.spillEndpoint
      configuration.warmShare = started.warm
      configuration.spareShare = started.spare
      configuration.keeper = keeper
      configuration.isFirstStart = ServiceProcess.isFirstStart
      configuration.tls = try directory.tls()
      configuration.labels = started.labels ?? [:]
      configuration.folder = started.stateFolder
      configuration.sendLimit = started.sendLimit
      configuration.receiveLimit = started.receiveLimit
      // It may wait for S3, whose answers need Swift's own threads.
      let host = try await onThread(named: "start") { [configuration] in
        try Host(configuration, log: Logger(label: "host"))
      }
      try await host.run(isReady: { process.isReady() }, isFinal: { process.isStopping })
    }
  }
}

struct PodCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "pod", shouldDisplay: false)
  @Argument var name: String
  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    Log.bootstrap()
    let started = try directory.runDirectory.readConfiguration()
    guard let entry = started.pods.first(where: { $0.name == Name(name) }) else {
      throw MobulaError(.notFound, "No pod \(name.printable) was started in \(directory.runDirectory.path).")
    }
    var configuration = PodConfiguration(
      pod: entry.pod, name: entry.name.text, host: started.host, head: started.head,
      token: try directory.runDirectory.token().narrowed(TokenClaims(role: .pod)),
      directory: directory.runDirectory.path, address: started.address, resources: entry.resources)
    configuration.listen = started.listen
    configuration.tls = try directory.runDirectory.tls()
    configuration.isFirstStart = ServiceProcess.isFirstStart
    configuration.folder = started.stateFolder
    let pod = try Pod(configuration, log: Logger(label: "pod"))
    try await ServiceProcess.run { _ in try await pod.run() }
  }
}

/// What people type after the name of a service that has commands, too.
enum ServiceInput {
  /// - Throws: `ExitCode` (64), after it has said so, for what is none of the commands: a message of the parser's would
  ///   show how the service is called.
  static func check(_ rest: [String], of command: any ParsableCommand.Type) throws {
    guard let first = rest.first else { return }
    let names = command.configuration.subcommands.map { $0.configuration }.filter { $0.shouldDisplay }
      .compactMap { $0.commandName }
    let own = command.configuration.commandName ?? ""
    let list = names.sorted().map { "`mobula \(own) \($0)`" }.joined(separator: " and ")
    Log.error("There is no \"mobula \(own) \(first)\": there are \(list).")
    throw ExitCode(EX_USAGE)
  }
}
