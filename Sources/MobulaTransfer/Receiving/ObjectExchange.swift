public import MobulaCore
package import MobulaWire
internal import Synchronization

/// What an exchange did.
public struct TransferReport: Hashable, Sendable {
  /// Bytes received, verified and committed, without headers.
  public var bytes = 0
  /// Chunks received, verified and committed.
  public var chunks = 0
  /// The bytes by the host that sent them.
  public var sources: [HostID: Int] = [:]
  /// Bytes that were filled from elsewhere than other hosts; not among `bytes`.
  public var filled = 0
}

/// Receives one object, from as many hosts at once as have chunks of it, into memory that other
/// hosts take it from meanwhile.
///
/// Sources that fail, stall, are slow or send something wrong are replaced chunk by chunk.
public final class ObjectExchange: Sendable {
  /// Looks for hosts other than those that are known, or have failed. May take as long as there are none.
  ///
  /// - Throws: when there is none, and none will come.
  package typealias Finder =
    @Sendable (_ known: Set<HostID>, _ failed: Set<HostID>) async throws -> [TransferPeer]

  private struct State {
    var machine: ExchangeStateMachine
    var addresses: [HostID: Endpoint] = [:]
    var lanes: [ExchangeStateMachine.LaneID: ExchangeLane] = [:]
    var report = TransferReport()
    /// How often sources were looked for, and the search that is under way.
    var searches: UInt64 = 0
    var searching: Task<Void, Never>?
    var priority: TransferPriority
    var result: Result<TransferReport, MobulaError>?
    var waiting: CheckedContinuation<TransferReport, any Error>?
  }

  let sink: any ChunkSink
  private let own: TransferPeer
  private let token: ClusterToken
  private let tls: ClusterTLS?
  private let hello: Hello
  private let timeouts: TransferTimeouts
  private let traffic: TrafficControl
  private let find: Finder
  private let start = ContinuousClock.now
  private let state: Mutex<State>

  /// - Parameters:
  ///   - own: this host; sources that lack chunks come back there for what it has.
  ///   - traffic: what this host receives.
  ///   - isFilled: chunks come from elsewhere than other hosts, too, until `fillEnded`: see `reserve`.
  ///   - find: asked for sources, at first and as long as more are of use.
  package init(
    into sink: any ChunkSink, own: TransferPeer, token: ClusterToken, tls: ClusterTLS? = nil, hello: Hello,
    timeouts: TransferTimeouts = .init(), traffic: TrafficControl = .init(), priority: TransferPriority = .get,
    isFilled: Bool = false, find: @escaping Finder
  ) {
    self.sink = sink
    self.own = own
    self.token = token
    self.tls = tls
    self.hello = hello
    self.timeouts = timeouts
    self.traffic = traffic
    self.find = find
    var limits = ExchangeLimits()
    limits.patience = timeouts.stall
    let machine = ExchangeStateMachine(
      geometry: sink.geometry, own: own.host, verified: sink.chunkMap, limits: limits, isFilled: isFilled,
      seed: own.host.low ^ sink.object.low)
    state = Mutex(State(machine: machine, priority: priority))
  }

