package import MobulaCore

extension ClusterState {
  // MARK: Questions

  /// An actor is to be there: answered when it is.
  ///
  /// - Parameters:
  ///   - secret: drawn for the job of one that outlives its driver; nobody is told.
  ///   - isNested: whether a worker asks.
  package mutating func startActor(
    _ id: RequestID, _ start: ActorStart, secret: JobSecret, isNested: Bool = false
  ) {
    decide(id) { state throws(MobulaError) in
      if state.actors[start.actor] != nil { return try state.ask(id, ActorQuestion(actor: start.actor, wish: .place)) }
      try state.check(start)
      if let name = start.spec.name.map({ Name($0) }), let other = state.actors.names[name] {
        switch start.ifTaken {
        case .use:
          try state.check(other, is: start.spec.type)
          return try state.ask(id, ActorQuestion(actor: other, wish: .place))
        case .fail:
          throw MobulaError(
            .alreadyExists, "An actor is called \(name) already: stop it, take another name, or use that one.")
        case .replace: state.died(other, "Another actor has taken its name.")
        }
      }
      var (job, records) = (start.job, [JournalRecord]())
      if start.spec.isDetached {
        job = try state.jobs.number()
        records = state.reserve(.jobs, UInt64(job.number)) + [.job(JobRecord(job: job, secret: secret))]
      }
      var entry = ActorEntry(spec: start.spec, job: job)
      entry.isNested = isNested
      // What a head before this one has started, of which the journal was lost, is another.
      entry.incarnation = state.settings.epoch / 1_000_000 * 1_000_000
      state.actors.add(start.actor, entry)
      state.propose(records + [.actor(entry.record(start.actor))], .actorStart(id, start.actor, secret))
    }
  }

  private func check(_ start: ActorStart) throws(MobulaError) {
    guard jobs[start.job] != nil else {
      throw MobulaError(
        .notFound, "Job \(start.job) is not running at this head: start a job on this connection and ask again.")
    }
    if let ended = actors.end(of: start.actor) { throw Self.hasEnded(ended) }
    guard start.spec.configuration.bytes.count <= ActorSpec.mostConfiguration else {
      throw MobulaError(
        .invalidArgument,
        "An actor can't be made with \(ByteCount(start.spec.configuration.bytes.count)): the most are \(ByteCount(ActorSpec.mostConfiguration)); put what is larger, and give it the reference."
      )
    }
    if let name = start.spec.name, name.isEmpty || name.utf8.count > 1_000 {
      throw MobulaError(.invalidArgument, "An actor can't be called so: names have 1 to 1,000 bytes.")
    }
  }

  private func check(_ actor: RemoteActorID, is type: String) throws(MobulaError) {
    guard let entry = actors[actor], entry.spec.type != type else { return }
    throw MobulaError(
      .mismatch,
      "The actor called \(Name(entry.spec.name ?? "")) is a \(readableName(ofType: entry.spec.type)), and not a \(readableName(ofType: type))."
    )
  }

  /// What is written down: the search for a pod begins.
  mutating func actorReserved(_ id: RequestID, _ actor: RemoteActorID, _ secret: JobSecret, _ failure: MobulaError?) {
    guard let entry = actors[actor] else {
      return refuse(id, failure ?? MobulaError(.cancelled, "The actor was ended before it had begun."))
    }
    if let failure {
      if entry.spec.isDetached { unreserve(.jobs) }
      _ = actors.remove(actor, nil)
      return refuse(id, failure)
    }
    if entry.spec.isDetached { jobs.startedByItself(entry.job, secret: secret) }
    decide(id) { state throws(MobulaError) in
      try state.ask(id, ActorQuestion(actor: actor, wish: .place))
    }
    seek(actor)
  }

  /// How an actor is, or where.
  package mutating func askActor(_ id: RequestID, _ question: ActorQuestion) {
    decide(id) { state throws(MobulaError) in try state.ask(id, question) }
  }

