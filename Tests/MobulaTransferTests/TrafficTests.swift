import MobulaCore
import MobulaSimulation
import MobulaTestKit
import Testing

@testable import MobulaTransfer

/// One event a line, as a transcript.
@Suite struct TrafficTests {
  /// 100 pieces of 100 kB a second.
  private let limit = LinkRate("10MB/s")!

  @Test func withoutALimitAndAloneNobodyWaits() {
    var traffic = TrafficStateMachine(limit: nil)
    for flow in 1...3 as ClosedRange<UInt64> {
      #expect(traffic.asked(flow, 262_144, .background, continues: false, now: .zero) == [.admit(flow)])
    }
    #expect(traffic.piece == 262_144)
  }

  @Test func aPieceWaitsUntilThoseBeforeItAreOver() {
    var traffic = TrafficStateMachine(limit: limit)
    #expect(traffic.piece == 98_304)
    // 20 ms from before may be made up for; a piece of 100 kB is 10 ms.
    #expect(traffic.asked(1, 100_000, .get, continues: false, now: .seconds(9)) == [.admit(1)])
    #expect(traffic.asked(1, 100_000, .get, continues: true, now: .seconds(9)) == [.admit(1)])
    #expect(traffic.asked(1, 100_000, .get, continues: true, now: .seconds(9)) == [.admit(1)])
    let next = Duration.milliseconds(9010)
    #expect(traffic.asked(1, 100_000, .get, continues: true, now: .seconds(9)) == [.wakeAt(next)])
    #expect(traffic.tick(now: .milliseconds(9009)) == [.wakeAt(next)])
    #expect(traffic.tick(now: next) == [.admit(1)])
  }

  @Test func whatIsWaitedForGoesFirst() {
    var traffic = TrafficStateMachine(limit: limit)
    fill(&traffic)
    #expect(traffic.asked(1, 100_000, .background, continues: false, now: .zero) == [.wakeAt(.milliseconds(10))])
    #expect(traffic.asked(2, 100_000, .prefetch, continues: false, now: .zero) == [.wakeAt(.milliseconds(10))])
    #expect(traffic.asked(3, 100_000, .get, continues: false, now: .zero) == [.wakeAt(.milliseconds(10))])
    #expect(traffic.tick(now: .milliseconds(10)) == [.admit(3), .wakeAt(.milliseconds(20))])
    #expect(traffic.tick(now: .milliseconds(20)) == [.admit(2), .wakeAt(.milliseconds(30))])
    #expect(traffic.tick(now: .milliseconds(30)) == [.admit(1)])
  }

  @Test func whatIsRaisedGoesFirst() {
    var traffic = TrafficStateMachine(limit: limit)
    fill(&traffic)
    _ = traffic.asked(1, 100_000, .prefetch, continues: false, now: .zero)
    _ = traffic.asked(2, 100_000, .prefetch, continues: false, now: .zero)
    #expect(traffic.changed(2, to: .get, now: .zero) == [.wakeAt(.milliseconds(10))])
    #expect(traffic.changed(7, to: .get, now: .zero) == [])
    #expect(traffic.tick(now: .milliseconds(10)) == [.admit(2), .wakeAt(.milliseconds(20))])
  }

  @Test func aChunkThatWasBegunGoesBeforeOneThatBegins() {
    var traffic = TrafficStateMachine(limit: limit)
    fill(&traffic)
    _ = traffic.asked(1, 100_000, .get, continues: false, now: .zero)
    _ = traffic.asked(2, 100_000, .get, continues: true, now: .zero)
    _ = traffic.asked(3, 100_000, .get, continues: true, now: .zero)
    #expect(traffic.tick(now: .milliseconds(10)) == [.admit(2), .wakeAt(.milliseconds(20))])
    #expect(traffic.tick(now: .milliseconds(20)) == [.admit(3), .wakeAt(.milliseconds(30))])
    #expect(traffic.tick(now: .milliseconds(30)) == [.admit(1)])
  }

  @Test func whoLeavesIsNotWaitedFor() {
    var traffic = TrafficStateMachine(limit: limit)
    fill(&traffic)
    _ = traffic.asked(1, 100_000, .get, continues: false, now: .zero)
    _ = traffic.asked(2, 100_000, .background, continues: false, now: .zero)
    #expect(traffic.left(1, now: .milliseconds(5)) == [.wakeAt(.milliseconds(10))])
    #expect(traffic.left(1, now: .milliseconds(5)) == [])
    #expect(traffic.tick(now: .milliseconds(10)) == [.admit(2)])
  }

