import MobulaControl
import MobulaCore

/// One process of the head: what `Head` is around `ClusterState`, without I/O.
final class SimulatedHead {
  /// Whether the journal has what an answer says.
  typealias Proof = (ClusterReply, SimulatedJournal) -> Bool

  let epoch: UInt64
  private(set) var state: ClusterState
  private let start: Duration
  private(set) var isAlive = true
  /// While it hangs, nothing that comes is looked at.
  private var hangsUntil = Duration.zero
  unowned let world: ClusterSimulation
  var links: [ConnectionID: SimulatedLink] = [:]
  private var callers: [RequestID: (call: SimulatedLink.Call, answer: (SimulatedLink.Answer) -> Void)] = [:]
  private var answers: [ObjectIdentifier: (SimulatedLink.Answer) -> Void] = [:]
  /// What was looked for in the journal before an answer leaves.
  private var proofs: [RequestID: Proof] = [:]
  private var lastRequest: UInt64 = 0
  private var armed: Duration?
  private var isInside = false
  private var outbox: [ClusterAction] = []
  private var isActing = false

  init(_ settings: ClusterSettings, knowing journal: JournalState, in world: ClusterSimulation) {
    epoch = settings.epoch
    self.world = world
    start = world.now
    state = ClusterState(settings)
    state.load(journal)
    perform { $0.tick() }
  }

  private var clock: Duration { world.now - start }

  /// Lets the state decide, then sees to what it decided.
  func perform(_ body: (inout ClusterState) -> Void) {
    guard isAlive else { return }
    precondition(!isInside, "a decision inside a decision")
    isInside = true
    state.now = clock
    body(&state)
    let decided = state.takeActions()
    for action in decided {
      world.checkLeases(action, self)
      if let text = describe(action) { world.detail("head: \(text)") }
    }
    outbox += decided
    isInside = false
    world.checkHead(self)
    // What is decided while an action is done comes after the others.
    if isActing { return }
    isActing = true
    while !outbox.isEmpty { act(outbox.removeFirst()) }
    isActing = false
  }

  /// For a transcript.
  private func describe(_ action: ClusterAction) -> String? {
    switch action {
    case .drop(let request, let id): "drop \(request.objects) at \(links[id]?.name ?? "?")"
    case .ask(let pod, let request, _): "ask pod \(pod.short) for \(request.lease)"
    case .answer(_, .lease(let grant)): "grant \(grant.lease)"
    case .runActor(let pod, let run, let id):
      "run actor \(run.actor.low) as \(run.incarnation) at pod \(pod.short)\(id == nil ? ", which is away" : "")"
    case .endActor(let pod, let ending, _): "end actor \(ending.actor.low) at pod \(pod.short)"
    case .answer(_, .actor(let actor)): "actor \(actor.actor.low) is \(actor.state) as \(actor.incarnation)"
    case .release(let pod, let request, let id):
      "release \(request.lease) at pod \(pod.short)\(id == nil ? ", which is away" : "")"
    case .revoke(let loss, _): "revoke \(loss.lease): \(loss.reason)"
    case .refuse(_, let error): "refuse: \(error.message)"
    default: nil
    }
  }

  func hang(_ time: Duration) { hangsUntil = max(hangsUntil, world.now + time) }

  /// Does something now, or when the head goes on.
  func whenAwake(_ body: @escaping () -> Void) {
    if hangsUntil <= world.now { return body() }
    world.after(hangsUntil - world.now) { if self.isAlive { self.whenAwake(body) } }
  }

  func crash() {
    isAlive = false
    world.disk.crash(keeping: &world.random)
    for link in links.sorted(by: { $0.key < $1.key }).map(\.value) { link.closeByHead() }
    callers = [:]
    answers = [:]
  }

  // MARK: Calls