  private mutating func ask(_ id: RequestID, _ question: ActorQuestion) throws(MobulaError) {
    guard let actor = question.actor ?? question.name.flatMap({ actors.names[$0] }) else {
      throw MobulaError(
        .notFound, "No actor is called \(question.name ?? Name("")): `mobula actor ls` lists those that there are.")
    }
    guard let entry = actors[actor] else {
      let ended = actors.end(of: actor)
      guard question.wish != .place, let ended else {
        throw ended.map(Self.hasEnded)
          ?? MobulaError(.actorDied, "The actor \(actor.short) has ended: start it again.")
      }
      return answer(id, .actor(ended))
    }
    if question.wish == .place, case .stopping = entry.phase, entry.end?.restarts != true {
      throw MobulaError(.actorDied, "The actor \(title(actor)) is being stopped: start another.")
    }
    var waiter = ActorWaiter(wish: question.wish, after: question.after, seen: question.seen)
    if isAnswered(waiter, entry) { return answer(id, .actor(listing(actor, entry))) }
    // Who can't reach what lives as far as is known here tries again.
    if question.wish != .change, case .alive = entry.phase { waiter.until = now + .seconds(5) }
    questions[id] = .actor(actor)
    actors.change(actor) { $0.waiters[id] = waiter }
    if let until = waiter.until { act(.wakeAt(until)) }
  }

  private func isAnswered(_ waiter: ActorWaiter, _ entry: ActorEntry) -> Bool {
    let isAnother = waiter.after.map { entry.incarnation > $0 } ?? true
    let isAlive = if case .alive = entry.phase { true } else { false }
    switch waiter.wish {
    case .now: return true
    case .place: return isAlive && isAnother
    case .end: return !isAlive || isAnother
    case .change: return waiter.seen != entry.revision
    }
  }

  /// Ends an actor; answered when it has ended, or is about to be started again.
  package mutating func stopActor(_ id: RequestID, _ end: ActorEnd) {
    decide(id) { state throws(MobulaError) in
      let named = end.name.flatMap { state.actors.names[$0] }
      guard let actor = end.actor ?? named, let entry = state.actors[actor] else {
        guard let name = end.name else {
          // Its start may be on its way, over a connection that is gone.
          if let actor = end.actor { state.actors.refuse(actor, "It was stopped before it had begun.") }
          return state.answer(id, .done)
        }
        throw MobulaError(
          .notFound, "No actor is called \(name): `mobula actor ls` lists those that there are.")
      }
      guard case .alive(let pod, _) = entry.phase, end.seconds > 0 else {
        switch entry.phase {
        case .stopping where end.seconds > 0:
          state.actors.change(actor) { entry in
            entry.stoppers.append(id)
            if !end.restarts { entry.end?.restarts = false }
          }
        case .starting where end.restarts, .alive where end.restarts:
          state.giveUpLease(of: actor, entry)
          state.actors.change(actor) { $0.stoppers.append(id) }
          state.ended(actor, "It was stopped, to be started again.", .told, counts: false)
        case _ where end.restarts: state.answer(id, .done)
        default:
          state.actors.change(actor) { $0.stoppers.append(id) }
          state.died(actor, "It was stopped.")
        }
        return
      }
      state.actors.change(actor) { entry in
        entry.phase = .stopping(pod)
        entry.end = end
        entry.stoppers.append(id)
      }
      state.changed(actor)
      state.act(
        .endActor(
          pod,
          ActorEnding(
            actor: actor, lease: ActorSpec.lease(of: actor, entry.incarnation),
            seconds: min(end.seconds, 86_400)), at: state.connection(of: pod)))
    }
  }

  /// The worker of an actor that is to end has done with it, or can't be asked.
  package mutating func actorStopped(_ actor: RemoteActorID, _ lease: LeaseID) {
    guard let entry = actors[actor], case .stopping = entry.phase,
      ActorSpec.lease(of: actor, entry.incarnation) == lease
    else { return }
    giveUpLease(of: actor, entry)
    finishStop(actor, entry)
  }

  private mutating func finishStop(_ actor: RemoteActorID, _ entry: ActorEntry) {
    if entry.end?.restarts == true {
      ended(actor, "It was stopped, to be started again.", .told, counts: false)
    } else {
      died(actor, "It was stopped.")
    }
  }

  // MARK: Life

