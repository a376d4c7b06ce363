import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaStore

struct VirtualSpaceTests {
  @Test func aFreshArenaHasToBeReserved() {
    var space = VirtualSpace(size: 1000, granularity: 1)
    #expect(space.allocate(10) == .init(range: 0..<10, toReserve: [0..<10]))
    #expect(space.allocate(1000) == nil)
    #expect(space.allocate(.max) == nil)
    #expect(space.usedBytes == 10 && space.reservedBytes == 10 && space.largestFree == 990)
  }

  @Test func theSmallestWarmRangeThatFitsIsTaken() throws {
    var space = VirtualSpace(size: 1024, granularity: 4)
    let ranges = try [40, 4, 20, 4, 24, 4].map { try space.taken($0) }
    for index in [0, 2, 4] { space.free(ranges[index]) }
    #expect(space.warmBytes == 84 && space.usedBytes == 12 && space.reservedBytes == 96)
    #expect(space.allocate(18) == .init(range: ranges[2], toReserve: []))
    #expect(space.allocate(21) == .init(range: ranges[4], toReserve: []))
    #expect(space.allocate(4, alignment: 16) == .init(range: 0..<4, toReserve: []))
  }

  @Test func aRangeGrowsAroundWarmMemory() {
    var space = VirtualSpace(size: 100, granularity: 1)
    let marked = space.take(0..<100)
    #expect(marked)
    space.freeUnreserved(0..<40, reserved: [4..<8, 30..<40])
    // The larger warm range, and what comes before it as nothing is free behind it.
    space.freeUnreserved(90..<100, reserved: [])
    #expect(space.allocate(25) == .init(range: 15..<40, toReserve: [15..<30]))
    // From 4 on there is no room for 12 bytes.
    #expect(space.allocate(12) == .init(range: 0..<12, toReserve: [0..<4, 8..<12]))
    #expect(space.warmBytes == 0)
    #expect(space.allocate(10) == .init(range: 90..<100, toReserve: [90..<100]))
  }

  @Test func trimTakesFromTheEnd() throws {
    var space = VirtualSpace(size: 1024, granularity: 16)
    let ranges = try [64, 16, 32, 16].map { try space.taken($0) }
    space.free(ranges[0])
    space.free(ranges[2])
    #expect(space.trim(0) == [])
    #expect(space.trim(33) == [80..<112, 48..<64])
    #expect(space.warm.ranges == [0..<48] && space.free.contains(48..<64))
    #expect(space.trim(.max) == [0..<48])
    #expect(space.warmBytes == 0 && space.usedBytes == 32)
  }

  @Test func whatIsPendingIsNotGivenOut() throws {
    var space = VirtualSpace(size: 96, granularity: 16)
    let first = try space.taken(32)
    #expect(space.warmUp(17) == [32..<64])
    #expect(space.pendingBytes == 32 && space.usedBytes == 32 && space.warmBytes == 0)
    #expect(space.allocate(48) == nil)
    #expect(space.take(48..<64) == false)
    space.didWarm(32..<48)
    space.warmFailed(48..<64)
    #expect(space.pendingBytes == 0 && space.warm.ranges == [32..<48])
    #expect(space.allocate(16) == .init(range: 32..<48, toReserve: []))
    space.free(first)
    #expect(space.warmUp(.max) == [48..<96])
    #expect(space.warmUp(1) == [])
  }

  @Test func warmMemoryGrowsInOnePiece() {
    var space = VirtualSpace(size: 100, granularity: 1)
    let marked = space.take(0..<100)
    #expect(marked)
    space.freeUnreserved(0..<10, reserved: [])
    space.freeUnreserved(20..<60, reserved: [30..<40])
    #expect(space.warmUp(5) == [40..<45])
    #expect(space.warmUp(20) == [25..<30, 45..<60])
    #expect(space.warmUp(8) == [0..<3, 20..<25])
  }

