public import MobulaCore
import MobulaWire
import Synchronization

/// How much of an object one of the hosts has that it is pushed to.
public struct BroadcastState: Sendable {
  /// Which host it is.
  public let host: HostID
  /// The host's name.
  public let name: Name
  /// Bytes of verified chunks.
  public var verified = ByteCount(0)
  /// `nil` while nothing of the object is there.
  public var total: ByteCount?
  /// Every byte is there.
  public var isComplete = false
  /// Why the host does not get it.
  public var failure: MobulaError?

  /// A host that has nothing of the object yet.
  public init(host: HostID, name: Name) {
    self.host = host
    self.name = name
  }

  /// Whether the host has the object, or will not get it.
  public var isOver: Bool { isComplete || failure != nil }
}

/// Told of all hosts, the same in the same order, now and then and at the end; from any thread.
public typealias BroadcastProgress = @Sendable ([BroadcastState]) -> Void

extension ObjectRef {
  /// Pushes the object to every host, or to those with some labels, and waits until it is there.
  ///
  /// What somebody waits for goes before it on every network. The replicas are those of any other object: they go with
  /// it, when no reference and no name keeps it, and a host without room drops the ones that nobody on it holds.
  /// When the calling task is cancelled, hosts that nobody else waits at give up what they have not got whole.
  /// - Throws: `MobulaError`, naming each host that did not get it; `CancellationError`.
  public func broadcast(to hosts: HostSelector = .all, progress: BroadcastProgress? = nil) async throws {
    let cluster = reference.cluster
    let chosen = try await cluster.hosts(hosts)
    try await push(to: chosen, .background, progress)
  }

  /// Brings the object to these hosts before anybody there asks for it, and waits until it is there.
  ///
  /// It goes before broadcasts, and after what somebody waits for. The replicas last as those of `broadcast` do.
  /// - Throws: as `broadcast`; `notFound` for a host that is not in the cluster.
  public func prefetch(on hosts: HostID...) async throws {
    let known = Dictionary(
      try await reference.cluster.settledStatus().hosts.map { ($0.host, $0) }, uniquingKeysWith: { a, _ in a })
    let chosen = try hosts.map { host in
      guard let found = known[host] else {
        throw MobulaError(.notFound, "No host \(host) is in the cluster: `mobula status --json` lists the hosts' ids.")
      }
      return found
    }
    try await push(to: chosen, .prefetch, nil)
  }

  private func push(
    to hosts: [ClusterStatus.Host], _ priority: TransferPriority, _ progress: BroadcastProgress?
  ) async throws {
    await reference.shareWhole()
    try await reference.cluster.store.holds.flush()
    let states = try await reference.cluster.push(id, to: hosts, priority: priority, progress: progress)
    withExtendedLifetime(reference) {}
    let failed = states.filter { $0.failure != nil }
    guard let first = failed.first?.failure else { return }
    let reasons = failed.map { "\($0.name) (\($0.failure!.message))" }.joined(separator: "; ")
    throw MobulaError(first.code, "\(failed.count) of \(states.count) hosts did not get object \(id): \(reasons)")
  }
}

extension Cluster {
  /// The hosts with these labels.
  ///
  /// - Throws: `MobulaError` (`notFound`) when there are none.
  public func hosts(_ selector: HostSelector) async throws -> [ClusterStatus.Host] {
    let all = try await settledStatus().hosts
    // One that is about to go needs no more copies.
    let chosen = all.filter { selector.matches($0.labels) && $0.draining != true }
    guard !chosen.isEmpty else {
      if let leaving = all.first(where: { selector.matches($0.labels) }) {
        throw MobulaError(
          .unavailable,
          "Host \(leaving.name) is being drained and takes no more copies: choose others, or end that with `mobula host drain \(leaving.name) --cancel`."
        )
      }
      let text = selector.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
      throw MobulaError(
        .notFound, "No host has \(text.isEmpty ? "joined the cluster" : text): `mobula status` shows the hosts' labels."
      )
    }
    return chosen
  }

