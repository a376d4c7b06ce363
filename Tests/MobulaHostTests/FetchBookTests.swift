import MobulaCore
import Testing

@testable import MobulaHost

/// Who waits for what is being brought to a host.
@Suite struct FetchBookTests {
  private let object = ObjectID(high: 0, low: 1)

  @Test func oneFetchServesAllWhoWait() {
    var book = FetchBookStateMachine()
    #expect(book.join(object, .background) == .begins(1))
    #expect(book.join(object, .get) == .waits(1, isAccountable: false))
    #expect(book.priority(of: object) == .get, "the highest of those who wait")
    #expect(book.join(ObjectID(high: 0, low: 2), .get) == .begins(2))
    #expect(book.leave(object, 1) == false, "one still waits")
    #expect(book.leave(object, 1) == true, "nobody waits any more")
  }

  @Test func aFetchThatIsGivenUpMakesRoomForAnother() {
    var book = FetchBookStateMachine()
    #expect(book.join(object, .get) == .begins(1))
    #expect(book.leave(object, 1) == true)
    book.ended(object, 1)
    #expect(book.current(object) == nil)
    #expect(book.join(object, .get) == .begins(2))
    // The first one's end is told late.
    book.ended(object, 1)
    #expect(book.current(object) == 2)
    #expect(book.leave(object, 1) == false, "who waited for the first is none of the second's")
    #expect(book.leave(object, 2) == true)
  }

  @Test func whatIsFilledGoesOnWhenNobodyWaits() {
    var book = FetchBookStateMachine()
    #expect(book.fill(object) == 1)
    #expect(book.join(object, .get) == .waits(1, isAccountable: true), "the first who waits tells of its bytes")
    #expect(book.join(object, .get) == .waits(1, isAccountable: false))
    #expect(book.leave(object, 1) == false)
    #expect(book.leave(object, 1) == false)
    #expect(book.current(object) == 1)
    book.ended(object, 1)
    #expect(book.current(object) == nil)
  }

  /// What is small is here before whoever had it fetched comes to wait: its bytes are told of once all the same.
  @Test func whatCameBeforeAnybodyWaitedIsSetAside() {
    var book = FetchBookStateMachine()
    #expect(book.fill(object) == 1)
    #expect(book.setAside(object, 1) == true)
    #expect(book.setAside(object, 1) == false)
    #expect(book.join(object, .get) == .waits(1, isAccountable: false))
    let ledger = FetchLedger()
    ledger.setAside(object, 5)
    #expect(ledger.takeUnreported(object) == 5 && ledger.takeUnreported(object) == 0)
    ledger.setAside(object, 5)
    ledger.begin(object)
    #expect(ledger.takeUnreported(object) == 0)
    #expect(book.join(ObjectID(high: 0, low: 2), .get) == .begins(2))
    #expect(book.setAside(ObjectID(high: 0, low: 2), 2) == false, "who began it tells of it")
  }

  /// The store has room for one of them: the one that is filled goes on.
  @Test func fillingTakesThePlaceOfAFetch() {
    var book = FetchBookStateMachine()
    #expect(book.join(object, .get) == .begins(1))
    #expect(book.fill(object) == 2)
    #expect(book.current(object) == 2)
    #expect(book.leave(object, 1) == false)
    book.ended(object, 1)
    #expect(book.current(object) == 2)
  }
}
