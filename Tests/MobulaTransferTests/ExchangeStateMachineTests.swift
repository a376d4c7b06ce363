import MobulaCore
import Testing

@testable import MobulaTransfer

@Suite struct ExchangeStateMachineTests {
  private let a = HostID(high: 0, low: 1), b = HostID(high: 0, low: 2), c = HostID(high: 0, low: 3)
  private let own = HostID(high: 0, low: 9)

  private func machine(chunks: Int = 4, _ change: (inout ExchangeLimits) -> Void = { _ in }) throws
    -> ExchangeStateMachine
  {
    var limits = ExchangeLimits()
    limits.smallestWindow = 2
    limits.bytesInFlight = 0
    change(&limits)
    return ExchangeStateMachine(
      geometry: try ChunkGeometry(objectSize: chunks * 65_536 - 1, chunkSize: 65_536), own: own, limits: limits, seed: 1
    )
  }

  private func open(_ machine: inout ExchangeStateMachine, _ lanes: Int..., wantsNews: Bool = false) throws {
    for lane in lanes {
      try machine.opened(
        lane, objectSize: machine.geometry.objectSize, chunkSize: 65_536, wantsNews: wantsNews, now: .zero)
    }
  }

  private func receive(_ machine: inout ExchangeStateMachine, _ lane: Int, _ chunk: Int, at now: Duration = .zero)
    throws
    -> [ExchangeStateMachine.Action]
  {
    let header = ChunkHeader(index: chunk, length: machine.geometry.range(of: chunk).count, checksum: 0)
    #expect(try machine.announced(lane, header) == .receive)
    return machine.arrived(lane, now: now)
  }

  @Test func everySourceIsConnectedAndOthersAreLookedFor() throws {
    var machine = try machine { $0.lanes = 3 }
    #expect(machine.started([a, own], now: .zero) == [.open(1, a), .findSources])
    #expect(machine.found([a, b], now: .zero) == [.open(2, b), .findSources])
    // A host that asks for the object is a source as well; more than enough are kept for later.
    #expect(machine.offered([c, HostID(high: 0, low: 4)], now: .zero) == [.open(3, c)])
    #expect(machine.ended(2, MobulaError(.connectionClosed, ""), now: .zero) == [.open(4, HostID(high: 0, low: 4))])
    #expect(machine.failedHosts == [b])
    #expect(machine.offered([b], now: .zero) == [])
  }

  @Test func whatIsOfferedIsAskedForUpToTheWindow() throws {
    var machine = try machine(chunks: 20) {
      $0.smallestWindow = 1
      $0.bytesInFlight = 0
    }
    _ = machine.started([a], now: .zero)
    try open(&machine, 1)
    #expect(try machine.offered(1, [3..<4], now: .zero) == [.request(1, 3)])
    // Eight at once, where there is one lane.
    #expect(try machine.offered(1, [5..<20], now: .zero).count == 7)
    let actions = try receive(&machine, 1, 3)
    #expect(actions.first == .acknowledge(1, 3))
  }

  @Test func theRarestChunkIsAskedForFirst() throws {
    var machine = try machine(chunks: 20)
    _ = machine.started([a, b], now: .zero)
    try open(&machine, 1, 2)
    #expect(try machine.offered(1, [0..<4], now: .zero).count == 4)
    #expect(try machine.offered(2, [4..<5], now: .zero) == [.request(2, 4)])
    #expect(try machine.offered(2, [5..<8], now: .zero).count == 3)
    // Both have 8 and 9, one has 10 alone.
    #expect(try machine.offered(1, [8..<11], now: .zero) == [])
    #expect(try machine.offered(2, [8..<10], now: .zero) == [])
    #expect(try receive(&machine, 1, 0) == [.acknowledge(1, 0), .request(1, 10)])
  }

  @Test func anOriginHearsWhatCameFromElsewhere() throws {
    var machine = try machine(chunks: 3)
    _ = machine.started([a, b], now: .zero)
    try open(&machine, 1, wantsNews: true)
    try open(&machine, 2)
    _ = try machine.offered(2, [0..<1], now: .zero)
    #expect(try machine.offered(1, [0..<1], now: .zero) == [])
    #expect(try receive(&machine, 2, 0) == [.acknowledge(2, 0), .acknowledge(1, 0)])
    // Also when it offers late.
    _ = try machine.offered(2, [1..<2], now: .zero)
    _ = try receive(&machine, 2, 1)
    #expect(try machine.offered(1, [1..<2], now: .zero) == [.acknowledge(1, 1)])
  }

