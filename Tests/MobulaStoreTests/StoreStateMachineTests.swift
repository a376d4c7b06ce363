import MobulaCore
import Testing

@testable import MobulaStore

/// Transcripts: an event, and what it answers. A store of 1 MiB has arenas of 64 KiB for objects up to 8 KiB.
struct StoreStateMachineTests {
  private let a = ObjectID(1), b = ObjectID(2), c = ObjectID(3)
  private typealias Freed = StoreStateMachine.Freed

  private func machine() throws -> StoreStateMachine { try StoreStateMachine(capacity: 1_048_576, epoch: 0) }

  private func segment(_ number: UInt64) -> SegmentID { SegmentID(number) }

  @Test func smallObjectsShareAnArena() throws {
    var store = try machine()
    let client = store.attach()
    let first = try store.create(a, size: 100, client: client)
    #expect(first.region == Region(segment: segment(1), offset: 0, size: 100))
    #expect(first.isNewSegment && first.segmentSize == 65_536)
    #expect(store.segmentMade(first) == true)
    let second = try store.create(b, size: 8192, client: client)
    #expect(second.region == Region(segment: segment(1), offset: 128, size: 8192))
    #expect(!second.isNewSegment)
    #expect(store.used == 65_536)
    let other = try store.create(c, size: 1, client: store.attach())
    #expect(other.isNewSegment && other.region.segment == segment(2), "arenas are not shared by clients")
  }

  @Test func aBigObjectHasWholePagesOfItsOwn() throws {
    var store = try machine()
    let client = store.attach()
    let made = try store.create(a, size: 8193, client: client)
    #expect(made.segmentSize == 12_288 && made.isNewSegment)
    #expect(store.used == 12_288)
    #expect(store.delete(a)?.freed == Freed(entries: [made.entry], segments: [segment(1)]))
    #expect(store.used == 0)
  }

  @Test func onlyItsMakerSealsAnObjectAndOnce() throws {
    var store = try machine()
    let maker = store.attach(), other = store.attach()
    let made = try store.create(a, size: 10_000, client: maker)
    #expect(code { _ = try store.beginSeal(a, client: maker) } == .unavailable)
    #expect(store.segmentMade(made) == true)
    #expect(code { _ = try store.beginSeal(a, client: other) } == .denied)
    #expect(code { _ = try store.pin(a, client: maker) } == .unavailable)
    let sealing = try store.beginSeal(a, client: maker)
    #expect(code { _ = try store.pin(a, client: maker) } == .unavailable)
    #expect(store.finishSeal(sealing) == .sealed(Freed()))
    #expect(code { _ = try store.beginSeal(a, client: maker) } == .alreadyExists)
    #expect(code { _ = try store.create(a, size: 1, client: maker) } == .alreadyExists)
    #expect(try store.pin(a, client: other) == made.region)
    #expect(store.pinnedBytes == 10_000)
  }

  @Test func deletionWaitsForTheLastPin() throws {
    var store = try machine()
    let maker = store.attach(), reader = store.attach()
    let entry = try sealed(&store, a, size: 10_000, by: maker)
    _ = try store.pin(a, client: reader)
    _ = try store.pin(a, client: reader)
    let source = store.pinSource(a)
    #expect(source == entry)
    #expect(store.delete(a)?.freed == Freed())
    #expect(store.delete(a) == nil)
    #expect(code { _ = try store.pin(a, client: maker) } == .notFound)
    #expect(store.unpin(a, client: reader) == Freed())
    #expect(store.unpin(a, client: reader) == Freed())
    #expect(store.unpin(a, client: reader) == Freed(), "one more than it had")
    #expect(store.used == 12_288)
    #expect(store.unpin(entry) == Freed(entries: [entry], segments: [segment(1)]))
    #expect(store.used == 0 && store.pinnedBytes == 0)
  }

  @Test func anObjectThatComesAgainIsAnotherEntry() throws {
    var store = try machine()
    let maker = store.attach()
    let old = try sealed(&store, a, size: 10_000, by: maker)
    _ = try store.pin(a, client: maker)
    _ = store.delete(a)
    let new = try sealed(&store, a, size: 10_000, by: maker)
    _ = try store.pin(a, client: maker)
    #expect(store.unpin(a, client: maker) == Freed(), "nobody can tell which of the two is still read")
    #expect(store.unpin(a, client: maker) == Freed(entries: [old], segments: [segment(1)]))
    #expect(store.delete(a)?.freed.entries == [new])
  }

