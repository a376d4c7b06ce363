import MobulaTestKit
import Testing

@Suite struct TestKitTests {
  @Test func eventsComeByTimeAndThenByAge() {
    var queue = EventQueue<Int>()
    var generator = SeededGenerator(seed: 1)
    var expected: [(Int, Int)] = []
    for number in 0..<500 {
      let second = Int.random(in: 0..<50, using: &generator)
      queue.add(number, at: .init(sinceStart: .seconds(second)))
      expected.append((second, number))
    }
    expected.sort { $0 < $1 }
    var found: [(Int, Int)] = []
    while let (instant, number) = queue.popFirst() {
      found.append((Int(instant.sinceStart.components.seconds), number))
    }
    #expect(found.elementsEqual(expected, by: ==))
    #expect(queue.isEmpty)
  }

  /// The first numbers of the reference implementation for seed 1234567.
  @Test func theGeneratorIsSplitMix64() {
    var generator = SeededGenerator(seed: 1_234_567)
    #expect(generator.next() == 6_457_827_717_110_365_317)
    #expect(generator.next() == 3_203_168_211_198_807_973)
  }

  @Test func sleepersWakeWhenTheirTimeHasCome() async throws {
    let clock = SimulatedClock()
    async let late: Void = clock.sleep(for: .seconds(20))
    async let early: Void = clock.sleep(for: .seconds(10))
    await clock.waitForSleepers(2)
    clock.advance(by: .seconds(15))
    try await early
    #expect(clock.now.sinceStart == .seconds(15))
    clock.advance(by: .seconds(5))
    try await late
    try await clock.sleep(until: .start)
  }

  @Test func aCancelledSleeperWakesAtOnce() async {
    let clock = SimulatedClock()
    let task = Task { try await clock.sleep(for: .seconds(10)) }
    await clock.waitForSleepers(1)
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    let before = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      try await clock.sleep(for: .seconds(10))
    }
    await #expect(throws: CancellationError.self) { try await before.value }
  }

  /// Two senders of 100 bytes a second share a receiver of 100 bytes a second.
  @Test func anInterfaceIsSharedByAllWhoSendToIt() {
    var network = SimulatedNetwork<String>(seed: 1, latency: .zero)
    let a = network.addHost(inbound: 100, outbound: 100)
    let b = network.addHost(inbound: 100, outbound: 100)
    let c = network.addHost(inbound: 100, outbound: 100)
    network.send("a", bytes: 100, over: network.connect(from: a, to: c), from: a)
    network.send("b", bytes: 100, over: network.connect(from: b, to: c), from: b)
    var arrivals: [String] = []
    while let event = network.next() {
      if case .arrived(let message, _, c) = event { arrivals.append("\(message) \(network.now)") }
    }
    #expect(arrivals == ["a 1.0 seconds", "b 2.0 seconds"])
    #expect(network.bytesReceived(by: c) == 200)
    #expect(network.bytesSent(by: a) == 100)
  }

  @Test func messagesArriveInOrderAndBeforeTheEnd() {
    var network = SimulatedNetwork<Int>(seed: 5, latency: .milliseconds(1), jitter: 5)
    let a = network.addHost(inbound: 1e9, outbound: 1e9)
    let b = network.addHost(inbound: 1e9, outbound: 1e9)
    let connection = network.connect(from: a, to: b)
    for number in 0..<100 { network.send(number, bytes: 10, over: connection, from: a) }
    network.close(connection, at: a)
    var arrived: [Int] = []
    var isClosed = false
    while let event = network.next() {
      switch event {
      case .arrived(let number, _, _):
        #expect(!isClosed)
        arrived.append(number)
      case .closed(_, let host):
        #expect(host == b)
        isClosed = true
      default: break
      }
    }
    #expect(arrived == Array(0..<100))
    #expect(isClosed)
  }

  @Test func theDeadAndTheCutOffReceiveNothing() {
    var network = SimulatedNetwork<Int>(seed: 5)
    let a = network.addHost(inbound: 1e9, outbound: 1e9)
    let b = network.addHost(inbound: 1e9, outbound: 1e9)
    let c = network.addHost(inbound: 1e9, outbound: 1e9)
    let toB = network.connect(from: a, to: b), toC = network.connect(from: a, to: c)
    network.send(1, bytes: 10, over: toB, from: a)
    network.send(2, bytes: 10, over: toC, from: a)
    network.kill(b, silently: false)
    network.cut(a, c)
    var events: [String] = []
    while let event = network.next() {
      switch event {
      case .arrived: events.append("arrived")
      case .closed(let connection, a): events.append("closed \(connection.number)")
      default: break
      }
    }
    #expect(events == ["closed \(toB.number)"])
    #expect(!network.isAlive(b))
  }
}
