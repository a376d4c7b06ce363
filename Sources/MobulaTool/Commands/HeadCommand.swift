import ArgumentParser
import FoundationEssentials
import Glibc
import Logging
import Mobula
import MobulaCore
import MobulaHead
import MobulaJournal
import MobulaSupervisor
import MobulaWire

/// What people do with the head's journal; without a subcommand, the service that the supervisor starts.
struct HeadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "head", abstract: "Back up the head's journal, or make a new one.",
    discussion: """
      Examples:
        # While the head runs.
        mobula head backup /backups/journal.sqlite
        # A new journal, from what the hosts know.
        mobula head recover
      """,
    subcommands: [RecoverHeadCommand.self, BackUpHeadCommand.self, ServeHeadCommand.self],
    defaultSubcommand: ServeHeadCommand.self)
}

struct ServeHeadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "serve", shouldDisplay: false)
  @OptionGroup var directory: DirectoryOption
  @Argument(help: .hidden) var rest: [String] = []

  /// What a journal has to say that lacks the latest: numbers that nobody has seen yet, and that hosts are to say what
  /// they have.
  ///
  /// Jobs are numbered one by one: none has come as far as the seconds since 1970. Nor have epochs and claims as far as a
  /// million of them a second, and so a later backup that is put back, or a later recovery, is always further. Where one was
  /// so far already, a step is more than one backup can lack.
  static func unseen(after journal: JournalState) -> [JournalRecord] {
    let seconds = UInt64(max(0, min(Date().timeIntervalSince1970, 2e9)))
    func beyond(_ number: UInt64, _ least: UInt64) -> UInt64 { max(min(number, 1 << 61) + 1_000_000, least) }
    return [
      .recovering(true), .epoch(beyond(journal.epoch, seconds << 20)),
      .counter(.jobs, limit: beyond(journal.limits[.jobs] ?? 0, seconds)),
      .counter(.claims, limit: beyond(journal.limits[.claims] ?? 0, seconds << 20)),
    ]
  }

  func validate() throws { try ServiceInput.check(rest, of: HeadCommand.self) }

  func run() async throws {
    // Only the supervisor starts it, and says where; everybody else wants to know what there is.
    if directory.directory == nil { throw CleanExit.helpRequest(HeadCommand.self) }
    Log.bootstrap()
    let started = try directory.runDirectory.readConfiguration()
    let state = StateDirectory(path: started.state ?? HostPaths.absolute(directory.runDirectory.path) + "/state")
    let token = try directory.runDirectory.token()
    let tls = try directory.runDirectory.tls()
    try await ServiceProcess.run { process in
      try state.create()
      try SQLiteJournal.checkNotLost(state.journalFile, hadHead: state.identity()?.hadHead == true)
      let journal = try SQLiteJournal(path: state.journalFile)
      // Hosts know more than a backup does, and refuse a head of an epoch that they have seen the end of.
      if journal.isRestored { try await journal.commit(Self.unseen(after: try await journal.load())) }
      let before = try await journal.load()
      let cluster = before.cluster ?? started.cluster ?? .random()
      let epoch = min(before.epoch, .max - 1) + 1
      // Before anybody can hear of it.
      try await journal.commit([.cluster(cluster), .epoch(epoch)])
      var configuration = HeadConfiguration(cluster: cluster, endpoint: started.headListen, epoch: epoch)
      configuration.advertised = started.told
      configuration.name = started.name
      let head = try await Head.bind(
        configuration, token: token, tls: tls, journal: journal, knowing: before)
      process.isReady()
      await head.run()
      await journal.close()
    }
  }
}

/// The journal that `recover` and `backup` are about.
struct JournalOptions: ParsableArguments {
  @OptionGroup var state: StateOption
  @OptionGroup var directory: DirectoryOption

  /// The state directory that was asked for, else the one of what was started here.
  var stateDirectory: StateDirectory {
    let started = (try? directory.runDirectory.readConfiguration())?.state
    if state.path == nil, let started { return StateDirectory(path: started) }
    return state.chosen(directory)
  }
}