  @Test func whatAFailedLaneOwedIsAskedOfAnother() throws {
    var machine = try machine(chunks: 4)
    _ = machine.started([a, b], now: .zero)
    try open(&machine, 1, 2)
    #expect(try machine.offered(1, [0..<4], now: .zero).count == 4)
    #expect(try machine.offered(2, [0..<4], now: .zero) == [])
    _ = try machine.announced(1, ChunkHeader(index: 2, length: 65_536, checksum: 0))
    let actions = machine.ended(1, MobulaError(.corrupted, "bad"), now: .zero)
    #expect(Set(actions) == Set((0..<4).map { .request(2, $0) }))
    #expect(machine.lastFailure?.code == .corrupted)
  }

  @Test func theEndClosesEveryLane() throws {
    var machine = try machine(chunks: 1)
    _ = machine.started([a, b], now: .zero)
    try open(&machine, 1, 2)
    _ = try machine.offered(1, [0..<1], now: .zero)
    #expect(try receive(&machine, 1, 0) == [.acknowledge(1, 0), .close(1), .close(2), .complete])
    #expect(machine.isOver)
    #expect(machine.ended(1, nil, now: .zero) == [])
    #expect(machine.tick(now: .seconds(100)) == [])
  }

  @Test func whatWaitsAtASlowLaneIsAskedOfAnIdleOne() throws {
    var machine = try machine(chunks: 4)
    _ = machine.started([a, b], now: .zero)
    try open(&machine, 1, 2)
    _ = try machine.offered(1, [0..<4], now: .zero)
    _ = try machine.announced(1, ChunkHeader(index: 0, length: 65_536, checksum: 0))
    _ = try machine.offered(2, [0..<4], now: .zero)
    let actions = machine.tick(now: .milliseconds(100)).filter { $0 != .findSources }
    guard case .cancel(1, let chunk) = actions.first else {
      Issue.record("\(actions)")
      return
    }
    #expect(actions == [.cancel(1, chunk), .request(2, chunk)])
    // It comes all the same: too late.
    _ = machine.arrived(1, now: .milliseconds(110))
    let late = ChunkHeader(index: chunk, length: machine.geometry.range(of: chunk).count, checksum: 0)
    #expect(try machine.announced(1, late) == .discard)
    #expect(throws: MobulaError.self) { try machine.announced(1, late) }
  }

  @Test func aLaneThatIsSlowInTheMiddleOfTheLastChunkIsLeft() throws {
    var machine = try machine(chunks: 2)
    _ = machine.started([a, b], now: .zero)
    try open(&machine, 1, 2)
    _ = try machine.offered(1, [0..<1], now: .zero)
    _ = try machine.offered(2, [0..<2], now: .zero)
    _ = try machine.announced(1, ChunkHeader(index: 0, length: 65_536, checksum: 0))
    _ = try receive(&machine, 2, 1, at: .milliseconds(10))
    #expect(machine.tick(now: .milliseconds(200)).filter { $0 != .findSources } == [])
    #expect(machine.tick(now: .milliseconds(400)).filter { $0 != .findSources } == [.close(1)])
    // Its thread may still write: the chunk is free once it has ended.
    #expect(machine.ended(1, nil, now: .milliseconds(401)).contains(.request(2, 0)))
    #expect(machine.failedHosts.isEmpty && machine.knownHosts == [a, b])
  }

  @Test func withoutAnySourceItFailsWithWhatTheLastOneSaid() throws {
    var machine = try machine()
    _ = machine.started([a], now: .zero)
    // The search that knows of it waits for others; the head is asked whether there are any.
    #expect(machine.ended(1, MobulaError(.connectionClosed, "It went away."), now: .zero) == [.findSources])
    let actions = machine.refused(MobulaError(.unavailable, "No host could send it."), now: .zero)
    guard case .fail(let error) = actions.last else {
      Issue.record("\(actions)")
      return
    }
    #expect(error.code == .unavailable)
    #expect(error.message == "No host could send it. The last source failed so: It went away.")
  }

