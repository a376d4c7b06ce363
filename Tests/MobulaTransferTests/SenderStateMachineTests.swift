import MobulaCore
import Testing

@testable import MobulaTransfer

@Suite struct SenderStateMachineTests {
  private func machine(chunks: Int = 4, maximumRequests: Int = 1024) throws -> SenderStateMachine {
    var machine = SenderStateMachine(
      geometry: try ChunkGeometry(objectSize: chunks * 65_536 - 1, chunkSize: 65_536), maximumRequests: maximumRequests)
    machine.tell([0..<chunks])
    return machine
  }

  private func next(_ sender: inout SenderStateMachine) -> Int? { sender.next()?.chunk }

  @Test func chunksLeaveInTheOrderOfTheirRequests() throws {
    var sender = try machine()
    for chunk in [3, 0, 1] { try sender.requested(chunk) }
    let begun = sender.next()
    let first = try #require(begun)
    #expect(first.chunk == 3 && first.range == 196_608..<262_143)
    #expect(next(&sender) == nil)
    sender.sent()
    #expect(next(&sender) == 0)
    sender.sent()
    #expect(next(&sender) == 1)
    sender.sent()
    #expect(next(&sender) == nil)
    try sender.requested(2)
    #expect(next(&sender) == 2)
  }

  @Test func aChunkIsPinnedFromItsFirstByteToItsAcknowledgement() throws {
    var sender = try machine()
    try sender.requested(1)
    #expect(sender.pinned.isEmpty)
    _ = sender.next()
    #expect(sender.pinned == [1])
    sender.sent()
    #expect(sender.pinned == [1])
    try sender.acknowledged(1)
    #expect(sender.pinned.isEmpty)
  }

  @Test func pinsOutliveTheEndOfTheConversation() throws {
    var sender = try machine()
    try sender.requested(1)
    _ = sender.next()
    sender.closed()
    sender.sent()
    #expect(next(&sender) == nil)
    #expect(sender.pinned == [1])
  }

  @Test func anAcknowledgementMayOvertakeTheReturnOfTheCall() throws {
    var sender = try machine()
    try sender.requested(1)
    _ = sender.next()
    try sender.acknowledged(1)
    #expect(sender.pinned == [1])
    sender.sent()
    #expect(sender.pinned.isEmpty)
  }

  @Test func whatIsCancelledOrHereAlreadyIsNotSent() throws {
    var sender = try machine()
    for chunk in 0..<4 { try sender.requested(chunk) }
    _ = sender.next()
    sender.cancelled(1)
    try sender.acknowledged(2)
    // Too late: it is on its way.
    sender.cancelled(0)
    sender.sent()
    #expect(next(&sender) == 3)
    #expect(sender.pinned == [0, 3])
    // Asked for again, it is sent after all.
    try sender.requested(1)
    sender.sent()
    #expect(next(&sender) == 1)
  }

  @Test func whatNoReceiverAsksIsRefused() throws {
    var sender = try machine(maximumRequests: 2)
    func refuses(_ body: () throws -> Void) { #expect(throws: MobulaError.self, performing: body) }
    refuses { try sender.requested(4) }
    refuses { try sender.acknowledged(4) }
    try sender.requested(0)
    refuses { try sender.requested(0) }
    _ = sender.next()
    refuses { try sender.requested(0) }
    sender.sent()
    refuses { try sender.requested(0) }
    try sender.requested(1)
    try sender.requested(2)
    refuses { try sender.requested(3) }
    var untold = SenderStateMachine(geometry: sender.geometry)
    untold.tell([1..<2])
    refuses { try untold.requested(0) }
    refuses { try untold.acknowledged(0) }
    try untold.requested(1)
  }

  @Test func aReceiverIsIdleWhenItOwesSomethingAndDoesNothing() throws {
    var sender = try machine()
    // It waits for what we don't have.
    #expect(sender.idled() == .wait)
    #expect(sender.idled() == .wait)
    try sender.requested(0)
    #expect(sender.idled() == .wait)
    #expect(sender.idled() == .close)
    _ = sender.next()
    sender.sent()
    #expect(sender.idled() == .wait)
    #expect(sender.idled() == .close)
    try sender.acknowledged(0)
    #expect(sender.idled() == .wait)
    #expect(sender.idled() == .wait)
  }
}
