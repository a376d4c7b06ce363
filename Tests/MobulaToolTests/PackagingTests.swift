import FoundationEssentials
import Glibc
import MobulaCore
import Testing

/// What `make dist` packs beside the tool, made of the tool that was built.
@Suite struct PackagingTests {
  private static let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()

  private struct Dump: Decodable {
    struct Command: Decodable {
      var commandName: String
      var shouldDisplay: Bool?
      var subcommands: [Command]?

      /// Names of the pages of a command and those below it.
      func pages(_ path: [String] = []) -> [String] {
        guard shouldDisplay ?? true, commandName != "help" else { return [] }
        let path = path + [commandName]
        return [path.joined(separator: "-")] + (subcommands ?? []).flatMap { $0.pages(path) }
      }
    }
    var command: Command
  }

  /// Nil where this machine has no such program.
  private func program(_ name: String) -> String? {
    (currentEnvironment()["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
  }

  private func text(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
  }

  @Test func manPagesAreOfTheCommands() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let made = try await run("python3", [Self.root + "/Scripts/man-pages.py", Products.mobula, folder.path + "/man"])
    #expect(made.status.isSuccess, "\(made)")
    let dumped = try await run(Products.mobula, ["--experimental-dump-help"])
    let expected = try JSONDecoder().decode(Dump.self, from: Data(dumped.output.utf8)).command.pages()
    #expect(expected.contains("mobula-start") && expected.contains("mobula-certificates-create"), "\(expected)")
    #expect(!expected.contains("mobula-supervise"))
    let pages = try FileManager.default.contentsOfDirectory(atPath: folder.path + "/man")
    #expect(Set(pages) == Set(expected.map { $0 + ".1" }))
    let start = try text(folder.path + "/man/mobula-start.1")
    #expect(start.contains("\\-\\-capacity") && start.contains("mobula start \\-\\-head"))
    guard let groff = program("groff") else { return }
    for page in pages {
      let formatted = try await run(groff, ["-man", "-Tutf8", "-P-cbou", "-ww", folder.path + "/man/" + page])
      #expect(formatted.status.isSuccess && formatted.errors.isEmpty, "\(page): \(formatted.errors)")
      #expect(formatted.output.contains("NAME") && formatted.output.contains("SYNOPSIS"), "\(page)")
    }
  }

  @Test(arguments: ["bash", "zsh", "fish"]) func completionsAreScripts(shell: String) async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let made = try await run(Products.mobula, ["--generate-completion-script", shell])
    #expect(made.status.isSuccess && made.output.contains("broadcast") && made.output.contains("capacity"))
    #expect(!made.output.contains("supervise"))
    guard let shell = program(shell) else { return }
    try Data(made.output.utf8).write(to: URL(filePath: folder.path + "/script"))
    let checked = try await run(shell, ["-n", folder.path + "/script"])
    #expect(checked.status.isSuccess && checked.errors.isEmpty, "\(checked)")
  }

  /// The unit starts something that the tool has, and is one to systemd.
  @Test func theUnitIsOne() async throws {
    let unit = try text(Self.root + "/Packaging/mobula.service")
    for line in ["ExecStart=@PREFIX@/bin/mobula start --foreground $MOBULA_OPTIONS", "MOBULA_STATE=/var/lib/mobula"] {
      #expect(unit.contains(line))
    }
    // What it says of options is so: of these the last is refused, and none before.
    let commands = unit.split(separator: "\n").filter { $0.hasPrefix("#   MOBULA_OPTIONS=") }
    #expect(commands.count == 2)
    for command in commands {
      let options = command.split(separator: "=", maxSplits: 1)[1].split(separator: " ").map(String.init)
      let said = try await run(Products.mobula, ["start", "--foreground"] + options + ["--no-such-option"])
      #expect(said.status == .status(64) && said.errors.contains("--no-such-option"), "\(said)")
    }
    guard let analyze = program("systemd-analyze") else { return }
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    mkdir(folder.path + "/bin", 0o700)
    try FileManager.default.createSymbolicLink(
      atPath: folder.path + "/bin/mobula", withDestinationPath: Products.mobula)
    let file = folder.path + "/mobula.service"
    try Data(unit.replacing("@PREFIX@", with: folder.path).utf8).write(to: URL(filePath: file))
    let verified = try await run(analyze, ["verify", "--man=no", file])
    #expect(verified.status.isSuccess && !verified.errors.contains(folder.path), "\(verified)")
  }

  @Test(arguments: [
    ("/usr", "/usr/lib/systemd/system"), ("/usr/local", "/usr/local/lib/systemd/system"),
    ("/opt/m", "/opt/m/share/mobula"),
  ]) func installing(prefix: String, units: String) async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let (archive, target) = (folder.path + "/archive", folder.path + "/target")
    let files = FileManager.default
    for path in ["bin", "share/man/man1", "share/mobula"] {
      try files.createDirectory(atPath: archive + "/" + path, withIntermediateDirectories: true)
    }
    try files.copyItem(atPath: Self.root + "/Scripts/install.sh", toPath: archive + "/install.sh")
    try files.copyItem(
      atPath: Self.root + "/Packaging/mobula.service", toPath: archive + "/share/mobula/mobula.service")
    try Data("page".utf8).write(to: URL(filePath: archive + "/share/man/man1/mobula.1.gz"))
    try Data("#!/bin/sh\necho the tool\n".utf8).write(to: URL(filePath: archive + "/bin/mobula"))
    chmod(archive + "/bin/mobula", 0o755)

    // The second time over what is there.
    for _ in 0..<2 {
      let installed = try await run(
        "/bin/sh", [archive + "/install.sh"], environment: ["PREFIX": prefix, "DESTDIR": target])
      #expect(installed.status.isSuccess && installed.output.contains("the tool"), "\(installed)")
    }
    let unit = try text(target + units + "/mobula.service")
    #expect(unit.contains("ExecStart=\(prefix)/bin/mobula ") && !unit.contains("@PREFIX@"))
    #expect(try text(target + prefix + "/share/man/man1/mobula.1.gz") == "page")
    #expect(access(target + prefix + "/bin/mobula", X_OK) == 0)
    let left = try files.subpathsOfDirectory(atPath: target)
    #expect(!left.contains { $0.hasSuffix(".new") }, "\(left)")
    let nothing = try await run("/bin/sh", [Self.root + "/Scripts/install.sh"], environment: ["DESTDIR": target])
    #expect(nothing.status == .status(1) && nothing.errors.contains("make install"), "\(nothing)")
  }
}
