import Logging
import MobulaCore
import MobulaWire
import Synchronization

extension TaskQueue {
  /// Asks for a lease, and reads what comes of its tasks until it is over.
  func serve(_ id: SlotID, _ first: Lease, _ shape: Shape) async {
    var lease = first
    let grant: LeaseGrant
    do {
      grant = try await request(&lease, id, shape)
    } catch {
      // What was granted after all is given back.
      await giveBack(lease)
      if Task.isCancelled { return }
      let error = MobulaError(describing: error)
      return perform { state in
        _ = self.remove(id, &state)
        state.machine.refused(id, error, at: .now)
      }
    }
    guard !Task.isCancelled else { return await giveBack(lease) }
    perform { $0.machine.granted(id) }
    do {
      let connection = try await around.workers.leasedConnection(to: grant)
      let stream = try await connection.stream(
        WorkerAPI.work, WorkLane(lease: lease.id, resources: shape.demand))
      perform { state in
        state.slots[id]?.connection = connection
        state.machine.opened(id, at: .now)
      }
      for try await _ in stream {}
      throw MobulaError(.connectionClosed, "The worker ended before its work.")
    } catch {
      if Task.isCancelled { return await giveBack(lease) }
      var reason = MobulaError(describing: error)
      if reason.code == .connectionClosed, let said = await around.workers.loss(of: lease.id) {
        reason = MobulaError(.connectionClosed, said)
      }
      perform { $0.machine.lost(id, reason, at: .now) }
    }
  }

  /// The lease, once the head has granted it, for which it takes as long as others have what it needs.
  private func request(_ lease: inout Lease, _ id: SlotID, _ shape: Shape) async throws -> LeaseGrant {
    while true {
      var request = LeaseRequest(
        lease: lease.id, job: around.job, demand: shape.demand, strategy: shape.strategy,
        program: around.program.with(shape.environment))
      // Its tasks have limits of their own.
      request.waits = true
      around.workers.requested(lease.id)
      let looking = Task { [lease] in await self.explain(id, lease) }
      defer { looking.cancel() }
      do {
        let grant = try await around.head.callOnce(HeadAPI.requestLease, request, deadline: .seconds(3600))
        around.workers.leased(lease.id, at: grant.endpoint)
        return grant
      } catch let error as MobulaError
        where [.connectionClosed, .deadlineExceeded].contains(error.code) && !Task.isCancelled
      {
        // A head that went away may have had it granted: another one, then.
        await giveBack(lease)
        let next = Lease(.random())
        lease = next
        state.withLock { state in
          guard let former = state.slots[id]?.lease else { return }
          state.byLease[former.id] = nil
          state.byLease[next.id] = id
          state.slots[id]!.lease = next
        }
      }
    }
  }

  /// Says what is missing for a lease that does not come, within a second and when it is something else.
  private func explain(_ id: SlotID, _ lease: Lease) async {
    var pause = Duration.milliseconds(500)
    while (try? await Task.sleep(for: pause)) != nil {
      pause = .seconds(5)
      guard
        let why = try? await around.head.call(
          HeadAPI.explainLease, LeaseQuestion(lease: lease.id), deadline: .seconds(5)),
        let reason = why.reason
      else { continue }
      let waiting = perform { $0.machine.lacks(id, reason) }
      guard let waiting, why.isInfeasible else { continue }
      let tasks = waiting == 1 ? "a task waits" : "\(waiting) tasks wait"
      around.log.warning("\(tasks): \(reason)")
    }
  }

  private func giveBack(_ lease: Lease) async {
    if lease.end() { await tell(lease, isReusable: true) }
  }

  func tell(_ lease: Lease, isReusable: Bool) async {
    around.workers.returned(lease.id)
    await around.head.giveBack(LeaseReturn(lease: lease.id, workerIsReusable: isReusable))
  }
}
