import MobulaCore
import Testing

@testable import MobulaBench

@Suite struct EmulationPartsTests {
  @Test func missingToolsAreNamedWithTheirPackages() {
    #expect(SystemTool.missing(in: "/no/such") != nil)
    #expect(SystemTool.missing(in: "/no/such")!.hasSuffix("are missing: install dash iproute2 mount util-linux."))
    #expect(throws: MobulaError.self) { try SystemTool.ip.path(in: "/no/such") }
    #expect((try? SystemTool.sh.path(in: "/no/such:/bin")) == "/bin/sh")
  }

  @Test func anOrdinaryUsersPathIsExtended() {
    #expect(SystemTool.searchPath(["PATH": "/a:/bin"]) == "/a:/bin:/usr/sbin:/sbin:/usr/bin")
  }

  @Test func countersAreReadFromTheInterfacesLine() {
    let text = """
      Inter-|   Receive                                                |  Transmit
       face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
          v1:     100       1    0    0    0     0          0         0      200       2    0    0    0     0       0          0
         v11:70000000     100    0    0    0     0          0         0      300       3    0    0    0     0       0          0
      """
    #expect(NetworkCounters(interface: "v1", in: text) == NetworkCounters(received: 100, sent: 200))
    #expect(NetworkCounters(interface: "v11", in: text) == NetworkCounters(received: 70_000_000, sent: 300))
    #expect(NetworkCounters(interface: "v2", in: text) == nil)
  }

  @Test func onlyWhatIsCoveredAndExecutableIsKept() {
    let maps = """
      5590-55a0 r-xp 00001000 fe:00 123    /tmp/clone/.build/release/mobula
      5590-55a0 r--p 00001000 fe:00 123    /tmp/data/file
      7f00-7f10 r-xp 00000000 fe:00 124    /usr/lib/libc.so.6
      7f20-7f30 r-xp 00000000 fe:00 125    /tmp/alone.so
      7f20-7f30 r-xp 00000000 fe:00 125    /tmp/gone/x.so (deleted)
      7f30-7f40 rwxp 00000000 00:00 0
      7f40-7f50 r-xp 00000000 fe:00 126    /dev/shm/with space/lib.so
      """
    let kept = KeptPaths.needed(maps: maps, extra: ["/tmp/clone/.build", "/home/x", "/tmp"])
    #expect(kept == ["/dev/shm/with space", "/tmp/alone.so", "/tmp/clone/.build"])
  }

  @Test func linkRatesAreReadAndWritten() {
    #expect(LinkRate("840mbit")?.bitsPerSecond == 840_000_000)
    #expect(LinkRate("1.5Gbit")?.description == "1500mbit")
    #expect(LinkRate("1234bit")?.description == "1234bit")
    for text in ["", "840", "mbit", "840mb", "-1mbit", "1bit", "840 mbit", "1e5mbit"] {
      #expect(LinkRate(text) == nil, "\(text)")
    }
  }

  @Test func aProbeOutsideTheToleranceIsInvalidAndSaysBothNumbers() {
    let nic = LinkRate("840mbit")!
    #expect(LineRate(bytesPerSecond: 100.38e6, nic: nic).isValid)
    #expect(LineRate(bytesPerSecond: 102.3e6, nic: nic).isValid)
    #expect(!LineRate(bytesPerSecond: 102.5e6, nic: nic).isValid)
    let low = LineRate(bytesPerSecond: 98.2e6, nic: nic)
    #expect(!low.isValid)
    #expect(
      low.description.hasPrefix("The line rate is 98.2 MB/s, expected 100.4 MB/s ± 2 % (0.956 × 840mbit): this run"))
    #expect(LineRate(bytesPerSecond: 5e9, nic: nil).isValid)
  }

  @Test func aFailingScriptSaysItsLastLine() async throws {
    await #expect {
      try await ShellScript("echo first; echo 'no such device.' >&2; false; echo beyond").run(orSay: "It can't be")
    } throws: {
      ($0 as? MobulaError)?.message == "It can't be: no such device."
    }
    try await ShellScript(#"[ "$1" = "a b" ]"#).run(["a b"], orSay: "Arguments are passed")
  }

  @Test func outputIsReadByLinesAndToItsEnd() async throws {
    let output = try ProcessOutput()
    let child = try ChildProcess.spawn("/bin/sh", ["-c", "printf 'one\ntwo\nthree\nfour'"], output: output.stream)
    output.started()
    #expect(try await output.line(within: .seconds(20)) == "one")
    #expect(try await output.line(within: .seconds(20)) == "two")
    #expect(try await output.text(within: .seconds(20)) == "three\nfour")
    #expect(try await output.line(within: .seconds(20)) == nil)
    #expect(await child.waitForExit().isSuccess)
  }

  @Test func silenceIsAnError() async throws {
    let output = try ProcessOutput()
    await #expect(throws: MobulaError.self) { try await output.line(within: .milliseconds(1)) }
  }
}