  /// A call has come; `answer` is called once.
  func received(
    _ call: SimulatedLink.Call, _ link: SimulatedLink, _ answer: @escaping (SimulatedLink.Answer) -> Void
  ) {
    answers[ObjectIdentifier(call)] = { result in
      guard !call.isOver else { return }
      call.isOver = true
      answer(result)
    }
    calls[link.id, default: []].append(call)
  }

  private var calls: [ConnectionID: [SimulatedLink.Call]] = [:]

  /// Asks the state a question.
  ///
  /// - Parameter proof: looks for what the journal must have when this is the answer.
  func ask(
    _ call: SimulatedLink.Call, proof: @escaping Proof = { _, _ in true },
    _ question: @escaping (inout ClusterState, RequestID) -> Void
  ) {
    whenAwake {
      self.lastRequest += 1
      let id = RequestID(self.lastRequest)
      guard let answer = self.answers.removeValue(forKey: ObjectIdentifier(call)), !call.isOver else { return }
      call.request = id
      self.callers[id] = (call, answer)
      self.proofs[id] = proof
      self.perform { question(&$0, id) }
    }
  }

  /// Tells the state some news, which it answers at once.
  func tell(
    _ call: SimulatedLink.Call, proof: @escaping Proof = { _, _ in true },
    _ news: @escaping (inout ClusterState) throws(MobulaError) -> ClusterReply
  ) {
    whenAwake {
      guard let answer = self.answers.removeValue(forKey: ObjectIdentifier(call)), !call.isOver else { return }
      var result = SimulatedLink.Answer.success(.done)
      self.perform { state in
        do throws(MobulaError) { result = .success(try news(&state)) } catch { result = .failure(error) }
      }
      if case .success(let reply) = result, !self.world.truth.hasLostJournal, !proof(reply, self.world.disk) {
        self.world.violation("\(reply) is answered before it is written down")
      }
      answer(result)
    }
  }

  /// A process wants to be one that another may be already: that one is asked first whether it is there.
  func askRival(
    _ rival: @escaping (ClusterState) -> ConnectionID?, _ call: SimulatedLink.Call, then: @escaping () -> Void
  ) {
    whenAwake {
      guard let link = rival(self.state).flatMap({ self.links[$0] }) else { return then() }
      var isKnown = false
      link.tell({ peer, done in if peer.isThere { done() } }) { took in
        guard !isKnown else { return }
        isKnown = true
        if !took { return then() }
        self.answer(call, .failure(MobulaError(.alreadyExists, "Another process is there.")))
      }
      self.world.after(.milliseconds(300)) {
        guard !isKnown, self.isAlive else { return }
        isKnown = true
        then()
      }
    }
  }

  func answer(_ call: SimulatedLink.Call, _ result: SimulatedLink.Answer) {
    answers.removeValue(forKey: ObjectIdentifier(call))?(result)
  }

  /// Who called has gone, or waits no more.
  func cancel(_ call: SimulatedLink.Call) {
    guard !call.isOver, let id = call.request else { return call.isOver = true }
    perform { $0.cancel(id) }
  }

  func closed(_ link: SimulatedLink) {
    links[link.id] = nil
    let open = calls.removeValue(forKey: link.id) ?? []
    whenAwake {
      self.perform { $0.disconnected(link.id) }
      for call in open where !call.isOver { self.cancel(call) }
    }
  }

  // MARK: Acting

  private func act(_ action: ClusterAction) {
    switch action {
    case .commit(let id, let records): commit(id, records)
    case .answer(let id, let reply):
      if let proof = proofs.removeValue(forKey: id), !world.truth.hasLostJournal, !proof(reply, world.disk) {
        world.violation("\(reply) is answered before it is written down")
      }
      callers.removeValue(forKey: id)?.answer(.success(reply))
    case .refuse(let id, let error):
      proofs[id] = nil
      callers.removeValue(forKey: id)?.answer(.failure(error))
    case .cancelled(let id):
      proofs[id] = nil
      callers.removeValue(forKey: id)?.answer(.failure(MobulaError(.cancelled, "The call was cancelled.")))
    case .watch(let id):
      // It may be gone already.
      if links[id] == nil { world.after(.zero) { self.perform { $0.disconnected(id) } } }
    case .close(let id): if let link = links[id] { world.after(.zero) { link.closeByHead() } }
    case .wakeAt(let instant): arm(instant)
    case .log(_, let text): world.note("head: \(text)")
    case .drop, .keep, .names, .ask, .release, .revoke, .runActor, .endActor: call(action)
    }
  }

