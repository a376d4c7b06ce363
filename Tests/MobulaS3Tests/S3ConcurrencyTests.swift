import MobulaCore
import Testing

@testable import MobulaS3

/// How many requests run at once and how big they are, as transcripts and against a simulated server.
@Suite struct S3ConcurrencyTests {
  typealias Machine = S3ConcurrencyStateMachine
  static let megabyte = 1_000_000

  func settings(maximum: Int = 16, initial: Int = 4) -> Machine.Settings {
    Machine.Settings(maximum: maximum, initial: initial, smallestPart: 1_048_576)
  }

  /// Lets a window of `rate` bytes a second pass, and the time before it.
  static func window(_ machine: inout Machine, rate: Int, from now: Duration) -> Duration {
    let window = machine.settings.window
    #expect(machine.received(1, at: now + window) == 0)
    let bytes = rate / 4
    _ = machine.received(bytes, at: now + window * 2)
    return now + window * 2
  }

  @Test func noMoreThanTheLimitRun() {
    var machine = Machine(settings(initial: 2))
    #expect(machine.wants() == .start(bytes: 8_388_608))
    #expect(machine.wants() == .start(bytes: 8_388_608))
    #expect(machine.wants() == .wait)
    machine.failed()
    #expect(machine.wants() == .start(bytes: 8_388_608))
    #expect(machine.running == 2)
  }

  @Test func doublesWhileThatPays() {
    var machine = Machine(settings(initial: 2))
    var now = Duration.zero
    now = Self.window(&machine, rate: 100_000_000, from: now)
    #expect(machine.limit == 4)
    now = Self.window(&machine, rate: 190_000_000, from: now)
    #expect(machine.limit == 8)
    // Eight bring hardly more than four.
    now = Self.window(&machine, rate: 200_000_000, from: now)
    #expect(machine.limit == 4)
    now = Self.window(&machine, rate: 500_000_000, from: now)
    #expect(machine.limit == 4, "held for a while, whatever comes")
  }

  @Test func neverMoreThanTheMaximum() {
    var machine = Machine(settings(maximum: 5, initial: 4))
    var now = Duration.zero
    for rate in 1...20 { now = Self.window(&machine, rate: rate * 100_000_000, from: now) }
    #expect(machine.limit == 5)
  }

  @Test func oneMoreIsTriedLater() {
    var machine = Machine(settings(initial: 4))
    var now = Self.window(&machine, rate: 100_000_000, from: .zero)
    now = Self.window(&machine, rate: 100_000_000, from: now)
    #expect(machine.limit == 4)
    now += machine.settings.hold
    now = Self.window(&machine, rate: 100_000_000, from: now)
    #expect(machine.limit == 5)
    now = Self.window(&machine, rate: 120_000_000, from: now)
    #expect(machine.limit == 5, "a fifth brings a fifth: it stays")
    now = Self.window(&machine, rate: 120_000_000, from: now)
    #expect(machine.limit == 6)
    now = Self.window(&machine, rate: 121_000_000, from: now)
    #expect(machine.limit == 5, "the sixth brings nothing")
  }

  /// Lets bytes come at `rate` a second until the number of requests was judged.
  private func slowly(_ machine: inout Machine, rate: Int, from now: Duration) -> Duration {
    var now = now + machine.settings.window
    _ = machine.received(1, at: now)
    for _ in 0..<8 {
      now += machine.settings.window
      _ = machine.received(rate / 4, at: now)
    }
    return now
  }

  /// 100 kB/s that requests share: one brings as much as four, and none of four may get anything for long.
  @Test func aSlowLinkIsSharedByFew() {
    var machine = Machine(settings(initial: 4))
    var now = Duration.zero
    var limits: [Int] = []
    for _ in 0..<6 {
      now = slowly(&machine, rate: 100_000, from: now)
      limits.append(machine.limit)
    }
    #expect(limits.prefix(5) == [8, 4, 2, 2, 1], "\(limits)")
  }

  /// Far away each connection brings little by itself: fewer bring less, and it stays.
  @Test func slowConnectionsThatShareNothingStay() {
    var machine = Machine(settings(initial: 4))
    var now = Duration.zero
    for _ in 0..<12 {
      now = slowly(&machine, rate: 20_000 * machine.limit, from: now)
    }
    #expect(machine.limit >= 4)
  }

  /// What a few bytes say of a number of requests is chance.
  @Test func aNumberIsNotJudgedByAFewBytes() {
    var machine = Machine(settings(initial: 4))
    _ = machine.received(1, at: .milliseconds(250))
    _ = machine.received(25_000, at: .milliseconds(500))
    #expect(machine.limit == 4)
    _ = machine.received(25_000, at: .milliseconds(2300))
    #expect(machine.limit == 8)
  }

  @Test func aWishForLessHalvesOnceForAllThatWereUnderWay() {
    var machine = Machine(settings(initial: 8))
    for _ in 0..<8 { _ = machine.wants() }
    machine.throttled(startedAt: .seconds(1), at: .seconds(2))
    #expect(machine.limit == 4)
    machine.throttled(startedAt: .seconds(1.5), at: .seconds(2.1))
    #expect(machine.limit == 4)
    machine.throttled(startedAt: .seconds(2.05), at: .seconds(2.2))
    #expect(machine.limit == 2)
    for second in 3...6 { machine.throttled(startedAt: .seconds(second), at: .seconds(second)) }
    #expect(machine.limit == 1)
  }

