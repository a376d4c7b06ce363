import Glibc
import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaStore

/// What is no client, or one that means harm, against a store.
@Suite(.serialized) struct StoreHostileTests {
  private func connect(_ running: RunningStore) throws -> SharedDescriptor {
    try StoreCalls.connect(running.store.configuration.socket)
  }

  /// The error code of one request on a connection of its own.
  private func refusal(
    _ running: RunningStore, _ operation: StoreProtocol.Operation, _ words: [UInt64]
  ) throws -> MobulaError.Code? {
    let socket = try connect(running)
    return code {
      _ = try StoreCalls.exchange(operation, words, on: socket)
    }
  }

  @Test func withoutATicketThereIsNothing() throws {
    let running = try RunningStore()
    let client = try running.client()
    try client.put(.number(1), size: 100)
    let ticket = running.store.ticket()
    #expect(try refusal(running, .attach, [ticket.high, ticket.low ^ 1]) == .denied)
    #expect(try refusal(running, .attach, [0, 0]) == .denied)
    #expect(try refusal(running, .attach, [ticket.high, ticket.low]) == nil)
    #expect(try refusal(running, .attach, [ticket.high, ticket.low]) == .denied)
    #expect(try refusal(running, .segment, [client.own.number]) == .unauthenticated)
    #expect(try refusal(running, .pin, [ObjectID.number(1).high, 1]) == .unauthenticated)
    #expect(
      try refusal(running, .resume, [client.id.number, client.secret.high, client.secret.low ^ 1]) == .unauthenticated)
    #expect(try refusal(running, .resume, [client.id.number, client.secret.high, client.secret.low]) == nil)
    // One attachment a connection.
    let socket = try connect(running)
    let first = running.store.ticket()
    let second = running.store.ticket()
    _ = try StoreCalls.exchange(.attach, [first.high, first.low], on: socket)
    #expect(code { _ = try StoreCalls.exchange(.attach, [second.high, second.low], on: socket) } == .protocolViolation)
  }

  @Test(
    .enabled(if: getuid() == 0, "needs root, to become another user"),
    .enabled(if: access("/usr/bin/setpriv", X_OK) == 0, "needs setpriv"))
  func whatReadersGetIsNotWritableByAnotherUser() async throws {
    let running = try RunningStore()
    let maker = try running.client()
    try maker.put(.number(1), size: 100)
    try maker.confirm(.number(1))
    let socket = try connect(running)
    let ticket = running.store.ticket()
    _ = try StoreCalls.exchange(.attach, [ticket.high, ticket.low], on: socket)
    let segment = try StoreCalls.exchange(.segment, [maker.own.number], on: socket)
    let descriptor = try #require(segment.descriptors.first)
    func run(_ script: String, asNobody: Bool) async throws -> ChildProcess.Exit {
      let command = ["/bin/sh", "-c", script]
      let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
      let child = try ChildProcess.spawn(
        "/usr/bin/setpriv", (asNobody ? user : []) + command, output: .null, errors: .null,
        extra: [descriptor.rawValue])
      return await child.waitForExit()
    }
    #expect(try await run("head -c 1 <&3", asNobody: true) == .status(0))
    #expect(try await run("exec 4<>/proc/self/fd/3", asNobody: true) != .status(0))
    #expect(try await run("exec 4>>/proc/self/fd/3", asNobody: true) != .status(0))
    #expect(try await run("echo >&3", asNobody: true) != .status(0))
    // The store's user can: that the above fails is for the mode.
    #expect(try await run("exec 4<>/proc/self/fd/3", asNobody: false) == .status(0))
    withExtendedLifetime(segment) {}
  }

  @Test func garbageOnTheSocketHarmsNobody() throws {
    let seed = UInt64.random(in: 0...99_999)
    print("garbageOnTheSocketHarmsNobody: seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let running = try RunningStore()
    let client = try running.client()
    try client.put(.number(1), size: 300_000)
    for round in 0..<3000 {
      let socket = try connect(running)
      if round % 3 == 0 {
        let ticket = running.store.ticket()
        _ = try StoreCalls.exchange(.attach, [ticket.high, ticket.low], on: socket)
      }
      var packet: [UInt8]
      switch Int.random(in: 0..<4, using: &random) {
      case 0: packet = (0..<Int.random(in: 1..<200, using: &random)).map { _ in .random(in: 0...255, using: &random) }
      case 1: packet = [UInt8](repeating: 7, count: .random(in: 4000..<20_000, using: &random))
      default:
        let words = (0..<Int.random(in: 0..<6, using: &random)).map { _ -> UInt64 in
          let shift = UInt64.random(in: 0..<64, using: &random)
          return random.next() >> shift
        }
        packet = StoreProtocol.encode(
          [StoreProtocol.magic, UInt64.random(in: 0..<12, using: &random)] + words, text: "x")
        if Bool.random(using: &random) { packet.removeLast(Int.random(in: 0..<packet.count, using: &random)) }
        if Bool.random(using: &random), !packet.isEmpty {
          packet[.random(in: 0..<packet.count, using: &random)] ^= 0x80
        }
      }
      if packet.isEmpty { packet = [0] }
      let attached = round % 5 == 0 ? [socket.rawValue] : []
      _ = PacketSocket.send(packet, attached, to: socket.rawValue)
      // An answer, or the end; a few wait for room, and are left alone with that.
      if round % 50 == 0 { _ = PacketSocket.receive(from: socket.rawValue, waits: false) }
    }
    #expect(try client.bytes(of: .number(1)) == pattern(size: 300_000, seed: 7), "seed \(seed)")
    try client.put(.number(2), size: 1000)
    #expect(try client.bytes(of: .number(2)) == pattern(size: 1000, seed: 7), "seed \(seed)")
  }

  @Test func aHostilePageHarmsItsOwnerAlone() throws {
    let seed = UInt64.random(in: 0...99_999)
    print("aHostilePageHarmsItsOwnerAlone: seed \(seed)")
    var random = SeededGenerator(seed: seed)
    let running = try RunningStore(capacity: 64 << 20, spills: true, roomDeadline: .milliseconds(20))
    let victim = try running.client("victim")
    for number in 0..<200 { try victim.put(.number(number), size: 1 + number * 997, seed: UInt8(number)) }
    let pinned = try victim.pinSlowly(.number(199))
    var attacker = try running.client("attacker")
    let rounds = longTests ? 50_000 : 5000
    for round in 0..<rounds {
      for _ in 0..<Int.random(in: 1..<40, using: &random) { attack(attacker, &random) }
      switch Int.random(in: 0..<12, using: &random) {
      case 0: running.store.pump.ring()
      case 1: _ = try? running.store.confirm(.number(.random(in: 0..<400, using: &random)), client: attacker.id)
      case 2: _ = try? running.store.grow(attacker.id, 65_536 << Int.random(in: 0..<4, using: &random), within: 1)
      case 3:
        let object = ObjectID.number(.random(in: 190..<400, using: &random))
        _ = try? running.store.create(
          object, footprint: .random(in: 1..<4_000_000, using: &random), client: attacker.id, within: 1)
      case 4:
        let object = ObjectID.number(.random(in: 190..<400, using: &random))
        let offset = Int.random(in: 0..<1000, using: &random) * 65_536
        running.store.abort(object, offset: offset, client: attacker.id)
      case 5: running.store.delete(.number(.random(in: 200..<400, using: &random)))
      case 6: _ = running.store.statistics
      case 7: _ = try? running.store.pin(.number(.random(in: 0..<400, using: &random)), client: attacker.id)
      case 8 where round % 10 == 0:
        // As if its process had died.
        running.store.clientEnded(attacker.id)
        attacker = try running.client("attacker")
      case 9:
        _ = running.store.info(of: .number(.random(in: 0..<400, using: &random)))
        _ = running.store.contents(of: .number(.random(in: 0..<400, using: &random)))
      case 10 where round % 20 == 0:
        // Needs room, so that things are evicted and spilled.
        try? victim.put(.number(500 + round), size: 5_000_000)
        running.store.delete(.number(500 + round))
      default: running.store.drain(limit: 4096)
      }
      #expect(running.store.statistics.used <= 64 << 20, "seed \(seed), round \(round)")
    }
    running.store.clientEnded(attacker.id)
    #expect(Array(pinned.bytes) == pattern(size: 1 + 199 * 997, seed: 199), "seed \(seed)")
    _ = consume pinned
    for number in 0..<200 {
      try running.store.restore(.number(number))
      #expect(
        try victim.bytes(of: .number(number)) == pattern(size: 1 + number * 997, seed: UInt8(number)), "seed \(seed)")
      running.store.delete(.number(number))
    }
    for number in 200..<400 { running.store.delete(.number(number)) }
    for object in running.store.state.withLock({ Array($0.machine.entries.objects) }) { running.store.delete(object) }
    let left = running.store.statistics
    #expect(left.objects == 0 && left.doomed == 0 && left.inMemory == 0 && left.clients.count == 1, "seed \(seed)")
  }

  /// Writes something that could mean something into a client's page.
  private func attack(_ client: StoreClient, _ random: inout SeededGenerator) {
    let page = client.page
    func any() -> UInt64 {
      switch Int.random(in: 0..<5, using: &random) {
      case 0:
        let shift = UInt64.random(in: 0..<64, using: &random)
        return random.next() >> shift
      case 1: return UInt64.random(in: 0..<4096, using: &random)
      case 2: return UInt64.random(in: 0..<300, using: &random) * 65_536
      case 3: return UInt64.max - .random(in: 0..<4, using: &random)
      default: return UInt64.random(in: 0..<(64 << 20), using: &random)
      }
    }
    let extents = client.writing.withLock { $0.allocator.extents }
    switch Int.random(in: 0..<14, using: &random) {
    case 0: page.pin(.random(in: 0..<4096, using: &random)).pointee.store(any(), ordering: .relaxed)
    case 1: page.header(.pinLimit).pointee.store(any(), ordering: .relaxed)
    case 2: page.header(.recentCursor).pointee.store(any(), ordering: .relaxed)
    case 3: page.noteUse(Int(any() >> 2))
    case 4: page.header(.takenBack).pointee.store(any(), ordering: .relaxed)
    case 5: page.header(.returned).pointee.store(any(), ordering: .relaxed)
    case 6: page.noteUse(.random(in: 0..<4096, using: &random))
    case 7: page.header(.announced).pointee.store(any(), ordering: .releasing)
    case 8: page.header(.taken).pointee.store(any(), ordering: .releasing)
    case 9 where extents.isEmpty:
      // So that it has memory to lie about. With sense in what it reads itself.
      page.header(.takenBack).pointee.store(
        page.header(.returned).pointee.load(ordering: .relaxed), ordering: .relaxed)
      try? client.put(.number(.random(in: 200..<400, using: &random)), size: 1000)
    default:
      var announcement = ClientPage.Announcement(
        kind: [.put, .put, .put, .giveBack, .unpin].randomElement(using: &random)!,
        object: .number(.random(in: 190..<400, using: &random)))
      let extent = extents.randomElement(using: &random) ?? 0..<65_536
      announcement.offset =
        Bool.random(using: &random)
        ? Int.random(in: extent, using: &random) / 64 * 64 : Int(any() >> UInt64.random(in: 1..<20, using: &random))
      announcement.size = Bool.random(using: &random) ? Int.random(in: 0..<100_000, using: &random) : Int(any() >> 1)
      if announcement.kind == .giveBack, Bool.random(using: &random) {
        announcement.offset = extent.lowerBound
        announcement.size = extent.count
      }
      announcement.chunkShift = Int.random(in: 14..<28, using: &random)
      announcement.trailerSize = Bool.random(using: &random) ? 56 : Int.random(in: 0..<(1 << 20), using: &random)
      _ = page.announce(announcement)
    }
  }

  @Test func whatCannotBeSpilledIsNoReasonToRefuseOthers() throws {
    let running = try RunningStore(capacity: 64 << 20, spills: true)
    let liar = try running.client("liar")
    let other = try running.client("other")
    try liar.put(.number(1), size: 20_000_000)
    try liar.confirm(.number(1))
    // Its trailer, which only its maker can write.
    let offset = try #require(running.store.state.withLock { $0.machine.entries.find(0)?.offset })
    liar.ownMapping.bytes[offset + 20_000_000 + 8] ^= 0xFF
    for number in 2...5 {
      try other.put(.number(number), size: 20_000_000, seed: UInt8(number))
      try other.confirm(.number(number))
    }
    #expect(running.store.statistics.spilled >= 2)
    for number in 2...5 {
      try running.store.restore(.number(number))
      #expect(try other.bytes(of: .number(number)) == pattern(size: 20_000_000, seed: UInt8(number)))
    }
  }
}