  /// Asks for a lease for the next incarnation, or takes the one that a pod has brought.
  private mutating func seek(_ actor: RemoteActorID) {
    let request = actors.newRequest()
    guard
      let entry = actors.change(
        actor,
        { entry in
          entry.incarnation &+= 1
          entry.aliveSince = nil
          entry.phase = .waiting(request)
          return entry
        })
    else { return }
    let lease = ActorSpec.lease(of: actor, entry.incarnation)
    if let pod = scheduler.place(of: lease) { return place(actor, pod) }
    var wanted = LeaseRequest(
      lease: lease, job: entry.job, demand: entry.spec.demand, strategy: entry.spec.strategy,
      program: entry.spec.program)
    wanted.isForActor = true
    questions[request] = .actorLease(actor, wanted)
    // One that has lived is wanted, however long it takes.
    let limit = entry.hasLived ? nil : entry.spec.waits
    apply(
      scheduler.request(
        LeaseDemand(
          id: request, lease: lease, job: entry.job, resources: entry.spec.demand,
          rule: PlacementRule(entry.spec.strategy),
          deadline: now + (limit ?? .seconds(10 * 365 * 86_400)),
          waits: limit == nil, isNested: entry.isNested), at: now))
  }

  /// A pod has the lease of an actor's next incarnation: written down before anything runs.
  mutating func place(_ actor: RemoteActorID, _ pod: PodID) {
    guard
      let entry = actors.change(
        actor,
        { entry in
          entry.phase = .placed(pod)
          return entry
        })
    else { return }
    propose([.actor(entry.record(actor))], .actorPlaced(actor, entry.incarnation))
  }

  mutating func actorPlaced(_ actor: RemoteActorID, _ incarnation: UInt64, _ failure: MobulaError?) {
    guard let entry = actors[actor], entry.incarnation == incarnation, case .placed(let pod) = entry.phase else {
      return
    }
    if failure != nil {
      giveUpLease(of: actor, entry)
      actors.change(actor) { $0.phase = .pausing(until: now + .seconds(1)) }
      return act(.wakeAt(now + .seconds(1)))
    }
    actors.change(actor) { $0.phase = .starting(pod) }
    run(actor)
  }

  private mutating func run(_ actor: RemoteActorID) {
    guard let entry = actors[actor], let pod = entry.phase.pod else { return }
    act(
      .runActor(
        pod,
        ActorRun(
          actor: actor, incarnation: entry.incarnation, lease: ActorSpec.lease(of: actor, entry.incarnation),
          spec: entry.spec), at: connection(of: pod)))
  }

  /// What its pod says of an actor that was to be started there. `unavailable` says nothing: its worker's end is told
  /// in its own way.
  package mutating func actorStarted(
    _ actor: RemoteActorID, _ incarnation: UInt64, _ result: Result<Endpoint, MobulaError>
  ) {
    guard let entry = actors[actor], entry.incarnation == incarnation, case .starting(let pod) = entry.phase else {
      return
    }
    switch result {
    case .success(let endpoint):
      actors.change(actor) { entry in
        entry.phase = .alive(pod, endpoint)
        entry.aliveSince = now
        entry.hasLived = true
      }
      // What is lost of that, the pod says again.
      if let entry = actors[actor] { save([.actor(entry.record(actor))]) }
      changed(actor)
    case .failure(let error) where error.code == .unavailable: break
    case .failure(let error):
      giveUpLease(of: actor, entry)
      if entry.hasLived {
        ended(actor, error.message, .told)
      } else {
        died(actor, error)
      }
    }
  }

  /// The lease that an actor lives by was not granted.
  mutating func leaseRefused(_ actor: RemoteActorID, _ refusal: LeaseRefusal) {
    guard let entry = actors[actor] else { return }
    var error = refusal.error(name: hostName)
    if case .jobEnded = refusal { return forgetActors(of: entry.job) }
    if error.code == .unavailable { error = MobulaError(.unschedulable, error.message) }
    if error.code == .deadlineExceeded {
      error = MobulaError(
        .unschedulable,
        "No pod had \(entry.spec.demand) free within \(entry.spec.waits ?? .zero): `mobula status` shows what the pods have, and who has it now."
      )
    }
    died(actor, error)
  }

  /// The worker of an actor has ended, or its pod is lost.
  mutating func leaseLost(of actor: RemoteActorID, _ loss: LeaseLoss) {
    switch loss {
    case .workerEnded(let reason): ended(actor, reason, .certain)
    case .podLost(let pod): ended(actor, "Pod \(podName(pod)) was lost, with its worker.", .lost)
    }
  }