  @Test func aFixedNumberOnlyFallsAndComesBack() {
    var fixed = settings(maximum: 4, initial: 4)
    fixed.isAdaptive = false
    var machine = Machine(fixed)
    var now = Duration.zero
    for rate in 1...5 { now = Self.window(&machine, rate: rate * 100_000_000, from: now) }
    #expect(machine.limit == 4)
    _ = machine.wants()
    machine.throttled(startedAt: now, at: now)
    #expect(machine.limit == 2)
    now += machine.settings.hold
    for rate in 2...7 { now = Self.window(&machine, rate: rate * 100_000_000, from: now) }
    #expect(machine.limit == 4)
  }

  @Test func partsGrowWithWhatAConnectionBrings() {
    var machine = Machine(settings())
    #expect(machine.wants() == .start(bytes: 8_388_608))
    machine.finished(8_388_608, in: .milliseconds(100))
    #expect(machine.wants() == .start(bytes: 16_777_216), "a fifth of a second's worth")
    machine.finished(16_777_216, in: .milliseconds(10))
    #expect(machine.wants() == .start(bytes: 67_108_864), "the largest")
    #expect(machine.wants(remaining: 20_000_000) == .start(bytes: 5_000_000), "so that all end together")
    #expect(machine.wants(remaining: 20) == .start(bytes: 1_048_576), "never less than the smallest")
    var slow = Machine(settings())
    _ = slow.wants()
    slow.finished(1_000, in: .seconds(10))
    #expect(slow.wants() == .start(bytes: 1_048_576))
  }

  @Test func aFixedPartStays() {
    var fixed = settings()
    fixed.isPartFixed = true
    fixed.initialPart = 3_000_000
    var machine = Machine(fixed)
    _ = machine.wants()
    machine.finished(3_000_000, in: .milliseconds(1))
    #expect(machine.wants(remaining: 10) == .start(bytes: 3_000_000))
  }

  /// A server with so many bytes a second for all and for each connection, a time until the first byte, and a number
  /// of requests from which on it refuses; in virtual time.
  struct SimulatedServer {
    var total: Double
    var each: Double
    var latency: Double
    var refusesFrom = Int.max

    struct Outcome {
      var seconds: Double
      var refusals: Int
      var requests: Int
      var limit: Int
      var largest: Int
    }

    func transfer(_ size: Int, _ machine: inout Machine, seed: UInt64) -> Outcome {
      struct Request { var start, begins, left: Double; let size: Int }
      var generator = SeededGenerator(seed: seed)
      var requests: [Request] = []
      // Those who were refused come back after a pause.
      var paused: [(until: Double, bytes: Int)] = []
      var outcome = Outcome(seconds: 0, refusals: 0, requests: 0, limit: 0, largest: 0)
      var unasked = size
      var received = 0
      let step = 0.005
      var now = 0.0
      while received < size, now < 10_000 {
        for entry in paused where entry.until <= now { unasked += entry.bytes }
        paused.removeAll { $0.until <= now }
        while unasked > 0, case .start(let bytes) = machine.wants(remaining: unasked) {
          let part = min(bytes, unasked)
          unasked -= part
          outcome.requests += 1
          if requests.count >= refusesFrom {
            machine.throttled(startedAt: .seconds(now), at: .seconds(now))
            outcome.refusals += 1
            paused.append((now + Double.random(in: 0...0.2, using: &generator), part))
          } else {
            let delay = latency * Double.random(in: 0.5...1.5, using: &generator)
            requests.append(Request(start: now, begins: now + delay, left: Double(part), size: part))
          }
        }
        outcome.largest = max(outcome.largest, requests.count)
        now += step
        let active = requests.indices.filter { requests[$0].begins <= now }
        let share = active.isEmpty ? 0 : min(each, total / Double(active.count)) * step
        for index in active {
          let bytes = min(requests[index].left, share)
          requests[index].left -= bytes
          _ = machine.received(Int(bytes), at: .seconds(now))
          if requests[index].left < 1 {
            machine.finished(requests[index].size, in: .seconds(now - requests[index].start))
            received += requests[index].size
          }
        }
        requests.removeAll { $0.left < 1 }
      }
      outcome.seconds = now
      outcome.limit = machine.limit
      return outcome
    }
  }

  /// The number that fills the link is found, and not many more.
  @Test(arguments: [(1.0e9, 100e6, 8...16), (200e6, 100e6, 2...6), (100e6, 1e9, 1...5)], [1, 2, 3] as [UInt64])
  func findsTheNumberThatFillsTheLink(server: (total: Double, each: Double, limits: ClosedRange<Int>), seed: UInt64) {
    var machine = Machine(settings())
    let size = 4_000 * Self.megabyte
    let outcome = SimulatedServer(total: server.total, each: server.each, latency: 0.03)
      .transfer(size, &machine, seed: seed)
    #expect(server.limits.contains(outcome.limit), "\(outcome), seed \(seed)")
    #expect(outcome.seconds < 1.35 * Double(size) / server.total + 1, "\(outcome), seed \(seed)")
    #expect(outcome.largest <= 16)
    // A fifth of a second each.
    #expect(outcome.requests < size / 4_000_000 + 60, "\(outcome), seed \(seed)")
  }

  /// A server that refuses the seventh request is asked for six or fewer, and the transfer ends in good time.
  @Test(arguments: 1...5 as ClosedRange<UInt64>) func livesWithAServerThatRefuses(seed: UInt64) {
    var machine = Machine(settings())
    let size = 2_000 * Self.megabyte
    let outcome = SimulatedServer(total: 1e9, each: 50e6, latency: 0.03, refusesFrom: 6)
      .transfer(size, &machine, seed: seed)
    #expect(outcome.limit <= 6, "\(outcome), seed \(seed)")
    #expect(outcome.refusals < 40, "\(outcome), seed \(seed)")
    #expect(outcome.seconds < 2 * Double(size) / 300e6, "\(outcome), seed \(seed)")
  }
}
