public import MobulaCore
public import MobulaWire
internal import Synchronization

/// A host, and where it serves its chunks.
public struct TransferPeer: Hashable, Sendable {
  public var host: HostID
  /// Its `TransferServer.endpoint`.
  public var bulk: Endpoint

  public init(host: HostID, bulk: Endpoint) {
    self.host = host
    self.bulk = bulk
  }
}

/// What an exchange did.
public struct TransferReport: Hashable, Sendable {
  /// Bytes received, verified and committed, without headers.
  public var bytes = 0
  /// Chunks received, verified and committed.
  public var chunks = 0
}

/// Receives one object, from as many hosts at once as have chunks of it, into memory that other
/// hosts take it from meanwhile.
///
/// Sources that fail, stall, are slow or send something wrong are replaced chunk by chunk.
public final class ObjectExchange: Sendable {
  /// Looks for hosts other than those that are known, or have failed. May take as long as there are none.
  ///
  /// - Throws: when there is none, and none will come.
  public typealias Finder =
    @Sendable (_ known: Set<HostID>, _ failed: Set<HostID>) async throws -> [TransferPeer]

  private struct State {
    var machine: ExchangeStateMachine
    var addresses: [HostID: Endpoint] = [:]
    var lanes: [ExchangeStateMachine.LaneID: ExchangeLane] = [:]
    var report = TransferReport()
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
  ///   - find: asked for sources, at first and as long as more are of use.
  public init(
    into sink: any ChunkSink, own: TransferPeer, token: ClusterToken, tls: ClusterTLS? = nil, hello: Hello,
    timeouts: TransferTimeouts = .init(), traffic: TrafficControl = .init(), priority: TransferPriority = .get,
    find: @escaping Finder
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
      geometry: sink.geometry, own: own.host, verified: sink.chunkMap, limits: limits,
      seed: own.host.low ^ sink.object.low)
    state = Mutex(State(machine: machine, priority: priority))
  }

  /// Returns when every chunk is verified and no connection is left.
  ///
  /// - Parameter sources: those that are known; the others are asked for.
  /// - Throws: `MobulaError`: what `find` threw when no source was left, with the last failure of one; `cancelled`;
  ///   `notFound` when the sink was given up.
  public func run(from sources: [TransferPeer]) async throws -> TransferReport {
    let ticking = Task {
      while !Task.isCancelled {
        try await Task.sleep(for: ExchangeLimits().tick)
        act { $0.tick(now: $1) }
      }
    }
    defer { ticking.cancel() }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        state.withLock { $0.waiting = continuation }
        learn(sources)
        act { $0.started(sources.map(\.host), now: $1) }
        settle()
      }
    } onCancel: {
      giveUp(MobulaError(.cancelled, "Fetching object \(sink.object) was cancelled."))
    }
  }

  /// This host may have chunks: it asks us for some.
  public func offer(_ peer: TransferPeer) {
    learn([peer])
    act { $0.offered([peer.host], now: $1) }
  }

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
    settle()
  }

  // MARK: Events and actions

  /// Asks the machine, and does what it says.
  func act<Failure: Error>(
    _ event: (inout ExchangeStateMachine, Duration) throws(Failure) -> [ExchangeStateMachine.Action]
  ) throws(Failure) {
    let now = ContinuousClock.now - start
    perform(try state.withLock { state throws(Failure) in try event(&state.machine, now) })
  }

  func ask<Answer: Sendable>(
    _ body: (inout ExchangeStateMachine, Duration) throws(MobulaError) -> Answer
  ) throws(MobulaError) -> Answer {
    let now = ContinuousClock.now - start
    return try state.withLock { state throws(MobulaError) in try body(&state.machine, now) }
  }

  private func perform(_ actions: [ExchangeStateMachine.Action]) {
    var outgoing: [ExchangeStateMachine.LaneID: [UInt8]] = [:]
    var closing: [ExchangeStateMachine.LaneID] = []
    for action in actions {
      switch action {
      case .open(let lane, let host): open(lane, to: host)
      case .request(let lane, let chunk): outgoing[lane, default: []] += TransferMessage.request(chunk).frame
      case .cancel(let lane, let chunk): outgoing[lane, default: []] += TransferMessage.cancel(chunk).frame
      case .acknowledge(let lane, let chunk): outgoing[lane, default: []] += TransferMessage.acknowledge(chunk).frame
      case .close(let lane):
        outgoing[lane, default: []] += TransferMessage.done.frame
        closing.append(lane)
      case .findSources: findSources()
      case .complete: state.withLock { if $0.result == nil { $0.result = .success($0.report) } }
      case .fail(let error): state.withLock { if $0.result == nil { $0.result = .failure(error) } }
      }
    }
    let lanes = state.withLock { $0.lanes }
    // A source that can't be told is found out by the thread that listens to it.
    for (lane, frames) in outgoing { lanes[lane]?.send(frames) }
    for lane in closing { lanes[lane]?.close() }
    settle()
  }

  private func open(_ lane: ExchangeStateMachine.LaneID, to host: HostID) {
    let opened: ExchangeLane? = state.withLock { state in
      guard let address = state.addresses[host] else { return nil }
      let opened = ExchangeLane(
        lane, to: TransferPeer(host: host, bulk: address), timeouts: timeouts, traffic: traffic.flow(state.priority))
      state.lanes[lane] = opened
      return opened
    }
    guard let opened else { return }
    detachThread(named: "fetch chunks") { [self] in
      var failure: MobulaError?
      do throws(MobulaError) {
        try opened.run(for: self, own: own, token: token, tls: tls, hello: hello)
      } catch {
        failure = error
      }
      opened.close()
      state.withLock { $0.lanes[lane] = nil }
      act { $0.ended(lane, failure, now: $1) }
      settle()
    }
  }

  private func findSources() {
    let (known, failed) = state.withLock { ($0.machine.knownHosts, $0.machine.failedHosts) }
    Task {
      do {
        let peers = try await find(known, failed)
        learn(peers)
        act { $0.found(peers.map(\.host), now: $1) }
      } catch {
        let error =
          error as? MobulaError ?? MobulaError(.unavailable, "No source of \(sink.object) was found: \(error)")
        act { $0.refused(error, now: $1) }
      }
    }
  }

  /// A chunk is verified and committed.
  func arrived(_ lane: ExchangeStateMachine.LaneID, bytes: Int) {
    state.withLock { state in
      state.report.bytes += bytes
      state.report.chunks += 1
    }
    act { $0.arrived(lane, now: $1) }
  }

  /// Ends `run` once there is a result and nothing writes into the sink any more.
  private func settle() {
    let (waiting, result) = state.withLock { state in
      guard state.lanes.isEmpty, let result = state.result else {
        return (CheckedContinuation<TransferReport, any Error>?.none, Result<TransferReport, MobulaError>?.none)
      }
      return (state.waiting.take(), result)
    }
    guard let waiting, let result else { return }
    waiting.resume(with: result.mapError { $0 as any Error })
  }
}
