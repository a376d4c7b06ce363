import Glibc
import MobulaCore
import Synchronization
import Testing

@testable import MobulaStore

/// The keeper with real sockets and memory, and stores of this process.
struct DescriptorKeeperTests {
  @Test func theNextStoreFindsWhatTheLastOneKept() throws {
    let keeper = DescriptorKeeper()
    let files = try (0..<4).map { try memory("keeper", holding: "file \($0)") }
    do {
      let store = try connection(to: keeper)
      #expect(try store.recover().isEmpty)
      try store.keep("one", [files[0].rawValue])
      try store.keep("four", files.map(\.rawValue))
      try store.keep("gone", [files[1].rawValue])
      #expect(store.drop("gone"))
      try store.keep("one", [files[2].rawValue])
    }
    let store = try connection(to: keeper)
    let found = try store.recover()
    #expect(found.map(\.key) == ["four", "one"])
    #expect(found.map { $0.descriptors.map { content($0.rawValue) } } == [(0..<4).map { "file \($0)" }, ["file 2"]])
    #expect(found.allSatisfy { $0.descriptors.allSatisfy { fcntl($0.rawValue, F_GETFD) == FD_CLOEXEC } })
    #expect(keeper.entryCount == 2)
    // It is the same memory, not a copy.
    #expect(pwrite(found[1].descriptors[0].rawValue, "FILE", 4, 0) == 4)
    #expect(content(files[2].rawValue) == "FILE 2")
    withExtendedLifetime((files, found)) {}
  }

  @Test func aNewConnectionEndsTheOneBefore() throws {
    let keeper = DescriptorKeeper()
    let file = try memory("keeper", holding: "x")
    let first = try connection(to: keeper)
    // As many as the socket takes without a reader; the next store sees them all.
    for index in 0..<100 { try first.keep("\(index)", [file.rawValue]) }
    let second = try connection(to: keeper)
    #expect(code { try first.keep("late", [file.rawValue]) } == .connectionClosed)
    #expect(code { _ = try first.recover() } == .connectionClosed)
    #expect(!first.drop("0"))
    #expect(try second.recover().map(\.key) == (0..<100).map { "\($0)" })
  }

  @Test func manyEntries() throws {
    raiseDescriptorLimit()
    let keeper = DescriptorKeeper()
    let files = try (0..<7).map { try memory("keeper", holding: "\($0)") }
    let store = try connection(to: keeper)
    for index in 0..<2000 { try store.keep("segment \(index)", [files[index % 7].rawValue]) }
    withExtendedLifetime(store) {}
    let next = try connection(to: keeper)
    let found = try next.recover()
    #expect(found.count == 2000)
    for (index, entry) in found.enumerated() {
      #expect(entry.key == "segment \(index)" && content(entry.descriptors[0].rawValue) == "\(index % 7)")
    }
    withExtendedLifetime((files, found)) {}
  }

