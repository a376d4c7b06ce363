import MobulaControl
import MobulaCore

/// An actor that a driver has asked for.
final class SimulatedActor {
  let id: RemoteActorID
  let spec: ActorSpec
  unowned let driver: SimulatedDriver
  /// Whether the head has said that it lives.
  var hasLived = false
  /// Whether somebody wants its end, or another has its name.
  var mayEnd = false
  /// Whether its end was answered.
  var isOver = false

  init(_ id: RemoteActorID, _ spec: ActorSpec, of driver: SimulatedDriver) {
    (self.id, self.spec, self.driver) = (id, spec, driver)
  }
}

/// One that runs, or is being made, in a worker.
struct SimulatedActorRun {
  var incarnation: UInt64
  let worker: SimulatedClient
  let pod: SimulatedPod
}

extension ClusterSimulation {
  static let actorFence = Duration.seconds(6), actorFenceAtPod = Duration.milliseconds(4500)

  /// A worker begins to make an actor: nobody else is it, or may begin anything as it.
  func began(_ run: ActorRun, at worker: SimulatedClient, of pod: SimulatedPod) {
    let others = truth.actorRuns[run.actor, default: []].filter { $0.worker.isAlive }
    if !truth.hasLostJournal, run.spec.isRestartable {
      for other in others where other.incarnation != run.incarnation && !other.pod.isFenced {
        violation(
          "actor \(run.actor.low) begins as incarnation \(run.incarnation), and \(other.incarnation) lives at \(other.worker.name)"
        )
      }
      let record = disk.state.actors[run.actor]
      if head != nil, record.map({ $0.incarnation < run.incarnation }) ?? true, record != nil {
        violation("incarnation \(run.incarnation) of actor \(run.actor.low) begins before it is written down")
      }
    }
    truth.actorRuns[run.actor] =
      others + [SimulatedActorRun(incarnation: run.incarnation, worker: worker, pod: pod)]
  }

  /// In the end all actors live that are to, once each, and no others.
  func checkActors(_ state: ClusterState) {
    let listed = state.listActors(ActorsRequest()).actors
    for listing in listed {
      let runs = truth.actorRuns[listing.actor, default: []].filter { $0.worker.isAlive }
      if listing.state != .alive { violation("actor \(listing.actor.low) is \(listing.state) in the end") }
      if runs.map(\.incarnation) != [listing.incarnation] {
        violation(
          "actor \(listing.actor.low) is incarnation \(listing.incarnation), and there are \(runs.map(\.incarnation))")
      }
    }
    let known = Set(listed.map(\.actor))
    for (actor, runs) in truth.actorRuns.sorted(by: { $0.key < $1.key }) where !known.contains(actor) {
      for run in runs where run.worker.isAlive {
        violation("actor \(actor.low) lives at \(run.worker.name), and the head does not know it")
      }
    }
    for actor in truth.actors where !actor.mayEnd && actor.hasLived && actor.spec.restarts == nil {
      let goesOn = actor.spec.isDetached || !actor.driver.isOver
      if goesOn, !truth.hasLostJournal, !known.contains(actor.id) { violation("actor \(actor.id.low) is gone") }
    }
    for actor in truth.actors where actor.isOver && known.contains(actor.id) {
      violation("actor \(actor.id.low) was ended, and is there")
    }
    for listing in listed where !listing.isDetached {
      if drivers.first(where: { $0.job == listing.job })?.isOver == true {
        violation("actor \(listing.actor.low) has outlived its driver")
      }
    }
  }
}

extension SimulatedDriver {
  /// Starts an actor, or stops one.
  func actOnActors() {
    let mine = world.truth.actors.filter { $0.driver === self && !$0.mayEnd }
    if mine.count < 2 {
      startActor()
    } else if let actor = mine.randomElement(using: &world.random) {
      stop(actor, restarts: world.chance(30))
    }
  }