  /// Returns when every chunk is verified and no connection is left.
  ///
  /// - Parameter sources: those that are known; the others are asked for.
  /// - Throws: `MobulaError`: what `find` threw when no source was left, with the last failure of one; `cancelled`;
  ///   `notFound` when the sink was given up.
  package func run(from sources: [TransferPeer]) async throws -> TransferReport {
    let ticking = Task {
      while !Task.isCancelled {
        try await Task.sleep(for: ExchangeLimits().tick)
        // What was deleted meanwhile comes from nowhere.
        do throws(MobulaError) { try sink.checkNotAbandoned() } catch { return giveUp(error) }
        act { $0.tick(now: $1) }
      }
    }
    defer { ticking.cancel() }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        state.withLock { $0.waiting = continuation }
        learn(sources)
        act { $0.started(sources.map(\.host), now: $1) }
        conclude()
      }
    } onCancel: {
      giveUp(MobulaError(.cancelled, "Fetching object \(sink.object) was cancelled."))
    }
  }

  /// This host may have chunks: it asks us for some.
  package func offer(_ peer: TransferPeer) {
    learn([peer])
    act { $0.offered([peer.host], now: $1) }
  }

  // MARK: Chunks from elsewhere

  /// A part of the object that this host gets from elsewhere than other hosts, from S3: a sink that has only those of
  /// these chunks that are missing and asked of nobody, and that the exchange leaves to it until its `release`.
  public func reserve(_ chunks: Range<Int>) -> ReservedChunks {
    ReservedChunks(self, state.withLock { $0.machine.reserve(chunks) })
  }

  /// A reserved chunk is committed.
  func filled(_ chunk: Int, bytes: Int) {
    state.withLock { $0.report.filled += bytes }
    act { $0.filled(chunk, now: $1) }
  }

  func unreserve(_ chunks: Range<Int>) { act { $0.unreserve(chunks, now: $1) } }

  /// Nothing is reserved any more.
  ///
  /// - Parameter error: why the rest can't be had from there.
  public func fillEnded(_ error: MobulaError? = nil) { act { $0.fillEnded(error, now: $1) } }

  /// As `reserve`: up to so many chunks, from the end of the object.
  public func reserveLast(_ count: Int) -> ReservedChunks {
    ReservedChunks(self, state.withLock { $0.machine.reserveLast(count) })
  }

  /// Bytes that other hosts bring a second by now, and chunks that are still missing.
  public var progress: (bytesPerSecond: Double, missing: Int) {
    state.withLock { ($0.machine.throughput ?? 0, $0.machine.chunksMissing) }
  }

  /// Whether these chunks are here.
  public func has(_ chunks: Range<Int>) -> Bool { state.withLock { $0.machine.has(chunks) } }

  /// Whether chunks come from elsewhere than other hosts, too.
  public var isFilled: Bool { state.withLock { $0.machine.isFilled } }

  /// Whether other hosts are connected to.
  public var hasHosts: Bool { state.withLock { !$0.lanes.isEmpty } }

  public var object: ObjectID { sink.object }
  public var geometry: ChunkGeometry { sink.geometry }

  /// How the source that failed last did.
  var lastFailure: MobulaError? { state.withLock { $0.machine.lastFailure } }

  /// The object is wanted more than before; a lower priority changes nothing.
  public func raise(to priority: TransferPriority) {
    let lanes = state.withLock { state in
      guard priority > state.priority else { return [ExchangeLane]() }
      state.priority = priority
      return Array(state.lanes.values)
    }
    for lane in lanes { lane.raise(to: priority) }
  }

  private func learn(_ peers: [TransferPeer]) {
    state.withLock { state in for peer in peers { state.addresses[peer.host] = peer.bulk } }
  }

  func giveUp(_ error: MobulaError) {
    state.withLock { if $0.result == nil { $0.result = .failure(error) } }
    act { machine, _ in machine.cancelled() }
    conclude()
  }

  // MARK: Events and actions

  /// What is to be done once the lock is released.
  private struct Effects {
    var opened: [ExchangeLane] = []
    var spoken: [ExchangeLane] = []
    var closing: [ExchangeLane] = []
    var search: Search?
  }

  private struct Search {
    var number: UInt64
    var known: Set<HostID>
    var failed: Set<HostID>
  }

  /// Asks the machine, and does what it says.
  func act<Failure: Error>(
    _ event: (inout ExchangeStateMachine, Duration) throws(Failure) -> [ExchangeStateMachine.Action]
  ) throws(Failure) {
    let now = ContinuousClock.now - start
    perform(
      try state.withLock { state throws(Failure) in
        let actions = try event(&state.machine, now)
        return apply(actions, &state)
      })
  }

  func ask<Answer: Sendable>(
    _ body: (inout ExchangeStateMachine, Duration) throws(MobulaError) -> Answer
  ) throws(MobulaError) -> Answer {
    let now = ContinuousClock.now - start
    return try state.withLock { state throws(MobulaError) in try body(&state.machine, now) }
  }

  /// Writes down what the machine said, under the lock under which it said so: whoever acts after that finds every lane
  /// that there is, and lanes hear of everything in its order.
  private func apply(_ actions: [ExchangeStateMachine.Action], _ state: inout State) -> Effects {
    var effects = Effects()
    func say(_ message: TransferMessage, on lane: ExchangeStateMachine.LaneID) {
      guard let lane = state.lanes[lane] else { return }
      lane.enqueue(message.frame)
      effects.spoken.append(lane)
    }
    for action in actions {
      switch action {
      case .open(let lane, let host):
        guard let address = state.addresses[host] else {
          preconditionFailure("a host has an address before it is used")
        }
        let opened = ExchangeLane(
          lane, to: TransferPeer(host: host, bulk: address), timeouts: timeouts, traffic: traffic.flow(state.priority))
        state.lanes[lane] = opened
        effects.opened.append(opened)
      case .request(let lane, let chunk): say(.request(chunk), on: lane)
      case .cancel(let lane, let chunk): say(.cancel(chunk), on: lane)
      case .acknowledge(let lane, let chunk): say(.acknowledge(chunk), on: lane)
      case .close(let lane):
        say(.done, on: lane)
        if let lane = state.lanes[lane] { effects.closing.append(lane) }
      case .findSources:
        state.searches += 1
        effects.search = Search(
          number: state.searches, known: state.machine.knownHosts, failed: state.machine.failedHosts)
      case .complete: if state.result == nil { state.result = .success(state.report) }
      case .fail(let error): if state.result == nil { state.result = .failure(error) }
      }
    }
    return effects
  }

  private func perform(_ effects: Effects) {
    for lane in effects.opened { start(lane) }
    // A source that can't be told is found out by the thread that listens to it.
    for lane in effects.spoken { lane.flush() }
    for lane in effects.closing { lane.close() }
    if let search = effects.search { find(search) }
    conclude()
  }

  private func start(_ lane: ExchangeLane) {
    detachThread(named: "fetch chunks") { [self] in
      var failure: MobulaError?
      do throws(MobulaError) {
        try lane.run(for: self, own: own, token: token, tls: tls, hello: hello)
      } catch {
        failure = error
      }
      lane.close()
      state.withLock { $0.lanes[lane.number] = nil }
      act { $0.ended(lane.number, failure, now: $1) }
    }
  }

  /// Looks for sources; what an earlier search finds from now on says nothing.
  private func find(_ search: Search) {
    let task = Task {
      do {
        let peers = try await find(search.known, search.failed)
        guard isCurrent(search) else { return }
        learn(peers)
        act { $0.found(peers.map(\.host), now: $1) }
      } catch {
        guard isCurrent(search) else { return }
        let error =
          error as? MobulaError ?? MobulaError(.unavailable, "No source of \(sink.object) was found: \(error)")
        act { $0.refused(error, now: $1) }
      }
    }
    let earlier: Task<Void, Never>? = state.withLock { state in
      // Its exchange may be over by now, or a later search under way.
      guard state.searches == search.number, state.result == nil else { return task }
      defer { state.searching = task }
      return state.searching
    }
    earlier?.cancel()
  }

  private func isCurrent(_ search: Search) -> Bool { state.withLock { $0.searches == search.number } }

  /// A chunk is verified and committed.
  func arrived(_ lane: ExchangeStateMachine.LaneID, from host: HostID, bytes: Int) {
    state.withLock { state in
      state.report.sources[host, default: 0] += bytes
      state.report.bytes += bytes
      state.report.chunks += 1
    }
    act { $0.arrived(lane, now: $1) }
  }

  /// Ends `run` once there is a result and nothing writes into the sink any more.
  private func conclude() {
    let (searching, waiting, result) = state.withLock { state in
      guard let result = state.result else {
        return (
          Task<Void, Never>?.none, CheckedContinuation<TransferReport, any Error>?.none,
          Result<TransferReport, MobulaError>?.none
        )
      }
      let waiting = state.lanes.isEmpty ? state.waiting.take() : nil
      return (state.searching.take(), waiting, result)
    }
    searching?.cancel()
    guard let waiting, let result else { return }
    waiting.resume(with: result.mapError { $0 as any Error })
  }
}
