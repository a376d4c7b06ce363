import CMobula
import Glibc
import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaStore

/// Announcements, trailers and descriptors that a process made up.
@Suite(.serialized) struct StoreForgeryTests {
  private let geometry = try! ChunkGeometry(objectSize: 300_000)

  /// Room for an object of `geometry`, with a right trailer: in an extent, or a region of its own.
  private func room(_ object: ObjectID, _ running: RunningStore, _ client: StoreClient, isBig: Bool) throws -> Int {
    let footprint = ObjectTrailer.footprint(geometry, contained: 0)
    let offset: Int
    if isBig {
      offset = try running.store.create(object, footprint: footprint, client: client.id, within: 1000)
    } else {
      offset = try #require(client.writing.withLock { $0.allocator.allocate(footprint) })
    }
    write(object, at: offset, client)
    return offset
  }

  private func write(_ object: ObjectID, at offset: Int, _ client: StoreClient) {
    let footprint = ObjectTrailer.footprint(geometry, contained: 0)
    ObjectTrailer.write(
      object, geometry, checksums: [1, 2], contains: [],
      to: UnsafeMutableRawBufferPointer(rebasing: client.ownMapping.bytes[offset..<offset + footprint]))
  }

  private func announcement(_ object: ObjectID, at offset: Int) -> ClientPage.Announcement {
    ClientPage.Announcement(
      kind: .put, holds: true, object: object, offset: offset, size: geometry.objectSize,
      chunkShift: geometry.chunkShift, trailerSize: ObjectTrailer.size(chunks: geometry.count, contained: 0))
  }

  private enum Lie: CaseIterable {
    case magic, object, size, checksum, contained, chunkShift, chunkChecksum
    case announcedSize, announcedShift, announcedTrailer, announcedContained, announcedElsewhere, announcedOutside
  }

  @Test(arguments: [false, true]) func whatIsNoObjectIsRefused(isBig: Bool) throws {
    let running = try RunningStore()
    let client = try running.client()
    // So that there is an extent of 1 MiB.
    try client.put(.number(0), size: 200_000)
    try client.confirm(.number(0))
    for (index, lie) in Lie.allCases.enumerated() {
      let object = ObjectID.number(1 + index)
      let offset = try room(object, running, client, isBig: isBig)
      var announced = announcement(object, at: offset)
      let trailer = offset + ObjectTrailer.offset(objectSize: geometry.objectSize)
      func flip(_ byte: Int) { client.ownMapping.bytes[trailer + byte] ^= 1 }
      switch lie {
      case .magic: flip(0)
      case .object: flip(16)
      case .size: flip(24)
      case .checksum: flip(32)
      case .contained: flip(36)
      case .chunkShift: flip(40)
      case .chunkChecksum: flip(48)
      case .announcedSize: announced.size -= 1
      case .announcedShift: announced.chunkShift = 19
      case .announcedTrailer: announced.trailerSize = 150 << 20
      case .announcedContained: announced.trailerSize += 16
      case .announcedElsewhere: announced.offset += 64
      case .announcedOutside: announced.offset = 1 << 50
      }
      #expect(client.page.announce(announced))
      #expect(code { try client.confirm(object) } != nil, "\(lie)")
      #expect(running.store.info(of: object) == nil)
      if isBig {
        running.store.abort(object, offset: offset, client: client.id)
      } else {
        client.writing.withLock { state in
          // What was announced elsewhere it was not given back.
          client.page.takeReturns { _ = state.allocator.free(offset: $0) }
          _ = state.allocator.free(offset: offset)
        }
      }
      #expect(running.store.statistics.objects == 1, "\(lie)")
      // And the same, right.
      let other = ObjectID.number(100 + index)
      let right = try room(other, running, client, isBig: isBig)
      #expect(client.page.announce(announcement(other, at: right)))
      try client.confirm(other)
      #expect(running.store.info(of: other) != nil, "\(lie)")
      running.store.delete(other)
      client.writing.withLock { state in client.page.takeReturns { _ = state.allocator.free(offset: $0) } }
    }
    running.store.delete(.number(0))
    #expect(running.store.statistics.inMemory == 0)
    running.store.clientEnded(client.id)
    #expect(running.store.statistics.used <= 32 << 20, "what is free is warm at most")
  }

  @Test func noTwoObjectsShareMemory() throws {
    let running = try RunningStore()
    let client = try running.client()
    try client.put(.number(0), size: 200_000)
    try client.confirm(.number(0))
    let offset = try room(.number(1), running, client, isBig: false)
    #expect(client.page.announce(announcement(.number(1), at: offset)))
    try client.confirm(.number(1))
    // Its bytes are another object's as well, and it has a trailer of its own.
    for shift in [0, 64, 128_000] {
      write(.number(2), at: offset + shift, client)
      #expect(client.page.announce(announcement(.number(2), at: offset + shift)))
      #expect(code { try client.confirm(.number(2)) } == .protocolViolation, "\(shift)")
    }
    #expect(running.store.statistics.objects == 2)
    running.store.delete(.number(1))
    write(.number(2), at: offset, client)
    #expect(client.page.announce(announcement(.number(2), at: offset)))
    try client.confirm(.number(2))
  }

