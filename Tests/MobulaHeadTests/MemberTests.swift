import MobulaCore
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// Hosts and pods at a head: who they are, and what they find when they come back.
@Suite struct MemberTests {
  let report = ReplicaReport(object: object(1, job: 0), geometry: geometry, digest: digest())
  let first = ProcessNonce(high: 1, low: 1), second = ProcessNonce(high: 2, low: 2)

  /// Asks until the head has noticed that a host is away.
  private func refusal(of object: ObjectID, at host: FakeHost, _ code: MobulaError.Code) async throws -> MobulaError? {
    for _ in 0..<2000 {
      do {
        _ = try await host.locate(object)
      } catch let error as MobulaError where error.code == code {
        return error
      }
      try await Task.sleep(for: .milliseconds(5))
    }
    return nil
  }

  @Test func aHostThatWasAwayComesBackWithAllThatItHas() async throws {
    try await withHead {
      $0.hostTimeout = .milliseconds(20)
    } _: { cluster in
      let a = try await cluster.host(1, incarnation: 0, nonce: first, replicas: [report], holds: [report.object])
      #expect(a.reply.incarnation == 1)
      let b = try await cluster.host(2)
      await a.connection.close()
      let error = try await refusal(of: report.object, at: b, .unavailable)
      #expect(error?.message.contains("on host host 1") == true)
      #expect(cluster.head.status().hosts.map(\.name) == ["host 2"])
      #expect(cluster.head.status().absent?.map(\.name) == ["host 1"])
      let back = try await cluster.host(
        1, incarnation: 1, nonce: first, replicas: [report], holds: [report.object])
      #expect(back.reply.incarnation == 1 && back.reply.isRetired == nil)
      #expect(try await b.locate(report.object).sources.map(\.host) == [a.id])
      // The first that it is told to drop is what it lets go of.
      try await back.holds(removed: [report.object])
      #expect(await back.nextDrop() == report.object)
    }
  }

