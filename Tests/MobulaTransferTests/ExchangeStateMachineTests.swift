import MobulaCore
import Testing

@testable import MobulaTransfer

@Suite struct ExchangeStateMachineTests {
  private let a = HostID(high: 0, low: 1), b = HostID(high: 0, low: 2), c = HostID(high: 0, low: 3)
  private let own = HostID(high: 0, low: 9)

  private func machine(chunks: Int = 4, filled: Bool = false, _ change: (inout ExchangeLimits) -> Void = { _ in })
    throws
    -> ExchangeStateMachine
  {
    var limits = ExchangeLimits()
    limits.smallestWindow = 2
    limits.bytesInFlight = 0
    change(&limits)
    return ExchangeStateMachine(
      geometry: try ChunkGeometry(objectSize: chunks * 65_536 - 1, chunkSize: 65_536), own: own, limits: limits,
      isFilled: filled, seed: 1)
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
    #expect(machine.ended(2, MobulaError(.unavailable, ""), now: .zero) == [.open(4, HostID(high: 0, low: 4))])
    #expect(machine.failedHosts == [b])
    #expect(machine.offered([b], now: .zero) == [])
  }

  /// What a failed exchange has left may lack nothing but its check.
  @Test func whatIsAllThereIsCompleteAtOnce() throws {
    let geometry = try ChunkGeometry(objectSize: 4 * 65_536, chunkSize: 65_536)
    var verified = ChunkMap(count: 4)
    for chunk in 0..<4 { verified.insert(chunk) }
    var machine = ExchangeStateMachine(geometry: geometry, own: own, verified: verified, isFilled: true, seed: 1)
    #expect(machine.started([a], now: .zero) == [.complete])
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
    #expect(machine.ended(1, MobulaError(.corrupted, "It is damaged."), now: .zero) == [.findSources])
    let actions = machine.refused(MobulaError(.unavailable, "No host could send it."), now: .zero)
    guard case .fail(let error) = actions.last else {
      Issue.record("\(actions)")
      return
    }
    #expect(error.code == .unavailable)
    #expect(error.message == "No host could send it. The last source failed so: It is damaged.")
  }

