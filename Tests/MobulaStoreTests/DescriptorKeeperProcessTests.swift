import Glibc
import MobulaCore
import Testing

@testable import MobulaStore

/// The keeper with stores that are processes, written in another language, and die.
@Suite(.enabled(if: access(python, X_OK) == 0, "needs \(python)"))
struct DescriptorKeeperProcessTests {
  @Test func theMemoryOfAKilledProcessIsFoundByTheNext() async throws {
    let keeper = DescriptorKeeper()
    let exit = try await run(
      keeper,
      """
      fd = os.memfd_create("peer")
      os.write(fd, b"from a process that is gone")
      keep(b"segment 1", [fd])
      os.kill(os.getpid(), signal.SIGKILL)
      """)
    #expect(exit == .signal(SIGKILL))

    let next = try connection(to: keeper)
    let found = try next.recover()
    #expect(found.map(\.key) == ["segment 1"])
    #expect(content(try #require(found.first?.descriptors.first?.rawValue)) == "from a process that is gone")
    withExtendedLifetime(found) {}
  }

  @Test func aProcessFindsWhatOneBeforeItKept() async throws {
    let keeper = DescriptorKeeper()
    do {
      let store = try connection(to: keeper)
      let files = try (0..<4).map { try memory("keeper", holding: "file \($0)") }
      try store.keep("a", files.map(\.rawValue))
      try store.keep("b", [files[3].rawValue])
      withExtendedLifetime(files) {}
    }
    let exit = try await run(
      keeper,
      """
      s.send(bytes([1, 3, 0, 0]))
      packet, fds, flags, _ = socket.recv_fds(s, 300, 4)
      assert packet == bytes([1, 4, 4, 1]) + b"a", packet
      assert [os.pread(fd, 6, 0) for fd in fds] == [b"file %d" % i for i in range(4)]
      packet, fds, flags, _ = socket.recv_fds(s, 300, 4)
      assert packet == bytes([1, 4, 1, 1]) + b"b", packet
      assert os.pread(fds[0], 6, 0) == b"file 3"
      packet, fds, flags, _ = socket.recv_fds(s, 300, 4)
      assert packet == bytes([1, 5, 0, 4, 0, 0, 0, 2]) and fds == [], packet
      """)
    #expect(exit == .status(0))
  }

  /// A socket with unread packets resets its peer when it goes; what was sent before must not be lost.
  @Test func aProcessThatDiesWithAnUnreadListLosesNothing() async throws {
    raiseDescriptorLimit()
    let keeper = DescriptorKeeper()
    do {
      let file = try memory("keeper", holding: "x")
      let store = try connection(to: keeper)
      for index in 0..<2000 { try store.keep("\(index)", [file.rawValue]) }
      withExtendedLifetime(file) {}
    }
    let exit = try await run(
      keeper,
      """
      s.send(bytes([1, 3, 0, 0]))
      socket.recv_fds(s, 300, 4)
      fd = os.memfd_create("peer")
      os.write(fd, b"last words")
      for i in range(20): keep(b"last %d" % i, [fd])
      os.kill(os.getpid(), signal.SIGKILL)
      """)
    #expect(exit == .signal(SIGKILL))
    let next = try connection(to: keeper)
    let found = try next.recover()
    #expect(found.count == 2020)
    #expect(found.suffix(20).map(\.key) == (0..<20).map { "last \($0)" })
    #expect(content(try #require(found.last?.descriptors.first?.rawValue)) == "last words")
    withExtendedLifetime(found) {}
  }

  @Test func moreDescriptorsThanAMessageHasEndTheConnection() async throws {
    let problems = Problems()
    let keeper = DescriptorKeeper { problems.add($0) }
    let exit = try await run(
      keeper,
      """
      fd = os.memfd_create("keeper-excess")
      keep(b"a", [fd])
      socket.send_fds(s, [bytes([1, 1, 4, 1]) + b"b"], [fd] * 5)
      assert s.recv(10) == b""
      """)
    #expect(exit == .status(0))
    #expect(problems.codes == [.protocolViolation])
    let next = try connection(to: keeper)
    #expect(try next.recover().map(\.key) == ["a"])
    keeper.close()
    #expect(openDescriptors(memory: "keeper-excess", socket: "/nowhere") == 0)
  }

  @Test func manyProcessesInTurn() async throws {
    let keeper = DescriptorKeeper()
    for round in 0..<5 {
      let exit = try await run(
        keeper,
        """
        fd = os.memfd_create("peer")
        os.write(fd, b"round \(round)")
        keep(b"\(round)", [fd])
        os.kill(os.getpid(), signal.SIGKILL)
        """)
      #expect(exit == .signal(SIGKILL))
    }
    let last = try connection(to: keeper)
    let found = try last.recover()
    #expect(found.map(\.key) == (0..<5).map { "\($0)" })
    #expect(found.map { content($0.descriptors[0].rawValue) } == (0..<5).map { "round \($0)" })
    withExtendedLifetime(found) {}
  }

  /// Runs a script as the next store: `s` is its connection, and `keep` sends on it.
  private func run(_ keeper: DescriptorKeeper, _ script: String) async throws -> ChildProcess.Exit {
    let beginning = """
      import os, signal, socket
      s = socket.socket(fileno=int(os.environ["\(KeeperConnection.environmentVariable)"]))
      def keep(key, fds): socket.send_fds(s, [bytes([1, 1, len(fds), len(key)]) + key], fds)

      """
    var environment = currentEnvironment()
    environment[KeeperConnection.environmentVariable] = "3"
    let child: ChildProcess
    do {
      let end = try keeper.newConnection()
      child = try ChildProcess.spawn(
        python, ["-c", beginning + script], environment: environment, extra: [end.rawValue])
    }
    return await child.waitForExit()
  }
}

/// A peer that shares no code with the keeper.
private let python = "/usr/bin/python3"
