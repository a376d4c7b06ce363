import MobulaCore
import Testing

@testable import MobulaStore

/// What happens when a store of 1 MiB is full.
struct CapacityTests {
  private func machine() throws -> StoreStateMachine { try StoreStateMachine(capacity: 1_048_576, epoch: 0) }

  /// Fills the store with four objects of 256 KiB, numbers 1 to 4.
  private func full() throws -> (StoreStateMachine, StoreClientID) {
    var store = try machine()
    let client = store.attach()
    for number in 1...4 as ClosedRange<UInt64> {
      let made = try store.create(ObjectID(number), size: 262_144, client: client)
      #expect(store.segmentMade(made) == true)
      _ = store.finishSeal(try store.beginSeal(ObjectID(number), client: client))
    }
    #expect(store.used == store.capacity)
    return (store, client)
  }

  @Test func aStoreBelowOneMebibyteIsRefused() {
    #expect(code { _ = try StoreStateMachine(capacity: 1_048_575, epoch: 0) } == .invalidArgument)
  }

  @Test func sizesThatCannotBeAreRefused() throws {
    var store = try machine()
    let client = store.attach()
    #expect(code { _ = try store.create(ObjectID(1), size: 0, client: client) } == .invalidArgument)
    #expect(code { _ = try store.create(ObjectID(1), size: -1, client: client) } == .invalidArgument)
    #expect(code { _ = try store.create(ObjectID(1), size: .max, client: client) } == .full)
    #expect(throws: MobulaError.self) { _ = try store.create(ObjectID(1), size: 1_048_577, client: client) }
    #expect(store.used == 0 && store.index.isEmpty)
  }

  @Test func nothingThatIsHeldIsEvicted() throws {
    var (store, client) = try full()
    _ = try store.pin(ObjectID(1), client: client)
    do {
      _ = try store.create(ObjectID(5), size: 100_000, client: client)
      Issue.record("there is no room")
    } catch {
      #expect(error.code == .full)
      for part in ["100 kB", "1.05 MB capacity", "1.05 MB used", "262 kB of it pinned", "--capacity", "mobula rm"] {
        #expect(error.message.contains(part))
      }
    }
    #expect(store.index.count == 4)
  }

  @Test func theLeastRecentlyUsedGoesFirst() throws {
    var (store, client) = try full()
    for number in 1...4 as ClosedRange<UInt64> { store.setEvictable(ObjectID(number), true) }
    _ = try store.pin(ObjectID(1), client: client)
    _ = store.unpin(ObjectID(1), client: client)
    _ = try store.pin(ObjectID(3), client: client)
    let made = try store.receive(ObjectID(5), size: 300_000)
    #expect(made.evicted == [ObjectID(2), ObjectID(4)])
    #expect(made.freed.segments.count == 2)
    #expect(store.used == 262_144 * 2 + StoreStateMachine.pages(300_000))
    #expect(store.index[ObjectID(1)] != nil && store.index[ObjectID(3)] != nil)
  }

  @Test func nothingIsEvictedInVain() throws {
    var (store, client) = try full()
    store.setEvictable(ObjectID(1), true)
    store.setEvictable(ObjectID(2), true)
    store.setEvictable(ObjectID(2), false)
    #expect(code { _ = try store.create(ObjectID(5), size: 300_000, client: client) } == .full)
    #expect(store.index[ObjectID(1)] != nil)
    #expect(store.used == store.capacity)
    #expect(try store.create(ObjectID(5), size: 200_000, client: client).evicted == [ObjectID(1)])
  }

  @Test func emptyArenasGoBeforeObjects() throws {
    var store = try machine()
    let idle = store.attach(), busy = store.attach()
    let small = try store.create(ObjectID(1), size: 10, client: idle)
    #expect(store.segmentMade(small) == true)
    #expect(store.abort(ObjectID(1), client: idle).segments == [])
    let whole = try store.create(ObjectID(2), size: 1_048_576, client: busy)
    #expect(whole.freed.segments == [small.region.segment])
    #expect(whole.evicted == [])
  }

  @Test func aSmallObjectTakesAPageWhereNoArenaFits() throws {
    var store = try machine()
    let client = store.attach()
    _ = try store.create(ObjectID(1), size: 1_048_576 - 4096, client: client)
    let small = try store.create(ObjectID(2), size: 10, client: client)
    #expect(small.segmentSize == 4096)
    #expect(store.used == store.capacity)
  }

  @Test func evictingSmallObjectsEmptiesTheirArena() throws {
    var store = try machine()
    let client = store.attach()
    for number in 1...2 as ClosedRange<UInt64> {
      let made = try store.create(ObjectID(number), size: 100, client: client)
      if made.isNewSegment { #expect(store.segmentMade(made) == true) }
      _ = store.finishSeal(try store.beginSeal(ObjectID(number), client: client))
      store.setEvictable(ObjectID(number), true)
    }
    let whole = try store.receive(ObjectID(3), size: 1_048_576)
    #expect(whole.evicted == [ObjectID(1), ObjectID(2)])
    #expect(store.used == 1_048_576)
  }
}
