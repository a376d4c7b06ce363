import MobulaCore
import Testing

@testable import MobulaWire

@Suite struct FrameTests {
  /// All frames that come out when `pieces` go in.
  func decode(_ pieces: [[UInt8]], limit: Int = 100) throws(MobulaError) -> [[UInt8]] {
    var decoder = FrameDecoder(limit: ByteCount(limit))
    var frames: [[UInt8]] = []
    for piece in pieces { try decoder.append(piece, to: &frames) }
    try decoder.finish()
    return frames
  }

  @Test func survivesEverySplit() throws {
    let bodies: [[UInt8]] = [[1, 2, 3], [], [4], Array(5..<20)]
    let stream = bodies.flatMap(Frame.encode)
    for first in 0...stream.count {
      for second in first...stream.count {
        let pieces = [stream[..<first], stream[first..<second], stream[second...]].map(Array.init)
        #expect(try decode(pieces) == bodies)
      }
    }
    #expect(try decode(stream.map { [$0] }) == bodies)
  }

  @Test func lengthIsBigEndian() {
    #expect(Frame.header(count: 0x01_0203) == [0, 1, 2, 3])
    #expect(Frame.encode([7]) == [0, 0, 0, 1, 7])
  }

  @Test func refusesTheLengthBeforeTheBody() throws {
    #expect(try decode([Frame.encode(Array(repeating: 0, count: 100))]).count == 1)
    for header: [UInt8] in [[0, 0, 0, 101], [255, 255, 255, 255], Array("GET ".utf8)] {
      let thrown = #expect(throws: MobulaError.self) { try decode([header]) }
      #expect(thrown?.code == .protocolViolation)
    }
  }

  @Test func limitChangesBetweenFrames() throws {
    var decoder = FrameDecoder(limit: ByteCount(1))
    var frames: [[UInt8]] = []
    try decoder.append(Frame.encode([1]), to: &frames)
    decoder.limit = ByteCount(2)
    try decoder.append(Frame.encode([1, 2]), to: &frames)
    #expect(frames == [[1], [1, 2]])
  }

  @Test func anEndInsideAFrameIsAnError() {
    let stream = Frame.encode([1, 2, 3])
    for count in 1..<stream.count {
      let thrown = #expect(throws: MobulaError.self) { try decode([Array(stream[..<count])]) }
      #expect(thrown?.code == .connectionClosed)
    }
  }
}

extension FrameDecoder {
  mutating func append(_ bytes: [UInt8], to frames: inout [[UInt8]]) throws(MobulaError) {
    var new: [[UInt8]] = []
    var failure: MobulaError?
    bytes.withUnsafeBytes {
      var rest = $0
      do throws(MobulaError) {
        while let frame = try next(&rest) { new.append(frame) }
      } catch {
        failure = error
      }
    }
    frames += new
    if let failure { throw failure }
  }
}