  @Test func aForgottenHostBeginsAnew() async throws {
    try await withHead {
      $0.hostTimeout = .milliseconds(20)
    } _: { cluster in
      let a = try await cluster.host(1, incarnation: 0, nonce: first, replicas: [report], holds: [report.object])
      let b = try await cluster.host(2)
      try await b.holds(added: [report.object])
      let early = await #expect(throws: MobulaError.self) {
        try await b.connection.call(HeadAPI.forgetHost, ResolveRequest("host 1"))
      }
      #expect(early?.code == .unavailable)
      await a.connection.close()
      _ = try await refusal(of: report.object, at: b, .unavailable)
      _ = try await b.connection.call(HeadAPI.forgetHost, ResolveRequest("host 1"))
      let error = await #expect(throws: MobulaError.self) { try await b.locate(report.object) }
      #expect(error?.code == .notFound)
      #expect(cluster.head.status().absent?.isEmpty == true)
      let late = await #expect(throws: MobulaError.self) {
        try await b.connection.call(HeadAPI.forgetHost, ResolveRequest("host 1"))
      }
      #expect(late?.code == .notFound)
      // It is told to end what it has, by no order to drop.
      let told = try await cluster.host(
        1, incarnation: 1, nonce: first, replicas: [report], holds: [report.object])
      #expect(told.reply.isRetired == true)
      let anew = try await cluster.host(1, incarnation: 0, nonce: second, beganAnew: true)
      #expect(anew.reply.isRetired == nil && anew.reply.incarnation == 2)
    }
  }

  @Test func aHostThatWasStoppedLeavesNothing() async throws {
    try await withHead { cluster in
      let a = try await cluster.host(1, incarnation: 0, nonce: first, replicas: [report], holds: [report.object])
      let b = try await cluster.host(2)
      try await b.holds(added: [report.object])
      let tool = try await cluster.connect(.host, "host 1")
      // Of another process it means nothing.
      _ = try await tool.call(HeadAPI.leave, HostLeave(host: a.id, nonce: second))
      #expect(try await b.locate(report.object).sources.map(\.host) == [a.id])
      _ = try await tool.call(HeadAPI.leave, HostLeave(host: a.id, nonce: first))
      let error = await #expect(throws: MobulaError.self) { try await b.locate(report.object) }
      #expect(error?.code == .notFound)
      #expect(cluster.head.status().hosts.map(\.name) == ["host 2"])
      #expect(cluster.head.status().absent?.isEmpty == true)
      await a.connection.waitUntilClosed()
    }
  }

  @Test func aCopyDoesNotTakeThePlaceOfWhoIsThere() async throws {
    try await withHead { cluster in
      let original = try await cluster.host(1, incarnation: 0, nonce: first)
      for _ in 0..<2 {
        let error = await #expect(throws: MobulaError.self) {
          try await cluster.host(1, incarnation: 0, nonce: second)
        }
        #expect(error?.code == .alreadyExists)
      }
      try await original.changed(.sealed(report, held: true))
      await original.connection.close()
      let copy = try await cluster.host(1, incarnation: 0, nonce: second)
      #expect(copy.reply.incarnation == 2)
      // From now on that one is the host.
      let error = await #expect(throws: MobulaError.self) {
        try await cluster.host(1, incarnation: 1, nonce: first)
      }
      #expect(error?.code == .mismatch)
      try await copy.changed(.gone(object: report.object))
    }
  }

  @Test func whoDoesNotAnswerIsReplaced() async throws {
    try await withHead {
      $0.rivalTimeout = .milliseconds(20)
    } _: { cluster in
      let stopped = try await cluster.host(1, incarnation: 0, nonce: first, answers: false)
      let next = try await cluster.host(1, incarnation: 0, nonce: second)
      #expect(next.reply.incarnation == 2)
      await stopped.connection.waitUntilClosed()
    }
  }

  @Test func leasesThatWereRevokedEndAtThePod() async throws {
    try await withHead {
      $0.hostTimeout = .milliseconds(20)
    } _: { cluster in
      let pod = try await cluster.pod(1, ["CPU": 1], nonce: first)
      #expect(pod.reply.session == 1 && pod.reply.end == [])
      try await pod.confirm()
      let driver = try await cluster.driver()
      let grant = try await driver.lease(1, ["CPU": 1])
      await pod.connection.close()
      #expect(await driver.nextLoss()?.lease == grant.lease)
      let record = LeaseRecord(lease: grant.lease, job: driver.job, demand: ["CPU": 1])
      let back = try await cluster.pod(1, ["CPU": 1], leases: [record], nonce: first, session: 1)
      #expect(back.reply.end == [grant.lease] && back.reply.session == 2)
      async let second = driver.lease(2, ["CPU": 1])
      try await back.confirm()
      #expect(try await second.pod == pod.id)
      // What is agreed in the session goes on in it.
      let going = LeaseRecord(lease: LeaseID(high: 1, low: 2), job: driver.job, demand: ["CPU": 1])
      let again = try await cluster.pod(1, ["CPU": 1], leases: [going], nonce: first, session: 2)
      #expect(again.reply.end == [] && again.reply.session == 2)
    }
  }

  @Test func aPodThatKnowsNoSecondStepReleasesWhatWasRevoked() async throws {
    try await withHead {
      $0.hostTimeout = .milliseconds(20)
    } _: { cluster in
      let pod = try await cluster.pod(1, ["CPU": 1])
      let driver = try await cluster.driver()
      let grant = try await driver.lease(1, ["CPU": 1])
      await pod.connection.close()
      #expect(await driver.nextLoss()?.lease == grant.lease)
      let record = LeaseRecord(lease: grant.lease, job: driver.job, demand: ["CPU": 1])
      let back = try await cluster.pod(1, ["CPU": 1], leases: [record])
      #expect(await back.nextRelease() == grant.lease)
      #expect(try await driver.lease(2, ["CPU": 1]).pod == pod.id)
    }
  }

  @Test func namesAndRolesReachTheHosts() async throws {
    try await withHead {
      $0.hostTimeout = .milliseconds(20)
    } _: { cluster in
      let a = try await cluster.host(1)
      let b = try await cluster.host(2)
      try await a.changed(.sealed(report, held: true))
      _ = try await b.connection.call(HeadAPI.setName, NameRequest(name: "model", object: report.object))
      #expect(await a.nextNews()?.given["model"] == KnownName(report.object, .given))
      var copy = report
      copy.isPrimary = false
      try await b.changed(.sealed(copy, held: false))
      #expect(await b.nextNews()?.given["model"] == KnownName(report.object, .given))
      await a.connection.close()
      #expect(await b.nextKeep() == report.object)
      _ = try await b.connection.call(HeadAPI.removeName, ResolveRequest("model"))
      #expect(await b.nextNews()?.taken == ["model"])
    }
  }

  /// A host's process is being started again, and a copy of its folder is quicker: it has to wait until the host is absent.
  /// What is made there would be in a store that is none of the cluster's.
  @Test(.timeLimit(.minutes(2))) func aCopyOfAFolderIsNotTheHost() async throws {
    let (folder, copy) = (FolderID(high: 1, low: 1), FolderID(high: 1, low: 2))
    try await withHead {
      $0.hostTimeout = .seconds(3)
    } _: { cluster in
      let original = try await cluster.host(1, incarnation: 0, nonce: first, folder: folder)
      await original.connection.close()
      let tool = try await cluster.connect(.tool, "tool")
      while try await tool.call(HeadAPI.status, StatusRequest()).hosts.first?.connected == true {
        try await Task.sleep(for: .milliseconds(5))
      }
      let refused = await #expect(throws: MobulaError.self) {
        try await cluster.host(1, incarnation: 0, nonce: second, folder: copy)
      }
      #expect(refused?.code == .alreadyExists && refused?.message.contains("copy") == true, "\(refused as Any)")
      let pod = await #expect(throws: MobulaError.self) {
        _ = try await cluster.pod(1, ["CPU": 1], nonce: .random(), folder: copy)
      }
      #expect(pod?.code == .unavailable && pod?.message.contains("copy") == true, "\(pod as Any)")
      // Its next process, in its own folder, need not wait.
      let next = try await cluster.host(1, incarnation: 0, nonce: second, folder: folder)
      #expect(next.reply.incarnation == 2)
      _ = try await cluster.pod(1, ["CPU": 1], nonce: .random(), folder: folder)
      await next.connection.close()
      // Until nobody waits for it any more.
      var heir: FakeHost?
      while heir == nil {
        heir = try? await cluster.host(1, incarnation: 0, nonce: ProcessNonce(high: 0, low: 3), folder: copy)
        if heir == nil { try await Task.sleep(for: .milliseconds(50)) }
      }
      #expect(heir?.reply.incarnation == 3)
    }
  }

  @Test func aHeadOfALowerEpochIsRefused() throws {
    let identity = MemberIdentity()
    var reply = RegistrationReply(cluster: .random(), epoch: 5)
    reply.incarnation = 3
    reply.session = 2
    identity.registered(reply)
    #expect(identity.values.incarnation == 3 && identity.values.session == 2)
    try identity.check(Hello(role: .head, name: "head", epoch: 5))
    let error = #expect(throws: MobulaError.self) { try identity.check(Hello(role: .head, name: "head", epoch: 4)) }
    #expect(error?.code == .unavailable)
    let nonce = identity.values.nonce
    identity.beginAnew()
    #expect(identity.values.nonce != nonce && identity.values.incarnation == 0 && identity.values.epoch == 5)
  }
}