  @Test func takeRefusesWhatIsNotFree() {
    var space = VirtualSpace(size: 64, granularity: 16)
    var answers = [space.take(16..<32)]
    for range in [16..<32, 0..<32, 48..<80, -16..<0, 0..<8, 0..<0] { answers.append(space.take(range)) }
    #expect(answers == [true, false, false, false, false, false, false])
    #expect(space.usedBytes == 16)
  }

  @Test(arguments: 1...40 as ClosedRange<UInt64>)
  func agreesWithAModel(seed: UInt64) {
    var simulation = SpaceSimulation(seed: seed)
    for step in 0..<1500 {
      simulation.step()
      if let problem = simulation.problem() {
        Issue.record("seed \(seed), step \(step): \(problem)")
        return
      }
    }
    #expect(simulation.refusals > 0 && simulation.partly > 0, "seed \(seed)")
  }
}

extension VirtualSpace {
  /// Where an allocation went that has to succeed.
  fileprivate mutating func taken(_ size: Int) throws -> Range<Int> {
    let allocation = allocate(size)
    return try #require(allocation).range
  }
}

/// One state for each granule of a small arena.
private struct SpaceSimulation {
  enum State { case used, cold, warm, pending }

  static let granule = 16
  var space = VirtualSpace(size: 96 * granule, granularity: granule)
  /// How many allocations found no room, and how many some warm memory.
  var refusals = 0
  var partly = 0
  private var states = [State](repeating: .cold, count: 96)
  private var live: [Range<Int>] = []
  private var generator: SeededGenerator
  private var violation: String?

  init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

  mutating func step() {
    switch Int.random(in: 0..<100, using: &generator) {
    case 0..<40: allocate()
    case 40..<68: free()
    case 68..<76: trim()
    case 76..<84: warmUp()
    case 84..<94: answer()
    default: take()
    }
  }

  private mutating func allocate() {
    let bytes = Int.random(in: 1...20 * Self.granule, using: &generator)
    let count = (bytes + Self.granule - 1) / Self.granule
    let alignment = [1, 1, 1, 2, 3, 8].randomElement(using: &generator)!
    let starts = stride(from: 0, through: states.count - count, by: alignment).filter { start in
      states[start..<start + count].allSatisfy { $0 == .cold || $0 == .warm }
    }
    func warmth(_ start: Int) -> Int { states[start..<start + count].count { $0 == .warm } }
    let most = starts.map(warmth).max()
    guard let allocation = space.allocate(bytes, alignment: alignment * Self.granule) else {
      if most != nil { violation = "no room for \(count) granules" }
      refusals += 1
      return
    }
    let granules = indices(allocation.range)
    guard starts.contains(granules.lowerBound), granules.count == count else {
      violation = "\(granules) is no place for \(count) granules at multiples of \(alignment)"
      return
    }
    let covered = warmth(granules.lowerBound)
    if covered != most { violation = "\(granules) has \(covered) warm granules, of at most \(most ?? 0)" }
    if covered == count {
      let smallest = warmRuns().filter { run in starts.contains { run.clamped(to: $0..<$0 + count).count == count } }
        .map(\.count).min()
      let chosen = warmRuns().first { $0.contains(granules.lowerBound) }
      if chosen?.count != smallest { violation = "\(granules) is not in the smallest warm range" }
    } else {
      if most == 0, granules.lowerBound != starts.first { violation = "\(granules) is not the first free range" }
      if covered > 0 { partly += 1 }
    }
    let cold = Set(allocation.toReserve.flatMap { indices($0) })
    if cold != Set(granules.filter { states[$0] == .cold }) { violation = "to reserve: \(allocation.toReserve)" }
    for granule in granules { states[granule] = .used }
    live.append(allocation.range)
  }