  /// Each call leaves on its own: two that are made together may change their places.
  private func call(_ action: ClusterAction) {
    world.after(world.milliseconds(0...1)) {
      guard self.isAlive else { return }
      switch action {
      case .drop(let request, let id):
        self.links[id]?.tell(
          {
            $0.drop(request); $1()
          }, then: { _ in })
      case .keep(let request, let id):
        self.links[id]?.tell(
          {
            $0.keep(request); $1()
          }, then: { _ in })
      case .names(let news, let id):
        self.links[id]?.tell(
          {
            $0.learn(news); $1()
          }, then: { _ in })
      case .revoke(let loss, let id):
        self.links[id]?.tell(
          {
            $0.revoked(loss); $1()
          }, then: { _ in })
      case .release(let pod, let lease, let id):
        id.flatMap { self.links[$0] }?.tell({
          $0.release(lease); $1()
        }) { took in
          if took { self.perform { $0.podReleased(pod, lease.lease) } }
        }
      case .runActor(_, let run, let id):
        var said: Result<Endpoint, MobulaError>?
        id.flatMap { self.links[$0] }?.tell({ peer, done in
          peer.runActor(run) { answer in
            said = answer
            done()
          }
        }) { took in
          if took, let said { self.perform { $0.actorStarted(run.actor, run.incarnation, said) } }
        }
      case .endActor(_, let ending, let id):
        guard let link = id.flatMap({ self.links[$0] }) else {
          return self.perform { $0.actorStopped(ending.actor, ending.lease) }
        }
        link.tell({ $0.endActor(ending, $1) }) { _ in
          self.perform { $0.actorStopped(ending.actor, ending.lease) }
        }
      case .ask(let pod, let request, let id):
        guard let link = id.flatMap({ self.links[$0] }) else {
          return self.perform { $0.podAnswered(pod, request.lease, .unreachable) }
        }
        var said = PodAnswer.unreachable
        link.tell({ peer, done in
          peer.grant(request) { answer in
            said = answer
            done()
          }
        }) { took in self.perform { $0.podAnswered(pod, request.lease, took ? said : .unreachable) } }
      default: break
      }
    }
  }

  private func commit(_ id: CommitID, _ records: [JournalRecord]) {
    world.note("commit \(id): \(records.count) records")
    if world.options.mutation == .answersBeforeCommit {
      world.after(.zero) { self.perform { $0.committed(id, nil) } }
      world.disk.append(CommitID(0), records)
      return write()
    }
    if world.options.mutation == .journalLies, world.chance(5) {
      return world.after(.zero) { self.perform { $0.committed(id, nil) } }
    }
    world.disk.append(id, records)
    write()
  }

  private func write() {
    guard world.disk.begin() else { return }
    world.after(world.milliseconds(0...8)) {
      guard self.isAlive else { return }
      for (id, failure) in self.world.disk.end() where id != CommitID(0) {
        self.perform { $0.committed(id, failure) }
      }
      self.write()
    }
  }

  private func arm(_ instant: Duration) {
    if let armed, armed > clock, armed <= instant { return }
    armed = instant
    world.after(max(.zero, instant - clock)) {
      guard self.isAlive, self.armed == instant else { return }
      self.armed = nil
      self.whenAwake { self.perform { $0.tick() } }
    }
  }
}