  @Test func aClientThatGoesLeavesOnlyWhatItSealed() throws {
    var store = try machine()
    let maker = store.attach()
    let kept = try sealed(&store, a, size: 100, by: maker)
    let unsealed = try store.create(b, size: 100, client: maker)
    let big = try sealed(&store, c, size: 10_000, by: store.attach())
    _ = try store.pin(c, client: maker)
    _ = store.delete(c)
    let end = store.detach(maker)
    #expect(end.aborted == [b])
    #expect(Set(end.freed.entries) == [unsealed.entry, big])
    #expect(end.freed.segments == [segment(2)])
    #expect(store.used == 65_536, "the arena stays for the sealed object")
    #expect(store.delete(a)?.freed == Freed(entries: [kept], segments: [segment(1)]))
    #expect(store.detach(maker) == StoreStateMachine.Detachment())
    #expect(code { _ = try store.create(b, size: 1, client: maker) } == .unavailable)
  }

  @Test func anAttachedClientKeepsOneEmptyArenaWarm() throws {
    var store = try machine()
    let client = store.attach()
    _ = try sealed(&store, a, size: 100, by: client)
    #expect(store.delete(a)?.freed.segments == [])
    #expect(store.used == 65_536)
    #expect(try store.create(b, size: 100, client: client).isNewSegment == false)
    #expect(store.detach(client).freed.segments == [segment(1)])
    #expect(store.used == 0)
  }

  @Test func aSealThatIsOvertakenByDeletionFreesAtItsEnd() throws {
    var store = try machine()
    let maker = store.attach()
    let made = try store.create(a, size: 10_000, client: maker)
    #expect(store.segmentMade(made) == true)
    let sealing = try store.beginSeal(a, client: maker)
    #expect(store.detach(maker) == .init(aborted: [a], freed: Freed()))
    #expect(store.finishSeal(sealing) == .aborted(Freed(entries: [made.entry], segments: [segment(1)])))
    #expect(store.used == 0)
  }

  @Test func memoryThatCannotBeHadIsForgotten() throws {
    var store = try machine()
    let client = store.attach()
    let made = try store.create(a, size: 100, client: client)
    #expect(store.segmentFailed(made) == Freed(entries: [made.entry], segments: [segment(1)]))
    let received = try store.receive(a, size: 100)
    #expect(store.pinSource(a) == nil, "there is nothing to send from yet")
    #expect(store.delete(a)?.freed == Freed())
    #expect(store.segmentMade(received) == false)
    #expect(store.segmentFailed(received) == Freed(entries: [received.entry], segments: [segment(2)]))
    #expect(store.used == 0 && store.pinnedBytes == 0 && store.index.isEmpty)
  }

  @Test func anArrivingObjectIsASourceAndNotMapped() throws {
    var store = try machine()
    let client = store.attach()
    let received = try store.receive(a, size: 10_000)
    #expect(store.segmentMade(received) == true)
    #expect(code { _ = try store.beginSeal(a, client: client) } == .denied)
    #expect(code { _ = try store.pin(a, client: client) } == .unavailable)
    #expect(store.pinSource(a) == received.entry)
    #expect(store.completeReceive(received.entry) == true)
    #expect(store.unpin(received.entry) == Freed())
    #expect(try store.pin(a, client: client) == received.region)
    #expect(store.abandonReceive(received.entry) == Freed(), "too late: it is complete")
  }

  @Test func anAbandonedReplicaGoesWithItsLastSource() throws {
    var store = try machine()
    let received = try store.receive(a, size: 10_000)
    #expect(store.segmentMade(received) == true)
    #expect(store.pinSource(a) != nil)
    #expect(store.abandonReceive(received.entry) == Freed())
    #expect(store.completeReceive(received.entry) == false)
    #expect(store.unpin(received.entry) == Freed())
    #expect(try store.receive(a, size: 10_000).entry != received.entry, "it can be tried again at once")
    #expect(store.unpin(received.entry) == Freed(entries: [received.entry], segments: [segment(1)]))
  }

  private func sealed(
    _ store: inout StoreStateMachine, _ object: ObjectID, size: Int, by client: StoreClientID
  ) throws -> EntryID {
    let made = try store.create(object, size: size, client: client)
    if made.isNewSegment { #expect(store.segmentMade(made) == true) }
    #expect(store.finishSeal(try store.beginSeal(object, client: client)) == .sealed(Freed()))
    return made.entry
  }
}

/// The code of the error that `body` throws.
func code(_ body: () throws -> Void) -> MobulaError.Code? {
  do {
    try body()
    return nil
  } catch {
    return (error as? MobulaError)?.code
  }
}