struct BackUpHeadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Copy the head's journal to a new file, also while the head runs.",
    discussion: """
      The copy is a journal: put it in the place of a lost one (journal.sqlite of the state folder) while no head runs. The \
      head learns from the hosts what has come since then. \
      It has the jobs' secrets, and is readable for this user alone.

      Example:
        mobula head backup /backups/journal.sqlite
      """)

  @Argument(help: "The file to make.") var file: String
  @OptionGroup var options: JournalOptions

  func run() async throws {
    let journal = options.stateDirectory.journalFile
    try await SQLiteJournal.back(up: journal, to: HostPaths.absolute(file))
    print("Copied \(journal) to \(file).")
  }
}

struct RecoverHeadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "recover", abstract: "Make a new journal for the head, in place of a damaged or lost one.",
    discussion: """
      The head that starts with it learns names and objects from the hosts that register, under an epoch above the one \
      that they know. Jobs whose drivers still run go on. A damaged journal is kept beside the new one.

      Examples:
        mobula head recover
        # On another machine, where nothing was kept.
        mobula head recover --token-file token --cluster 6f0c…
      """)

  @Option(help: "A file with the cluster's token, where the state folder has none.")
  var tokenFile: String?
  @Option(help: "The cluster's identifier, where the state folder has none: identity.json of any host's state has it.")
  var cluster: String?
  @OptionGroup var options: JournalOptions

  func validate() throws {
    if let cluster, ClusterID(cluster) == nil {
      throw ValidationError("--cluster takes the 32 hexadecimal digits of a cluster's identifier.")
    }
  }

  func run() async throws {
    let state = options.stateDirectory
    try state.create()
    let before = try? state.identity()
    let started = try? options.directory.runDirectory.readConfiguration()
    var salvaged = JournalState()
    if access(state.journalFile, F_OK) == 0 {
      do {
        let journal = try SQLiteJournal(path: state.journalFile)
        salvaged = try await journal.load()
        await journal.close()
      } catch let error where error.code != .corrupted {
        throw error
      } catch {}
    }
    guard salvaged.isEmpty else {
      throw MobulaError(
        .alreadyExists, "The journal \(state.journalFile) is whole: `mobula start --head` goes on with it.")
    }
    guard let cluster = cluster.flatMap({ ClusterID($0) }) ?? before?.cluster ?? started?.cluster else {
      throw MobulaError(
        .invalidArgument,
        "Nothing here says which cluster it was: give --cluster, from identity.json in any host's state folder.")
    }
    if let tokenFile {
      try state.write(try ClusterToken.read(file: tokenFile))
    } else if access(state.tokenFile, F_OK) != 0 {
      throw MobulaError(
        .unauthenticated, "There is no token in \(state.path): give the cluster's with --token-file.")
    }
    let kept = try setAside(state.journalFile)
    let journal = try SQLiteJournal(path: state.journalFile)
    try state.write(
      StateDirectory.Identity(
        cluster: cluster, host: before?.host ?? started?.host ?? .random(), hadHead: true))
    try await journal.commit([.cluster(cluster)] + ServeHeadCommand.unseen(after: JournalState()))
    await journal.close()
    print("A new journal is in \(state.journalFile).")
    if let kept { print("The damaged one is \(kept).") }
    print(
      "Start the head with the options that it had, as `mobula start --head`, and the same --directory or --state; hosts that run find it by themselves."
    )
  }

  /// Renames what is damaged, with the files that belong to it.
  private func setAside(_ file: String) throws -> String? {
    guard access(file, F_OK) == 0 else { return nil }
    var number = 1
    while access("\(file).damaged-\(number)", F_OK) == 0 { number += 1 }
    let kept = "\(file).damaged-\(number)"
    for suffix in ["-wal", "-shm", ""] where access(file + suffix, F_OK) == 0 {
      try systemCall("\(file + suffix) can't be renamed") { rename(file + suffix, kept + suffix) }
    }
    return kept
  }
}