  @Test func severalThreadsMayUseAConnection() async throws {
    let keeper = DescriptorKeeper()
    let store = try connection(to: keeper)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for thread in 0..<4 {
        group.addTask {
          try await onThread(named: "test") {
            let file = try memory("keeper", holding: "\(thread)")
            for index in 0..<100 {
              try store.keep("\(thread) \(index)", [file.rawValue])
              if index % 25 == thread {
                let mine = try store.recover().filter { $0.key.hasPrefix("\(thread) ") }
                #expect(mine.count == index + 1)
                #expect(mine.allSatisfy { content($0.descriptors[0].rawValue) == "\(thread)" })
              }
            }
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(try store.recover().count == 400)
  }

  @Test(arguments: malformedPackets)
  func nonsenseEndsTheConnectionAndNothingElse(packet: [UInt8]) throws {
    let problems = Problems()
    let keeper = DescriptorKeeper { problems.add($0) }
    let file = try memory("keeper", holding: "kept")
    let end = try keeper.newConnection()
    #expect(PacketSocket.send(.keep(key: "a", count: 1), [file.rawValue], to: end.rawValue) == 0)
    #expect(PacketSocket.send(packet, to: end.rawValue) == 0)
    var byte: UInt8 = 0
    #expect(recv(end.rawValue, &byte, 1, 0) <= 0)
    let next = try connection(to: keeper)
    #expect(try next.recover().map(\.key) == ["a"])
    #expect(problems.codes == [.protocolViolation])
  }

  @Test func aPacketWithoutBytesIsAnEnd() throws {
    let keeper = DescriptorKeeper()
    let end = try keeper.newConnection()
    var byte: UInt8 = 0
    #expect(send(end.rawValue, &byte, 0, CInt(MSG_NOSIGNAL)) == 0)
    #expect(recv(end.rawValue, &byte, 1, 0) <= 0)
  }

  @Test func whatIsNotKeptIsReported() throws {
    let problems = Problems()
    let keeper = DescriptorKeeper(largestEntryCount: 2, largestDescriptorCount: 5) { problems.add($0) }
    let file = try memory("keeper", holding: "x")
    let store = try connection(to: keeper)
    try store.keep("a", Array(repeating: file.rawValue, count: 4))
    try store.keep("b", Array(repeating: file.rawValue, count: 2))
    try store.keep("c", [file.rawValue])
    try store.keep("d", [file.rawValue])
    #expect(try store.recover().map(\.key) == ["a", "c"])
    #expect(problems.codes == [.full, .full])
    withExtendedLifetime(keeper) {}
  }

  @Test func whatCannotBeSentIsRefused() throws {
    let keeper = DescriptorKeeper()
    let store = try connection(to: keeper)
    let file = try memory("keeper", holding: "x")
    let descriptor = file.rawValue
    #expect(code { try store.keep("", [descriptor]) } == .invalidArgument)
    #expect(code { try store.keep(String(repeating: "é", count: 101), [descriptor]) } == .invalidArgument)
    #expect(code { try store.keep("a", []) } == .invalidArgument)
    #expect(code { try store.keep("a", Array(repeating: descriptor, count: 5)) } == .invalidArgument)
    #expect(code { try store.keep("a", [1_000_000]) } == .inputOutput)
    try store.keep(String(repeating: "é", count: 100), [descriptor])
    #expect(try store.recover().count == 1)
    withExtendedLifetime(file) {}
  }

  @Test func aKeeperThatReadsNothingIsUnavailable() throws {
    let (ours, theirs) = try PacketSocket.pair()
    let other = OwnedDescriptor(owning: theirs)
    let store = try #require(
      KeeperConnection(inherited: ours, sendPatience: .milliseconds(1), recoverPatience: .milliseconds(1)))
    let file = try memory("keeper", holding: "x")
    #expect(code { while true { try store.keep("a", [file.rawValue]) } } == .unavailable)
    #expect(!store.drop("a"))
    _ = other.rawValue
  }

  @Test func aKeeperThatSaysNothingOrNonsenseIsNotWaitedFor() throws {
    let answers: [([KeeperMessage], MobulaError.Code)] = [
      ([], .deadlineExceeded), ([.end(count: 1)], .protocolViolation), ([.list], .protocolViolation),
      ([.entry(key: "a", count: 1)], .protocolViolation),
    ]
    for (messages, expected) in answers {
      let (ours, theirs) = try PacketSocket.pair()
      let other = OwnedDescriptor(owning: theirs)
      let store = try #require(
        KeeperConnection(inherited: ours, sendPatience: .seconds(5), recoverPatience: .milliseconds(20)))
      for message in messages { #expect(PacketSocket.send(message, to: other.rawValue) == 0) }
      #expect(code { _ = try store.recover() } == expected, "\(messages)")
      #expect(code { _ = try store.recover() } == .connectionClosed, "\(messages)")
    }
  }

  @Test func aClosedKeeperIsGoneForItsStore() throws {
    let keeper = DescriptorKeeper()
    let file = try memory("keeper", holding: "x")
    let store = try connection(to: keeper)
    try store.keep("a", [file.rawValue])
    keeper.close()
    keeper.close()
    #expect(code { try store.keep("a", [file.rawValue]) } == .connectionClosed)
    #expect(code { _ = try store.recover() } == .connectionClosed)
    #expect(code { _ = try connection(to: keeper) } == .cancelled)
    #expect(keeper.entryCount == 0)
  }

  @Test func onlySocketsOfTheRightKindAreTakenOver() throws {
    let file = try memory("keeper", holding: "x")
    #expect(KeeperConnection(inherited: file.rawValue) == nil)
    #expect(KeeperConnection(inherited: 1_000_000) == nil)
    let stream = try UnixSocket.make()
    #expect(KeeperConnection(inherited: stream.rawValue) == nil)
    // None of them was closed.
    #expect(content(file.rawValue) == "x" && fcntl(stream.rawValue, F_GETFD) != -1)
  }

  @Test func theEnvironmentNamesTheConnectionOnce() throws {
    let keeper = DescriptorKeeper()
    let end = try keeper.newConnection().release()
    #expect(fcntl(end, F_SETFD, 0) == 0)
    setenv(KeeperConnection.environmentVariable, "\(end)", 1)
    let store = try #require(KeeperConnection.fromEnvironment())
    #expect(fcntl(end, F_GETFD) == FD_CLOEXEC)
    #expect(try store.recover().isEmpty)
    #expect(KeeperConnection.fromEnvironment() == nil)
    setenv(KeeperConnection.environmentVariable, "0", 1)
    #expect(KeeperConnection.fromEnvironment() == nil)
  }

  /// Far more rounds than other tests have descriptors meanwhile.
  @Test(arguments: [false, true])
  func nothingLeaks(closes: Bool) throws {
    let before = entries(of: "/proc/self/fd").count
    let name = "keeper-leak-\(closes)"
    for round in 0..<300 {
      let keeper = DescriptorKeeper()
      let file = try memory(name, holding: "x")
      for _ in 0..<2 {
        let store = try connection(to: keeper)
        try store.keep("a", [file.rawValue, file.rawValue])
        try store.keep("b \(round)", [file.rawValue])
        #expect(try store.recover().count == 2)
        try store.keep("a", [file.rawValue])
        try store.keep("c", [file.rawValue])
        store.drop("c")
      }
      let end = try keeper.newConnection()
      // Refused with its descriptors, and one that is never read.
      #expect(PacketSocket.send(.keep(key: "a", count: 3), [file.rawValue, file.rawValue], to: end.rawValue) == 0)
      _ = PacketSocket.send(.keep(key: "a", count: 1), [file.rawValue], to: end.rawValue)
      if closes { keeper.close() }
    }
    // The last threads may still be on their way out.
    let end = ContinuousClock.now + .seconds(20)
    while openDescriptors(memory: name, socket: "/nowhere") > 0, .now < end { usleep(1000) }
    #expect(openDescriptors(memory: name, socket: "/nowhere") == 0)
    #expect(entries(of: "/proc/self/fd").count < before + 100)
  }

  @Test func theDescriptorLimitIsRaised() {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #expect(getrlimit(resource, &limit) == 0)
    let most = Int(clamping: limit.rlim_max)
    limit.rlim_cur = limit.rlim_max - 1
    #expect(setrlimit(resource, &limit) == 0)
    #expect(descriptorLimit() == most - 1)
    #expect(raiseDescriptorLimit() == most)
    #expect(descriptorLimit() == most)
  }
}

final class Problems: Sendable {
  private let errors = Mutex<[MobulaError]>([])
  func add(_ error: MobulaError) { errors.withLock { $0.append(error) } }
  var codes: [MobulaError.Code] { errors.withLock { $0.map(\.code) } }
}

func connection(to keeper: DescriptorKeeper) throws -> KeeperConnection {
  try #require(KeeperConnection(inherited: try keeper.newConnection().release()))
}

func memory(_ name: String, holding text: String) throws -> SharedDescriptor {
  let file = try MemoryFile.create(name: name, size: pageSize)
  #expect(pwrite(file.rawValue, text, text.utf8.count, 0) == text.utf8.count)
  return SharedDescriptor(file)
}

/// The text at the beginning of a file.
func content(_ descriptor: CInt) -> String {
  var buffer = [UInt8](repeating: 0, count: 100)
  let count = pread(descriptor, &buffer, buffer.count, 0)
  return String(decoding: buffer.prefix(max(0, count)).prefix { $0 != 0 }, as: UTF8.self)
}
