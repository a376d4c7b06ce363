import MobulaCore
import NIOCore
import Testing

@testable import MobulaWire

@Suite struct RPCMessageTests {
  static let messages: [RPCMessage] = [
    .request(id: 1, method: "a.b", milliseconds: 30_000, body: [1, 2]),
    .openStream(id: .max, method: String(repeating: "m", count: 255), milliseconds: 0, credit: 64, body: []),
    .response(id: 2, body: [0xF6]), .error(id: 3, body: [0]), .cancel(id: 4), .element(id: 5, body: [9, 9]),
    .end(id: 6), .credit(id: 7, count: 32), .ping, .pong, .goodbye([]), .goodbye([1]),
    .notice(method: "a.b", body: [7]),
  ]

  func frame(_ message: RPCMessage) throws -> [UInt8] {
    var buffer = ByteBuffer()
    message.encode(into: &buffer)
    var decoder = FrameDecoder(limit: ByteCount(1000))
    var frames: [[UInt8]] = []
    try decoder.append(Array(buffer.readableBytesView), to: &frames)
    try decoder.finish()
    return try #require(frames.first)
  }

  @Test(arguments: messages) func comesBackAsItWas(_ message: RPCMessage) throws {
    let frame = try frame(message)
    #expect(try RPCMessage(frame) == message)
    #expect(frame.count == message.size)
  }

  @Test(arguments: messages) func cutShortItIsNoMessageOfItsKind(_ message: RPCMessage) throws {
    let frame = try frame(message)
    for count in 0..<frame.count - message.bodySize {
      let thrown = #expect(throws: MobulaError.self) { try RPCMessage(Array(frame[..<count])) }
      #expect(thrown?.code == .protocolViolation)
    }
  }

  @Test func envelopeIsAsDocumented() throws {
    #expect(
      try frame(.request(id: 0x0102, method: "m", milliseconds: 5, body: [0xAA]))
        == [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 5, 1, 0x6D, 0xAA])
    #expect(try frame(.credit(id: 1, count: 2)) == [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2])
  }

  @Test(
    arguments: [
      [0], [13], [12, 0], [255, 1, 2], [9, 0], [5, 0, 0, 0, 0, 0, 0, 0, 1, 0],
      [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
      [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0xFF],
    ] as [[UInt8]])
  func otherBytesAreViolations(_ bytes: [UInt8]) {
    let thrown = #expect(throws: MobulaError.self) { try RPCMessage(bytes) }
    #expect(thrown?.code == .protocolViolation)
  }
}

extension RPCMessage {
  var bodySize: Int {
    switch self {
    case .request(_, _, _, let body), .openStream(_, _, _, _, let body), .response(_, let body), .error(_, let body),
      .element(_, let body), .goodbye(let body), .notice(_, let body):
      body.count
    default: 0
    }
  }
}
