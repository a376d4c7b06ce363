internal import MobulaControl
internal import MobulaCore
internal import MobulaWire

extension Head {
  /// What the head answers.
  static func router(of head: Head) -> RPCRouter {
    var router = RPCRouter()
    head.answerMembers(&router)
    head.answerObjects(&router)
    head.answerBroadcasts(&router)
    head.answerLeases(&router)
    head.answerActors(&router)
    router.on(HeadAPI.status) { request, _ in head.status(request) }
    router.admit { authority throws(MobulaError) in try head.admit(authority) }
    router.giveTokens(hosts: { head.hosts }, mayHave: { job, connection in try head.checkCalls(of: job, connection) })
    return router
  }

  private func answerMembers(_ router: inout RPCRouter) {
    router.on(HeadAPI.registerHost) { request, connection in
      try await self.refuse(besides: self.connection { $0.rival(of: request) }, "host \(request.name)")
      defer { Task { await connection.renewToken() } }
      return try await self.knowing(connection) { id in
        try await self.ask { $0.register($1, request, on: id) }.registration
      }
    }
    router.on(HeadAPI.registerMore) { request, connection in
      try await self.knowing(connection) { id in
        try await self.ask { $0.registerMore($1, request, on: id) }.registration
      }
    }
    router.on(HeadAPI.registerPod) { request, connection in
      try await self.refuse(besides: self.connection { $0.rival(of: request) }, "pod \(request.name)")
      return try await self.knowing(connection) { id in
        try await self.ask { $0.register($1, request, on: id) }.registration
      }
    }
    router.on(HeadAPI.confirmPod) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.confirmed(request, on: connection.number) }
      return Empty()
    }
    router.on(HeadAPI.leave) { request, _ in
      self.perform { $0.leave(request) }
      return Empty()
    }
    router.on(HeadAPI.forgetHost) { request, _ in
      try self.attempt { state throws(MobulaError) in try state.forget(request.nameOrID) }
      return Empty()
    }
    router.on(HeadAPI.drainHost) { request, _ in try await self.ask { $0.drain($1, request) }.drain }
    router.on(HeadAPI.startJob) { request, connection in
      try await self.knowing(connection) { id in
        try await self.ask {
          $0.startJob($1, request, secret: .random(), host: connection.peer.host, on: id)
        }.job
      }
    }
    router.on(HeadAPI.resumeJob) { request, connection in
      try await self.knowing(connection) { id in
        _ = try await self.ask { $0.resumeJob($1, request, host: connection.peer.host, on: id) }
      }
      return Empty()
    }
    router.on(HeadAPI.claimLeases) { request, connection in
      try connection.check(request.job)
      self.perform { $0.claimed(request) }
      return Empty()
    }
    router.on(HeadAPI.endJob) { request, _ in
      try self.attempt { state throws(MobulaError) in try state.endJob(request) }
      return Empty()
    }
    router.on(HeadAPI.driverEnded) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.driverEnded(request, on: connection.number) }
      return Empty()
    }
  }

  /// A process that no head has numbered takes the place of the one that is registered, unless that one answers: then
  /// they are two, as when a host's directory was copied, and the first one stays.
  ///
  /// - Throws: `MobulaError` (`alreadyExists`): worth another try, since the other one may end.
  private func refuse(besides rival: RPCConnection?, _ what: String) async throws(MobulaError) {
    guard let rival else { return }
    do {
      _ = try await rival.call(MemberControlAPI.alive, Empty(), deadline: configuration.rivalTimeout)
    } catch let error as MobulaError where [.connectionClosed, .deadlineExceeded].contains(error.code) {
      return
    } catch {
      // It does not know the call, and is there.
    }
    throw MobulaError(
      .alreadyExists,
      "Another process is \(what) already, and is there: stop it, or start this one in a directory that is no copy.")
  }

  private func answerObjects(_ router: inout RPCRouter) {
    router.on(HeadAPI.replicasChanged) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.changed(request, on: connection.number) }
      return Empty()
    }
    router.on(HeadAPI.holdsChanged) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.changed(request, on: connection.number) }
      return Empty()
    }
    router.on(HeadAPI.locate) { request, connection in
      let reply = try await self.ask { $0.locate($1, request, on: connection.number) }.locate
      if Task.isCancelled {
        self.perform { $0.transferEnded(TransferEnded(receiver: request.host, object: request.object)) }
      }
      return reply
    }
    router.on(HeadAPI.transferEnded) { request, _ in
      self.perform { $0.transferEnded(request) }
      return Empty()
    }
    router.on(HeadAPI.claim) { request, connection in
      try await self.ask { $0.claim($1, request, fresh: .random(job: .commandLine), on: connection.number) }.claim
    }
    router.on(HeadAPI.claimAll) { request, connection in
      guard request.claims.count <= ClaimsRequest.most else { throw Self.tooMany(request.claims.count) }
      let answers = await self.askAll(request.claims) { state, id, claim in
        state.claim(id, claim, fresh: .random(job: .commandLine), on: connection.number)
      }
      return ClaimsReply(answers: answers.map { .init(try? $0?.claim) })
    }
    router.on(HeadAPI.takePart) { request, connection in
      try await self.ask { $0.takePart($1, request, on: connection.number) }.part
    }
    router.on(HeadAPI.partsFailed) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.partsFailed(request, on: connection.number) }
      return Empty()
    }
    router.on(HeadAPI.damaged) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.damaged(request, on: connection.number) }
      return Empty()
    }
    router.on(HeadAPI.setName) { request, _ in
      try await self.ask { $0.setName($1, request) }.name
    }
    router.on(HeadAPI.setNames) { request, _ in
      guard request.names.count <= ClaimsRequest.most else { throw Self.tooMany(request.names.count) }
      let answers = await self.askAll(request.names) { state, id, name in state.setName(id, name) }
      return NamesReply(answers: answers.map { .init(try? $0?.name) })
    }
    router.on(HeadAPI.removeName) { request, _ in
      _ = try await self.ask { $0.removeName($1, request.nameOrID) }
      return Empty()
    }
    router.on(HeadAPI.resolve) { request, connection in
      connection.shown(try self.listing(of: request.nameOrID), askedBy: request.nameOrID)
    }
    router.on(HeadAPI.list) { request, _ in self.list(request) }
    router.on(HeadAPI.remove) { request, connection in
      if connection.authority?.job != nil { try connection.check(self.listing(of: request.nameOrID).object) }
      return try await self.ask { $0.remove($1, request.nameOrID) }.listing
    }
    router.on(HeadAPI.waitForObjects) { request, _ in
      // From outside: no number of seconds is too odd to be taken as one.
      let seconds = request.timeout.isFinite ? min(max(request.timeout, 0), 1e7) : 1e7
      let deadline = self.now + .seconds(seconds)
      return WaitReply(ready: try await self.ask { $0.wait($1, request, until: deadline) }.objects)
    }
  }

  private static func tooMany(_ count: Int) -> MobulaError {
    MobulaError(.invalidArgument, "\(count) were asked for at once: ask for at most \(ClaimsRequest.most).")
  }

  private func answerBroadcasts(_ router: inout RPCRouter) {
    router.on(HeadAPI.bring) { order, _ in
      let connection = try self.control(of: order.host)
      // As long as the caller waits: its deadline, and its end, cancel this call, too.
      return try await connection.call(HostControlAPI.bring, order, deadline: .seconds(86_400))
    }
    router.on(HeadAPI.progress) { question, _ in
      let asked = question.hosts.compactMap { try? self.control(of: $0) }
      let deadline = self.configuration.callTimeout
      return await withTaskGroup(of: ReplicaProgress?.self) { group in
        for connection in asked {
          group.addTask { try? await connection.call(HostControlAPI.progress, question, deadline: deadline) }
        }
        return await group.reduce(into: []) { answers, answer in if let answer { answers.append(answer) } }
      }
    }
  }

  private func answerLeases(_ router: inout RPCRouter) {
    router.on(HeadAPI.requestLease) { request, connection in
      try self.check(request.job, of: connection)
      let isNested = connection.peer.role == .worker
      let grant = try await self.ask { $0.requestLease($1, request, isNested: isNested) }.lease
      // Nobody is left to take it.
      if Task.isCancelled { self.perform { $0.returned(LeaseReturn(lease: request.lease, workerIsReusable: true)) } }
      return grant
    }
    router.on(HeadAPI.returnLease) { request, _ in
      self.perform { $0.returned(request) }
      return Empty()
    }
    router.on(HeadAPI.explainLease) { request, _ in
      self.perform { $0.explanation(of: request.lease) }
    }
    router.on(HeadAPI.output) { report, _ in
      // A driver that is away, or does not want it, misses it: it is in the workers' logs.
      guard let driver = self.connection({ $0.connection(of: report.job) }), driver.takes(DriverControlAPI.output)
      else { return }
      try? driver.tell(DriverControlAPI.output, report)
    }
    router.on(HeadAPI.leaseLent) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.leaseLent(request, on: connection.number) }
      return Empty()
    }
    router.on(HeadAPI.leaseLost) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.leaseLost(request, on: connection.number) }
      return Empty()
    }
  }

  private func answerActors(_ router: inout RPCRouter) {
    router.on(HeadAPI.startActor) { start, connection in
      try self.check(start.job, of: connection)
      let isNested = connection.peer.role == .worker
      return try await self.ask { $0.startActor($1, start, secret: .random(), isNested: isNested) }.actor
    }
    router.on(HeadAPI.actor) { question, connection in
      try self.checkCalls(of: self.perform { $0.job(of: question.actor, named: question.name) }, connection)
      return try await self.ask { $0.askActor($1, question) }.actor
    }
    router.on(HeadAPI.stopActor) { end, connection in
      guard end.seconds >= 0 else {
        throw MobulaError(.invalidArgument, "An actor can't end within \(end.seconds) s: give 0 or more.")
      }
      try self.checkCalls(of: self.perform { $0.job(of: end.actor, named: end.name) }, connection)
      _ = try await self.ask { $0.stopActor($1, end) }
      return Empty()
    }
    router.on(HeadAPI.actors) { request, _ in self.perform { $0.listActors(request) } }
    router.on(HeadAPI.hears) { _, _ in Empty() }
  }

  // MARK: Rights

  /// Refuses peers that have nothing to do with the job, unless it is nothing but an actor for all.
  private func checkCalls(of job: JobID?, _ connection: RPCConnection) throws(MobulaError) {
    guard let job, !perform({ $0.isOfDetachedActor(job) }) else { return }
    if connection.authority?.role == .tool { return }
    try check(job, of: connection)
  }

  /// Refuses tokens of jobs that have ended.
  private func admit(_ authority: Authority) throws(MobulaError) {
    guard let job = authority.job, perform({ $0.hasEnded(job) }) else { return }
    throw MobulaError(.denied, "Job \(job) has ended, and its tokens with it: run the program again.")
  }

  /// Refuses peers that have less than the cluster token, and nothing to do with the job.
  private func check(_ job: JobID, of connection: RPCConnection) throws(MobulaError) {
    try connection.check(job)
    guard connection.authority?.role == .driver else { return }
    guard perform({ $0.drives(job, connection.number) }) else {
      throw MobulaError(.denied, "A driver's token may not touch job \(job), which another driver has started.")
    }
  }

  private func listing(of nameOrID: Name) throws(MobulaError) -> ObjectListing {
    try attempt { state throws(MobulaError) in try state.resolve(nameOrID) }
  }
}
