import MobulaCore
import MobulaStore
import Testing

@testable import MobulaHost

/// Who is attached to a host.
@Suite struct ProcessTableTests {
  private let a = StoreClientID(1)
  private let b = StoreClientID(2)
  private let x = ObjectID(high: 0, low: 1)
  private let y = ObjectID(high: 0, low: 2)

  /// The code that `body` throws.
  private func code(_ body: () throws -> Void) -> MobulaError.Code? {
    do { try body() } catch { return (error as? MobulaError)?.code }
    return nil
  }

  @Test func aProcessCountsOnceItHasSaidWhatItHolds() throws {
    var table = ProcessTable()
    #expect(code { _ = try table.client(of: 7) } == .connectionClosed)
    try table.attach(7, a, known: [y])
    #expect(code { _ = try table.client(of: 7) } == .connectionClosed, "not before that")
    try table.hold([x], coming: 7)
    let who = try table.register(7, holding: [y])
    #expect(who == ProcessTable.Coming(client: a, known: [y], holds: [x, y]))
    #expect(try table.client(of: 7) == a)
    table.disconnected(7)
    #expect(code { _ = try table.client(of: 7) } == .connectionClosed)
  }

  @Test func whoHasNotSaidWhoItIsHoldsNothing() throws {
    var table = ProcessTable()
    #expect(code { try table.hold([x], coming: 7) } == .protocolViolation)
    #expect(code { _ = try table.register(7, holding: [x]) } == .protocolViolation)
    try table.attach(7, a, known: [])
    _ = try table.register(7, holding: [])
    #expect(code { _ = try table.register(7, holding: [x]) } == .protocolViolation, "it said so once")
  }

  @Test func theLastOfThoseWhoWereHereBeforeIsNoticed() {
    var table = ProcessTable()
    #expect(!table.isAnyoneAbsent)
    #expect(table.isBack(a) == false, "nobody was expected")
    table.expect([a, b])
    #expect(table.isAnyoneAbsent)
    #expect(table.isBack(a) == false)
    #expect(table.isBack(a) == false, "once is enough")
    #expect(table.isBack(b) == true)
    #expect(!table.isAnyoneAbsent)
  }

  @Test func aDriversJobEndsWithItOnce() throws {
    var table = ProcessTable()
    try table.attach(7, a, known: [])
    _ = try table.register(7, holding: [])
    table.drives(a, JobID(3))
    #expect(table.gone(a) == JobID(3))
    #expect(table.gone(a) == nil)
    #expect(code { _ = try table.client(of: 7) } == .connectionClosed)
  }

  @Test func whatTheClusterHasGivenUpDoesNotComeBack() throws {
    var table = ProcessTable()
    try table.attach(7, a, known: [])
    _ = try table.register(7, holding: [])
    table.expect([b])
    table.end([a, b])
    #expect(code { _ = try table.client(of: 7) } == .connectionClosed)
    #expect(code { try table.attach(8, a, known: []) } == .mismatch)
    #expect(!table.isAnyoneAbsent)
    // Its number is free again when its process is gone.
    _ = table.gone(a)
    #expect(code { try table.attach(9, a, known: []) } == nil)
  }
}
