internal import MobulaControl
internal import MobulaCore
internal import MobulaWire

/// What is to be done outside the lock, with the connections that the state's actions are about.
enum HeadEffect: Sendable {
  /// Say `disconnected` when the connection is gone.
  case watch(RPCConnection)
  case close(RPCConnection)
  case order(HostOrder, at: RPCConnection)
  case ask(PodID, LeaseRequest, at: RPCConnection?)
  case release(PodID, LeaseReturn, at: RPCConnection?)
  case revoke(LeaseLost, at: RPCConnection)
  case runActor(ActorRun, at: RPCConnection)
  case endActor(ActorEnding, at: RPCConnection?)
  /// Call `tick` at this instant since the start.
  case wakeAt(Duration)
  case log(ClusterAction.LogLevel, String)
}

/// What the lock of a head is around: the state, and who is behind its numbers.
struct HeadContents: Sendable {
  var state: ClusterState
  var sessions = Sessions()

  /// Takes what the state has decided: answers for callers, records for the journal, and the rest.
  mutating func takeDecisions() -> Decisions {
    var decisions = Decisions()
    for action in state.takeActions() {
      switch action {
      case .commit(let id, let records): decisions.commits.append((id, records))
      case .answer(let id, let reply): decisions.resume(sessions.take(id), .success(reply))
      case .refuse(let id, let error): decisions.resume(sessions.take(id), .failure(error))
      case .cancelled(let id): decisions.resume(sessions.take(id), .failure(CancellationError()))
      case .ask(let pod, let request, let id):
        decisions.effects.append(.ask(pod, request, at: id.flatMap { sessions[$0] }))
      case .release(let pod, let lease, let id):
        decisions.effects.append(.release(pod, lease, at: id.flatMap { sessions[$0] }))
      case .wakeAt(let instant): decisions.effects.append(.wakeAt(instant))
      case .log(let level, let message): decisions.effects.append(.log(level, message))
      case .watch(let id): if let peer = sessions.watch(id) { decisions.effects.append(.watch(peer)) }
      case .close(let id): if let peer = sessions[id] { decisions.effects.append(.close(peer)) }
      case .drop(let request, let id): decisions.order(.drop(request), at: sessions[id])
      case .keep(let request, let id): decisions.order(.keep(request), at: sessions[id])
      case .names(let news, let id): decisions.order(.names(news), at: sessions[id])
      case .runActor(_, let run, let id):
        if let peer = id.flatMap({ sessions[$0] }) { decisions.effects.append(.runActor(run, at: peer)) }
      case .endActor(_, let ending, let id):
        decisions.effects.append(.endActor(ending, at: id.flatMap { sessions[$0] }))
      case .revoke(let loss, let id): if let peer = sessions[id] { decisions.effects.append(.revoke(loss, at: peer)) }
      }
    }
    return decisions
  }
}

/// What follows from what the state has decided.
struct Decisions: Sendable {
  var answers: [(caller: HeadCaller, result: Result<ClusterReply, any Error>)] = []
  var commits: [(id: CommitID, records: [JournalRecord])] = []
  var effects: [HeadEffect] = []

  /// A host that is not there learns with its registration how things are.
  mutating func order(_ order: HostOrder, at peer: RPCConnection?) {
    if let peer { effects.append(.order(order, at: peer)) }
  }

  mutating func resume(_ caller: HeadCaller?, _ result: Result<ClusterReply, any Error>) {
    if let caller { answers.append((caller, result)) }
  }
}
