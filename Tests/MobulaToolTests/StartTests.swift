import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaSupervisor
@testable import MobulaTool

/// Where a host is started and how it is stopped: folders, ports, addresses, the supervisor's identity.
@Suite struct StartTests {
  private func expectRefusal(
    _ finished: Finished, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(
      finished.status == .status(1) || finished.status == .status(64), "\(finished)", sourceLocation: sourceLocation)
    for word in ["Error: "] + words {
      #expect(finished.errors.contains(word), "\(finished)", sourceLocation: sourceLocation)
    }
  }

  private func start(_ directory: String, _ arguments: String...) async throws -> Finished {
    try await run(
      Products.mobula,
      ["start", "--head", "--capacity", "64MB", "--spill", "none", "--directory", directory] + arguments)
  }

  private func shell(_ script: String, _ arguments: String...) async throws -> Finished {
    try await run("/bin/sh", ["-c", script, "sh"] + arguments, environment: ["MOBULA": Products.mobula])
  }

  @Test func relativeDirectoriesAreBelowTheCurrentFolder() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let options = "--head --port 0 --capacity 64MB --spill none"
    for start in [
      "$MOBULA start \(options) --directory a/run", "MOBULA_DIRECTORY=a/run $MOBULA start \(options)",
    ] {
      let started = try await shell("cd \"$1\" && \(start)", folder.path)
      #expect(started.status.isSuccess, "\(started)")
      let status = try await run(Products.mobula, ["status", "--directory", folder.path + "/a/run"])
      #expect(status.status.isSuccess, "\(status)")
      let stopped = try await shell("cd \"$1\" && $MOBULA stop --directory ../\"${1##*/}\"/a/run", folder.path)
      #expect(stopped.status.isSuccess, "\(stopped)")
    }
    #expect(access("/a", F_OK) != 0, "nothing is made in the root")
  }

  /// One of them starts a host, the others say so, and whoever comes later finds it.
  @Test func startsAtTheSameTime() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let directory = folder.path + "/run"
    let all = try await withThrowingTaskGroup(of: Finished.self) { group in
      for _ in 0..<4 { group.addTask { try await start(directory, "--port", "0") } }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(all.count { $0.status.isSuccess } == 1, "\(all)")
    for other in all where !other.status.isSuccess {
      #expect(other.status == .status(1) && other.errors.contains(directory), "\(other)")
    }
    let status = try await run(Products.mobula, ["status", "--directory", directory])
    #expect(status.status.isSuccess, "\(status)")
    let stopped = try await run(Products.mobula, ["stop", "--directory", directory])
    #expect(stopped.status.isSuccess, "\(stopped)")
  }

  @Test func unusableDirectoriesAreRefused() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    mkdir(folder.path + "/open", 0o700)
    chmod(folder.path + "/open", 0o777)
    expectRefusal(try await start(folder.path + "/open", "--port", "0"), "chmod go-w")
    expectRefusal(try await start(folder.path + "/" + String(repeating: "n", count: 120), "--port", "0"), "shorter")
    try Data().write(to: URL(filePath: folder.path + "/file"))
    expectRefusal(try await start(folder.path + "/file", "--port", "0"), folder.path)
    expectRefusal(try await start("/proc/none", "--port", "0"), "/proc/none")
    if getuid() == 0 {
      mkdir(folder.path + "/theirs", 0o700)
      chown(folder.path + "/theirs", 65534, 65534)
      expectRefusal(try await start(folder.path + "/theirs", "--port", "0"), "another user")
    }
  }

  @Test func portsAndTheLineThatSaysReady() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let (first, second) = (folder.path + "/1", folder.path + "/2")
    let started = try await shell(
      "$MOBULA start --head --port 0 --capacity 64MB --spill none --directory \"$1\" --ready-fd 3 3> \"$1.ready\"",
      first)
    #expect(started.status.isSuccess, "\(started)")
    let line = String(decoding: try Data(contentsOf: URL(filePath: first + ".ready")), as: UTF8.self)
    let ready = try JSONDecoder().decode(JSONValue.self, from: Data(line.utf8))
    guard case .string(let head)? = ready["head"], case .tcp(_, let port)? = Endpoint(head) else {
      Issue.record("\(line) names no head")
      return
    }
    #expect(port > 0 && started.output.contains(head), "\(started)")

    // Another cluster's port, with whatever token.
    mkdir(second, 0o700)
    try FileManager.default.copyItem(atPath: first + "/token", toPath: second + "/token")
    expectRefusal(try await start(second, "--port", "\(port)"), "is taken", "--port")

    // One's own host is not another program.
    expectRefusal(try await start(first, "--port", "\(port)"), "A host runs in \(first) already", "mobula stop")

    // The same port again for the head that is started anew.
    let status = try await run(Products.mobula, ["status", "--directory", first])
    #expect(status.output.contains(head), "\(status)")
    #expect(try await run(Products.mobula, ["stop", "--directory", first]).status.isSuccess)
    expectRefusal(try await start(second, "--port", "0", "--ready-fd", "99"), "--ready-fd")
  }

  @Test func foregroundSaysReadyToo() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let child = try ChildProcess.spawn(
      "/bin/sh",
      [
        "-c",
        "exec \"$0\" start --head --foreground --port 0 --capacity 64MB --spill none --directory \"$1\" --ready-fd 3 3> \"$2\"",
        Products.mobula, folder.path + "/run", folder.path + "/ready",
      ], output: .null, errors: .null)
    var line = ""
    for _ in 0..<1000 where !line.hasSuffix("\n") && child.exit == nil {
      try await Task.sleep(for: .milliseconds(20))
      line =
        (try? Data(contentsOf: URL(filePath: folder.path + "/ready"))).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
    #expect(line.contains("\"head\""), "\(line)")
    child.signal(SIGTERM)
    #expect(await child.waitForExit().isSuccess)
  }

  @Test func addressesThatOthersCantReach() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let run = folder.path + "/run"
    for wildcard in ["0.0.0.0", "::", "[::]"] {
      expectRefusal(try await start(run, "--port", "0", "--listen", wildcard), "--advertise")
      expectRefusal(try await start(run, "--port", "0", "--advertise", wildcard), "--advertise")
    }
    expectRefusal(try await start(run, "--port", "0", "--listen", "203.0.113.7"), "no address of this machine")
    expectRefusal(try await start(run, "--port", "0", "--listen", "a b"), "--listen")
    #expect(access(run, F_OK) != 0, "nothing was made")

    // What is told is what was advertised, to this machine's own processes something that works.
    for (arguments, told) in [
      (["--listen", "0.0.0.0", "--advertise", "head.example"], "head.example:"),
      (["--listen", "localhost"], "127.0.0.1:"),
    ] {
      let started = try await MobulaToolTests.run(
        Products.mobula,
        ["start", "--head", "--capacity", "64MB", "--spill", "none", "--directory", run, "--port", "0"] + arguments)
      #expect(started.status.isSuccess && started.output.contains("listens at \(told)"), "\(started)")
      #expect(started.output.contains("Join from another machine") == (told == "head.example:"), "\(started)")
      let status = try await MobulaToolTests.run(Products.mobula, ["status", "--json", "--directory", run])
      let value = try JSONDecoder().decode(JSONValue.self, from: Data(status.output.utf8))
      guard case .string(let bulk)? = value["hosts"]?.elements.first?["bulk"] else {
        Issue.record("\(status)")
        continue
      }
      #expect(bulk.hasPrefix(told), "\(bulk)")
      #expect(try await MobulaToolTests.run(Products.mobula, ["stop", "--directory", run]).status.isSuccess)
    }
  }

  @Test func stopEndsTheSupervisorAndNobodyElse() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let run = folder.path + "/run"
    #expect(try await start(run, "--port", "0").status.isSuccess)
    let real = try #require(RunningSupervisor.all().first { $0.directory == run })
    // The file names a process that is none of Mobula's, as in another PID namespace.
    let other = try ChildProcess.spawn("sleep", ["100"])
    try Data("\(other.pid)\n".utf8).write(to: URL(filePath: run + "/pid"))
    let file = open(run + "/supervisor.pid", O_WRONLY | O_TRUNC)
    let text = Array("\(other.pid)\n".utf8)
    #expect(write(file, text, text.count) == text.count)
    close(file)
    let stopped = try await MobulaToolTests.run(Products.mobula, ["stop", "--directory", run])
    #expect(stopped.status.isSuccess && real.hasEnded, "\(stopped)")
    #expect(other.exit == nil)
    other.signal(SIGKILL)
    expectRefusal(
      try await MobulaToolTests.run(Products.mobula, ["stop", "--directory", run]), "Nothing of Mobula runs")
  }

  @Test func aHostWithoutItsDirectoryCanBeStopped() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let run = folder.path + "/run"
    #expect(try await start(run, "--port", "0").status.isSuccess)
    rename(run, folder.path + "/moved")
    try? FileManager.default.removeItem(atPath: folder.path + "/moved")
    let elsewhere = try await MobulaToolTests.run(Products.mobula, ["status", "--directory", folder.path + "/none"])
    #expect(elsewhere.errors.contains("--directory"), "\(elsewhere)")
    let orphan = try #require(
      RunningSupervisor.all().first { $0.directory.hasPrefix(folder.path) && $0.isOrphan })
    let stopped = try await MobulaToolTests.run(Products.mobula, ["stop", "--directory", orphan.directory])
    #expect(stopped.status.isSuccess && orphan.hasEnded, "\(stopped)")
  }

  /// Who waits for the end of what the caller had open waits for the caller alone, not for the host that it leaves
  /// behind.
  @Test func whatTheCallerHadOpenIsNotKept() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    let run = folder.path + "/run"
    // Two variables that Swift takes for one are passed on all the same.
    let names = ["MOBULA_CAF\u{E9}", "MOBULA_CAFE\u{301}"]
    let started = try await shell(
      """
      { env "$2=1" "$3=2" "$MOBULA" start --head --port 0 --capacity 64MB --spill none --directory "$1" 7>&1 >/dev/null
        echo "ended with $?"; } | cat
      """, run, names[0], names[1])
    #expect(started.status.isSuccess && started.output == "ended with 0\n", "\(started)")
    let supervisor = try #require(RunningSupervisor.all().first { $0.directory == run })
    let environment = try Data(contentsOf: URL(filePath: "/proc/\(supervisor.pid)/environ"))
    let variables = Set(environment.split(separator: 0).map { Array($0) })
    #expect(variables.isSuperset(of: [Array("\(names[0])=1".utf8), Array("\(names[1])=2".utf8)]))
    #expect(try await MobulaToolTests.run(Products.mobula, ["stop", "--directory", run]).status.isSuccess)
  }

  /// Files that nobody writes keep nobody waiting.
  @Test func pipesInPlaceOfFiles() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    mkfifo(folder.path + "/pipe", 0o600)
    mkdir(folder.path + "/tls", 0o700)
    for name in ["ca", "cert", "key"] { mkfifo(folder.path + "/tls/\(name).pem", 0o600) }
    expectRefusal(try await start(folder.path + "/run", "--token-file", folder.path + "/pipe"), "/pipe", "give a file")
    expectRefusal(try await start(folder.path + "/run", "--tls", folder.path + "/tls"), "/tls/", "give a file")
    // Nor does what is no small file.
    expectRefusal(try await start(folder.path + "/run", "--token-file", "/dev/zero"), "/dev/zero")

    let token = String(repeating: "0123456789abcdef", count: 4)
    let started = try await run(
      "/bin/bash",
      [
        "-c",
        "exec \"$0\" start --head --port 0 --capacity 64MB --spill none --directory \"$1\" --token-file <(echo \"$2\")",
        Products.mobula, folder.path + "/run", token,
      ])
    #expect(started.status.isSuccess, "\(started)")
    #expect(
      String(decoding: try Data(contentsOf: URL(filePath: folder.path + "/run/token")), as: UTF8.self).contains(token))
    #expect(try await run(Products.mobula, ["stop", "--directory", folder.path + "/run"]).status.isSuccess)
  }

  @Test func mistypedCommands() async throws {
    for (word, meant) in [("stauts", "status"), ("broadcst", "broadcast"), ("LS", "ls"), ("fetc", "fetch")] {
      let finished = try await run(Products.mobula, [word])
      #expect(finished.status == .status(64) && finished.errors.contains("mobula \(meant)"), "\(finished)")
      let help = try await run(Products.mobula, ["help", word])
      #expect(help.status == .status(64) && help.errors == finished.errors, "\(help)")
    }
    let nothing = try await run(Products.mobula, ["quetzalcoatl"])
    #expect(nothing.status == .status(64) && nothing.errors.contains("mobula --help"), "\(nothing)")
  }

  @Test func settingsOfTheEnvironmentAreChecked() async throws {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    for (variable, value) in [("MOBULA_LOG", "loud"), ("MOBULA_TOKEN", "short"), ("MOBULA_TLS", "/nonexistent")] {
      let finished = try await run(
        Products.mobula, ["start", "--head", "--port", "0", "--capacity", "64MB"],
        environment: [variable: value, "MOBULA_DIRECTORY": folder.path + "/run"])
      expectRefusal(finished, variable == "MOBULA_TLS" ? value : variable)
    }
  }
}
