import Glibc
import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

/// The store and its clients as processes, which are killed.
@Suite(.serialized) struct StoreProcessTests {
  @Test(arguments: [(kind: 1, count: 2000), (kind: 3, count: 12)])
  func whatAKilledMakerAnnouncedIsThere(kind: Int, count: Int) throws {
    let processes = try StoreProcesses(capacity: 256 << 20)
    try processes.ready()
    for slot in 1...3 {
      let maker = try processes.client(
        "maker", ["kind": "\(kind)", "slot": "\(slot)", "count": "\(count)", "prints": "1"])
      var last: String?
      for _ in 0..<count { last = maker.line() }
      maker.kill()
      try #require(last != nil && last?.hasPrefix("FAILED") == false, "\(last ?? "nothing")")
      #expect(maker.end() == .signal(SIGKILL))
    }
    #expect(try processes.readAll(kind: kind, slots: "1,2,3") == count * 3)
    #expect(try eventually { try processes.statistics().clients.isEmpty })
    #expect(try processes.statistics().objects == count * 3)
  }

  @Test func readersNeverSeeAnotherObjectsBytes() throws {
    let seed = UInt64.random(in: 0...99_999)
    print("readersNeverSeeAnotherObjectsBytes: seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let processes = try StoreProcesses(
      capacity: 96 << 20, ["churn": "\(40 << 20)", "seed": "\(seed)", "roomMilliseconds": "300"])
    try processes.ready()
    func maker(_ slot: Int) throws -> StoreChild {
      try processes.client("maker", ["kind": "2", "slot": "\(slot)", "mayBeFull": "1", "patience": "1"])
    }
    func reader(_ number: Int) throws -> StoreChild {
      try processes.client(
        "reader", ["kind": "2", "slots": "0,1,2,3,4,5,6,7,8,9", "seed": "\(seed &+ UInt64(number))", "holds": "20"])
    }
    var makers = try (1...2).map { try maker($0) }
    var readers = try (0..<3).map { try reader($0) }
    var next = 3
    let end = ContinuousClock.now + .seconds(longTests ? 120 : 10)
    var kills = 0
    var most = 0
    while ContinuousClock.now < end {
      usleep(UInt32.random(in: 20_000..<200_000, using: &random))
      // The segments are looked at one after the other: what moves from one to another meanwhile counts twice.
      let bytes = (0..<3).map { _ in ProcessFacts(processes.store.pid).segmentBytes }.min()!
      most = max(most, bytes)
      #expect(bytes <= processes.capacity)
      let statistics = try processes.statistics()
      #expect(statistics.used <= processes.capacity)
      for child in makers + readers where child.child.exit != nil {
        Issue.record("\(child.line(within: 1) ?? "a client") \(child.child.exit!), seed \(seed)")
        return
      }
      kills += 1
      if Bool.random(using: &random) {
        let index = Int.random(in: 0..<makers.count, using: &random)
        makers[index].kill()
        makers[index] = try maker(next % 9 + 1)
      } else {
        let index = Int.random(in: 0..<readers.count, using: &random)
        readers[index].kill()
        readers[index] = try reader(next)
      }
      next += 1
    }
    for maker in makers { maker.send("stop") }
    for reader in readers { reader.send("stop") }
    for reader in readers {
      let line = reader.line() ?? "nothing"
      #expect(line.hasPrefix("stopped"), "seed \(seed)")
      print("  reader: reads, missing, on disk: \(line)")
    }
    print("  kills: \(kills), most bytes of segments: \(most)")
    for maker in makers { maker.kill() }
    #expect(processes.store.ask("stopChurn") == "ok")
    for child in makers + readers { _ = child.end() }
    #expect(try eventually { try processes.statistics().clients.isEmpty })
    let left = try processes.statistics()
    #expect(left.pinned == 0 && left.doomed == 0, "seed \(seed)")
    #expect(ProcessFacts(processes.store.pid).segmentBytes <= left.used)
    #expect(processes.store.ask("deleteAll") == "ok")
    let empty = try processes.statistics()
    #expect(empty.objects == 0 && empty.segments.filter { !$0.isOwn }.allSatisfy { $0.used == $0.warm }, "seed \(seed)")
    #expect(empty.inMemory == 0)
  }