  /// A host whose process is started again has another address, which the head learns in a moment.
  @Test func aHostThatCannotBeReachedIsLookedForAgain() throws {
    var machine = try machine()
    let (away, none) = (
      MobulaError(.unavailable, "Nobody listens."), MobulaError(.unavailable, "No host could send it.")
    )
    _ = machine.started([a], now: .zero)
    try open(&machine, 1)
    #expect(machine.ended(1, MobulaError(.connectionClosed, "It went away."), now: .zero) == [.findSources])
    #expect(machine.refused(none, now: .zero) == [])
    #expect(machine.tick(now: .milliseconds(200)) == [] && machine.failedHosts == [a])
    #expect(machine.tick(now: .milliseconds(250)) == [.findSources] && machine.failedHosts.isEmpty)
    // Where it was it is not any more, and the pause is twice as long.
    #expect(machine.found([a], now: .milliseconds(250)).contains(.open(2, a)))
    _ = machine.ended(2, away, now: .milliseconds(250))
    _ = machine.refused(none, now: .milliseconds(250))
    #expect(machine.tick(now: .milliseconds(700)) == [] && machine.failedHosts == [a])
    #expect(machine.tick(now: .milliseconds(750)) == [.findSources])
    #expect(machine.found([a], now: .milliseconds(750)).contains(.open(3, a)))
    try open(&machine, 3)
    _ = try machine.offered(3, [0..<4], now: .seconds(1))
    for chunk in 0..<3 { _ = try receive(&machine, 3, chunk, at: .seconds(1)) }
    // What the head says is gone is not waited for.
    var other = machine
    _ = other.ended(3, away, now: .seconds(2))
    guard case .fail? = other.refused(MobulaError(.notFound, "It is gone."), now: .seconds(2)).last else {
      Issue.record("it waits for what is gone")
      return
    }
    // Nor is anything for longer than other sources without a chunk.
    _ = machine.ended(3, away, now: .seconds(2))
    #expect(machine.refused(none, now: .seconds(11)) == [])
    guard case .fail? = machine.tick(now: .milliseconds(11_050)).last else {
      Issue.record("it waits without an end")
      return
    }
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

  @Test func aBusySourceIsAskedAgainLater() throws {
    var machine = try machine()
    _ = machine.started([a], now: .zero)
    #expect(machine.ended(1, MobulaError(.full, "It serves enough."), now: .zero) == [.findSources])
    #expect(machine.knownHosts == [a] && machine.failedHosts.isEmpty)
    #expect(machine.refused(MobulaError(.unavailable, "There is no other."), now: .zero) == [])
    #expect(machine.tick(now: .milliseconds(950)) == [])
    #expect(machine.tick(now: .milliseconds(1000)).contains(.open(2, a)))
  }

  /// As it does with the oldest of too many connections that have not proved who they are.
  @Test func aHostThatEndsConnectionsDuringTheHandshakeIsBusy() throws {
    var machine = try machine { $0.resets = 2 }
    let reset = MobulaError(.connectionClosed, "It went away.")
    _ = machine.started([a], now: .zero)
    #expect(machine.ended(1, reset, now: .zero) == [.findSources])
    #expect(machine.tick(now: .seconds(1)).contains(.open(2, a)))
    _ = machine.ended(2, reset, now: .seconds(1))
    #expect(machine.failedHosts.isEmpty)
    // Once it has answered, the count begins anew.
    #expect(machine.tick(now: .seconds(2)).contains(.open(3, a)))
    try open(&machine, 3)
    _ = machine.ended(3, MobulaError(.full, "It serves enough."), now: .seconds(2))
    for (lane, second) in [(4, 3), (5, 4)] {
      #expect(machine.tick(now: .seconds(second)).contains(.open(lane, a)))
      _ = machine.ended(lane, reset, now: .seconds(second))
      #expect(machine.failedHosts.isEmpty)
    }
    #expect(machine.tick(now: .seconds(5)).contains(.open(6, a)))
    _ = machine.ended(6, reset, now: .seconds(5))
    #expect(machine.failedHosts == [a], "it never answers")
  }

  @Test func aHostThatGoesWhileItSendsHasFailed() throws {
    var machine = try machine()
    _ = machine.started([a], now: .zero)
    try open(&machine, 1)
    _ = machine.ended(1, MobulaError(.connectionClosed, "It went away."), now: .zero)
    #expect(machine.failedHosts == [a])
  }

  @Test func whatIsFilledIsAskedOfNobody() throws {
    var machine = try machine(filled: true)
    // There need be no other host.
    #expect(machine.started([], now: .zero) == [.findSources])
    #expect(machine.refused(MobulaError(.unavailable, "There is no host."), now: .zero) == [])
    #expect(machine.reserve(1..<3) == [1..<3])
    #expect(machine.reserve(0..<4) == [0..<1, 3..<4])
    _ = machine.unreserve(3..<4, now: .zero)
    _ = machine.found([a], now: .seconds(1))
    try open(&machine, 1, wantsNews: true)
    // What is filled already is told to whom it may concern; what is being filled is not asked for.
    #expect(machine.filled(1, now: .seconds(1)) == [])
    #expect(try machine.offered(1, [0..<4], now: .seconds(1)) == [.acknowledge(1, 1), .request(1, 3)])
    #expect(machine.filled(2, now: .seconds(1)) == [.acknowledge(1, 2)])
    // What could not be filled is asked for.
    #expect(machine.unreserve(0..<1, now: .seconds(1)) == [.request(1, 0)])
    _ = try receive(&machine, 1, 3, at: .seconds(1))
    #expect(try receive(&machine, 1, 0, at: .seconds(1)).suffix(2) == [.close(1), .complete])
  }

  @Test func theLastFilledChunkIsTheEnd() throws {
    var machine = try machine(filled: true)
    _ = machine.started([], now: .zero)
    #expect(machine.reserveLast(3) == [1..<4])
    #expect(machine.reserveLast(3) == [0..<1])
    for chunk in 0..<3 { #expect(machine.filled(chunk, now: .zero) == []) }
    #expect(machine.filled(3, now: .zero) == [.complete])
  }

  @Test func whenFillingFailsTheHostsMustHaveIt() throws {
    let refusal = MobulaError(.unavailable, "There is no host.")
    for isRefused in [true, false] {
      var machine = try machine(filled: true)
      _ = machine.started([], now: .zero)
      if isRefused { _ = machine.refused(refusal, now: .zero) }
      let actions = machine.fillEnded(MobulaError(.denied, "S3 denies it."), now: .seconds(3))
      if isRefused {
        guard case .fail(let error)? = actions.last else {
          Issue.record("\(actions)")
          return
        }
        #expect(error.message == "There is no host. The last source failed so: S3 denies it.")
      } else {
        // The head has yet to say.
        #expect(actions == [])
        guard case .fail? = machine.refused(refusal, now: .seconds(3)).last else {
          Issue.record("it goes on without a source")
          return
        }
      }
    }
  }

  /// The head may have nothing to say of what was only in S3.
  @Test func whatCannotBeFilledAndComesFromNobodyFails() throws {
    var machine = try machine(filled: true)
    _ = machine.started([a], now: .zero)
    try open(&machine, 1)
    let denied = MobulaError(.denied, "S3 denies it.")
    #expect(machine.fillEnded(denied, now: .seconds(1)) == [])
    _ = machine.tick(now: .seconds(10.5))
    #expect(!machine.isOver)
    guard case .fail(let error)? = machine.tick(now: .seconds(11.5)).last else {
      Issue.record("it waits")
      return
    }
    #expect(error.code == .denied)
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

@Suite struct SeveralLanesToAHostTests {
  private let a = HostID(high: 0, low: 1), b = HostID(high: 0, low: 2)

  /// A machine with four lanes to host `a`, all of them open, after 500 ms with one of them.
  private func machine() throws -> ExchangeStateMachine {
    let geometry = try ChunkGeometry(objectSize: 1000 * 65_536, chunkSize: 65_536)
    var machine = ExchangeStateMachine(geometry: geometry, own: HostID(high: 0, low: 9), seed: 1)
    #expect(machine.started([a], now: .zero) == [.open(1, a), .findSources])
    try open(&machine, 1)
    _ = try machine.offered(1, [0..<1000], now: .zero)
    _ = machine.tick(now: .zero)
    // The first to arrive begins the measurement.
    _ = try receive(&machine, 1, at: .zero)
    let actions = try receive(&machine, 1, at: .milliseconds(500))
    #expect(actions.suffix(3) == [.open(2, a), .open(3, a), .open(4, a)])
    for lane in 2...4 {
      try open(&machine, lane)
      _ = try machine.offered(lane, [0..<1000], now: .milliseconds(500))
    }
    _ = try receive(&machine, 1, at: .milliseconds(500))
    return machine
  }

  private func open(_ machine: inout ExchangeStateMachine, _ lane: Int) throws {
    try machine.opened(lane, objectSize: 1000 * 65_536, chunkSize: 65_536, wantsNews: false, now: .milliseconds(500))
  }

  private func receive(
    _ machine: inout ExchangeStateMachine, _ lane: Int, at now: Duration
  ) throws -> [ExchangeStateMachine.Action] {
    let chunk = try #require(machine.lanes.first { $0.id == lane }?.requested.first)
    #expect(try machine.announced(lane, ChunkHeader(index: chunk, length: 65_536, checksum: 0)) == .receive)
    return machine.arrived(lane, now: now)
  }

  /// Everything that lanes 2 to 4 were asked for arrives; returns the lanes in the order in which they were closed.
  private func drain(_ machine: inout ExchangeStateMachine, from now: Duration) throws -> [Int] {
    var closed: [Int] = []
    var now = now
    while let lane = machine.lanes.first(where: { (2...4).contains($0.id) && !$0.isClosing }) {
      now += .milliseconds(1)
      let actions = try receive(&machine, lane.id, at: now)
      for case .request(let other, _) in actions { #expect(other == 1) }
      for case .close(let other) in actions { closed.append(other) }
    }
    return closed
  }

  @Test func theyAreClosedWhereTheyBringNothing() throws {
    var machine = try machine()
    // Not before what they were asked for has come: it is on its way.
    let actions = try receive(&machine, 3, at: .milliseconds(1000))
    for lane in 2...4 { #expect(!actions.contains(.close(lane))) }
    #expect(try drain(&machine, from: .milliseconds(1000)) == [2, 3, 4])
    #expect(machine.lanes.allSatisfy { $0.id == 1 || $0.requested.isEmpty })
  }

  @Test func oneThatLostWhatItWasAskedForIsClosedToo() throws {
    var machine = try machine()
    _ = try receive(&machine, 3, at: .milliseconds(1000))
    for place in machine.lanes.indices where machine.lanes[place].id == 2 {
      // As when another lane was asked for it.
      for chunk in machine.lanes[place].requested { machine.taken.remove(chunk) }
      machine.lanes[place].requested = []
    }
    #expect(machine.tick(now: .milliseconds(1050)).contains(.close(2)))
  }

  @Test func theyAreKeptWhereTheyBringMore() throws {
    var machine = try machine()
    for lane in 1...4 { #expect(try !receive(&machine, lane, at: .milliseconds(900)).contains(.close(lane))) }
    #expect(machine.tick(now: .milliseconds(1000)) == [])
    #expect(machine.lanes.count == 4)
  }

  @Test func theyMakeRoomForOtherHosts() throws {
    var machine = try machine()
    #expect(machine.found([b], now: .milliseconds(600)) == [.open(5, b), .findSources])
    try open(&machine, 5)
    #expect(machine.tick(now: .milliseconds(650)) == [])
    #expect(try drain(&machine, from: .milliseconds(650)) == [2, 3, 4])
    #expect(machine.tick(now: .milliseconds(700)) == [])
  }
}

@Suite struct LaneTunerTests {
  private func tuner(maximum: Int = 4) -> LaneTuner {
    var tuner = LaneTuner(maximum: maximum, enough: 10_000)
    begin(&tuner, at: .zero)
    return tuner
  }

  /// The first bytes begin the measurement.
  private func begin(_ tuner: inout LaneTuner, at now: Duration) {
    tuner.paused()
    let idle = tuner.arrived(0, now - .seconds(10), lanes: 1)
    let first = tuner.arrived(1_000_000, now, lanes: 1)
    #expect(idle == .keep && first == .keep)
  }

  @Test func allAreTriedAndKeptWhereTheyBringMore() {
    var tuner = tuner()
    #expect(tuner.arrived(500, .milliseconds(400), lanes: 1) == .keep)
    #expect(tuner.arrived(500, .milliseconds(500), lanes: 1) == .add(3))
    begin(&tuner, at: .milliseconds(600))
    #expect(tuner.arrived(1200, .milliseconds(1100), lanes: 4) == .keep)
    // For good, whatever comes.
    #expect(tuner.arrived(1, .milliseconds(1700), lanes: 4) == .keep)
  }

  @Test func oneIsEnoughWhereMoreAreNotFaster() {
    var tuner = tuner()
    #expect(tuner.arrived(1000, .milliseconds(500), lanes: 1) == .add(3))
    begin(&tuner, at: .milliseconds(500))
    #expect(tuner.arrived(1050, .seconds(1), lanes: 4) == .remove(3))
    begin(&tuner, at: .seconds(1))
    #expect(tuner.arrived(5000, .seconds(2), lanes: 1) == .keep)
  }

  @Test func manyBytesTellARateSooner() {
    var tuner = tuner()
    #expect(tuner.arrived(20_000, .milliseconds(2), lanes: 1) == .keep)
    #expect(tuner.arrived(1, .milliseconds(3), lanes: 1) == .add(3))
    begin(&tuner, at: .milliseconds(4))
    #expect(tuner.arrived(10_000, .milliseconds(7), lanes: 4) == .remove(3))
  }

  @Test func nothingIsTriedWhereThereIsRoomForOne() {
    var tuner = tuner(maximum: 1)
    #expect(tuner.arrived(1000, .milliseconds(500), lanes: 1) == .keep)
    #expect(tuner.arrived(1000, .seconds(1), lanes: 1) == .keep)
  }

  @Test func nothingIsJudgedThatDoesNotArrive() {
    var tuner = tuner()
    #expect(tuner.arrived(0, .seconds(1), lanes: 1) == .keep)
    #expect(tuner.arrived(1000, .milliseconds(1500), lanes: 1) == .keep)
    #expect(tuner.arrived(1000, .milliseconds(2000), lanes: 1) == .add(3))
  }
}
