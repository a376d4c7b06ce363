import MobulaCore
import MobulaJournal
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// A host that is about to go gets nothing new, and is missed by nobody when it has gone.
@Suite struct DrainTests {
  let a = host(1), b = host(2), c = host(3)
  let model = object(1), other = object(2)

  private func demand(_ number: UInt64, _ rule: PlacementRule = .pack) -> LeaseDemand {
    LeaseDemand(
      id: RequestID(number), lease: lease(number), job: JobID(1), resources: ["CPU": 1], rule: rule,
      deadline: .seconds(100))
  }

  @Test func itsPodsGetNoMoreLeases() {
    var scheduler = SchedulerStateMachine()
    _ = scheduler.podRegistered(pod(1), host: a, total: ["CPU": 4], leases: [], at: .zero)
    #expect(scheduler.request(demand(1), at: .zero) == [.ask(pod(1), lease(1), 1)])
    #expect(scheduler.podGranted(pod(1), lease(1), at: .zero) == [.grant(1, lease(1), pod(1))])
    #expect(scheduler.setDraining(a, true, at: .zero) == [])
    // What wants nothing else waits, and what wants this host is told.
    #expect(scheduler.request(demand(2), at: .zero) == [.wakeAt(.seconds(20))])
    #expect(scheduler.request(demand(3, .host(a)), at: .zero) == [.refuse(3, .draining(a))])
    #expect(LeaseRefusal.draining(a).error { _ in "first" }.message.contains("Host first is being drained"))
    #expect(
      scheduler.podRegistered(pod(2), host: b, total: ["CPU": 4], leases: [], at: .seconds(1)).actions.contains(
        .ask(pod(2), lease(2), 2)))
    // The lease that it has goes on, and can be given back.
    #expect(scheduler.returned(lease(1), at: .seconds(2)) == [.release(pod(1), lease(1), workerIsReusable: true)])
    _ = scheduler.released(pod(1), lease(1), at: .seconds(2))
    #expect(scheduler.setDraining(a, false, at: .seconds(3)) == [])
    #expect(scheduler.request(demand(4, .host(a)), at: .seconds(3)) == [.ask(pod(1), lease(4), 4)])
  }

  @Test func otherCopiesBecomeTheOnesThatAreKept() {
    var directory = ObjectDirectoryStateMachine()
    _ = directory.changed(a, [sealed(model, held: true), sealed(other, held: true)])
    _ = directory.changed(b, [sealed(model), .held(model), .held(other)])
    #expect(directory.setDraining(a, true) == [.keep(model, host: b)])
    // A copy that comes later takes the role, too; one on another host that is drained does not.
    #expect(directory.setDraining(c, true) == [])
    #expect(directory.changed(c, [sealed(other)]) == [])
    #expect(directory.changed(b, [sealed(other)]) == [.keep(other, host: b)])
    // The drained host says what it always said.
    let report = SealedReplica(object: model, geometry: geometry, digest: digest(), isPrimary: true)
    #expect(directory.changed(a, [.sealed(report)]) == [.keep(model, host: b)])
    #expect(directory.hostsLost([a]) == [])
    #expect(directory.setDraining(a, false) == [])
    #expect(directory.records[model]?.primary == b && directory.records[other]?.primary == b)
  }

  @Test func itStaysSoAtTheNextHead() async throws {
    let journal = MemoryJournal()
    let nonce = ProcessNonce(high: 1, low: 1)
    try await withHead(journal: journal) { cluster in
      let host = try await cluster.host(1, incarnation: 0, nonce: nonce)
      let tool = try await cluster.connect(.tool, "tool")
      #expect(cluster.head.status().hosts.first?.draining == nil)
      let reply = try await tool.call(HeadAPI.drainHost, DrainRequest(nameOrID: "host 1"))
      #expect(reply.host == host.id && reply.name == "host 1")
      #expect(cluster.head.status().hosts.first?.draining == true)
      let unknown = await #expect(throws: MobulaError.self) {
        try await tool.call(HeadAPI.drainHost, DrainRequest(nameOrID: "host 9"))
      }
      #expect(unknown?.code == .notFound)
    }
    #expect(journal.state.draining == [host(1)])
    try await withHead({ $0.hostTimeout = .milliseconds(20) }, journal: journal) { cluster in
      let host = try await cluster.host(1, incarnation: 1, nonce: nonce)
      let tool = try await cluster.connect(.tool, "tool")
      #expect(cluster.head.status().hosts.first?.draining == true)
      _ = try await tool.call(HeadAPI.drainHost, DrainRequest(nameOrID: Name("\(host.id)"), cancels: true))
      #expect(cluster.head.status().hosts.first?.draining == nil)
      #expect(journal.state.draining == [])
      // Who goes and comes back begins anew.
      _ = try await tool.call(HeadAPI.drainHost, DrainRequest(nameOrID: "host 1"))
      // Its answer may be overtaken by the end of the connection.
      _ = try? await host.connection.call(HeadAPI.leave, HostLeave(host: host.id, nonce: nonce))
      for _ in 0..<1000 where !journal.state.draining.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
      #expect(journal.state.draining == [])
    }
  }

  /// What can't be written down does not happen.
  @Test func aJournalThatFailsRefusesIt() async throws {
    let journal = MemoryJournal()
    try await withHead(journal: journal) { cluster in
      _ = try await cluster.host(1, incarnation: 0, nonce: ProcessNonce(high: 1, low: 1))
      let tool = try await cluster.connect(.tool, "tool")
      journal.setFailing(true)
      await #expect(throws: MobulaError.self) {
        try await tool.call(HeadAPI.drainHost, DrainRequest(nameOrID: "host 1"))
      }
      #expect(cluster.head.status().hosts.first?.draining == nil)
      journal.setFailing(false)
    }
  }
}
