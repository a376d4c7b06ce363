import MobulaCore
import MobulaTestKit
import Synchronization
import Testing

@testable import MobulaStore

/// Index and pages as memory, without a store around them.
@Suite struct IndexTests {
  private func put(_ index: IndexWriter, _ number: Int, _ object: ObjectID) throws {
    try index.ensureRoom(for: number)
    index.publish(number, object, segment: 5, offset: number * 64, size: 10, shape: 0)
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func whatIsInItIsFoundThroughGrowthAndRemovals(seed: UInt64) throws {
    let index = try IndexWriter.make(instance: (1, 2))
    var random = SeededGenerator(seed: seed)
    var entries: [Int: ObjectID] = [:]
    var free: [Int] = []
    var next = 0
    for _ in 0..<60_000 {
      if entries.count < 100 || Int.random(in: 0..<100, using: &random) < 60 {
        let number = free.popLast() ?? next
        next = max(next, number + 1)
        // Some share all bits but a few.
        let object = ObjectID(high: 1, low: UInt64.random(in: 0..<1 << 40, using: &random) << 8)
        if entries.values.contains(object) { continue }
        try put(index, number, object)
        entries[number] = object
      } else {
        let number = entries.randomElement(using: &random)!.key
        index.beginRetiring([number])
        index.retire(number)
        #expect(index.reader.find(entries[number]!) == nil, "seed \(seed)")
        entries[number] = nil
        free.append(number)
      }
      if entries.count > 3000 { break }
    }
    for (number, object) in entries {
      #expect(index.reader.find(object)?.entry == number, "seed \(seed)")
      #expect(index.reader.find(object)?.offset == number * 64, "seed \(seed)")
    }
    let old = Array(entries.values)
    try index.rebuild()
    for object in old { #expect(index.reader.find(object) != nil, "seed \(seed)") }
    #expect(index.reader.find(ObjectID(high: 9, low: 9)) == nil)
  }

  @Test func anEntryThatIsUsedAgainIsAnother() throws {
    let index = try IndexWriter.make(instance: (1, 2))
    try put(index, 0, .number(1))
    let seen = try #require(index.reader.find(.number(1)))
    #expect(index.reader.isStill(seen))
    index.beginRetiring([0])
    #expect(!index.reader.isStill(seen) && index.reader.find(.number(1)) == nil)
    index.restore(0)
    #expect(index.reader.isStill(seen), "put back is as it was")
    index.beginRetiring([0])
    index.retire(0)
    try put(index, 0, .number(1))
    #expect(!index.reader.isStill(seen), "the same object again is another generation")
  }

  @Test func aDoomedEntryIsFoundNoMore() throws {
    let index = try IndexWriter.make(instance: (1, 2))
    try put(index, 0, .number(1))
    index.beginRetiring([0])
    index.doom(0)
    #expect(index.reader.find(.number(1)) == nil && index.isPublished(0))
    // Its place among the buckets may be another's by now.
    try put(index, 1, .number(1))
    index.clear(0)
    #expect(index.reader.find(.number(1))?.entry == 1)
  }

  @Test func anIndexOfAnotherVersionIsRefused() throws {
    let index = try IndexWriter.make(instance: (1, 2))
    index.header(.version).pointee.store(999, ordering: .relaxed)
    #expect(code { _ = try IndexWriter.takeOver(index.descriptor) } == .mismatch)
  }

  private func page() throws -> ClientPage {
    let file = SharedDescriptor(try MemoryFile.create(name: "mobula-test-page", size: ClientPage.size))
    return ClientPage(try MemoryMapping(file.rawValue, count: ClientPage.size, access: .readWrite))
  }

  @Test func pinWordsAreTakenAndGivenBack() throws {
    let page = try page()
    var taken: Set<Int> = []
    for entry in 0..<ClientPage.pinCount { taken.insert(try #require(page.takePin(entry, from: 4000))) }
    #expect(taken.count == ClientPage.pinCount)
    #expect(page.takePin(1, from: 0) == nil, "a full page")
    var seen: Set<Int> = []
    page.forEachPin { seen.insert($0) }
    #expect(seen == Set(0..<ClientPage.pinCount))
    page.releasePin(17)
    #expect(page.takePin(99_999, from: 0) == 17)
  }

  @Test func announcementsComeInOrderAndNoneIsLost() throws {
    let page = try page()
    var sent = 0
    var received = 0
    for round in 0..<50 {
      while page.announce(.init(kind: .put, object: .number(sent), offset: sent * 64, size: 1 + sent)) { sent += 1 }
      #expect(sent - received == ClientPage.ringCount)
      _ = page.takeAnnouncements(limit: 1 + round * 83) { announcement in
        #expect(announcement?.object == .number(received) && announcement?.size == 1 + received)
        received += 1
      }
      #expect(!page.isTaken || sent == received)
    }
    while page.takeAnnouncements(limit: 1000, { _ in received += 1 }) > 0 {}
    #expect(page.isTaken && sent == received)
  }

  @Test func returnedRegionsComeInOrder() throws {
    let page = try page()
    var given = 0
    var taken: [Int] = []
    for _ in 0..<3 {
      while page.giveBack(given * 64) { given += 1 }
      page.takeReturns { taken.append($0) }
    }
    #expect(taken == (0..<given).map { $0 * 64 } && given == 3 * ClientPage.ringCount)
  }

  @Test func usesAreTakenOnce() throws {
    let page = try page()
    for entry in 0..<ClientPage.recentCount + 5 { page.noteUse(entry) }
    var uses: [Int] = []
    page.takeUses { uses.append($0) }
    #expect(uses == Array(5..<ClientPage.recentCount + 5))
    page.takeUses { _ in Issue.record("taken twice") }
  }

  @Test func grantsAreKept() throws {
    let memory = try MemoryFile.create(name: "test", size: GrantTable.size)
    let grants = GrantTable(try MemoryMapping(memory.rawValue, count: GrantTable.size, access: .readWrite))
    #expect(grants[3] == nil)
    grants[3] = .init(range: 65_536..<131_072, isExtent: true)
    grants[4] = .init(range: 131_072..<135_168, isExtent: false)
    #expect(grants[3] == .init(range: 65_536..<131_072, isExtent: true))
    #expect(grants[4] == .init(range: 131_072..<135_168, isExtent: false))
    grants[3] = nil
    #expect(grants[3] == nil && grants[GrantTable.count - 1] == nil)
  }

  @Test(arguments: [1, 7, 8, 4096, 300_000]) func trailersAreReadBack(size: Int) throws {
    let geometry = try ChunkGeometry(objectSize: size, chunkSize: 65_536)
    // Each takes 16 of the object's bytes.
    let contains = (0..<min(3, size / 16)).map { ObjectID.number($0) }
    let checksums = (0..<geometry.count).map { UInt32($0) &* 77 }
    let count = ObjectTrailer.footprint(geometry, contained: contains.count)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
    defer { memory.deallocate() }
    ObjectTrailer.write(.number(1), geometry, checksums: checksums, contains: contains, to: memory)
    let read = ObjectTrailer.read(.number(1), size: size, from: UnsafeRawBufferPointer(memory))
    #expect(read == ObjectTrailer(object: .number(1), geometry: geometry, checksums: checksums, contains: contains))
    #expect(ObjectTrailer.read(.number(2), size: size, from: UnsafeRawBufferPointer(memory)) == nil)
    // Every damaged byte of it is noticed.
    for offset in ObjectTrailer.offset(objectSize: size)..<count {
      memory[offset] ^= 1
      #expect(ObjectTrailer.read(.number(1), size: size, from: UnsafeRawBufferPointer(memory)) == nil, "byte \(offset)")
      memory[offset] ^= 1
    }
  }
}

@Suite struct TicketBookTests {
  @Test func aTicketIsGoodOnceAndForAWhile() {
    var book = TicketBook(limit: 3)
    var random = SeededGenerator(seed: 1)
    let start = ContinuousClock.now
    let first = book.issue(now: start, using: &random)
    #expect(book.redeem(first, now: start + .seconds(29)) == true)
    #expect(book.redeem(first, now: start + .seconds(29)) == false)
    let late = book.issue(now: start, using: &random)
    #expect(book.redeem(late, now: start + .seconds(30)) == false)
    #expect(book.redeem(DescriptorTicket(high: 1, low: 2), now: start) == false)
    let tickets = (0..<5).map { _ in book.issue(now: start, using: &random) }
    #expect(book.redeem(tickets[0], now: start) == false, "the oldest go when there are too many")
    #expect(book.redeem(tickets[4], now: start) == true)
  }
}
