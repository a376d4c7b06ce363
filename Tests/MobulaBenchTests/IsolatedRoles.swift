import Glibc
import Mobula
import MobulaBench
import MobulaCore
import Testing

/// Tests of the isolation run this test executable again, with a role to play in place of the tests.
enum Role: String {
  /// Starts hosts, and says what it finds.
  case facts
  /// Starts processes on hosts, and waits to be ended.
  case hang
  /// One end of a line-rate probe.
  case probe

  static let variable = "MOBULA_BENCH_TEST_ROLE"
  static let kindVariable = "MOBULA_BENCH_TEST_KIND"
  static let markVariable = "MOBULA_BENCH_TEST_MARK"

  static var current: Role? { currentEnvironment()[variable].flatMap(Role.init) }
  static let arguments = ["--testing-library", "swift-testing", "--filter", "IsolatedRoles"]

  /// Starts this executable in a role, as the guardian of an isolation.
  static func start(_ role: Role, _ kind: EmulationKind, mark: String) throws -> (ChildProcess, ProcessOutput) {
    let output = try ProcessOutput()
    var environment = currentEnvironment()
    environment[variable] = role.rawValue
    environment[kindVariable] = kind.rawValue
    environment[markVariable] = mark
    let child = try ChildProcess.spawn(
      Executable.path(), arguments, environment: environment, output: output.stream,
      errors: output.stream, newSession: true)
    output.started()
    return (child, output)
  }
}

@Suite(.enabled(if: Role.current != nil, "only in a process that a test has started"))
struct IsolatedRoles {
  @Test func play() async throws {
    if Role.current == .probe {
      let own = CommandLine.arguments.drop { $0 != LineRateProbe.argument }.dropFirst()
      exit(LineRateProbe.run(Array(own)))
    }
    let environment = currentEnvironment()
    let kind = try #require(environment[Role.kindVariable].flatMap(EmulationKind.init))
    do {
      if let status = try await BenchIsolation.enter(arguments: Role.arguments, kind: kind) { exit(status) }
      switch Role.current {
      case .facts: try await Facts().run()
      default: try await hang(mark: environment[Role.markVariable]!)
      }
      exit(0)
    } catch {
      say("failed: \(error)")
      exit(1)
    }
  }

  private func hang(mark: String) async throws {
    let emulation = try await Emulation.start(hosts: 2, nic: LinkRate("100mbit")!)
    var processes: [HostProcess] = []
    for host in emulation.hosts {
      processes.append(
        try host.spawn("/bin/sh", ["-c", "echo x >\(host.directory)/file; sleep 1000; : \(mark)"]))
    }
    guard case .inside(_, let scratch) = BenchIsolation.current else { return }
    say("scratch \(scratch)")
    say("hanging")
    _ = await processes[0].waitForExit()
  }
}

/// A line for the test that waits for it, told from what the test runner prints.
func say(_ line: String) {
  print("> \(line)")
  fflush(nil)
}

/// What is true inside an isolation of namespaces: one line a fact.
struct Facts {
  func run() async throws {
    guard case .inside(.netns, let scratch) = BenchIsolation.current else { return say("not inside") }
    say("init \(getpid() == 1)")
    let keep = "/tmp/mobula-keep-\(UInt32.random(in: 0 ... .max))"
    mkdir(keep, 0o700)
    mkdir("\(keep)/kept", 0o700)
    let file = open("\(keep)/kept/file", O_CREAT | O_WRONLY, 0o600)
    close(file)
    defer {
      unlink("\(keep)/kept/file")
      rmdir("\(keep)/kept")
      rmdir(keep)
    }
    let nic = LinkRate("840mbit")!
    let emulation = try await Emulation.start(hosts: 3, nic: nic, keep: ["\(keep)/kept"])
    let (a, b) = (emulation.hosts[0], emulation.hosts[1])
    say("hosts \(emulation.hosts.map { "\($0.name)=\($0.address)" }.joined(separator: ","))")

    let everywhere = ["/tmp/x", "/run/x", "/dev/shm/x"].joined(separator: " ")
    say("writes \(try await shell(a, "touch \(everywhere)"))")
    say("own \(try await shell(a, "ls \(everywhere)"))")
    say("private \(try await shell(b, "for file in \(everywhere); do ! [ -e $file ] || exit 9; done"))")
    say("kept \(try await shell(b, "[ -f \(keep)/kept/file ] && ! touch \(keep)/kept/file && ! [ -e \(scratch)/h0 ]"))")
    say("directory \(try await shell(b, "touch \(b.directory)/state"))")
    let sleeper = try a.spawn("/bin/sleep", ["1000"])
    while sleeper.pid.map(isSleep) != true { await Task.yield() }
    // A host's init has a sleep of its own.
    let sleeps = "$(cat /proc/[0-9]*/comm | grep -cx sleep)"
    say("visible \(try await shell(a, "[ \(sleeps) = 2 ]"))")
    say("hidden \(try await shell(b, "[ \(sleeps) = 1 ]"))")
    sleeper.signal(SIGTERM)
    say("signal \(await sleeper.waitForExit())")
    say("missing \(try await a.spawn("/no/such", [], errors: .null).waitForExit())")

    let before = try b.counters()!
    var environment = currentEnvironment()
    environment[Role.variable] = Role.probe.rawValue
    let rate = try await LineRateProbe.measure(
      from: a, to: b, nic: nic, duration: .milliseconds(500), arguments: Role.arguments + [LineRateProbe.argument],
      environment: environment)
    let counted = try b.counters()! - before
    say("rate \(Int(rate.bytesPerSecond))")
    say("counted \(counted.received) \(counted.sent)")

    try await emulation.cut(a)
    say("cut \(try await shell(a, "ip link show eth0 | grep -q NO-CARRIER"))")
    try await emulation.join(a)
    say("joined \(try await shell(a, "! ip link show eth0 | grep -q NO-CARRIER"))")
    await emulation.stop()
    say("stopped \(((try? b.counters()) == nil))")
    let again = try await Emulation.start(hosts: 1, nic: nic)
    say("fresh \(try await shell(again.hosts[0], "! [ -e /tmp/x ]"))")
    await again.stop()
  }

  private func shell(_ host: EmulatedHost, _ script: String) async throws -> ChildProcess.Exit {
    try await host.spawn("/bin/sh", ["-c", script], output: .null, errors: .null).waitForExit()
  }

  private func isSleep(_ pid: Int32) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 16)
    let file = open("/proc/\(pid)/comm", O_RDONLY)
    defer { close(file) }
    let count = read(file, &buffer, buffer.count)
    return count > 0 && String(decoding: buffer[..<count], as: UTF8.self) == "sleep\n"
  }
}
