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
    router.on(HeadAPI.status) { request, _ in head.status(request) }
    return router
  }

  private func answerMembers(_ router: inout RPCRouter) {
    router.on(HeadAPI.registerHost) { request, connection in
      try await self.refuse(besides: self.perform { $0.rival(of: request) }, "host \(request.name)")
      return try await self.decide { state, answer throws(MobulaError) in
        try state.arrived(request, on: connection, answer)
      }
    }
    router.on(HeadAPI.registerMore) { request, connection in
      try await self.decide { state, answer throws(MobulaError) in
        try state.arrived(request, on: connection, answer)
      }
    }
    router.on(HeadAPI.registerPod) { request, connection in
      try await self.refuse(besides: self.perform { $0.rival(of: request) }, "pod \(request.name)")
      return try self.attempt { state throws(MobulaError) in
        try state.register(request, on: connection, at: self.now)
      }
    }
    router.on(HeadAPI.confirmPod) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.confirmed(request, on: connection, at: self.now) }
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
    router.on(HeadAPI.startJob) { request, connection in
      try await self.decide { state, answer throws(MobulaError) in
        try state.startJob(request, on: connection, answer)
      }
    }
    router.on(HeadAPI.resumeJob) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.resumeJob(request, on: connection, at: self.now) }
      return Empty()
    }
    router.on(HeadAPI.claimLeases) { request, _ in
      self.perform { $0.jobs.claimed(Set(request.leases), of: request.job) }
      return Empty()
    }
    router.on(HeadAPI.endJob) { request, _ in
      try self.attempt { state throws(MobulaError) in try state.endJob(request) }
      return Empty()
    }
    router.on(HeadAPI.driverEnded) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.driverEnded(request, on: connection) }
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
      try self.attempt { state throws(MobulaError) in
        try state.changed(request.host, request.changes.map { HostChange($0) }, on: connection)
      }
      return Empty()
    }
    router.on(HeadAPI.holdsChanged) { request, connection in
      try self.attempt { state throws(MobulaError) in
        try state.changed(
          request.host, request.added.map { .held($0) } + request.removed.map { .released($0) }, on: connection)
      }
      return Empty()
    }
    router.on(HeadAPI.locate) { request, connection in
      let reply: LocateReply = try await self.answer(as: { .locate(request, $0) }) { state, id throws(MobulaError) in
        try state.check(request.host, on: connection)
        state.apply(state.directory.locate(LocateQuestion(id, request)))
      }
      if Task.isCancelled {
        self.endTransfer(TransferEnded(receiver: request.host, object: request.object))
      }
      return reply
    }
    router.on(HeadAPI.transferEnded) { request, _ in
      self.endTransfer(request)
      return Empty()
    }
    router.on(HeadAPI.claim) { request, connection in
      try await self.decide { state, answer throws(MobulaError) in try state.claim(request, on: connection, answer) }
    }
    router.on(HeadAPI.takePart) { request, connection in
      try await self.answer(as: { .part($0) }) { state, id throws(MobulaError) in
        try state.takePart(id, request, on: connection, at: self.now)
      }
    }
    router.on(HeadAPI.partsFailed) { request, connection in
      try self.attempt { state throws(MobulaError) in
        try state.check(request.receiver, on: connection)
        state.apply(state.directory.partsFailed(request.receiver, request.object))
      }
      return Empty()
    }
    router.on(HeadAPI.damaged) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.damaged(request, on: connection) }
      return Empty()
    }
    router.on(HeadAPI.setName) { request, _ in
      try request.name.checkForObject()
      return try await self.decide { state, answer throws(MobulaError) in try state.setName(request, answer) }
    }
    router.on(HeadAPI.removeName) { request, _ in
      try await self.decide { state, answer throws(MobulaError) in try state.removeName(request.nameOrID, answer) }
    }
    router.on(HeadAPI.resolve) { request, _ in
      try self.attempt { state throws(MobulaError) in ObjectListing(try state.directory.resolve(request.nameOrID)) }
    }
    router.on(HeadAPI.list) { request, _ in self.list(request) }
    router.on(HeadAPI.remove) { request, _ in
      try await self.decide { state, answer throws(MobulaError) in try state.remove(request.nameOrID, answer) }
    }
    router.on(HeadAPI.waitForObjects) { request, _ in
      // From outside: no number of seconds is too odd to be taken as one.
      let seconds = request.timeout.isFinite ? min(max(request.timeout, 0), 1e7) : 1e7
      let ready: [ObjectID] = try await self.answer(as: { .objects($0) }) { state, id in
        state.wait(id, request, until: self.now + .seconds(seconds))
      }
      return WaitReply(ready: ready)
    }
  }

  private func answerBroadcasts(_ router: inout RPCRouter) {
    router.on(HeadAPI.bring) { order, _ in
      let connection = try self.attempt { state throws(MobulaError) in try state.control(of: order.host) }
      // As long as the caller waits: its deadline, and its end, cancel this call, too.
      return try await connection.call(HostControlAPI.bring, order, deadline: .seconds(86_400))
    }
    router.on(HeadAPI.progress) { question, _ in
      let asked = self.perform { state in question.hosts.compactMap { try? state.control(of: $0) } }
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
    router.on(HeadAPI.requestLease) { request, _ in
      let grant: LeaseGrant = try await self.answer(as: { .lease($0) }) { state, id throws(MobulaError) in
        try state.requestLease(id, request, at: self.now)
      }
      // Nobody is left to take it.
      if Task.isCancelled { self.endLease(LeaseReturn(lease: request.lease, workerIsReusable: true)) }
      return grant
    }
    router.on(HeadAPI.returnLease) { request, _ in
      self.endLease(request)
      return Empty()
    }
    router.on(HeadAPI.leaseLost) { request, connection in
      try self.attempt { state throws(MobulaError) in try state.leaseLost(request, on: connection, at: self.now) }
      return Empty()
    }
  }

  private func endTransfer(_ request: TransferEnded) {
    perform { state in
      state.apply(
        state.directory.transferEnded(receiver: request.receiver, object: request.object))
    }
  }

  private func endLease(_ request: LeaseReturn) {
    perform { state in
      state.apply(
        state.scheduler.returned(request.lease, workerIsReusable: request.workerIsReusable, at: self.now))
    }
  }
}