  /// How sure it is that nothing of an incarnation goes on, so that the next may begin.
  private enum Certainty {
    case certain
    /// Its pod was told to end it.
    case told
    /// Its pod can't be reached.
    case lost
  }

  /// An incarnation is over, or can't be reached.
  ///
  /// - Parameters:
  ///   - counts: whether it is one of the ends after which it is started again.
  private mutating func ended(
    _ actor: RemoteActorID, _ reason: String, _ certainty: Certainty, counts: Bool = true
  ) {
    guard let entry = actors[actor], let pod = entry.phase.pod else { return }
    var counts = counts
    if case .stopping = entry.phase, counts {
      // That is what was wanted.
      guard entry.end?.restarts == true else { return died(actor, "It was stopped.") }
      counts = false
    }
    let isWanted = entry.spec.restarts.map { entry.restarts < $0 } ?? true
    guard isWanted || !counts else { return died(actor, reason) }
    let (now, fence) = (now, fence)
    actors.change(actor) { entry in
      if counts { entry.restarts += 1 }
      entry.reason = reason
      // Who ends at once each time is not started again at once each time.
      if let since = entry.aliveSince, now - since >= .seconds(10) || !counts {
        (entry.failures, entry.pause) = (0, .zero)
      } else {
        entry.failures = min(entry.failures + 1, 8)
        entry.pause = min(.milliseconds(50) * (1 << entry.failures), .seconds(10))
      }
      entry.end = nil
      switch certainty {
      case .certain: entry.phase = .pausing(until: now + entry.pause)
      case .told: entry.phase = .ending(pod)
      case .lost: entry.phase = .lost(pod, until: now + fence)
      }
    }
    act(.log(.warning, "the actor \(title(actor)) is started again: \(reason)"))
    if let entry = actors[actor] {
      propose([.actor(entry.record(actor))], .actorEnd(entry.stoppers))
      actors.change(actor) { $0.stoppers = [] }
      if let due = entry.due { act(.wakeAt(due)) }
    }
    changed(actor)
  }

  /// While its host has not heard of a head for this long, an actor that may be started again begins nothing there.
  private var fence: Duration { max(.zero, settings.actorFence - settings.hostTimeout) }

  private mutating func died(_ actor: RemoteActorID, _ reason: String) { died(actor, MobulaError(.actorDied, reason)) }

  /// An actor has ended for good.
  private mutating func died(_ actor: RemoteActorID, _ error: MobulaError) {
    guard let entry = actors[actor] else { return }
    act(.log(.info, "the actor \(title(actor)) has ended: \(error.message)"))
    giveUpLease(of: actor, entry)
    var last = listing(actor, entry)
    last.state = .dead
    last.endpoint = nil
    last.reason = error.message
    last.revision += 1
    _ = actors.remove(actor, last)
    if entry.spec.isDetached {
      jobs.endedByItself(entry.job)
      end([entry.job], "with its actor")
    }
    // Who wanted that is told when no head after this one goes on with it.
    propose([.actorForgotten(actor)], .actorEnd(entry.stoppers))
    for (id, waiter) in entry.waiters.sorted(by: { $0.key < $1.key }) {
      switch waiter.wish {
      // Who waits for its start is told why there is none.
      case .place where error.code != .actorDied: refuse(id, error)
      case .place: refuse(id, Self.hasEnded(last))
      case .end, .change, .now: answer(id, .actor(last))
      }
    }
  }

  mutating func actorEnded(_ stoppers: [RequestID], _ failure: MobulaError?) {
    for id in stoppers {
      if let failure { refuse(id, failure) } else { answer(id, .done) }
    }
  }

  private static func hasEnded(_ listing: ActorListing) -> MobulaError {
    MobulaError(
      .actorDied,
      "The actor \(listing.name.map { Name($0).text.printable } ?? listing.actor.short) has ended: \(listing.reason ?? "nobody knows why.")"
    )
  }

  /// What it has, or wants, of a pod.
  private mutating func giveUpLease(of actor: RemoteActorID, _ entry: ActorEntry) {
    switch entry.phase {
    case .waiting(let request):
      questions[request] = nil
      apply(scheduler.cancel(request, at: now))
    case .placed, .starting, .alive, .stopping:
      let lease = ActorSpec.lease(of: actor, entry.incarnation)
      if scheduler.hasPlace(lease) { apply(scheduler.returned(lease, workerIsReusable: false, at: now)) }
    case .reserved, .ending, .lost, .pausing: break
    }
  }

