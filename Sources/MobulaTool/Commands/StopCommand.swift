import ArgumentParser
import Glibc
import Mobula
import MobulaCore
import MobulaSupervisor

struct StopCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Stop what `mobula start` started on this machine.",
    discussion: """
      Also a host whose directory is gone is stopped, by the directory that it had: without a host in the default one, the \
      error names those that run elsewhere.

      Example:
        mobula stop
      """)

  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    let supervisor = try RunningSupervisor.find(in: directory.runDirectory)
    supervisor.signal(SIGTERM)
    if try await supervisor.ends(within: .seconds(10)) { return print("Stopped.") }
    // Its children end with it: they read from its pipe.
    supervisor.signal(SIGKILL)
    guard try await supervisor.ends(within: .seconds(2)) else {
      throw MobulaError(
        .deadlineExceeded,
        "Process \(supervisor.pid), the supervisor of \(supervisor.directory), does not end: see what it waits for (`ps -o state,wchan \(supervisor.pid)`)."
      )
    }
    print("Stopped by force: it did not end within 10 seconds.")
  }
}