  @Test func aRefusalIsNoEndWhileChunksCome() throws {
    var machine = try machine()
    let lost = MobulaError(.notFound, "Its last replica is gone.")
    _ = machine.started([a], now: .zero)
    try open(&machine, 1)
    #expect(machine.refused(lost, now: .zero) == [])
    _ = try machine.offered(1, [0..<1], now: .zero)
    _ = try receive(&machine, 1, 0, at: .seconds(9))
    // The head is asked again, for it may have come back.
    #expect(machine.tick(now: .seconds(10)) == [.findSources])
    #expect(machine.refused(lost, now: .seconds(10)) == [])
    #expect(machine.tick(now: .seconds(18)) == [.findSources])
    _ = machine.refused(lost, now: .seconds(18))
    #expect(machine.tick(now: .seconds(20)) == [.close(1), .fail(lost)])
  }

  @Test func whatNoSourceSaysIsRefused() throws {
    var machine = try machine()
    _ = machine.started([a], now: .zero)
    func refuses(_ body: () throws -> Void) { #expect(throws: MobulaError.self, performing: body) }
    refuses { _ = try machine.offered(1, [0..<1], now: .zero) }
    refuses { _ = try machine.announced(1, ChunkHeader(index: 0, length: 65_536, checksum: 0)) }
    refuses { try machine.opened(1, objectSize: 1, chunkSize: 65_536, wantsNews: false, now: .zero) }
    try open(&machine, 1)
    refuses { try machine.opened(1, objectSize: 4 * 65_536 - 1, chunkSize: 65_536, wantsNews: false, now: .zero) }
    refuses { _ = try machine.offered(1, [3..<5], now: .zero) }
    _ = try machine.offered(1, [3..<4], now: .zero)
    refuses { _ = try machine.announced(1, ChunkHeader(index: 3, length: 65_536, checksum: 0)) }
    refuses { _ = try machine.announced(1, ChunkHeader(index: 4, length: 65_536, checksum: 0)) }
    refuses { _ = try machine.announced(1, ChunkHeader(index: 2, length: 65_536, checksum: 0)) }
    #expect(try machine.announced(1, ChunkHeader(index: 3, length: 65_535, checksum: 0)) == .receive)
    refuses { _ = try machine.announced(1, ChunkHeader(index: 3, length: 65_535, checksum: 0)) }
  }
}

@Suite struct LaneTunerTests {
  @Test func connectionsAreAddedAsLongAsTheyBringMore() {
    var tuner = LaneTuner(maximum: 4)
    #expect(tuner.tick(.zero, lanes: 1) == .keep)
    tuner.arrived(1000)
    #expect(tuner.tick(.milliseconds(400), lanes: 1) == .keep)
    #expect(tuner.tick(.milliseconds(500), lanes: 1) == .add)
    tuner.arrived(1900)
    #expect(tuner.tick(.milliseconds(1000), lanes: 2) == .add)
    // The third brings nothing: back to two, for good.
    tuner.arrived(1950)
    #expect(tuner.tick(.milliseconds(1500), lanes: 3) == .remove)
    tuner.arrived(5000)
    #expect(tuner.tick(.milliseconds(2000), lanes: 2) == .keep)
  }

  @Test func oneIsEnoughWhereMoreAreNotFaster() {
    var tuner = LaneTuner(maximum: 4)
    _ = tuner.tick(.zero, lanes: 1)
    tuner.arrived(1000)
    #expect(tuner.tick(.milliseconds(500), lanes: 1) == .add)
    tuner.arrived(1050)
    #expect(tuner.tick(.seconds(1), lanes: 2) == .remove)
  }

  @Test func thereIsAnEnd() {
    var tuner = LaneTuner(maximum: 2)
    _ = tuner.tick(.zero, lanes: 1)
    tuner.arrived(1000)
    #expect(tuner.tick(.milliseconds(500), lanes: 1) == .add)
    tuner.arrived(2000)
    #expect(tuner.tick(.seconds(1), lanes: 2) == .keep)
    tuner.arrived(2000)
    #expect(tuner.tick(.seconds(2), lanes: 2) == .keep)
  }
}