  /// A job is over, and so are its actors, of which nothing needs to be given up.
  mutating func forgetActors(of job: JobID) {
    for actor in actors.ofJob(job) {
      guard let entry = actors[actor] else { continue }
      var last = listing(actor, entry)
      last.state = .dead
      last.endpoint = nil
      last.reason = "Job \(job) has ended."
      last.revision += 1
      if case .waiting(let request) = entry.phase { questions[request] = nil }
      _ = actors.remove(actor, last)
      for (id, waiter) in entry.waiters.sorted(by: { $0.key < $1.key }) {
        if waiter.wish == .place { refuse(id, Self.hasEnded(last)) } else { answer(id, .actor(last)) }
      }
      for id in entry.stoppers { answer(id, .done) }
    }
  }

  private mutating func changed(_ actor: RemoteActorID) {
    guard
      let entry = actors.change(
        actor,
        { entry in
          entry.revision += 1
          return entry
        })
    else { return }
    for (id, waiter) in entry.waiters.sorted(by: { $0.key < $1.key }) where isAnswered(waiter, entry) {
      actors.change(actor) { $0.waiters[id] = nil }
      answer(id, .actor(listing(actor, entry)))
    }
  }

  mutating func stopWaiting(_ id: RequestID, for actor: RemoteActorID) {
    actors.change(actor) { $0.waiters[id] = nil }
  }

  // MARK: Pods

  /// A pod has registered, with what it has of actors.
  ///
  /// - Parameter end: leases that it ends before it confirms.
  mutating func actorsFound(at pod: PodID, end: [LeaseID]) {
    for actor in actors.atPod(pod) {
      guard let entry = actors[actor] else { continue }
      let lease = ActorSpec.lease(of: actor, entry.incarnation)
      if case .ending = entry.phase {
        if scheduler.pods[pod]?.leases[lease] == nil {
          isCertain(actor)
        } else if scheduler.place(of: lease) == pod {
          // The head before this one had it end.
          apply(scheduler.returned(lease, workerIsReusable: false, at: now))
        }
        continue
      }
      if scheduler.place(of: lease) == pod {
        if case .starting = entry.phase { run(actor) }
        if case .stopping = entry.phase { actorStopped(actor, lease) }
        continue
      }
      switch entry.phase {
      case .starting, .alive, .stopping:
        ended(actor, "Its pod no longer has it.", end.contains(lease) ? .told : .certain)
      // A placed one is told when it is written down; a lost one's pod has yet to confirm.
      default: break
      }
    }
  }

  /// A pod has ended what it was told to end when it registered: what was lost with it is over.
  mutating func actorsEnded(at pod: PodID) {
    for actor in actors.atPod(pod) {
      guard let entry = actors[actor] else { continue }
      switch entry.phase {
      case .lost: isCertain(actor)
      case .ending where scheduler.pods[pod]?.leases[ActorSpec.lease(of: actor, entry.incarnation)] == nil:
        isCertain(actor)
      default: break
      }
    }
  }

  /// A pod has given up a lease, as it was told.
  mutating func actorEnded(_ lease: LeaseID, at pod: PodID) {
    if let actor = actors.leases[lease], case .ending(pod)? = actors[actor]?.phase { isCertain(actor) }
  }

  /// Nothing goes on of the incarnation that has ended.
  private mutating func isCertain(_ actor: RemoteActorID) {
    actors.change(actor) { $0.phase = .pausing(until: now + $0.pause) }
    if let due = actors[actor]?.due { act(.wakeAt(due)) }
  }

  /// A pod that no head has heard of since it was lost.
  mutating func actorsLost(at pod: PodID) {
    for actor in actors.atPod(pod) {
      switch actors[actor]?.phase {
      case .starting?, .alive?, .stopping?:
        ended(actor, "Pod \(podName(pod)) was lost, with its worker.", .lost)
      case .ending?:
        let until = now + fence
        actors.change(actor) { $0.phase = .lost(pod, until: until) }
        act(.wakeAt(until))
      case .placed?:
        // Nothing was run yet.
        isCertain(actor)
      default: break
      }
    }
  }

