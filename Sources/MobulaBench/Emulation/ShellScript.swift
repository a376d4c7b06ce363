internal import Glibc
import MobulaCore

/// A script for `/bin/sh` that stops at its first failing command.
struct ShellScript {
  let text: String

  init(_ text: String) { self.text = text }

  /// The arguments of `sh` that run it with `arguments` as `$1`, `$2`, ….
  func shellArguments(_ arguments: [String]) -> [String] { ["-euc", text, "sh"] + arguments }

  /// This process's environment with a `PATH` that finds the system's tools.
  static func environment() -> [String: String] {
    var environment = currentEnvironment()
    environment["PATH"] = SystemTool.searchPath(environment)
    environment["LC_ALL"] = "C"
    return environment
  }

  /// Runs the script to its end.
  ///
  /// - Parameter what: the beginning of the error's sentence, as in "Host h1 can't be connected".
  /// - Throws: `MobulaError` (`unavailable`) with what the failing command said.
  func run(
    _ arguments: [String] = [], prefix: [String] = [], within limit: Duration = .seconds(20), orSay what: String
  ) async throws {
    let output = try ProcessOutput()
    let command = try prefix + [SystemTool.sh.path()] + shellArguments(arguments)
    let child = try ChildProcess.spawn(
      command[0], Array(command.dropFirst()), environment: Self.environment(), output: output.stream,
      errors: output.stream)
    output.started()
    do {
      let said = try await output.text(within: limit)
      let exit = await child.waitForExit()
      guard exit.isSuccess else { throw MobulaError(.unavailable, Self.sentence(what, said: said, or: "\(exit)")) }
    } catch {
      child.signal(SIGKILL)
      throw error
    }
  }

  /// "What: the last thing that was said."
  static func sentence(_ what: String, said: String, or otherwise: String) -> String {
    var reason = said.split(separator: "\n").last.map(String.init) ?? otherwise
    while reason.hasSuffix(".") || reason.hasSuffix(" ") { reason.removeLast() }
    return "\(what): \(reason)."
  }
}
