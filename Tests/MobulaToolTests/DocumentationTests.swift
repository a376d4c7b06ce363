import ArgumentParser
import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaTool

/// What README and docs say of the tool is so.
@Suite struct DocumentationTests {
  private static let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()

  private func text(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: Self.root + "/" + path)), as: UTF8.self)
  }

  private func sources() throws -> [String] {
    // What stands in for something in tests is no part of the product.
    try FileManager.default.subpathsOfDirectory(atPath: Self.root + "/Sources").filter {
      $0.hasSuffix(".swift") && !$0.hasPrefix("MobulaTestKit/")
    }.map { try text("Sources/" + $0) }
  }

  /// Between backticks or quotes, what a variable's name looks like.
  private func variables(_ text: String, quotedBy quote: Character) -> Set<String> {
    Set(
      text.split(separator: quote, omittingEmptySubsequences: false).map { word in
        // With a value, too.
        String(word.prefix { $0 != "=" })
      }.filter { word in
        word.count > 2 && word.first!.isLetter
          && word.allSatisfy { $0.isASCII && ($0.isUppercase || $0.isNumber || $0 == "_") }
      })
  }

  private static let prefixes = ["MOBULA_", "AWS_", "VAULT_", "XDG_"]

  /// The tables name every variable that is read, and no other.
  @Test func variablesAreInTheTables() throws {
    var read: Set<String> = []
    for source in try sources() {
      let all = variables(source, quotedBy: "\"")
      read.formUnion(all.filter { name in Self.prefixes.contains { name.hasPrefix($0) } })
      // Those without a prefix of their own, where the environment is asked for them.
      for name in all
      where ["environment[\"", "currentEnvironment()[\"", "variables[\""].contains(where: { source.contains($0 + name) }
      ) {
        read.insert(name)
      }
    }
    // `withoutSecrets` names a beginning, the bench sets the locale of its shells.
    read.subtract(["AWS_", "VAULT_", "MOBULA_", "XDG_", "LC_ALL"])
    let documented = try variables(text("README.md") + text("docs/Credentials.md"), quotedBy: "`")
    #expect(read.count > 40, "\(read.sorted())")
    #expect(read.subtracting(documented) == [], "these are read")
    let told = documented.filter { name in Self.prefixes.contains { name.hasPrefix($0) } }
    #expect(told.subtracting(read) == [], "these are not read")
  }

  /// The first block of commands that README shows, as a reader types it.
  /// Help is wrapped where the terminal ends: what is broken in the source as well is broken twice.
  @Test func paragraphsOfHelpAreNotBroken() {
    func check(_ command: any ParsableCommand.Type) {
      let lines = command.configuration.discussion.split(separator: "\n", omittingEmptySubsequences: false)
      for (line, next) in zip(lines, lines.dropFirst()) where !line.isEmpty && !next.isEmpty {
        let isText = line.first != " " && next.first != " " && line.last != ":"
        #expect(!isText, "\(command): \"\(line)\" goes on in another line")
      }
      for subcommand in command.configuration.subcommands { check(subcommand) }
    }
    check(MobulaCommand.self)
  }

  @Test func theFirstMinute() async throws {
    let readme = try text("README.md")
    let section = try #require(readme.split(separator: "## One machine in a minute").last)
    let block = try #require(section.split(separator: "```sh\n").dropFirst().first?.split(separator: "```").first)
    // Beside other clusters of this machine, and built already.
    let commands = block.split(separator: "\n").filter { !$0.hasPrefix("make build") }.map {
      $0.replacing("start --head ", with: "start --head --port 0 --capacity 256MB --spill none ")
    }
    #expect(commands.count == 6)
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let script = "set -e; cd \"$1\"; " + commands.joined(separator: "\n") + "\ncmp model.bin copy.bin"
    let finished = try await run(
      "/bin/bash", ["-c", script, "bash", folder.path],
      environment: [
        "PATH": Products.directory + ":" + (currentEnvironment()["PATH"] ?? ""),
        "MOBULA_DIRECTORY": folder.path + "/run",
      ])
    #expect(finished.status.isSuccess, "\(finished)")
    // If it stopped before its end.
    _ = try await run(Products.mobula, ["stop", "--directory", folder.path + "/run"])
  }

  /// The program that README shows is the snippet, which is built with everything else.
  @Test func theProgramIsBuilt() throws {
    let block = try text("README.md").split(separator: "```swift\n").dropFirst().first?.split(separator: "```").first
    #expect(try text("Snippets/App.swift") == String(try #require(block)))
  }
}