  mutating func tickActors() {
    for actor in actors.due(at: now) {
      guard let entry = actors[actor] else { continue }
      for (id, waiter) in entry.waiters.sorted(by: { $0.key < $1.key }) where waiter.until.map({ $0 <= now }) == true {
        actors.change(actor) { $0.waiters[id] = nil }
        answer(id, .actor(listing(actor, entry)))
      }
      switch entry.phase {
      case .pausing(let until) where until <= now: seek(actor)
      case .lost(_, let until) where until <= now: seek(actor)
      default: break
      }
    }
    if let next = actors.nextDue { act(.wakeAt(max(next, now))) }
  }

  /// What a head before this one had of actors.
  mutating func load(_ records: some Sequence<ActorRecord>) {
    for record in records.sorted(by: { $0.actor < $1.actor }) {
      guard jobs[record.job] != nil else {
        save([.actorForgotten(record.actor)])
        continue
      }
      var entry = ActorEntry(spec: record.spec, job: record.job)
      (entry.incarnation, entry.restarts, entry.hasLived) = (record.incarnation, record.restarts, record.hasLived)
      switch (record.pod, record.endpoint) {
      case (let pod?, _) where record.hasEnded: entry.phase = .ending(pod)
      case (let pod?, let endpoint?):
        entry.phase = .alive(pod, endpoint)
        entry.aliveSince = now
      case (let pod?, nil): entry.phase = .starting(pod)
      // Its pod may bring the lease that was granted last.
      case (nil, _): entry.phase = .pausing(until: settings.hostTimeout)
      }
      if record.spec.isDetached { jobs.runsByItself(record.job) }
      actors.add(record.actor, entry)
    }
    // Those of pods that were lost already are not told so again.
    for pod in Set(actors.entries.values.compactMap(\.phase.pod)).sorted()
    where membership.pods[pod]?.isPresent != true {
      actorsLost(at: pod)
    }
    if let next = actors.nextDue { act(.wakeAt(next)) }
  }

  // MARK: Lists

  /// Whether other jobs may call what is in this one: it is nothing but an actor that outlives its driver.
  package func isOfDetachedActor(_ job: JobID) -> Bool { jobs[job]?.isByItself == true }

  /// The job that an actor is, or was, of; `nil` for one that nobody knows, or that was a job of its own.
  package func job(of actor: RemoteActorID?, named name: Name?) -> JobID? {
    guard let actor = actor ?? name.flatMap({ actors.names[$0] }) else { return nil }
    return actors[actor]?.job ?? actors.end(of: actor).flatMap { $0.isDetached ? nil : $0.job }
  }

  package func listActors(_ request: ActorsRequest) -> ActorsReply {
    var budget = PageBudget()
    let behind = actors.entries.filter { request.after == nil || $0.key > request.after! }.sorted { $0.key < $1.key }
    let page = behind.prefix {
      budget.take(300 + $0.value.spec.type.utf8.count + ($0.value.reason?.utf8.count ?? 0))
    }
    return ActorsReply(actors: page.map { listing($0.key, $0.value) }, hasMore: page.count < behind.count)
  }

  private func listing(_ actor: RemoteActorID, _ entry: ActorEntry) -> ActorListing {
    var listing = ActorListing(
      actor: actor, job: entry.job, name: entry.spec.name, type: entry.spec.type, isDetached: entry.spec.isDetached,
      state: entry.state, incarnation: entry.incarnation, restarts: entry.restarts, revision: entry.revision,
      build: entry.spec.program.build)
    if case .alive(_, let endpoint) = entry.phase { listing.endpoint = endpoint }
    if let pod = entry.phase.pod {
      listing.podName = podName(pod)
      listing.host = membership.pods[pod]?.description.host
      listing.hostName = listing.host.map { hostName($0) }
    }
    listing.reason = entry.reason
    return listing
  }

  private func title(_ actor: RemoteActorID) -> String {
    actors[actor]?.spec.name.map { Name($0).text.printable } ?? actor.short
  }
}

extension ActorSpec {
  /// How long it waits for a pod at first; from outside: no number of seconds is too odd to be taken as one.
  fileprivate var waits: Duration? {
    startLimit.map { $0.isFinite ? .seconds(min(max($0, 0), 1e8)) : .zero }
  }
}
