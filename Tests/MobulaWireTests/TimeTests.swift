import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaWire

@Suite struct KeepaliveStateMachineTests {
  @Test func pingsTheSilentAndGivesThemUp() {
    var keepalive = KeepaliveStateMachine(interval: .seconds(5), silenceLimit: .seconds(15))
    #expect(keepalive.tick() == .none)
    #expect(keepalive.tick() == .ping)
    #expect(keepalive.tick() == .ping)
    keepalive.received()
    #expect(keepalive.tick() == .none)
    #expect(keepalive.tick() == .ping)
    #expect(keepalive.tick() == .ping)
    #expect(keepalive.tick() == .close)
  }

  @Test func limitIsNeverUnderOneInterval() {
    var keepalive = KeepaliveStateMachine(interval: .seconds(5), silenceLimit: .seconds(1))
    #expect(keepalive.tick() == .none)
    #expect(keepalive.tick() == .close)
  }
}

@Suite struct DeadlineQueueTests {
  let start = ContinuousClock.now

  @Test(arguments: [UInt64(1), 2, 3]) func givesThemInOrder(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var queue = DeadlineQueue()
    var expected: [Int] = []
    for id in 0..<500 {
      let offset = Int.random(in: 0..<200, using: &random)
      queue.insert(.init(instant: start.advanced(by: .seconds(offset)), id: UInt64(id), isOutgoing: id % 2 == 0))
      if id % 3 == 0 { expected.append(offset) }
    }
    queue.compact { $0.id % 3 == 0 }
    expected.sort()
    #expect(queue.count == expected.count)
    #expect(queue.earliest == start.advanced(by: .seconds(expected[0])))
    let half = start.advanced(by: .seconds(100))
    var popped: [Int] = []
    while let entry = queue.popFirst(until: half) {
      popped.append(Int(start.duration(to: entry.instant) / .seconds(1)))
    }
    #expect(popped == expected.filter { $0 <= 100 }, "seed \(seed)")
    while let entry = queue.popFirst(until: start.advanced(by: .seconds(1000))) {
      popped.append(Int(start.duration(to: entry.instant) / .seconds(1)))
    }
    #expect(popped == expected, "seed \(seed)")
  }
}
