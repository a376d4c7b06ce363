import Glibc
import MobulaCore
import Testing

struct ChildProcessTests {
  /// Runs a shell command, and returns how it ended and what it wrote.
  private func run(
    _ command: String, environment: [String: String]? = nil, newSession: Bool = false
  ) async throws -> (ChildProcess.Exit, String) {
    let file = try MemoryFile.create(name: "output", size: pageSize)
    let child = try ChildProcess.spawn(
      "sh", ["-c", command], environment: environment, output: .descriptor(file.rawValue), newSession: newSession)
    let exit = await child.waitForExit()
    #expect(child.exit == exit)
    #expect(await child.waitForExit() == exit)
    let output = try MemoryMapping(file.rawValue, count: pageSize, access: .readOnly)
    let text = withExtendedLifetime(output) { String(decoding: output.bytes.prefix { $0 != 0 }, as: UTF8.self) }
    return (exit, text)
  }

  @Test func theExitStatusIsKnown() async throws {
    #expect(try await run("exit 0").0 == .status(0))
    let (exit, _) = try await run("exit 7")
    #expect(exit == .status(7))
    #expect(!exit.isSuccess)
    #expect(exit.description == "exit status 7")
  }

  @Test func theSignalIsKnown() async throws {
    let (exit, _) = try await run("kill -TERM $$")
    #expect(exit == .signal(SIGTERM))
    #expect(exit.description == "signal 15")
  }

  @Test func aRunningChildCanBeSignalled() async throws {
    let child = try ChildProcess.spawn("sleep", ["1000"])
    #expect(child.exit == nil)
    async let early = child.waitForExit()
    child.signal(SIGKILL)
    #expect(await early == .signal(SIGKILL))
    // Once it is reaped, its number is somebody else's: nothing is sent.
    child.signal(SIGKILL)
  }

  @Test func aSessionIsSignalledAsAWhole() async throws {
    // The shell waits for its own child, which the signal must reach as well for the socket to be closed.
    var ends: [CInt] = [0, 0]
    let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    #expect(socketpair(AF_UNIX, kind, 0, &ends) == 0)
    let reading = OwnedDescriptor(owning: ends[0])

    let child = try ChildProcess.spawn(
      "sh", ["-c", "sleep 1000 & echo x; wait"], output: .descriptor(ends[1]), newSession: true)
    close(ends[1])
    var byte: UInt8 = 0
    #expect(read(reading.rawValue, &byte, 1) == 1)
    #expect(getpgid(child.pid) == child.pid && getsid(child.pid) == child.pid)
    child.signal(SIGKILL, group: true)
    #expect(await child.waitForExit() == .signal(SIGKILL))
    while read(reading.rawValue, &byte, 1) > 0 {}
  }

  @Test func theEnvironmentIsTheOneGiven() async throws {
    #expect(
      try await run(
        "echo $MOBULA_TEST; env | grep -c ^MOBULA_", environment: ["PATH": "/usr/bin:/bin", "MOBULA_TEST": "a=b c"]
      ).1 == "a=b c\n1\n")
    #expect(try await run("printf %s \"$PATH\"").1 == currentEnvironment()["PATH"])
  }

  @Test func argumentsAndInputArePassedOn() async throws {
    #expect(try await run("cat; printf '%s' \"$0\"").1 == "sh")
    let child = try ChildProcess.spawn("test", ["a b", "=", "a b"])
    #expect(await child.waitForExit().isSuccess)
  }

  @Test func theChildStartsWithNoSignalBlockedOrIgnored() async throws {
    // Nobody here sends this one, so that other tests may run meanwhile.
    let former = signal(SIGUSR2, SIG_IGN)
    defer { signal(SIGUSR2, former) }
    let lines = try await run("grep -E '^Sig(Blk|Ign)' /proc/self/status").1.split(separator: "\n")
    #expect(lines.count == 2)
    for line in lines {
      // The C library ignores 32 and 33 in children, which are its own.
      let signals = try #require(UInt64(line.suffix(16), radix: 16))
      #expect(signals & 0x7FFF_FFFF == 0, "\(line)")
    }
  }

  @Test func whatIsNotThereCannotBeStarted() {
    #expect { try ChildProcess.spawn("/nonexistent/program", []) } throws: {
      ($0 as? MobulaError)?.message == "/nonexistent/program can't be started: No such file or directory."
    }
  }

  /// Writes what it finds at descriptors 3 and 4, and whether there is a fifth.
  @Test func extraDescriptorsBecomeThreeAndMore() async throws {
    func file(_ text: String) throws -> OwnedDescriptor {
      let file = try MemoryFile.create(name: "extra", size: pageSize)
      let bytes = Array(text.utf8)
      let raw = file.rawValue
      try systemCall("pwrite") { pwrite(raw, bytes, bytes.count, 0) }
      return file
    }
    let first = try file("one")
    let second = try file("two")
    let output = try MemoryFile.create(name: "output", size: pageSize)
    let child = try ChildProcess.spawn(
      "sh", ["-c", "head -c 3 /proc/self/fd/3; head -c 3 /proc/self/fd/4; test -e /proc/self/fd/5 || echo none"],
      output: .descriptor(output.rawValue), extra: [second.rawValue, first.rawValue])
    #expect(await child.waitForExit() == .status(0))
    let mapping = try MemoryMapping(output.rawValue, count: pageSize, access: .readOnly)
    let text = withExtendedLifetime(mapping) { String(decoding: mapping.bytes.prefix { $0 != 0 }, as: UTF8.self) }
    #expect(text == "twoonenone\n")
  }

  /// What this process was given by whoever started it is not close-on-exec, and still no child's.
  @Test(arguments: [[], [7, 300]]) func noOtherDescriptorIsPassedOn(extra: [CInt]) async throws {
    var ends: [CInt] = [-1, -1]
    try #require(pipe(&ends) == 0)
    // Below, between and above what the child is to have, and none of them close-on-exec.
    let inherited = ends + [CInt(3), 5, 200, 900].map { fcntl(ends[1], F_DUPFD, $0) }
    let passed = extra.map { fcntl(ends[1], F_DUPFD, $0) }
    defer { for descriptor in inherited + passed { close(descriptor) } }
    #expect((inherited + passed).allSatisfy { $0 >= 3 && fcntl($0, F_GETFD) == 0 })

    let output = try MemoryFile.create(name: "output", size: pageSize)
    let child = try ChildProcess.spawn(
      "sh", ["-c", "for number in $(seq 0 1000); do test -e /proc/self/fd/$number && echo $number; done; true"],
      output: .descriptor(output.rawValue), extra: passed)
    #expect(await child.waitForExit() == .status(0))
    let mapping = try MemoryMapping(output.rawValue, count: pageSize, access: .readOnly)
    let text = withExtendedLifetime(mapping) { String(decoding: mapping.bytes.prefix { $0 != 0 }, as: UTF8.self) }
    let numbers = text.split(separator: "\n").compactMap { CInt($0) }
    #expect(numbers == Array(0..<CInt(3 + extra.count)))
  }
}