  @Test func withoutALimitTheLowerWaitsUntilTheHigherIsSilent() {
    var traffic = TrafficStateMachine(limit: nil)
    #expect(traffic.asked(1, 200_000, .get, continues: false, now: .zero) == [.admit(1)])
    #expect(traffic.asked(2, 200_000, .background, continues: false, now: .zero) == [.wakeAt(.milliseconds(100))])
    #expect(traffic.asked(1, 200_000, .get, continues: true, now: .milliseconds(50)).contains(.admit(1)))
    #expect(traffic.tick(now: .milliseconds(100)) == [.wakeAt(.milliseconds(150))])
    #expect(traffic.tick(now: .milliseconds(150)) == [.admit(2)])
    // And once it has waited long enough, however active the other is.
    #expect(traffic.asked(1, 200_000, .get, continues: true, now: .milliseconds(160)) == [.admit(1)])
    #expect(traffic.asked(2, 200_000, .background, continues: true, now: .milliseconds(160)).count == 1)
    for time in [240, 320] {
      let actions = traffic.asked(1, 200_000, .get, continues: true, now: .milliseconds(time))
      #expect(actions == [.admit(1), .wakeAt(.milliseconds(min(time + 100, 360)))])
    }
    #expect(traffic.tick(now: .milliseconds(360)) == [.admit(2)])
  }

  @Test func ofWhatTheHigherMovesTheLowerHasItsShare() {
    var traffic = TrafficStateMachine(limit: nil)
    _ = traffic.asked(1, 200_000, .get, continues: false, now: .zero)
    _ = traffic.asked(2, 100_000, .background, continues: false, now: .zero)
    var admitted: [TrafficStateMachine.Action] = []
    for _ in 0..<20 {
      let actions = traffic.asked(1, 200_000, .get, continues: true, now: .milliseconds(1))
      admitted += actions.filter { $0 == .admit(2) }
      if actions.contains(.admit(2)) {
        _ = traffic.asked(2, 100_000, .background, continues: true, now: .milliseconds(1))
      }
    }
    // 4 MB, of which a twentieth is two pieces.
    #expect(admitted.count == 2)
  }

  /// The next piece may begin after 10 ms.
  private func fill(_ traffic: inout TrafficStateMachine) {
    #expect(traffic.asked(99, 100_000, .get, continues: false, now: .zero) == [.admit(99)])
  }
}

/// Many flows with random loads: what moved is counted in bytes, over virtual time.
@Suite struct TrafficSimulationTests {
  private static let seeds: [UInt64] = Array(1...20)

  @Test(arguments: seeds)
  func aLimitIsKeptOverEverySecond(_ seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let rates = ["1MB/s", "10MB/s", "840mbit", "1.2gbit", "10gbit"]
    let limit = LinkRate(rates.randomElement(using: &generator)!)!
    // Enough to want more than the limit, each with pauses of its own; timers late by as much as they are.
    var simulation = TrafficSimulation(limit: limit, seed: seed, lateness: .milliseconds(10))
    for _ in 0..<Int.random(in: 40...60, using: &generator) {
      simulation.add(
        TransferPriority.allCases.randomElement(using: &generator)!,
        pause: .microseconds(Int.random(in: 10...5000, using: &generator)))
    }
    simulation.run(until: .seconds(4))
    for start in stride(from: 0, through: 3000, by: 100) {
      let bytes = simulation.bytes(in: .milliseconds(start) ..< .milliseconds(start + 1000))
      let share = Double(bytes) / limit.bytesPerSecond
      #expect(0.95...1.05 ~= share, "\(share) of \(limit) from \(start) ms on, seed \(seed)")
    }
  }

  @Test(arguments: seeds)
  func ofALimitTheHigherHasAllButAShare(_ seed: UInt64) {
    var simulation = TrafficSimulation(limit: LinkRate("100MB/s")!, seed: seed, lateness: .milliseconds(2))
    for _ in 0..<8 { simulation.add(.background, pause: .milliseconds(1)) }
    for _ in 0..<4 { simulation.add(.prefetch, pause: .milliseconds(1)) }
    for _ in 0..<4 { simulation.add(.get, pause: .milliseconds(1), until: .seconds(2)) }
    simulation.run(until: .seconds(4))
    let during = Duration.milliseconds(100) ..< .seconds(2)
    let after = Duration.milliseconds(2100) ..< .seconds(4)
    let got = Double(simulation.bytes(in: during, of: .get))
    #expect(0.87...0.93 ~= got / Double(simulation.bytes(in: during)))
    #expect(0.04...0.06 ~= Double(simulation.bytes(in: during, of: .prefetch)) / got)
    #expect(0.04...0.06 ~= Double(simulation.bytes(in: during, of: .background)) / got)
    #expect(0.94...0.96 ~= Double(simulation.bytes(in: after, of: .prefetch)) / Double(simulation.bytes(in: after)))
  }

