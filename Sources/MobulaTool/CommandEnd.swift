import ArgumentParser
import CMobula
import Glibc
import MobulaCore
import MobulaSupervisor

extension MobulaCommand {
  /// Runs the command that the arguments ask for; ends the process with what it throws.
  ///
  /// In place of ArgumentParser's own, whose messages have arguments as they are: a terminal would act on what is in
  /// them.
  static func runCommand() async {
    do {
      var command = try await asyncParseAsRoot(S3Options.inOwnWords(Array(CommandLine.arguments.dropFirst())))
      do {
        if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
        try endOutput()
      } catch let error as ValidationError {
        // The parser knows no more of which command it was, and would show the usage of `mobula` itself.
        Log.error(error.message)
        Glibc.exit(exitCode(for: error).rawValue)
      }
    } catch {
      let code = exitCode(for: error)
      var text = fullMessage(for: error)
      // The parser says first what is missing, which may be there, mistyped.
      if code == .validationFailure, !text.hasPrefix("Error: Unknown option"),
        let problem = OptionNames.problem(in: Array(CommandLine.arguments.dropFirst()))
      {
        text = problem
      }
      if code.isSuccess {
        // Help, versions, scripts for shells: the tool's own text, exactly.
        if !text.isEmpty { Swift.print(text) }
        do { try endOutput() } catch {
          Log.error("\(error)")
          Glibc.exit(1)
        }
      } else if !text.isEmpty {
        Log.write(
          STDERR_FILENO, CommandMessage.printable(text, naming: Array(CommandLine.arguments.dropFirst())) + "\n")
      }
      Glibc.exit(code.rawValue)
    }
  }
}

/// Sees to it that all that was printed has gone out: a list of which a part is missing looks like another list.
///
/// - Throws: `MobulaError` (`inputOutput`).
private func endOutput() throws(MobulaError) {
  let failure = mobula_flush_output()
  // As a program ends that SIGPIPE ends: whoever closed the pipe needs no sentence.
  if failure == EPIPE { Glibc.exit(128 + SIGPIPE) }
  if failure != 0 { throw MobulaError.system("Standard output can't be written", number: failure) }
}

/// The options of a command, for those who mistype one.
enum OptionNames {
  /// What is wrong with the first word that looks like several options of one letter, which the parser would take one by
  /// one: `-dash` has an h, and would show the help.
  static func shortProblem(in arguments: [String]) -> String? {
    for argument in arguments.prefix(while: { $0 != "--" }) {
      let letters = argument.utf8.dropFirst()
      guard argument.hasPrefix("-"), letters.count > 1, let first = letters.first,
        first != UInt8(ascii: "-"), !(UInt8(ascii: "0")...UInt8(ascii: "9") ~= first), first != UInt8(ascii: ".")
      else { continue }
      let shown = String(argument.prefix(60)).printable
      return
        "Unknown option '\(shown)': options have two dashes, or one and one letter; for a file of that name write './\(shown)'."
    }
    return nil
  }

  /// - Returns: what is wrong with the first long option that is nearly one of the command's; `nil` when none is.
  static func problem(in arguments: [String]) -> String? {
    var command: any ParsableCommand.Type = MobulaCommand.self
    var words: [String] = []
    for word in arguments {
      guard let next = command.configuration.subcommands.first(where: { $0.configuration.commandName == word })
      else { break }
      (command, words) = (next, words + [word])
    }
    let help = MobulaCommand.helpMessage(for: command, columns: 500)
    let known = Set(help.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "-") }).map(String.init))
      .filter { $0.hasPrefix("--") }
    for argument in arguments.prefix(while: { $0 != "--" }) where argument.hasPrefix("--") {
      let option = argument.split(separator: "=", maxSplits: 1).first.map(String.init) ?? argument
      guard !known.contains(option) else { continue }
      let near = known.map { (name: $0, distance: CommandNames.distance(Array($0.utf8), Array(option.utf8))) }
        .filter { $0.distance <= 3 }.min { ($0.distance, $0.name) < ($1.distance, $1.name) }
      guard let near else { return nil }
      return """
        Error: Unknown option '\(String(option.prefix(60)).printable)'. Did you mean '\(near.name)'?
          See '\((["mobula"] + words).joined(separator: " ")) --help' for more information.
        """
    }
    return nil
  }
}

/// What is said of a command that failed.
enum CommandMessage {
  /// A message of several lines for people: what a terminal would act on is escaped, and in the arguments that it
  /// quotes the ends of lines too, so that none of them can look like a line of its own.
  static func printable(_ text: String, naming arguments: [String]) -> String {
    var bytes = Array(text.utf8)
    let values = arguments.flatMap { argument in
      [argument] + (argument.utf8.firstIndex(of: UInt8(ascii: "=")).map { [String(argument[$0...].dropFirst())] } ?? [])
    }
    for value in values.filter({ $0.utf8.contains(0x0A) }).sorted(by: { $0.utf8.count > $1.utf8.count }) {
      bytes = replacing(Array(value.utf8), in: bytes, with: Array(value.printable.utf8))
    }
    return String(decoding: bytes, as: UTF8.self).printableLines
  }

  private static func replacing(_ part: [UInt8], in bytes: [UInt8], with other: [UInt8]) -> [UInt8] {
    guard part.count > 1 else { return bytes }
    var result: [UInt8] = []
    var index = 0
    while index < bytes.count {
      if bytes[index...].starts(with: part) {
        result += other
        index += part.count
      } else {
        result.append(bytes[index])
        index += 1
      }
    }
    return result
  }
}

/// What a part of a command finds wrong with the command line is a usage error, as what the parser finds.
func asUsage<Value>(_ body: () throws -> Value) throws -> Value {
  do { return try body() } catch let error as MobulaError where error.code == .invalidArgument {
    throw ValidationError(error.message)
  }
}