  /// As `status`, once the hosts are back that a head which was just started knows of, or it waits for them no more:
  /// "every host" would be those that happened to be first.
  package func settledStatus() async throws -> ClusterStatus {
    let end = ContinuousClock.now + Self.absence
    while true {
      let status = try await status()
      let isComplete = (status.absent ?? []).allSatisfy { $0.seconds > 0 }
      if isComplete || ContinuousClock.now >= end { return status }
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  /// Has every one of `hosts` fetch an object, and returns when each has it or can't get it.
  ///
  /// The caller keeps the object alive meanwhile.
  public func push(
    _ object: ObjectID, to hosts: [ClusterStatus.Host], priority: TransferPriority = .background,
    progress: BroadcastProgress? = nil
  ) async throws -> [BroadcastState] {
    let board = BroadcastBoard(hosts)
    await withTaskGroup(of: Void.self) { group in
      if let progress { group.addTask { await self.watch(object, board, progress) } }
      await withTaskGroup(of: Void.self) { deliveries in
        for (index, host) in hosts.enumerated() {
          deliveries.addTask {
            board.ended(index, await self.deliver(object, to: host.host, priority: priority))
          }
        }
      }
      group.cancelAll()
    }
    try Task.checkCancellation()
    progress?(board.states)
    return board.states
  }

  /// Returns why the host does not get the object; `nil` when it has it.
  private func deliver(_ object: ObjectID, to host: HostID, priority: TransferPriority) async -> MobulaError? {
    let order = BringOrder(object: object, host: host, priority: priority)
    var isGoneSince: ContinuousClock.Instant?
    while true {
      let begin = ContinuousClock.now
      do {
        _ = try await head.call(HeadAPI.bring, order, deadline: options.valueDeadline ?? .untilItComes)
        return nil
      } catch let error as MobulaError where error.code == .connectionClosed && !Task.isCancelled {
        // A host whose process died is back in a moment, and goes on with what it has kept.
        if begin.duration(to: .now) > Self.absence { isGoneSince = nil }
        let since = isGoneSince ?? .now
        isGoneSince = since
        guard since.duration(to: .now) < Self.absence else { return error }
        try? await Task.sleep(for: .milliseconds(250))
      } catch {
        return error as? MobulaError ?? MobulaError(.cancelled, "The broadcast was cancelled.")
      }
    }
  }

  /// How long a host may be away from the head; as long as the head waits for it.
  private static var absence: Duration { .seconds(12) }

  /// Asks how much the hosts have, until cancelled: seldom when they are many, since the head asks each of them.
  private func watch(_ object: ObjectID, _ board: BroadcastBoard, _ progress: BroadcastProgress) async {
    while !Task.isCancelled {
      let open = board.states.filter { !$0.isOver }.map(\.host)
      let question = ProgressQuestion(object: object, hosts: open)
      let answers = (try? await head.call(HeadAPI.progress, question, deadline: .seconds(10))) ?? []
      progress(board.heard(answers))
      try? await Task.sleep(for: max(.milliseconds(500), .milliseconds(2 * open.count)))
    }
  }
}

/// What is known of each host while an object is pushed.
private final class BroadcastBoard: Sendable {
  private let content: Mutex<[BroadcastState]>

  init(_ hosts: [ClusterStatus.Host]) {
    content = Mutex(hosts.map { BroadcastState(host: $0.host, name: $0.name) })
  }

  var states: [BroadcastState] { content.withLock { $0 } }

  /// - Parameter failure: why the host does not get the object; `nil` when it has it.
  func ended(_ index: Int, _ failure: MobulaError?) {
    content.withLock { states in
      states[index].failure = failure
      states[index].isComplete = failure == nil
      if failure == nil, let total = states[index].total { states[index].verified = total }
    }
  }

  func heard(_ answers: [ReplicaProgress]) -> [BroadcastState] {
    let byHost = Dictionary(answers.map { ($0.host, $0) }, uniquingKeysWith: { a, _ in a })
    return content.withLock { states in
      for index in states.indices {
        guard let answer = byHost[states[index].host], !states[index].isOver else { continue }
        states[index].verified = answer.verified
        states[index].total = answer.total
      }
      return states
    }
  }
}
