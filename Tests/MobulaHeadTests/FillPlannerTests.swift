import MobulaCore
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// Which part of an object each host reads from outside.
@Suite struct FillPlannerTests {
  private let a = HostID(high: 0, low: 1), b = HostID(high: 0, low: 2), c = HostID(high: 0, low: 3)

  /// So many parts of 2 MiB, of eight chunks each but the last, which has one.
  private func planner(parts: Int) throws -> FillPlanner {
    FillPlanner(try ChunkGeometry(objectSize: (parts - 1) * (2 << 20) + 1, chunkSize: 262_144))
  }

  @Test(arguments: [(1, 8), (3 << 20, 8), (128 << 20, 8), (564_000_000, 8), (1 << 30, 16), (100 << 30, 4)])
  func partsAreOfAUsefulSize(_ size: Int, _ chunks: Int) throws {
    #expect(FillPlanner.chunksPerPart(try ChunkGeometry(objectSize: size)) == chunks)
  }

  @Test func everyPartIsGivenOnce() throws {
    var planner = try planner(parts: 3)
    #expect(planner.take(a, now: .zero) == .part(0..<8))
    #expect(planner.take(b, now: .zero) == .part(8..<16))
    #expect(planner.take(a, now: .zero) == .part(16..<17))
    #expect(planner.take(b, now: .zero) == .wait)
    for (host, part) in [(a, 0..<8), (b, 8..<16), (a, 16..<17)] { planner.finished(host, part, now: .seconds(1)) }
    #expect(planner.take(a, now: .seconds(9)) == .wait)
  }

  @Test func whatALostHostHasReadIsReadAgain() throws {
    var planner = try planner(parts: 3)
    _ = planner.take(a, now: .zero)
    _ = planner.take(a, now: .zero)
    planner.finished(a, 0..<8, now: .seconds(1))
    var failed = planner
    failed.failed(a)
    #expect(failed.take(b, now: .seconds(1)) == .part(8..<16))
    #expect(failed.take(b, now: .seconds(1)) == .part(16..<17))
    #expect(failed.take(b, now: .seconds(1)) == .wait)
    planner.lost(a)
    #expect(planner.take(b, now: .seconds(1)) == .part(0..<8))
    #expect(planner.take(b, now: .seconds(1)) == .part(8..<16))
    // A late word of who is gone changes nothing.
    planner.finished(a, 8..<16, now: .seconds(2))
    #expect(planner.take(c, now: .seconds(2)) == .part(16..<17))
  }

  @Test func aSlowPartIsReadByOneMore() throws {
    var planner = try planner(parts: 2)
    #expect(planner.take(a, now: .zero) == .part(0..<8))
    #expect(planner.take(b, now: .zero) == .part(8..<9))
    // Nobody knows yet what is slow.
    #expect(planner.take(b, now: .seconds(1)) == .wait)
    planner.finished(b, 8..<9, now: .seconds(1))
    #expect(planner.take(b, now: .seconds(4)) == .wait)
    #expect(planner.take(a, now: .seconds(5)) == .wait)
    #expect(planner.take(b, now: .seconds(5)) == .part(0..<8))
    #expect(planner.take(c, now: .seconds(60)) == .wait)
    planner.failed(b)
    #expect(planner.take(c, now: .seconds(60)) == .part(0..<8))
  }

  /// Whoever was slow beside others on one line may be fast without them.
  @Test func aSlowPartIsLeftToItsHostUntilTheOthersHaveBeenDoneForAWhile() throws {
    var planner = try planner(parts: 2)
    #expect(planner.take(a, now: .zero) == .part(0..<8))
    #expect(planner.take(b, now: .zero) == .part(8..<9))
    planner.finished(b, 8..<9, now: .seconds(10))
    #expect(planner.take(b, now: .seconds(45)) == .wait)
    #expect(planner.take(b, now: .seconds(54)) == .wait)
    #expect(planner.take(b, now: .seconds(55)) == .part(0..<8))
  }

  @Test func onlySoManyRead() throws {
    var planner = try planner(parts: 50)
    for host in 1...FillPlanner.maximumHosts {
      #expect(planner.take(HostID(high: 1, low: UInt64(host)), now: .zero) != .none)
    }
    #expect(planner.take(a, now: .zero) == .none)
    planner.failed(HostID(high: 1, low: 1))
    #expect(planner.take(a, now: .zero) == .part(0..<8))
  }

  /// Hosts that come, read at their own rate, fail and go: all is read in the end, and what no fault touched once.
  @Test(arguments: 1...200) func anyOrderReadsEverything(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let parts = Int.random(in: 1...40, using: &random)
    var planner = try planner(parts: parts)
    var hosts = (1...6).map { HostID(high: 1, low: $0) }
    var reading: [(host: HostID, part: Range<Int>, end: Duration)] = []
    var has: [HostID: Set<Range<Int>>] = [:]
    var given = 0
    var faults = 0
    var now = Duration.zero
    for _ in 0..<5000 {
      let everything = has.filter { hosts.contains($0.key) }.values.reduce(into: Set()) { $0.formUnion($1) }
      if everything.count == parts { break }
      now += .milliseconds(50)
      for done in reading where done.end <= now && hosts.contains(done.host) {
        has[done.host, default: []].insert(done.part)
        planner.finished(done.host, done.part, now: now)
      }
      reading.removeAll { $0.end <= now }
      let host = hosts.randomElement(using: &random)!
      switch Int.random(in: 0..<100, using: &random) {
      case 0 where hosts.count > 2:
        hosts.removeAll { $0 == host }
        reading.removeAll { $0.host == host }
        planner.lost(host)
        faults += 1
      case 1:
        reading.removeAll { $0.host == host }
        planner.failed(host)
        faults += 1
      default:
        guard reading.count(where: { $0.host == host }) < 2 else { continue }
        if case .part(let part) = planner.take(host, now: now) {
          given += 1
          reading.append((host, part, now + .milliseconds(Int.random(in: 20...400, using: &random))))
        }
      }
    }
    let everything = has.filter { hosts.contains($0.key) }.values.reduce(into: Set()) { $0.formUnion($1) }
    #expect(everything.count == parts, "seed \(seed)")
    if faults == 0 { #expect(given == parts, "seed \(seed)") }
  }
}
