import ArgumentParser
import Mobula
import MobulaCore
import MobulaTerminal

/// What people do with the actors of a cluster.
struct ActorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "actor", abstract: "List the cluster's actors, or stop one.",
    discussion: """
      Examples:
        mobula actor ls
        mobula actor stop models/whisper
      """,
    subcommands: [ListActorsCommand.self, StopActorCommand.self])
}

struct ListActorsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the cluster's actors.",
    discussion: """
      In the order of their names, those without one last. A detached actor is a job of its own.

      Examples:
        mobula actor ls
        mobula actor ls --json
      """)

  @OptionGroup var json: JSONFlag
  @OptionGroup var directory: DirectoryOption

  private struct Report: Encodable {
    var id: RemoteActorID
    var name: String?
    var type: String
    var state: ActorState
    var job: JobID
    var detached: Bool
    var host: String?
    var pod: String?
    var incarnation: UInt64
    var restarts: Int
    var reason: String?
  }

  func run() async throws {
    let actors = try await withCluster(directory.options) { try await $0.actors() }
    if json.json {
      return try printJSON(
        actors.map {
          Report(
            id: $0.actor, name: $0.name, type: $0.type, state: $0.state, job: $0.job, detached: $0.isDetached,
            host: $0.host, pod: $0.pod, incarnation: $0.incarnation, restarts: $0.restarts, reason: $0.reason)
        })
    }
    var table = TextTable([
      ("name", .left), ("type", .left), ("state", .left), ("pod", .left), ("job", .right), ("restarts", .right),
      ("id", .left),
    ])
    let named = actors.filter { $0.name != nil }.sorted { Name($0.name!) < Name($1.name!) }
    for actor in named + actors.filter({ $0.name == nil }) {
      table.add([
        actor.name?.printable ?? "", actor.type.printable, actor.state.rawValue, actor.pod?.printable ?? "",
        actor.isDetached ? "\(actor.job) (detached)" : "\(actor.job)", "\(actor.restarts)", "\(actor.actor)",
      ])
    }
    print(table.takeLines().joined(separator: "\n"))
  }
}

struct StopActorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "End an actor, and give its resources back.",
    discussion: """
      It takes no further calls; those that go on have 30 seconds to end, or as many as --within says.

      Examples:
        mobula actor stop models/whisper
        mobula actor stop models/whisper --now
        mobula actor stop models/whisper --restart
      """)

  @Argument(help: "The actor, by its name or its id.") var actor: String
  @Flag(help: "In the middle of whatever it does.") var now = false
  @Option(parsing: .unconditional, help: "Seconds that its calls have to end.") var within: Double = 30
  @Flag(help: "Have it started again then, as it was at first.") var restart = false
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if actor.isEmpty { throw ValidationError("An actor's name or id can't be empty: `mobula actor ls` lists them.") }
    guard 0...86_400 ~= within else { throw ValidationError("--within takes seconds, from 0 to 86400.") }
  }

  func run() async throws {
    try await withCluster(directory.options) { cluster in
      try await cluster.stopActor(
        actor, now || within == 0 ? .now : .afterCalls(within: .seconds(within)), restarts: restart)
    }
    print(restart ? "Actor \(Name(actor)) is started again." : "Stopped actor \(Name(actor)).")
  }
}