  private func startActor() {
    guard let job else { return }
    let number = world.number()
    let spec = ActorSpec(
      type: "Actor", configuration: ByteString([]), limit: 1,
      restarts: [0, 2, nil, nil].randomElement(using: &world.random)!,
      name: world.chance(40) ? "actor \(Int.random(in: 0..<3, using: &world.random))" : nil,
      isDetached: world.chance(25), demand: [:], strategy: .spread,
      program: WorkerProgram(executable: "/bin/app", build: ""), startLimit: nil)
    let taken: ActorStart.Taken = [.fail, .use, .replace].randomElement(using: &world.random)!
    let actor = SimulatedActor(RemoteActorID(high: 9, low: number), spec, of: self)
    world.truth.actors.append(actor)
    ask(
      ActorStart(actor: actor.id, job: job, spec: spec, ifTaken: taken), actor, number, until: world.now + .seconds(20))
  }

  private func ask(_ start: ActorStart, _ actor: SimulatedActor, _ number: UInt64, until end: Duration) {
    guard !isOver, !actor.mayEnd else { return }
    // Nobody waits any more, and it may come to be.
    guard world.now < end else { return actor.mayEnd = true }
    guard let link = currentLink else {
      return world.after(.milliseconds(50)) { self.ask(start, actor, number, until: end) }
    }
    if start.ifTaken == .replace, let name = start.spec.name {
      for other in world.truth.actors where other.spec.name == name && other !== actor { other.mayEnd = true }
    }
    link.call("start actor", within: .seconds(7)) { head, call in
      head.ask(
        call,
        proof: { reply, journal in
          guard case .actor(let listing) = reply else { return false }
          return journal.state.actors[listing.actor] != nil
        },
        { $0.startActor($1, start, secret: JobSecret(high: 8, low: number)) })
    } then: { result in
      switch result {
      case .success(.actor(let listing)):
        if listing.actor != actor.id { actor.mayEnd = true } else { actor.hasLived = true }
      case .failure(let error) where [.connectionClosed, .unavailable, .deadlineExceeded, .full].contains(error.code):
        self.world.after(.milliseconds(50)) { self.ask(start, actor, number, until: end) }
      default: actor.mayEnd = true
      }
    }
  }

  private func stop(_ actor: SimulatedActor, restarts: Bool) {
    guard let link = currentLink else { return }
    if !restarts { actor.mayEnd = true }
    let end = ActorEnd(actor: actor.id, seconds: world.chance(50) ? 0 : 1, restarts: restarts)
    link.call("stop actor", within: .seconds(20)) { head, call in
      head.ask(call) { $0.stopActor($1, end) }
    } then: { result in
      if case .success = result, !restarts { actor.isOver = !self.world.truth.hasLostJournal }
    }
  }
}

extension SimulatedPod {
  func runActor(_ run: ActorRun, _ answer: @escaping (Result<Endpoint, MobulaError>) -> Void) {
    guard isAlive else { return }
    let ended = MobulaError(.unavailable, "The worker has ended.")
    guard let id = books.worker(of: run.lease), let worker = workers[id], worker.isAlive else {
      return answer(.failure(ended))
    }
    let endpoint = Endpoint.unix(path: "/w\(id.low)")
    if let made = worker.actor {
      guard made.incarnation == run.incarnation else { return answer(.failure(ended)) }
      return made.isThere ? answer(.success(endpoint)) : answer(.failure(ended))
    }
    worker.actor = (run.actor, run.incarnation, false)
    heard(since: world.now)
    world.began(run, at: worker, of: self)
    world.after(world.milliseconds(5...200)) {
      guard self.isAlive, worker.isAlive else { return }
      if self.world.chance(5) { return answer(.failure(MobulaError(.workFailed, "Its init failed."))) }
      worker.actor?.isThere = true
      answer(.success(endpoint))
    }
  }

  func endActor(_ ending: ActorEnding, _ done: @escaping () -> Void) {
    world.after(world.milliseconds(0...600)) { if self.isAlive { done() } }
  }
}
