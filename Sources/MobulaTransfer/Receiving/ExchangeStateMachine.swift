package import MobulaCore

/// One object being received from several hosts at once: which are connected, and which chunk is asked of whom.
///
/// Each connection is a *lane*. Sources say on it which chunks they have, as they get them, and a chunk is asked of
/// one lane at a time: the one with the fewest sources first, so that everybody soon has something that others lack.
/// What a lane takes too long for is asked of another.
package struct ExchangeStateMachine: Sendable {
  package typealias LaneID = Int

  package enum Action: Hashable, Sendable {
    /// Connect to the host.
    case open(LaneID, HostID)
    case request(LaneID, Int)
    /// The chunk is asked of another lane; should it come all the same, throw it away.
    case cancel(LaneID, Int)
    /// Tell the source that the chunk is here.
    case acknowledge(LaneID, Int)
    /// End the connection, and say `ended` once nothing of it is written any more.
    case close(LaneID)
    /// Ask the head for hosts besides those in `knownHosts` and `failedHosts`; say `found` or `refused`.
    case findSources
    /// Every chunk is verified.
    case complete
    /// It can't be had.
    case fail(MobulaError)
  }

  package let geometry: ChunkGeometry
  package let limits: ExchangeLimits
  private let own: HostID
  /// In the order in which they were opened.
  var lanes: [Lane] = []
  private var nextLane = 0
  package internal(set) var verified: ChunkMap
  /// Verified, asked for, or being filled from elsewhere.
  var taken: ChunkMap
  /// Being filled from elsewhere.
  var filling: ChunkMap
  /// For each chunk the lanes that offer it.
  private var offers: [UInt16]
  /// Offered by the head or by themselves, and not connected yet.
  private(set) var candidates: [HostID] = []
  /// Hosts with no room for another connection, and when to ask them again.
  private(set) var busyHosts: [HostID: Duration] = [:]
  /// How often hosts ended a connection before they said whether they have the object, one time after the other.
  private var resets: [HostID: Int] = [:]
  /// Why nothing is filled any more.
  var fillFailure: MobulaError?
  /// Hosts that failed in this exchange; they are not asked again, unless they were merely not to be reached.
  package internal(set) var failedHosts: Set<HostID> = []
  /// How often hosts were not to be reached, and when the head is asked for them again. A host's process that is just
  /// being started again has another address.
  var setbacks: [HostID: (count: Int, until: Duration)] = [:]
  /// Left because they were slow; asked again when nobody else is left.
  private var slowHosts: Set<HostID> = []
  var isAsking = false
  var askAgain = Duration.zero
  private(set) var refusal: MobulaError?
  /// How the source that failed last did.
  package internal(set) var lastFailure: MobulaError?
  var lastProgress = Duration.zero
  private var leaveAgain = Duration.zero
  /// Chunks come from elsewhere than other hosts, too: there need not be any.
  var isFilled: Bool
  var tuner: LaneTuner
  /// Bytes that arrived since the last tick, and a second on the average.
  private var arrivedBytes = 0
  private(set) var throughput: Double?
  /// What arrived a second at best, lately.
  private(set) var peak = 0.0
  private var lastTick: Duration?
  private var generator: SeededGenerator
  package private(set) var isOver = false

  /// - Parameters:
  ///   - own: this host, which is no source.
  ///   - verified: chunks that are here already.
  ///   - isFilled: chunks come from elsewhere, too, until `fillEnded`.
  ///   - seed: receivers with different ones choose differently among chunks that are as good.
  package init(
    geometry: ChunkGeometry, own: HostID, verified: ChunkMap? = nil, limits: ExchangeLimits = .init(),
    isFilled: Bool = false, seed: UInt64
  ) {
    self.isFilled = isFilled
    self.geometry = geometry
    self.own = own
    self.limits = limits
    self.verified = verified ?? ChunkMap(count: geometry.count)
    taken = self.verified
    filling = ChunkMap(count: geometry.count)
    offers = Array(repeating: 0, count: geometry.count)
    tuner = LaneTuner(maximum: limits.lanesPerHost, enough: max(16_777_216, 16 * geometry.chunkSize))
    generator = SeededGenerator(seed: seed)
  }

  /// Hosts that the head need not give again.
  package var knownHosts: Set<HostID> {
    Set(lanes.map(\.host)).union(candidates).union(slowHosts).union(busyHosts.keys)
  }

  package var chunksMissing: Int { geometry.count - verified.verifiedCount }

  // MARK: Sources

  /// The exchange begins with these hosts.
  package mutating func started(_ hosts: [HostID], now: Duration) -> [Action] {
    lastProgress = now
    // What an earlier exchange has left may lack nothing but its check.
    if verified.isComplete { return end() + [.complete] }
    return offered(hosts, now: now)
  }

  /// The head found these.
  package mutating func found(_ hosts: [HostID], now: Duration) -> [Action] {
    isAsking = false
    refusal = nil
    // Without news, not again at once.
    askAgain = hosts.isEmpty ? now + limits.askInterval : now
    return offered(hosts, now: now)
  }

  /// These hosts may be asked: the head says so, or they ask us for the same object.
  package mutating func offered(_ hosts: [HostID], now: Duration) -> [Action] {
    guard !isOver else { return [] }
    let known = knownHosts
    for host in hosts where host != own && !known.contains(host) && !failedHosts.contains(host) {
      if !candidates.contains(host) { candidates.append(host) }
    }
    return connect(now)
  }

  /// The head has no other source, or none at all.
  package mutating func refused(_ error: MobulaError, now: Duration) -> [Action] {
    guard !isOver else { return [] }
    isAsking = false
    askAgain = now + limits.askInterval
    refusal = error
    guard lanes.isEmpty, candidates.isEmpty, busyHosts.isEmpty, !isFilled else { return connect(now) }
    // Whoever was there a moment ago may be back in a moment; what is gone is not.
    let isHopeful = error.code == .unavailable && !setbacks.isEmpty && now - lastProgress <= limits.patience
    return isHopeful ? [] : fail(error)
  }

  mutating func connect(_ now: Duration) -> [Action] {
    var actions: [Action] = []
    while lanes.count < limits.lanes, !candidates.isEmpty {
      actions.append(open(candidates.removeFirst(), now))
    }
    let isComplete = lanes.count + candidates.count >= limits.lanes
    if !isAsking, !isComplete, now >= askAgain {
      isAsking = true
      actions.append(.findSources)
    }
    return actions
  }

  private mutating func open(_ host: HostID, _ now: Duration) -> Action {
    nextLane += 1
    lanes.append(Lane(id: nextLane, host: host, offered: ChunkMap(count: geometry.count), since: now))
    return .open(nextLane, host)
  }

  // MARK: What a lane says

  /// The source has the object.
  ///
  /// - Parameter wantsNews: it is to be told of every chunk that it offered and that came from elsewhere.
  /// - Throws: `protocolViolation` when it has it in another shape.
  package mutating func opened(
    _ lane: LaneID, objectSize: Int, chunkSize: Int, wantsNews: Bool, now: Duration
  ) throws(MobulaError) {
    guard objectSize == geometry.objectSize, chunkSize == geometry.chunkSize else {
      throw MobulaError(
        .protocolViolation,
        "The source has the object as \(objectSize) bytes in chunks of \(chunkSize), not \(geometry.objectSize) in chunks of \(geometry.chunkSize): fetch it from another source."
      )
    }
    guard let place = place(of: lane), !lanes[place].isOpen else { throw Self.unexpected("an opened object") }
    lanes[place].isOpen = true
    resets[lanes[place].host] = nil
    lanes[place].wantsNews = wantsNews
    lanes[place].since = now
  }

  /// The source has these chunks, and sends them when asked.
  ///
  /// - Throws: `protocolViolation` for chunks that do not exist.
  package mutating func offered(_ lane: LaneID, _ ranges: [Range<Int>], now: Duration) throws(MobulaError) -> [Action] {
    guard let place = place(of: lane), !isOver else { return [] }
    guard lanes[place].isOpen else { throw Self.unexpected("an offer") }
    var actions: [Action] = []
    for range in ranges {
      guard range.lowerBound >= 0, range.upperBound <= geometry.count else { throw Self.unexpected("chunk \(range)") }
      for chunk in range where lanes[place].offered.insert(chunk) {
        offers[chunk] += 1
        if lanes[place].wantsNews, verified.contains(chunk) { actions.append(.acknowledge(lane, chunk)) }
      }
    }
    fill(place, now, &actions)
    return actions
  }

  package enum Arrival: Hashable, Sendable {
    /// The bytes belong where the chunk is.
    case receive
    /// They come too late.
    case discard
  }

  /// The header of a chunk came; its bytes follow.
  ///
  /// - Throws: `protocolViolation` for a chunk that was not asked for, or not of its size.
  package mutating func announced(_ lane: LaneID, _ header: ChunkHeader) throws(MobulaError) -> Arrival {
    guard let place = place(of: lane), lanes[place].arriving == nil, lanes[place].discarding == nil,
      header.index < geometry.count
    else {
      throw Self.unexpected("chunk \(header.index)")
    }
    let expected = geometry.range(of: header.index).count
    guard header.length == expected else {
      throw MobulaError(
        .protocolViolation,
        "The source sent chunk \(header.index) with \(header.length) bytes instead of \(expected): fetch from another source."
      )
    }
    if lanes[place].requested.contains(header.index), !lanes[place].isClosing {
      lanes[place].arriving = header.index
      return .receive
    }
    guard lanes[place].revoked.contains(header.index) || lanes[place].isClosing else {
      throw Self.unexpected("chunk \(header.index)")
    }
    lanes[place].discarding = header.index
    return .discard
  }

  /// The bytes of a chunk that came too late are gone: the source need not keep it for this receiver.
  package mutating func discarded(_ lane: LaneID, now: Duration) -> [Action] {
    guard let place = place(of: lane), let chunk = lanes[place].discarding else { return [] }
    lanes[place].discarding = nil
    lanes[place].revoked.remove(chunk)
    guard !isOver else { return [] }
    var actions = [Action.acknowledge(lane, chunk)]
    fill(place, now, &actions)
    return actions
  }

  /// All bytes of the announced chunk are here, and right, and committed.
  package mutating func arrived(_ lane: LaneID, now: Duration) -> [Action] {
    guard let place = place(of: lane), let chunk = lanes[place].arriving else {
      preconditionFailure("a chunk is announced before it arrives")
    }
    let size = geometry.range(of: chunk).count
    let rate = Double(size) / max(now - lanes[place].since, .microseconds(1)).inSeconds
    lanes[place].rate = lanes[place].rate.map { 0.7 * $0 + 0.3 * rate } ?? rate
    lanes[place].best = max(rate, lanes[place].best * 0.95)
    lanes[place].since = now
    lanes[place].arriving = nil
    lanes[place].requested.removeAll { $0 == chunk }
    if !setbacks.isEmpty { setbacks[lanes[place].host] = nil }
    verified.insert(chunk)
    arrivedBytes += size
    lastProgress = now
    guard !isOver else { return [] }
    var actions = [Action.acknowledge(lane, chunk)]
    tellOthers(chunk, than: lane, &actions)
    if verified.isComplete { return actions + end() + [.complete] }
    fill(place, now, &actions)
    return actions + closeRetired() + tune(size, now)
  }

  /// Sources that are to hear of a chunk that came from elsewhere.
  func tellOthers(_ chunk: Int, than lane: LaneID?, _ actions: inout [Action]) {
    for place in lanes.indices where lanes[place].wantsNews && lanes[place].id != lane {
      if lanes[place].offered.contains(chunk) { actions.append(.acknowledge(lanes[place].id, chunk)) }
    }
  }

  /// A lane is over, and writes nothing any more: its source failed, or it was told to close.
  package mutating func ended(_ lane: LaneID, _ error: MobulaError?, now: Duration) -> [Action] {
    guard let place = place(of: lane) else { return [] }
    let state = lanes.remove(at: place)
    for chunk in state.requested { taken.remove(chunk) }
    state.offered.forEach(notIn: ChunkMap(count: geometry.count)) {
      offers[$0] -= 1
      return true
    }
    guard !isOver else { return [] }
    if state.isClosing {
      if !lanes.contains(where: { $0.host == state.host }) { slowHosts.insert(state.host) }
    } else {
      lastFailure = error ?? lastFailure
      // Another connection to it may work where this one was one too many.
      if !lanes.contains(where: { $0.host == state.host }) {
        if isBusy(state, error) {
          busyHosts[state.host] = now + limits.askInterval
        } else {
          failedHosts.insert(state.host)
          if let error, Self.isSetback(error) { setBack(state.host, now) }
        }
      }
    }
    var actions: [Action] = []
    for other in lanes.indices { fill(other, now, &actions) }
    if lanes.isEmpty, candidates.isEmpty {
      // A search that knows of those that failed waits for others; without any, the head must say so.
      askAgain = now
      isAsking = false
      candidates = slowHosts.sorted()
      slowHosts = []
    }
    return actions + connect(now)
  }

  /// Whether a lane's host has no room for another connection just now. It says so, or it ends a connection during the
  /// handshake, as it does with the oldest of too many that have not proved who they are.
  private mutating func isBusy(_ lane: Lane, _ error: MobulaError?) -> Bool {
    if error?.code == .full { return true }
    guard !lane.isOpen, error?.code == .connectionClosed else { return false }
    resets[lane.host, default: 0] += 1
    return resets[lane.host]! <= limits.resets
  }

  /// Time passes; to be called every `limits.tick`.
  package mutating func tick(now: Duration) -> [Action] {
    guard !isOver else { return [] }
    measure(now)
    pardon(now)
    for (host, instant) in busyHosts.sorted(by: { $0.key < $1.key }) where instant <= now {
      busyHosts[host] = nil
      candidates.append(host)
    }
    if now - lastProgress > limits.patience, !isFilled, busyHosts.isEmpty, candidates.isEmpty,
      lanes.allSatisfy(\.requested.isEmpty), let error = refusal ?? fillFailure
    {
      return fail(error)
    }
    return rebalance(now) + closeRetired() + tune(0, now) + leaveUseless(now) + connect(now)
  }

  /// When every lane is taken, and none has anything that is missing, another host may: one lane makes room for it.
  private mutating func leaveUseless(_ now: Duration) -> [Action] {
    guard lanes.count >= limits.lanes, now - lastProgress > limits.uselessInterval, now >= leaveAgain,
      lanes.allSatisfy({ $0.isOpen && $0.requested.isEmpty && $0.offered.first(notIn: verified) == nil })
    else { return [] }
    leaveAgain = now + limits.uselessInterval
    return close(lanes.randomElement(using: &generator)!.id)
  }

  private mutating func measure(_ now: Duration) {
    defer { lastTick = now }
    guard let lastTick, now - lastTick >= .milliseconds(10) else { return }
    let rate = Double(arrivedBytes) / (now - lastTick).inSeconds
    arrivedBytes = 0
    // Nothing is known before the first chunks have come.
    throughput = throughput.map { 0.9 * $0 + 0.1 * rate } ?? (rate > 0 ? rate : nil)
    peak = max(peak * 0.99, throughput ?? 0)
  }

  /// Nobody wants it any more, or it has no room: every lane closes.
  package mutating func cancelled() -> [Action] { isOver ? [] : end() }

  // MARK: Asking

  /// Chunks asked of one lane at a time: together enough for the network between, and few where there are many lanes,
  /// so that what is slow is not waited for.
  private var window: Int {
    let most = limits.chunksInFlight(geometry)
    let enough = throughput.map { Int($0 * Self.ahead / Double(geometry.chunkSize)) } ?? most
    return max(limits.smallestWindow, min(most, max(8, enough)) / max(1, lanes.count))
  }

  /// Seconds of what arrives that are asked for ahead: more than a round trip, and less than anybody wants to wait.
  private static let ahead = 0.25

  func place(of lane: LaneID) -> Int? { lanes.firstIndex { $0.id == lane } }

  /// Asks the lane at this place for as much as it has room for.
  mutating func fill(_ place: Int, _ now: Duration, _ actions: inout [Action]) {
    guard lanes[place].isOpen, !lanes[place].isClosing, !lanes[place].isRetiring, !isOver else { return }
    while lanes[place].requested.count < window, let chunk = pick(place) {
      actions.append(ask(place, for: chunk, now))
    }
  }

  mutating func ask(_ place: Int, for chunk: Int, _ now: Duration) -> Action {
    if lanes[place].requested.isEmpty { lanes[place].since = now }
    taken.insert(chunk)
    lanes[place].requested.append(chunk)
    lanes[place].revoked.remove(chunk)
    return .request(lanes[place].id, chunk)
  }

  /// Whether a lane has room, and nothing to offer that isn't asked for.
  func isIdle(_ state: Lane) -> Bool {
    state.isOpen && !state.isClosing && !state.isRetiring && state.requested.count < window
      && state.offered.first(notIn: taken) == nil
  }

  /// Of the lowest chunks that the lane offers one that the fewest lanes do, at random among these.
  private mutating func pick(_ place: Int) -> Int? {
    var best: (chunk: Int, offers: UInt16)?
    var ties: UInt64 = 0
    var left = limits.choice
    var generator = generator
    let discarding = lanes[place].discarding
    lanes[place].offered.forEach(notIn: taken) { chunk in
      // What is thrown away just now would be taken for the answer.
      if chunk == discarding { return true }
      let count = offers[chunk]
      if best == nil || count < best!.offers {
        best = (chunk, count)
        ties = 1
      } else if count == best!.offers {
        ties += 1
        if generator.next() % ties == 0 { best!.chunk = chunk }
      }
      left -= 1
      return left > 0
    }
    self.generator = generator
    return best?.chunk
  }

  /// - Parameter arrived: bytes that came just now.
  private mutating func tune(_ arrived: Int, _ now: Duration) -> [Action] {
    let open = lanes.filter { $0.isOpen && !$0.isClosing && !$0.isRetiring }
    guard let host = open.first?.host, candidates.isEmpty, open.allSatisfy({ $0.host == host }) else {
      tuner.restart()
      // Several connections to one host take the others' share.
      let spare = open.enumerated().filter { place, lane in open[..<place].contains { $0.host == lane.host } }
      return retire(spare.map(\.element))
    }
    // What arrives while connections are made or ended is of neither number.
    guard open.count == lanes.count else {
      tuner.paused()
      return []
    }
    switch tuner.arrived(arrived, now, lanes: open.count) {
    case .add(let count): return (0..<min(count, limits.lanes - lanes.count)).map { _ in self.open(host, now) }
    case .remove(let count): return retire(open.suffix(count))
    case .keep: return []
    }
  }

  /// Closes lanes that were too many, each once what it was asked for has come: nothing is sent in vain.
  private mutating func retire(_ retiring: some Sequence<Lane>) -> [Action] {
    for lane in retiring { lanes[place(of: lane.id)!].isRetiring = true }
    return closeRetired()
  }

  private mutating func closeRetired() -> [Action] {
    lanes.filter { $0.isRetiring && $0.requested.isEmpty }.flatMap { close($0.id) }
  }

  mutating func close(_ lane: LaneID) -> [Action] {
    guard let place = place(of: lane), !lanes[place].isClosing else { return [] }
    lanes[place].isClosing = true
    // What arrives just now is written to until the lane has ended.
    let arriving = lanes[place].arriving
    for chunk in lanes[place].requested where chunk != arriving { taken.remove(chunk) }
    lanes[place].requested = arriving.map { [$0] } ?? []
    return [.close(lane)]
  }

  // MARK: The end

  mutating func end() -> [Action] {
    isOver = true
    return lanes.map { .close($0.id) }
  }

  mutating func fail(_ error: MobulaError) -> [Action] {
    var error = error
    if let lastFailure { error.message += " The last source failed so: \(lastFailure.message)" }
    return end() + [.fail(error)]
  }

  private static func unexpected(_ what: String) -> MobulaError {
    MobulaError(
      .protocolViolation, "The source sent \(what) that it was not asked for: run the same version on all hosts.")
  }
}
