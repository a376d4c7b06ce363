import MobulaCore
import Testing

@testable import MobulaTransfer

@Suite struct ReceiverStateMachineTests {
  private let geometry: ChunkGeometry

  init() throws { geometry = try ChunkGeometry(objectSize: 3 * 65_536 - 1, chunkSize: 65_536) }

  private func opened(window: Int) throws -> ReceiverStateMachine {
    var receiver = ReceiverStateMachine(geometry: geometry, window: window)
    #expect(try receiver.opened(objectSize: geometry.objectSize, chunkSize: 65_536) == .claim)
    return receiver
  }

  private func header(_ index: Int, checksum: UInt32 = 5) -> ChunkHeader {
    ChunkHeader(index: index, length: geometry.range(of: index).count, checksum: checksum)
  }

  @Test func aWindowOfChunksIsUnderWayUntilNoneIsLeft() throws {
    var receiver = try opened(window: 2)
    #expect(receiver.claimed(0) == .request(0, then: .claim))
    #expect(receiver.claimed(1) == .request(1, then: .receive))
    #expect(try receiver.announced(header(0)) == 0..<65_536)
    #expect(receiver.arrived(checksum: 5) == .commit(0, checksum: 5, then: .claim))
    #expect(receiver.claimed(2) == .request(2, then: .receive))
    #expect(try receiver.announced(header(1)) == 65_536..<131_072)
    #expect(receiver.arrived(checksum: 5) == .commit(1, checksum: 5, then: .claim))
    #expect(receiver.claimed(nil) == .proceed(.receive))
    #expect(try receiver.announced(header(2)) == 131_072..<196_607)
    #expect(receiver.arrived(checksum: 5) == .commit(2, checksum: 5, then: .claim))
    #expect(receiver.claimed(nil) == .proceed(.finish))
    #expect(receiver.ended() == [])
  }

  @Test func whatAnotherGaveBackIsClaimedAfterTheNextArrival() throws {
    var receiver = try opened(window: 2)
    _ = receiver.claimed(1)
    #expect(receiver.claimed(nil) == .proceed(.receive))
    _ = try receiver.announced(header(1))
    #expect(receiver.arrived(checksum: 5) == .commit(1, checksum: 5, then: .claim))
    #expect(receiver.claimed(0) == .request(0, then: .claim))
  }

  @Test func nothingToClaimAtAllEndsAtOnce() throws {
    var receiver = try opened(window: 2)
    #expect(receiver.claimed(nil) == .proceed(.finish))
  }

  @Test func aWrongChecksumIsRejectedAndItsChunkGivenBack() throws {
    var receiver = try opened(window: 2)
    _ = receiver.claimed(0)
    _ = receiver.claimed(1)
    _ = try receiver.announced(header(0, checksum: 5))
    #expect(receiver.arrived(checksum: 6) == .reject(0))
    #expect(receiver.ended() == [0, 1])
    #expect(receiver.ended() == [])
  }

  @Test func aChunkCutOffInTheMiddleIsGivenBack() throws {
    var receiver = try opened(window: 2)
    _ = receiver.claimed(0)
    _ = try receiver.announced(header(0))
    #expect(receiver.ended() == [0])
  }

  @Test func anObjectOfAnotherShapeIsAMismatch() {
    var receiver = ReceiverStateMachine(geometry: geometry, window: 2)
    let error = #expect(throws: MobulaError.self) {
      try receiver.opened(objectSize: geometry.objectSize + 1, chunkSize: 65_536)
    }
    #expect(error?.code == .mismatch)
  }

  @Test func whatWasNotAskedForIsRefused() throws {
    var unopened = ReceiverStateMachine(geometry: geometry, window: 2)
    #expect(throws: MobulaError.self) { try unopened.announced(header(0)) }
    #expect(throws: MobulaError.self) { try unopened.waiting() }

    var receiver = try opened(window: 2)
    #expect(throws: MobulaError.self) { try receiver.opened(objectSize: geometry.objectSize, chunkSize: 65_536) }
    #expect(throws: MobulaError.self) { try receiver.waiting() }
    _ = receiver.claimed(0)
    _ = receiver.claimed(1)
    #expect(try receiver.waiting() == .receive)
    #expect(throws: MobulaError.self) { try receiver.announced(header(1)) }
    #expect(throws: MobulaError.self) { try receiver.announced(ChunkHeader(index: 0, length: 1, checksum: 5)) }
    #expect(throws: MobulaError.self) { try receiver.announced(ChunkHeader(index: 9, length: 65_536, checksum: 5)) }
  }

  @Test func theWindowIsEightChunksOrFourMebibytes() throws {
    let sizes = [65_536: 64, 262_144: 16, 1_048_576: 8, 8_388_608: 8]
    for (size, window) in sizes {
      #expect(try ReceiverStateMachine.window(for: ChunkGeometry(objectSize: 1, chunkSize: size)) == window)
    }
  }
}
