import MobulaCore
import Testing

@testable import MobulaTransfer

@Suite struct SenderStateMachineTests {
  private func machine(chunks: Int = 4, maximumRequests: Int = 1024) throws -> SenderStateMachine {
    SenderStateMachine(
      geometry: try ChunkGeometry(objectSize: chunks * 65_536 - 1, chunkSize: 65_536), maximumRequests: maximumRequests)
  }

  @Test func chunksLeaveInTheOrderOfTheirRequests() throws {
    var sender = try machine()
    #expect(try sender.requested(3) == .prepare(3))
    #expect(try sender.requested(0) == .queue)
    #expect(try sender.requested(1) == .queue)
    let last = sender.ready(checksum: 33)
    #expect(last?.header == ChunkHeader(index: 3, length: 65_535, checksum: 33))
    #expect(last?.range == 196_608..<262_143)
    #expect(sender.sent() == 0)
    #expect(sender.ready(checksum: 10)?.header.index == 0)
    #expect(sender.sent() == 1)
    #expect(sender.ready(checksum: 11)?.header.index == 1)
    #expect(sender.sent() == nil)
    #expect(try sender.requested(2) == .prepare(2))
  }

  @Test func aChunkIsPinnedFromItsFirstByteToItsAcknowledgement() throws {
    var sender = try machine()
    _ = try sender.requested(1)
    #expect(sender.pinned.isEmpty)
    _ = sender.ready(checksum: 1)
    #expect(sender.pinned == [1])
    _ = sender.sent()
    #expect(sender.pinned == [1])
    try sender.acknowledged(1)
    #expect(sender.pinned.isEmpty)
  }

  @Test func pinsOutliveTheEndOfTheConversation() throws {
    var sender = try machine()
    _ = try sender.requested(1)
    _ = sender.ready(checksum: 1)
    sender.closed()
    #expect(sender.sent() == nil)
    #expect(sender.pinned == [1])
  }

  @Test func anAcknowledgementMayOvertakeTheReturnOfTheCall() throws {
    var sender = try machine()
    _ = try sender.requested(1)
    _ = sender.ready(checksum: 1)
    try sender.acknowledged(1)
    #expect(sender.pinned == [1])
    #expect(sender.sent() == nil)
    #expect(sender.pinned.isEmpty)
  }

  @Test func whatNoReceiverAsksIsRefused() throws {
    var sender = try machine(maximumRequests: 1)
    #expect(throws: MobulaError.self) { try sender.requested(4) }
    #expect(throws: MobulaError.self) { try sender.acknowledged(0) }
    _ = try sender.requested(0)
    #expect(throws: MobulaError.self) { try sender.requested(0) }
    #expect(throws: MobulaError.self) { try sender.acknowledged(0) }
    _ = try sender.requested(1)
    #expect(throws: MobulaError.self) { try sender.requested(2) }
    _ = sender.ready(checksum: 0)
    #expect(sender.sent() == 1)
    #expect(throws: MobulaError.self) { try sender.requested(0) }
    try sender.acknowledged(0)
    #expect(throws: MobulaError.self) { try sender.acknowledged(0) }
  }

  @Test func onlyAReceiverThatOwesSomethingIsIdle() throws {
    var sender = try machine()
    _ = try sender.requested(0)
    #expect(sender.idled() == .wait)
    _ = sender.ready(checksum: 0)
    #expect(sender.idled() == .wait)
    _ = sender.sent()
    // It was sent within this period, so the receiver gets the next one for its acknowledgement.
    #expect(sender.idled() == .wait)
    #expect(sender.idled() == .close)
  }

  @Test func aReplicaThatWasGivenUpIsSaidOnce() throws {
    var sender = try machine()
    _ = try sender.requested(2)
    _ = try sender.requested(3)
    let error = MobulaError(.notFound, "Gone.")
    #expect(sender.failed(error) == .failed(2, .notFound, "Gone."))
    #expect(sender.failed(error) == nil)
  }

  @Test func nothingIsSaidInTheMiddleOfAChunk() throws {
    var sender = try machine()
    _ = try sender.requested(2)
    _ = sender.ready(checksum: 0)
    #expect(sender.failed(MobulaError(.inputOutput, "Short.")) == nil)
  }

  @Test func nothingHappensOnceClosed() throws {
    var sender = try machine()
    _ = try sender.requested(0)
    sender.closed()
    #expect(!sender.waiting())
    #expect(sender.ready(checksum: 0) == nil)
    #expect(try sender.requested(1) == .queue)
  }
}
