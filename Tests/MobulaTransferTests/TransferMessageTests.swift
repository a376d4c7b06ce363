import MobulaCore
import Testing

@testable import MobulaTransfer

@Suite struct TransferMessageTests {
  static let all: [TransferMessage] = [
    .open(ObjectID(high: 0x0123_4567_89AB_CDEF, low: 42), bulk: "10.0.0.1:7000"), .request(7), .cancel(8),
    .acknowledge(0xFFFF_FFFF), .done, .opened(objectSize: 564_000_000_000, chunkSize: 65_536, wantsNews: true),
    .offer([0..<1, 7..<4096]), .refused(.notFound, "There is no such object: äöü."),
    .chunk(ChunkHeader(index: 3, length: 65_536, checksum: 0xDEAD_BEEF)), .failed(.full, ""), .alive,
    .openSmall(.get), .want(ObjectID(high: 1, low: 2)), .absent(ObjectID(high: 3, low: 4)),
    .whole(ObjectID(high: 5, low: 6), objectSize: 100_064, chunkSize: 65_536, checksums: [1, 0xFFFF_FFFF]),
  ]

  @Test(arguments: all) func aMessageIsReadAsItWasWritten(message: TransferMessage) throws {
    let frame = message.frame
    #expect(frame.prefix(4).reduce(0) { $0 << 8 | Int($1) } == frame.count - 4)
    #expect(try TransferMessage(Array(frame.dropFirst(4))) == message)
  }

  @Test func fieldsAreBigEndian() {
    let header = ChunkHeader(index: 1, length: 0x0001_0000, checksum: 0xA1B2_C3D4)
    #expect(TransferMessage.chunk(header).frame == [0, 0, 0, 13, 18, 0, 0, 0, 1, 0, 1, 0, 0, 0xA1, 0xB2, 0xC3, 0xD4])
  }

  @Test(arguments: all) func aMessageWithAByteMoreOrLessIsRefused(message: TransferMessage) {
    let body = Array(message.frame.dropFirst(4))
    let endsWithText =
      switch message {
      case .refused, .failed, .open: true
      default: false
      }
    // A text reaches to the end of its frame, whatever that is.
    if !endsWithText {
      #expect(throws: MobulaError.self) { try TransferMessage(body + [0]) }
      #expect(throws: MobulaError.self) { try TransferMessage(Array(body.dropLast())) }
    }
  }

  @Test func garbageIsRefused() {
    for body: [UInt8] in [[], [0], [99, 1, 2, 3], [17], [17, 200, 65], [18, 0, 0, 0], [21, 0, 0, 0]] {
      let error = #expect(throws: MobulaError.self) { try TransferMessage(body) }
      #expect(error?.code == .protocolViolation)
    }
    #expect(throws: MobulaError.self) { try TransferMessage([16] + Array(repeating: 0xFF, count: 12)) }
  }

  @Test func manyRangesAreSeveralOffers() throws {
    let ranges = (0..<1201).map { $0 * 2..<$0 * 2 + 1 }
    let messages = TransferMessage.offers(ranges)
    #expect(messages.count == 3)
    #expect(messages.allSatisfy { $0.frame.count <= TransferMessage.maximumFrame.bytes })
    let read = messages.flatMap { message -> [Range<Int>] in
      guard case .offer(let ranges) = message else { return [] }
      return ranges
    }
    #expect(read == ranges)
  }

  @Test func aLongTextIsCut() {
    let frame = TransferMessage.refused(.unavailable, String(repeating: "x", count: 100_000)).frame
    #expect(frame.count < TransferMessage.maximumFrame.bytes)
  }
}