  @Test func whatItsMakerBrokeGoesWithIt() throws {
    let running = try RunningStore()
    let client = try running.client()
    let other = try running.client()
    for number in 0..<20 { try client.put(.number(number), size: number % 4 == 0 ? 3_000_000 : 1000) }
    try client.confirm(.number(19))
    let places = running.store.state.withLock { state in
      state.machine.entries.all.filter { $0.entry.phase != .doomed }.map { ($0.entry.object, $0.entry) }
    }
    for (object, entry) in places where object.low % 2 == 0 {
      client.ownMapping.bytes[entry.offset + ObjectTrailer.offset(objectSize: entry.size) + 8] ^= 1
    }
    running.store.clientEnded(client.id)
    #expect(running.store.objects == (0..<20).filter { $0 % 2 == 1 }.map { ObjectID.number($0) })
    #expect(Set(running.gone) == Set((0..<10).map { ObjectID.number($0 * 2) }))
    #expect(try other.bytes(of: .number(3)) == pattern(size: 1000, seed: 7))
    for number in 0..<20 { running.store.delete(.number(number)) }
    #expect(running.store.statistics.inMemory == 0 && running.store.statistics.used <= 32 << 20)
  }

  @Test func referencesTakeBytesOfTheObject() throws {
    let running = try RunningStore()
    let client = try running.client()
    let inner = (0..<4).map { ObjectID.number(100 + $0) }
    #expect(code { try client.put(.number(1), size: 63, contains: inner) } == .invalidArgument)
    try client.put(.number(1), size: 64, contains: inner)
    try client.confirm(.number(1))
    #expect(running.store.contents(of: .number(1)) == inner)
    #expect(ObjectTrailer.isPossible(objectSize: 64, chunkShift: 18, trailerSize: 48 + 8 + 64))
    #expect(!ObjectTrailer.isPossible(objectSize: 63, chunkShift: 18, trailerSize: 48 + 8 + 64))
    #expect(!ObjectTrailer.isPossible(objectSize: 64, chunkShift: 18, trailerSize: 48 + 8 + 8))
    #expect(!ObjectTrailer.isPossible(objectSize: 64, chunkShift: 18, trailerSize: 48))
    #expect(!ObjectTrailer.isPossible(objectSize: 64, chunkShift: 40, trailerSize: 48 + 8))
    #expect(!ObjectTrailer.isPossible(objectSize: Int.max, chunkShift: 26, trailerSize: Int.max))
  }

  @Test func theEndOfAProcessIsSeenWhileOthersAnnounceWithoutAPause() throws {
    let running = try RunningStore()
    let loud = try running.client("loud")
    let ended = try running.client("ended")
    // Stands for the descriptor of a process: becomes readable when the test says so.
    let end = SharedDescriptor(OwnedDescriptor(owning: mobula_bell()))
    running.store.state.withLock { $0.records[ended.id]?.process = end }
    #expect(running.store.pump.watch(end.rawValue, ended.id.number))
    let isOver = Atomic(false)
    let rounds = Atomic(0)
    detachThread(named: "loud") {
      while !isOver.load(ordering: .relaxed) {
        // A ring that is always full.
        loud.page.header(.announced).pointee.store(
          loud.page.header(.taken).pointee.load(ordering: .relaxed) &+ 4096, ordering: .releasing)
        rounds.wrappingAdd(1, ordering: .relaxed)
      }
      rounds.store(-1, ordering: .releasing)
    }
    #expect(eventually { rounds.load(ordering: .relaxed) > 1000 })
    var one: UInt64 = 1
    #expect(Glibc.write(end.rawValue, &one, 8) == 8)
    #expect(eventually { running.ended.contains(ended.id) })
    isOver.store(true, ordering: .relaxed)
    #expect(eventually { rounds.load(ordering: .acquiring) == -1 })
  }

  @Test func aProcessIsKnownByTheSystemsWord() throws {
    let running = try RunningStore()
    let socket = try StoreCalls.connect(running.store.configuration.socket)
    let ticket = running.store.ticket()
    // Never readable: its sender would never have ended.
    let bell = SharedDescriptor(OwnedDescriptor(owning: mobula_bell()))
    let answer = try StoreCalls.exchange(
      .attach, [ticket.high, ticket.low], descriptors: [bell.rawValue], on: socket)
    let process = running.store.state.withLock { $0.records[StoreClientID(answer.words[0])]?.process }
    #expect(process.flatMap { Store.processNumber(of: $0) } == Int(getpid()))
    #expect(Store.processNumber(of: bell) == nil)
  }

  @Test func aDoorbellThatBlocksStopsNobody() throws {
    let running = try RunningStore()
    let client = try running.client()
    // All have one open file: what one sets, all have.
    #expect(fcntl(client.doorbell.rawValue, F_SETFL, 0) == 0)
    for number in 0..<50 {
      try client.put(.number(number), size: 1000)
      if number % 10 == 0 { usleep(2000) }
      // Another one answers it first.
      mobula_take_bell(client.doorbell.rawValue)
    }
    #expect(eventually { running.sealed.count == 50 })
  }
}
