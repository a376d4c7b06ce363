import MobulaCore
import Testing

@testable import MobulaStore

/// The entries of a store by number, by object, and in the order of their use.
@Suite struct EntryTableTests {
  private func entry(_ number: UInt64, isCache: Bool = true, phase: StoreStateMachine.Phase = .sealed)
    -> StoreStateMachine.Entry
  {
    .init(
      object: ObjectID(high: 0, low: number), segment: SegmentID(1), offset: 0, size: 1, trailerSize: 1, chunkShift: 18,
      phase: phase, isDirect: false, isCache: isCache, isHeld: false, maker: nil)
  }

  private func object(_ number: UInt64) -> ObjectID { ObjectID(high: 0, low: number) }

  @Test func numbersAreUsedAgain() {
    var table = EntryTable()
    let numbers = (1...3).map { table.add(entry($0)) }
    #expect(numbers == [0, 1, 2])
    #expect(table.next == 3)
    table.drop(1)
    #expect(table.next == 1)
    #expect(table.find(1) == nil)
    #expect(table.find(object(2)) == nil)
    let again = table.add(entry(4))
    #expect(again == 1)
    #expect(table.find(object(4))?.number == 1)
    #expect(table.count == 3)
  }

  @Test func numbersFromOutsideMayMeanNothing() {
    var table = EntryTable()
    _ = table.add(entry(1))
    for number in [-1, 1, .max, .min] {
      #expect(table.find(number) == nil)
      table.touch(number)
      table.unlist(number)
    }
  }

  @Test func whatIsHiddenMakesRoomForItsSuccessor() {
    var table = EntryTable()
    let old = table.add(entry(1))
    table.hide(old)
    #expect(table.number(of: object(1)) == nil)
    let new = table.add(entry(1))
    #expect(table.number(of: object(1)) == new)
    table.drop(old)
    #expect(table.number(of: object(1)) == new, "the old one took its own name alone")
    #expect(table.all.map(\.number) == [new])
  }

  @Test func theLeastRecentlyUsedIsFirst() {
    var table = EntryTable()
    for number in 1...4 as ClosedRange<UInt64> { table.list(table.add(entry(number))) }
    table.touch(0)
    #expect(table.oldest(.cache, limit: 9) == [1, 2, 3, 0])
    table.change(2) { $0.isCache = false }
    #expect(table.oldest(.cache, limit: 2) == [1, 3])
    #expect(table.leastRecentlyUsed(.primary) == 2)
    table.drop(3)
    #expect(table.oldest(.cache, limit: 9) == [1, 0])
    #expect(table.successor(of: 1) == 0)
    #expect(table.successor(of: 0) == nil)
  }

  @Test func aStoreThatStartsAgainKeepsItsNumbers() {
    var table = EntryTable()
    table.restore(3, entry(1), isFound: true)
    table.restore(1, entry(2, phase: .doomed), isFound: false)
    table.complete()
    #expect(table.number(of: object(1)) == 3)
    #expect(table.number(of: object(2)) == nil)
    #expect(table.all.map(\.number) == [1, 3])
    let added = [5, 6, 7].map { table.add(entry($0)) }
    #expect(added == [0, 2, 4])
  }
}
