import FoundationEssentials
import Glibc
import MobulaCore
import Testing

@testable import MobulaBench

/// Whether this machine can emulate hosts in namespaces; says why not.
@Sendable func namespacesWork() async -> Bool {
  switch await Emulation.availability() {
  case .namespaces: return true
  case .unavailable(let reason):
    print("skipped: \(reason)")
    return false
  }
}

@Suite(.serialized, .enabled(if: Role.current == nil, "not in a process that a test has started"))
struct EmulationTests {
  @Test(.enabled("needs root or user namespaces, ip and tc", namespacesWork))
  func hostsInNamespacesShareNothingButTheirNetwork() async throws {
    let (child, output) = try Role.start(.facts, .netns, mark: "-")
    defer { child.signal(SIGKILL) }
    var facts: [String: String] = [:]
    while let line = try await output.line(within: .seconds(60)) {
      guard line.hasPrefix("> ") else { continue }
      let words = line.dropFirst(2).split(separator: " ", maxSplits: 1)
      facts[String(words[0])] = words.count > 1 ? String(words[1]) : ""
    }
    #expect(await child.waitForExit().isSuccess)
    #expect(facts["failed:"] == nil)
    #expect(facts["init"] == "true")
    #expect(facts["hosts"] == "h0=10.77.0.10,h1=10.77.0.11,h2=10.77.0.12")
    for fact in ["writes", "own", "private", "kept", "directory", "visible", "hidden", "cut", "joined", "fresh"] {
      #expect(facts[fact] == "exit status 0", "\(fact)")
    }
    #expect(facts["signal"] == "signal 15")
    #expect(facts["missing"] == "exit status 127")
    #expect(facts["stopped"] == "true")
    // Other tests run meanwhile, so the rate may be low; above what the interface allows it can't be.
    let rate = try #require(facts["rate"].flatMap { Int($0) })
    #expect(rate > 1_000_000 && rate < 107_000_000)
    let counted = try #require(facts["counted"]).split(separator: " ").compactMap { Int($0) }
    #expect(counted[0] > rate / 2)
    #expect(counted[1] > 0 && counted[1] < counted[0] / 20)
  }

  @Test(
    .enabled("needs root or user namespaces, ip and tc", namespacesWork), arguments: [SIGINT, SIGTERM, SIGKILL])
  func nothingIsLeftOfNamespacesAfterASignal(_ signal: CInt) async throws {
    try await expectNothingLeft(.netns, signal)
  }

  @Test(arguments: [SIGINT, SIGTERM, SIGKILL])
  func nothingIsLeftOfLoopbackAfterASignal(_ signal: CInt) async throws {
    try await expectNothingLeft(.loopback, signal)
  }

  @Test(.enabled("needs root or user namespaces, ip and tc", namespacesWork))
  func theDeathOfTheProcessInNamespacesIsAClearError() async throws {
    try await expectNothingLeft(.netns, SIGKILL, inside: true)
  }

  @Test func theDeathOfTheProcessOnLoopbackIsAClearError() async throws {
    try await expectNothingLeft(.loopback, SIGKILL, inside: true)
  }

  /// Sends `signal` to the guardian, or to the process inside, once processes run on two hosts.
  private func expectNothingLeft(_ kind: EmulationKind, _ signal: CInt, inside: Bool = false) async throws {
    let mark = "mark-\(UInt64.random(in: 0 ... .max))"
    let (child, output) = try Role.start(.hang, kind, mark: mark)
    defer { child.signal(SIGKILL) }
    var scratch: String?
    while let line = try await output.line(within: .seconds(60)), line != "> hanging" {
      if line.hasPrefix("> scratch ") { scratch = String(line.dropFirst(10)) }
    }
    let directory = try #require(scratch)
    #expect(FileManager.default.fileExists(atPath: directory))
    while processes(marked: mark).count < 2 { await Task.yield() }
    if inside {
      let below = try #require(onlyChild(of: child.pid))
      kill(kind == .netns ? try #require(onlyChild(of: below)) : below, signal)
    } else {
      child.signal(signal)
    }
    let exit = await child.waitForExit()
    // The end of the output is the end of every process that had inherited it.
    let rest = try await output.text(within: .seconds(20))
    if inside {
      #expect(exit == .status(1))
      #expect(rest.contains("> failed: The bench's process was killed before it was done"))
    } else {
      #expect(exit == (signal == SIGKILL ? .signal(SIGKILL) : .status(128 + signal)))
    }
    #expect(processes(marked: mark) == [])
    #expect(!FileManager.default.fileExists(atPath: directory))
  }

  /// The processes with `mark` in their command lines.
  private func processes(marked mark: String) -> [String] {
    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return all.filter { name in
      guard Int(name) != nil, let data = try? Data(contentsOf: URL(filePath: "/proc/\(name)/cmdline")) else {
        return false
      }
      return String(decoding: data, as: UTF8.self).contains(mark)
    }
  }

  @Test func loopbackHostsHaveAddressesAndDirectoriesOfTheirOwn() async throws {
    let emulation = try LoopbackEmulation(hosts: 2)
    let hosts = emulation.hosts
    #expect(emulation.kind == .loopback)
    #expect(hosts.map(\.address) == ["127.0.0.10", "127.0.0.11"])
    #expect(Set(hosts.map(\.directory)).count == 2)
    #expect(try hosts[0].counters() == nil)
    let process = try hosts[0].spawn("/bin/sh", ["-c", #"[ "$TMPDIR" = \#(hosts[0].directory) ]"#])
    #expect(await process.waitForExit() == .status(0))
    let sleeper = try hosts[1].spawn("/bin/sleep", ["1000"])
    await #expect(throws: MobulaError.self) { try await emulation.cut(hosts[0]) }
    await emulation.stop()
    #expect(sleeper.exit == .signal(SIGKILL))
    #expect(!FileManager.default.fileExists(atPath: hosts[0].directory))
  }

  @Test func aNumberOfHostsOutOfRangeIsAnError() async throws {
    #expect(throws: MobulaError.self) { try LoopbackEmulation(hosts: 0) }
    await #expect(throws: MobulaError.self) {
      try await NamespaceEmulation.start(hosts: 201, nic: LinkRate("1gbit")!, keep: [], scratch: "/nowhere")
    }
  }

  @Test func theProbeCountsBetweenLoopbackHosts() async throws {
    let emulation = try LoopbackEmulation(hosts: 2)
    var environment = currentEnvironment()
    environment[Role.variable] = Role.probe.rawValue
    let rate = try await LineRateProbe.measure(
      from: emulation.hosts[0], to: emulation.hosts[1], nic: nil, duration: .milliseconds(100),
      arguments: Role.arguments + [LineRateProbe.argument], environment: environment)
    #expect(rate.bytesPerSecond > 0)
    #expect(rate.isValid)
    await emulation.stop()
  }

  @Test func aProbeWithoutAResultIsAnError() async throws {
    let emulation = try LoopbackEmulation(hosts: 2)
    await #expect(throws: MobulaError.self) {
      try await LineRateProbe.measure(
        from: emulation.hosts[0], to: emulation.hosts[1], nic: nil, executable: "/bin/true")
    }
    await emulation.stop()
    #expect(LineRateProbe.run(["send"]) == 64)
  }
}
