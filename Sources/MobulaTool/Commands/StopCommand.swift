import ArgumentParser
import Glibc
import Mobula
import MobulaCore

struct StopCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Stop what `mobula start` started on this machine.",
    discussion: "Example:\n  mobula stop")

  @OptionGroup var directory: DirectoryOption

  func run() async throws {
    let directory = directory.runDirectory
    guard let supervisor = directory.supervisor() else {
      throw MobulaError(.notFound, "Nothing of Mobula runs in \(directory.path).")
    }
    kill(supervisor, SIGTERM)
    for _ in 0..<500 {
      if directory.supervisor() == nil {
        print("Stopped.")
        return
      }
      try await Task.sleep(for: .milliseconds(20))
    }
    // Its children end with it: they read from its pipe.
    kill(supervisor, SIGKILL)
    print("Stopped by force: it did not end within 10 seconds.")
  }
}