  /// A link of 100 MB/s that the machine knows nothing of: what was admitted waits there for what was before.
  @Test(arguments: seeds)
  func withoutALimitTheLowerGivesWay(_ seed: UInt64) {
    var simulation = TrafficSimulation(limit: nil, seed: seed, lateness: .milliseconds(5), link: LinkRate("100MB/s")!)
    for _ in 0..<8 { simulation.add(.background, pause: .microseconds(100)) }
    for _ in 0..<2 { simulation.add(.get, pause: .microseconds(100), until: .seconds(2)) }
    simulation.run(until: .seconds(4))
    let during = Duration.milliseconds(100) ..< .seconds(2)
    let got = Double(simulation.bytes(in: during, of: .get))
    #expect(0.04...0.08 ~= Double(simulation.bytes(in: during, of: .background)) / got)
    // And once it is over, the lower has all.
    let after = simulation.bytes(in: .milliseconds(2200) ..< .seconds(4))
    #expect(0.97...1.03 ~= Double(after) / (1.8 * 100e6))
  }

  @Test(arguments: seeds)
  func nobodyWaitsForEver(_ seed: UInt64) {
    for limit in [nil, LinkRate("1MB/s")] {
      var simulation = TrafficSimulation(limit: limit, seed: seed, link: LinkRate("50MB/s")!)
      for _ in 0..<20 { simulation.add(.background, pause: .milliseconds(1)) }
      for _ in 0..<8 { simulation.add(.get, pause: .microseconds(1)) }
      simulation.run(until: .seconds(20))
      #expect(simulation.longestWait < .seconds(10), "\(simulation.longestWait) at \(limit as Any), seed \(seed)")
    }
  }
}

/// Flows that move chunks of 8 pieces, one piece after the other, with pauses between.
private struct TrafficSimulation {
  private struct Flow {
    var priority: TransferPriority
    var pause: Duration
    var end: Duration
    var bytes = 0
    var pieces = 0
    var askedAt = Duration.zero
  }

  private enum Event { case ask(TrafficStateMachine.FlowID), tick(Duration) }

  private var traffic: TrafficStateMachine
  /// The instant of the timer that counts.
  private var alarm: Duration?
  private var flows: [TrafficStateMachine.FlowID: Flow] = [:]
  private var events = EventQueue<Event>()
  private var generator: SeededGenerator
  private let lateness: Duration
  private let link: LinkRate?
  /// When the link has sent all that was admitted.
  private var linkFree = Duration.zero
  private var moved: [(at: Duration, bytes: Int, priority: TransferPriority)] = []
  /// In the middle of a chunk.
  private(set) var longestWait = Duration.zero

  /// - Parameters:
  ///   - lateness: how late the timer may fire.
  ///   - link: how fast pieces leave that were admitted.
  init(limit: LinkRate?, seed: UInt64, lateness: Duration = .zero, link: LinkRate? = nil) {
    traffic = TrafficStateMachine(limit: limit)
    generator = SeededGenerator(seed: seed)
    self.lateness = lateness
    self.link = link
  }

  mutating func add(_ priority: TransferPriority, pause: Duration, until end: Duration = .seconds(1000)) {
    let id = TrafficStateMachine.FlowID(flows.count + 1)
    flows[id] = Flow(priority: priority, pause: pause, end: end)
    add(.ask(id), at: pause * Double.random(in: 0...1, using: &generator))
  }

  func bytes(in range: Range<Duration>, of priority: TransferPriority? = nil) -> Int {
    moved.reduce(0) { sum, piece in
      range.contains(piece.at) && (priority ?? piece.priority) == piece.priority ? sum + piece.bytes : sum
    }
  }

  mutating func run(until end: Duration) {
    while let (instant, event) = events.popFirst(), instant.sinceStart < end {
      let now = instant.sinceStart
      switch event {
      case .tick(let instant):
        guard alarm == instant else { continue }
        alarm = nil
        act(traffic.tick(now: now), now)
      case .ask(let id):
        guard var flow = flows[id], now < flow.end else { continue }
        flow.bytes = Int.random(in: traffic.piece / 2...traffic.piece, using: &generator)
        flow.pieces += 1
        flow.askedAt = now
        flows[id] = flow
        act(traffic.asked(id, flow.bytes, flow.priority, continues: flow.pieces % 8 != 1, now: now), now)
      }
    }
  }

  private mutating func add(_ event: Event, at time: Duration) { events.add(event, at: .init(sinceStart: time)) }

  private mutating func act(_ actions: [TrafficStateMachine.Action], _ now: Duration) {
    for action in actions {
      switch action {
      case .wakeAt(let instant):
        if let alarm, alarm <= instant { break }
        alarm = instant
        add(.tick(instant), at: instant + lateness * Double.random(in: 0...1, using: &generator))
      case .admit(let id):
        let flow = flows[id]!
        if flow.pieces % 8 != 1 { longestWait = max(longestWait, now - flow.askedAt) }
        var done = now
        if let link {
          linkFree = max(linkFree, now) + link.time(for: flow.bytes)
          done = linkFree
        }
        moved.append((done, flow.bytes, flow.priority))
        add(.ask(id), at: done + flow.pause * Double.random(in: 0...1, using: &generator))
      }
    }
  }
}
