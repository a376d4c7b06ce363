import ArgumentParser
import Mobula
import MobulaCore

/// What people do with the hosts of a cluster; without a subcommand, the service that the supervisor starts.
struct HostCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "host", abstract: "Empty a host before it goes, or give up one that is not coming back.",
    subcommands: [DrainHostCommand.self, ForgetHostCommand.self, ServeHostCommand.self],
    defaultSubcommand: ServeHostCommand.self)
}

struct ForgetHostCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "forget", abstract: "Say that a host which is away is not coming back.",
    discussion: """
      What the head still counts of it falls: objects that only it had are gone, and what only its processes held is \
      freed. Without that it happens after an hour. If the host comes back after all, it begins anew, with nothing.

      Example:
        mobula host forget gpu-3
      """)

  @Argument(help: "The host, by its name, its id, or a beginning of that.") var host: String
  @OptionGroup var directory: DirectoryOption

  func validate() throws {
    if host.isEmpty { throw ValidationError("A host's name or id can't be empty: `mobula status` lists them.") }
  }

  func run() async throws {
    let cluster = try await Cluster.connectTool(directory.options)
    do { try await cluster.forgetHost(host) } catch {
      await cluster.close()
      throw error
    }
    await cluster.close()
    print("Gave up host \(host).")
  }
}