  private mutating func free() {
    guard !live.isEmpty else { return }
    let range = live.remove(at: Int.random(in: live.indices, using: &generator))
    let granules = indices(range)
    if Int.random(in: 0..<4, using: &generator) > 0 {
      space.free(range)
      for granule in granules { states[granule] = .warm }
    } else {
      let reserved = granules.filter { _ in Bool.random(using: &generator) }
      for granule in granules { states[granule] = reserved.contains(granule) ? .warm : .cold }
      space.freeUnreserved(range, reserved: reserved.map { bytes($0..<$0 + 1) })
    }
  }

  private mutating func trim() {
    let bytes = Int.random(in: 0...300, using: &generator)
    let warm = states.indices.filter { states[$0] == .warm }
    let expected = Array(warm.suffix((bytes + Self.granule - 1) / Self.granule))
    let trimmed = space.trim(bytes).flatMap { indices($0) }.sorted()
    if trimmed != expected { violation = "trimmed \(trimmed), not \(expected)" }
    for granule in trimmed { states[granule] = .cold }
  }

  private mutating func warmUp() {
    let bytes = Int.random(in: 0...300, using: &generator)
    let picked = space.warmUp(bytes).flatMap { indices($0) }
    let count = min((bytes + Self.granule - 1) / Self.granule, states.count { $0 == .cold })
    if picked.count != count || picked.contains(where: { states[$0] != .cold }) { violation = "picked \(picked)" }
    let isNearWarm = states.indices.contains { index in
      states[index] == .cold
        && [index - 1, index + 1].contains { states.indices.contains($0) && [.warm, .pending].contains(states[$0]) }
    }
    let touches = picked.contains { index in
      [index - 1, index + 1].contains { states.indices.contains($0) && [.warm, .pending].contains(states[$0]) }
    }
    if count > 0, isNearWarm != touches { violation = "picked \(picked), not next to warm memory" }
    for granule in picked { states[granule] = .pending }
  }

  private mutating func answer() {
    guard let range = space.pending.ranges.randomElement(using: &generator) else { return }
    let granules = indices(range)
    let middle = Int.random(in: granules.lowerBound...granules.upperBound, using: &generator)
    space.didWarm(bytes(granules.lowerBound..<middle))
    space.warmFailed(bytes(middle..<granules.upperBound))
    for granule in granules { states[granule] = granule < middle ? .warm : .cold }
  }

  private mutating func take() {
    let first = Int.random(in: 0..<96, using: &generator)
    let granules = first..<min(96, first + Int.random(in: 1...6, using: &generator))
    let isFree = states[granules].allSatisfy { $0 == .cold || $0 == .warm }
    if space.take(bytes(granules)) != isFree { violation = "take of \(granules) is not \(isFree)" }
    guard isFree else { return }
    for granule in granules { states[granule] = .used }
    live.append(bytes(granules))
  }

  func problem() -> String? {
    if let violation { return violation }
    func bytes(_ state: State) -> Int { states.count { $0 == state } * Self.granule }
    if space.usedBytes != bytes(.used) { return "\(space.usedBytes) bytes used" }
    if space.warmBytes != bytes(.warm) { return "\(space.warmBytes) bytes warm" }
    if space.pendingBytes != bytes(.pending) { return "\(space.pendingBytes) bytes pending" }
    if space.reservedBytes != bytes(.used) + bytes(.warm) { return "\(space.reservedBytes) bytes reserved" }
    let largest = states.split { $0 == .used || $0 == .pending }.map(\.count).max() ?? 0
    return space.largestFree == largest * Self.granule ? nil : "the largest free range has \(space.largestFree) bytes"
  }

  private func warmRuns() -> [Range<Int>] {
    states.indices.split { states[$0] != .warm }.map { $0.first!..<$0.last! + 1 }
  }

  private func indices(_ bytes: Range<Int>) -> Range<Int> {
    bytes.lowerBound / Self.granule..<bytes.upperBound / Self.granule
  }

  private func bytes(_ granules: Range<Int>) -> Range<Int> {
    granules.lowerBound * Self.granule..<granules.upperBound * Self.granule
  }
}
