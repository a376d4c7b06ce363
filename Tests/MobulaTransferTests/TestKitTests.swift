import MobulaCore
import MobulaSimulation
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

  /// Two senders share a receiver that is no faster than each of them: both take twice as long.
  @Test func anInterfaceIsSharedByAllWhoSendToIt() {
    var network = SimulatedNetwork<String>(seed: 1, latency: .zero, jitter: 0, piece: 10_000)
    let hosts = (0..<3).map { _ in network.addHost(inbound: 1e6, outbound: 1e6) }
    network.send("a", bytes: 1_000_000, over: network.connect(from: hosts[0], to: hosts[2]), from: hosts[0])
    network.send("b", bytes: 1_000_000, over: network.connect(from: hosts[1], to: hosts[2]), from: hosts[1])
    var arrivals: [String: Double] = [:]
    while let event = network.next() {
      if case .arrived(let message, _, _) = event { arrivals[message] = Double(network.nanoseconds) / 1e9 }
    }
    #expect(abs((arrivals["a"] ?? 0) - 2) < 0.03)
    #expect(abs((arrivals["b"] ?? 0) - 2) < 0.03)
    #expect(network.bytesReceived(by: hosts[2]) == 2_000_000)
    #expect(network.bytesSent(by: hosts[0]) == 1_000_000)
  }

  /// A sender's other connections go on at the full rate while one receiver takes little.
  @Test func aSlowReceiverDoesNotHoldUpTheOthers() {
    var network = SimulatedNetwork<String>(seed: 1, latency: .zero, jitter: 0, piece: 10_000)
    let hosts = (0..<3).map { _ in network.addHost(inbound: 1e6, outbound: 1e6) }
    network.slow(hosts[1], by: 10)
    network.send("slow", bytes: 1_000_000, over: network.connect(from: hosts[0], to: hosts[1]), from: hosts[0])
    network.send("fast", bytes: 900_000, over: network.connect(from: hosts[0], to: hosts[2]), from: hosts[0])
    var arrivals: [String: Double] = [:]
    while let event = network.next() {
      if case .arrived(let message, _, _) = event { arrivals[message] = Double(network.nanoseconds) / 1e9 }
    }
    #expect(abs((arrivals["fast"] ?? 0) - 1) < 0.05)
    #expect(abs((arrivals["slow"] ?? 0) - 10) < 0.1)
  }

  @Test func longMessagesOfOneConnectionArriveOneAfterTheOther() {
    var network = SimulatedNetwork<Int>(seed: 1, piece: 10_000)
    let a = network.addHost(inbound: 1e6, outbound: 1e6)
    let b = network.addHost(inbound: 1e6, outbound: 1e6)
    let connection = network.connect(from: a, to: b)
    // Of one piece, of several, and short.
    let sizes = [50_000, 5000, 20, 30_000, 6000, 10]
    for (number, bytes) in sizes.enumerated() { network.send(number, bytes: bytes, over: connection, from: a) }
    var events: [String] = []
    while let event = network.next() {
      switch event {
      case .began(let number, _, _): events.append("began \(number)")
      case .arrived(let number, _, _): events.append("arrived \(number)")
      default: break
      }
    }
    #expect(
      events == [
        "began 0", "arrived 0", "began 1", "arrived 1", "arrived 2", "began 3", "arrived 3", "began 4", "arrived 4",
        "arrived 5",
      ])
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
      case .closed(let connection, let host): events.append("closed \(connection) at \(host)")
      default: break
      }
    }
    #expect(events == ["closed \(toB) at \(a)"])
    #expect(!network.isAlive(b))
  }
}