  @Test(arguments: [false, true])
  func aStoreThatIsKilledLosesNothing(spills: Bool) throws {
    let seed = UInt64.random(in: 0...99_999)
    print("aStoreThatIsKilledLosesNothing(spills: \(spills)): seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let processes = try StoreProcesses(capacity: (spills ? 24 : 256) << 20, spills: spills, keeps: true)
    var epoch = try #require(Int(processes.ready()[0]))
    let makers = try (1...2).map { slot in
      try processes.client(
        "maker",
        [
          "kind": slot == 2 && !spills ? "3" : "4", "slot": "\(slot)", "confirms": "5",
          "count": slot == 2 && !spills ? "20" : "100000",
          "pause": "\(slot == 2 && !spills ? 100_000 : spills ? 500 : 3000)",
        ])
    }
    let readers = try (0..<2).map { number in
      try processes.client(
        "reader",
        [
          "kind": "4", "slots": "1", "strict": "1", "seed": "\(seed &+ UInt64(number))", "pause": "100",
          "window": "100000",
        ])
    }
    let rounds = spills ? 30 : 100
    // A ticket is good once: who is cut off while it attaches has to ask for another.
    try #require(try eventually { try processes.statistics().clients.count == makers.count + readers.count })
    for round in 0..<rounds {
      usleep(UInt32.random(in: 2000..<80_000, using: &random))
      try processes.restart()
      let now = try #require(Int(processes.ready()[0]))
      #expect(now == epoch + 1, "round \(round), seed \(seed)")
      epoch = now
      for child in makers + readers where child.child.exit != nil {
        Issue.record("\(child.line(within: 1) ?? "a client") \(child.child.exit!), round \(round), seed \(seed)")
        return
      }
    }
    for maker in makers { maker.send("stop") }
    for maker in makers {
      let line = maker.line(within: 120) ?? "nothing"
      #expect(line.hasPrefix("done"), "seed \(seed)")
      print("  maker: \(line)")
    }
    for reader in readers { reader.send("stop") }
    for reader in readers {
      let line = reader.line() ?? "nothing"
      #expect(line.hasPrefix("stopped"), "seed \(seed)")
      print("  reader: reads, missing, on disk: \(line)")
    }
    print("  statistics: \(try processes.statistics().objects) objects, \(try processes.statistics().spilled) spilled")
    #expect(try processes.readAll(kind: 4, slots: spills ? "1,2" : "1") > 0, "seed \(seed)")
    if !spills { #expect(try processes.readAll(kind: 3, slots: "2") > 0, "seed \(seed)") }
    for child in makers + readers { child.kill() }
    for child in makers + readers { _ = child.end() }
    #expect(try eventually { try processes.statistics().clients.isEmpty })
    #expect(processes.store.ask("deleteAll") == "ok")
    let empty = try processes.statistics()
    #expect(empty.objects == 0 && empty.doomed == 0 && empty.inMemory == 0 && empty.pinned == 0, "seed \(seed)")
    #expect(empty.segments.filter { !$0.isOwn && $0.used != $0.warm }.isEmpty, "seed \(seed)")
    // The index, the store's own segment, and spare ones.
    #expect(try eventually { try processes.keeper!.entryCount == 1 + processes.statistics().segments.count })
    #expect(ProcessFacts(processes.store.pid).segmentBytes <= empty.used)
  }

  @Test func aStoreThatIsKilledFindsNoSenseInAVandalsPage() throws {
    let seed = UInt64.random(in: 0...99_999)
    print("aStoreThatIsKilledFindsNoSenseInAVandalsPage: seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let processes = try StoreProcesses(capacity: 128 << 20, keeps: true)
    try processes.ready()
    let maker = try processes.client("maker", ["kind": "4", "slot": "1", "confirms": "1", "count": "1000"])
    #expect(maker.line()?.hasPrefix("done 1000") == true)
    for round in 0..<30 {
      let vandal = try processes.client("vandal", ["slot": "\(100 + round)", "seed": "\(seed &+ UInt64(round))"])
      try #require(vandal.line() == "ready")
      usleep(UInt32.random(in: 2000..<30_000, using: &random))
      try processes.restart()
      try processes.ready()
      usleep(20_000)
      #expect(processes.store.child.exit == nil, "round \(round), seed \(seed)")
      vandal.kill()
      _ = vandal.end()
      #expect(try eventually { try processes.statistics().clients.count == 1 }, "round \(round), seed \(seed)")
      // What it announced is as good as what anybody else puts, and fills the store as well.
      #expect(processes.store.ask("deleteAllBut \(4 << 32 | 1)") == "ok")
    }
    #expect(try processes.readAll(kind: 4, slots: "1") == 1000, "seed \(seed)")
    // And it still puts and reads, in memory that is its own.
    let second = try processes.client("maker", ["kind": "4", "slot": "2", "confirms": "1", "count": "500"])
    #expect(second.line()?.hasPrefix("done 500") == true)
    #expect(try processes.readAll(kind: 4, slots: "1,2") == 1500, "seed \(seed)")
  }

  @Test func theDeadLoseTheirPinsAndTheLivingKeepThem() throws {
    let running = try RunningStore()
    let ticket = { () -> [String: String] in
      let ticket = running.store.ticket()
      return [
        "socket": running.store.configuration.socket, "ticket": "{\"high\":\(ticket.high),\"low\":\(ticket.low)}",
      ]
    }
    let maker = try StoreChild("holder", ticket())
    let reader = try StoreChild("holder", ticket())
    try #require(maker.line()?.hasPrefix("ready") == true)
    try #require(reader.line()?.hasPrefix("ready") == true)
    #expect(maker.ask("put 3 1 0") == "ok")
    #expect(maker.ask("put 1 1 1") == "ok")
    #expect(reader.ask("pin 3 1 0") == "ok")
    #expect(reader.ask("pin 1 1 1") == "ok")
    #expect(running.store.statistics.pinned == 2)
    // A connection that broke says nothing of the process.
    #expect(breakConnections(to: running.store.configuration.socket) >= 2)
    usleep(50_000)
    #expect(running.store.clients.count == 2)
    #expect(running.store.statistics.pinned == 2)
    running.store.delete(ObjectID(high: 3 << 32 | 1, low: 0))
    #expect(running.store.statistics.doomed == 1)
    #expect(reader.ask("check 3 1 0") == "ok")
    #expect(maker.ask("put 3 1 2") == "ok")
    #expect(reader.ask("pin 3 1 2") == "ok")
    #expect(reader.ask("check 3 1 0") == "ok")
    #expect(reader.ask("check 1 1 1") == "ok")
    reader.kill()
    #expect(eventually { running.ended.count == 1 })
    #expect(eventually { running.store.statistics.doomed == 0 })
    #expect(running.store.statistics.pinned == 0)
    #expect(maker.ask("put 1 1 3") == "ok")
    maker.kill()
    #expect(eventually { running.ended.count == 2 })
    #expect(running.store.clients.isEmpty)
    #expect(running.store.statistics.objects == 3)
  }

  @Test func manyClientsInTurnLeaveNothingBehind() throws {
    let count = longTests ? 10_000 : 1000
    let processes = try StoreProcesses(capacity: 128 << 20)
    try processes.ready()
    // Once before, so that what is made once is there.
    for number in 0..<8 {
      let visitor = try processes.client("visitor", ["slot": "2", "number": "\(number)"])
      #expect(visitor.end() == .status(0))
    }
    #expect(try eventually { try processes.statistics().clients.isEmpty })
    #expect(processes.store.ask("deleteAll") == "ok")
    let before = ProcessFacts(processes.store.pid)
    let start = ContinuousClock.now
    var visitors: [StoreChild] = []
    for number in 0..<count {
      visitors.append(try processes.client("visitor", ["slot": "1", "number": "\(number)"]))
      if visitors.count == 4 { #expect(visitors.removeFirst().end() == .status(0)) }
    }
    for visitor in visitors { #expect(visitor.end() == .status(0)) }
    let took = start.duration(to: .now)
    #expect(try eventually { try processes.statistics().clients.isEmpty })
    let full = try processes.statistics()
    #expect(full.objects == count)
    print("\(count) clients in \(took): \(full.segments.count) segments, \(full.used) bytes used")
    print("  \(ProcessFacts(processes.store.pid)) after \(before)")
    #expect(processes.store.ask("deleteAll") == "ok")
    #expect(eventually { ProcessFacts(processes.store.pid).threads <= before.threads })
    let empty = try processes.statistics()
    #expect(empty.objects == 0 && empty.inMemory == 0 && empty.clients.isEmpty)
    let after = ProcessFacts(processes.store.pid)
    print("  \(after) at the end, \(empty.segments.count) segments")
    // Warm segments wait for the next clients: two descriptors each.
    #expect(after.descriptors <= before.descriptors + 2 * max(0, empty.segments.count - 1))
    #expect(empty.segments.count <= 9)
    // A page for each object, and what is kept warm for the next clients.
    #expect(full.used - full.warm <= count * pageSize + full.segments.count * pageSize)
  }

  @Test func whoWritesToWhatItReadsDies() throws {
    let processes = try StoreProcesses(capacity: 64 << 20)
    try processes.ready()
    let maker = try processes.client("maker", ["kind": "1", "slot": "1", "confirms": "1", "count": "10"])
    #expect(maker.line()?.hasPrefix("done 10") == true)
    let scribbler = try processes.client("scribbler", [:], environment: ["SWIFT_BACKTRACE": "enable=no"])
    #expect(scribbler.line() == "ready")
    #expect(scribbler.end() == .signal(SIGSEGV))
    #expect(try processes.readAll(kind: 1, slots: "1") == 10)
    withExtendedLifetime(maker) {}
  }
}

/// Ends the store's connections at `path`, which are this process's, and returns how many there were.
private func breakConnections(to path: String) -> Int {
  var count = 0
  for name in entries(of: "/proc/self/fd") {
    guard let descriptor = CInt(name) else { continue }
    var address = sockaddr_un()
    var length = socklen_t(MemoryLayout<sockaddr_un>.size)
    let found = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
    }
    guard found == 0, address.sun_family == sa_family_t(AF_UNIX) else { continue }
    let own = withUnsafeBytes(of: address.sun_path) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    var listens: CInt = 0
    var size = socklen_t(MemoryLayout<CInt>.size)
    guard own == path, getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0, listens == 0 else {
      continue
    }
    if shutdown(descriptor, CInt(SHUT_RDWR)) == 0 { count += 1 }
  }
  return count
}
