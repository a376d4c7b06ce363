import MobulaTestKit
import Testing

@testable import MobulaStore

struct TicketBookTests {
  private let grant = TicketBook.Grant(segment: SegmentID(7), writable: true)
  private let start = ContinuousClock.now

  @Test func aTicketIsGoodOnce() {
    var book = TicketBook()
    var generator = SeededGenerator(seed: 1)
    let ticket = book.issue(grant, now: start, using: &generator)
    #expect(book.redeem(ticket, now: start) == grant)
    #expect(book.redeem(ticket, now: start) == nil)
  }

  @Test func aTicketLivesThirtySeconds() {
    var book = TicketBook()
    var generator = SeededGenerator(seed: 2)
    let first = book.issue(grant, now: start, using: &generator)
    let second = book.issue(grant, now: start, using: &generator)
    #expect(book.redeem(first, now: start + .seconds(29)) == grant)
    #expect(book.redeem(second, now: start + .seconds(30)) == nil)
  }

  @Test func unusedTicketsAreForgotten() {
    var book = TicketBook(limit: 3)
    var generator = SeededGenerator(seed: 3)
    let tickets = (0..<4).map { _ in book.issue(grant, now: start, using: &generator) }
    #expect(book.count == 3)
    #expect(book.redeem(tickets[0], now: start) == nil)
    #expect(book.redeem(tickets[1], now: start) == grant)
    _ = book.issue(grant, now: start + .seconds(31), using: &generator)
    #expect(book.count == 1)
  }

  @Test func theBookStaysSmallHoweverManyAreIssued() {
    var book = TicketBook(limit: 10)
    var generator = SeededGenerator(seed: 4)
    var last = book.issue(grant, now: start, using: &generator)
    for _ in 0..<5000 { last = book.issue(grant, now: start, using: &generator) }
    #expect(book.count == 10)
    #expect(book.redeem(last, now: start) == grant)
  }

  @Test func aTicketDoesNotPrintItself() {
    let ticket = DescriptorTicket(high: 0xABCD, low: 0x1234)
    #expect("\(ticket)" == "descriptor ticket")
  }

  @Test func aRequestCarriesTheTicket() {
    let ticket = DescriptorTicket(high: 0x0102_0304_0506_0708, low: .max)
    let request = DescriptorProtocol.request(ticket)
    #expect(request.count == 24)
    #expect(Array(request[8..<16]) == [1, 2, 3, 4, 5, 6, 7, 8])
    #expect(DescriptorProtocol.ticket(in: request) == ticket)
    #expect(DescriptorProtocol.ticket(in: [0] + request.dropFirst()) == nil)
    #expect(DescriptorProtocol.ticket(in: request.dropLast()) == nil)
  }
}
