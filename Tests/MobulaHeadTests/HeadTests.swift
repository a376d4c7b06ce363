import MobulaCore
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct HeadTests {
  let report = ReplicaReport(object: object(1), geometry: geometry, digest: digest())

  @Test func anObjectIsFoundHeldAndDropped() async throws {
    try await withHead { cluster in
      let a = try await cluster.host(1)
      let b = try await cluster.host(2)
      async let waiting = b.locate(report.object)
      try await a.changed(.sealed(report, held: true))
      let reply = try await waiting
      #expect(reply.sources == [TransferPeer(host: a.id, bulk: .tcp(host: "10.0.0.1", port: 7601))])
      #expect(reply.geometry == geometry && reply.digest == digest())
      try await b.changed(.partial(object: report.object, geometry: geometry))
      try await b.changed(.sealed(report, held: true))
      #expect(try await b.locate(report.object).isLocal)
      #expect(cluster.head.status().hosts.map(\.bytes.bytes) == [geometry.objectSize, geometry.objectSize])
      try await a.holds(removed: [report.object])
      #expect(try await a.connection.call(HeadAPI.list, ListRequest()).map(\.holders) == [1])
      try await b.holds(removed: [report.object])
      #expect(await a.nextDrop() == report.object)
      #expect(await b.nextDrop() == report.object)
      let error = await #expect(throws: MobulaError.self) { try await b.locate(report.object) }
      #expect(error?.code == .notFound)
    }
  }

  @Test func namesAreResolvedAndRemoved() async throws {
    try await withHead { cluster in
      let a = try await cluster.host(1)
      try await a.changed(.sealed(report, held: true))
      let tool = try await cluster.connect(.tool, "tool")
      _ = try await tool.call(HeadAPI.setName, NameRequest(name: "model", object: report.object))
      try await a.holds(removed: [report.object])
      let listing = try await tool.call(HeadAPI.resolve, ResolveRequest("model"))
      #expect(listing.object == report.object && listing.hosts == [a.id] && listing.names == ["model"])
      _ = try await tool.call(HeadAPI.remove, ResolveRequest("model"))
      #expect(await a.nextDrop() == report.object)
      let error = await #expect(throws: MobulaError.self) {
        try await tool.call(HeadAPI.resolve, ResolveRequest("model"))
      }
      #expect(error?.code == .notFound)
    }
  }

  @Test func waitingForObjectsEndsWithWhatIsThere() async throws {
    try await withHead { cluster in
      let a = try await cluster.host(1)
      try await a.changed(.sealed(report, held: true))
      for timeout in [0.01, -1] {
        let request = WaitRequest(objects: [report.object, object(2)], count: 2, timeout: timeout)
        #expect(try await a.connection.call(HeadAPI.waitForObjects, request).ready == [report.object])
      }
      let endless = WaitRequest(objects: [report.object, object(2)], count: 2, timeout: .nan)
      async let both = a.connection.call(HeadAPI.waitForObjects, endless)
      try await a.holds(added: [object(2)])
      var other = report
      other.object = object(2)
      try await a.changed(.sealed(other, held: false))
      #expect(try await both.ready == [report.object, object(2)])
    }
  }

  @Test func aClaimIsOfOneObject() async throws {
    try await withHead { cluster in
      let a = try await cluster.host(1)
      let b = try await cluster.host(2)
      let name: Name = "s3://models/one#e1"
      let first = try await a.connection.call(
        HeadAPI.claim, ClaimRequest(host: a.id, name: name, geometry: geometry))
      let second = try await b.connection.call(
        HeadAPI.claim, ClaimRequest(host: b.id, name: name, geometry: geometry))
      #expect(first.fills && second.fills && first.object == second.object)
    }
  }

  /// Claims that come together: whoever gets no part hears who reads it, or has it; a wrong one refuses no other.
  @Test func claimsAndNamesTogether() async throws {
    try await withHead { cluster in
      let a = try await cluster.host(1)
      let b = try await cluster.host(2)
      let names = (1...3).map { Name("s3-version:s3://models/\($0)#e") }
      func claims(_ host: HostID, besides: [ClaimRequest] = []) -> ClaimsRequest {
        ClaimsRequest(
          claims: names.map { ClaimRequest(host: host, name: $0, geometry: geometry, takesPart: true) } + besides)
      }
      let nameless = ClaimRequest(host: a.id, name: "", geometry: geometry, takesPart: true)
      let first = try await a.connection.call(HeadAPI.claimAll, claims(a.id, besides: [nameless])).answers.map(\.claim)
      #expect(first.prefix(3).allSatisfy { $0?.part == 0..<geometry.count && $0?.source == nil })
      #expect(first.count == 4 && first[3] == nil)
      let second = try await b.connection.call(HeadAPI.claimAll, claims(b.id)).answers.map(\.claim)
      #expect(second.allSatisfy { $0?.part == nil && $0?.source?.host == a.id })
      #expect(second.map { $0?.object } == first.prefix(3).map { $0?.object })
      let requests = zip(1...3, second.compactMap(\.self)).map {
        NameRequest(name: Name("s3://models/\($0)"), object: $1.object, claim: $1.number)
      }
      let wrong = NameRequest(name: "", object: second[0]!.object, claim: 9)
      let named = try await b.connection.call(HeadAPI.setNames, NamesRequest(names: requests + [wrong])).answers
      #expect(named.map { $0.name?.isNamed } == [true, true, true, nil])
      await #expect(throws: MobulaError.self) {
        let many = ClaimsRequest(claims: Array(repeating: claims(a.id).claims[0], count: ClaimsRequest.most + 1))
        return try await a.connection.call(HeadAPI.claimAll, many)
      }
      #expect(try await a.connection.call(HeadAPI.claimAll, ClaimsRequest(claims: [])).answers.isEmpty)
    }
  }

  @Test func outdatedHostsAreRefused() async throws {
    try await withHead { cluster in
      let older = try await cluster.host(1, incarnation: 1)
      let newer = try await cluster.host(1, incarnation: 2)
      await older.connection.waitUntilClosed()
      let error = await #expect(throws: MobulaError.self) { try await cluster.host(1, incarnation: 1) }
      #expect(error?.code == .mismatch)
      // What is said for a host on another's connection is refused, too.
      let other = try await cluster.host(2)
      let foreign = await #expect(throws: MobulaError.self) {
        try await other.connection.call(HeadAPI.holdsChanged, HoldChanges(host: newer.id, added: [], removed: []))
      }
      #expect(foreign?.code == .mismatch)
    }
  }

  @Test func whatARestartedHeadHearsIsKept() async throws {
    // Settling lasts this long; a slow machine must not end it.
    try await withHead {
      $0.hostTimeout = .seconds(300)
    } _: { cluster in
      let a = try await cluster.host(1, replicas: [report])
      let b = try await cluster.host(2)
      // Nobody has said yet that he holds it.
      #expect(try await b.locate(report.object).sources.map(\.host) == [a.id])
      let job = try await cluster.driver().job
      #expect(job > report.object.job)
    }
  }

  @Test(.timeLimit(.minutes(2))) func jobsOfAFormerHeadEndWhenTheirDriversDoNotCome() async throws {
    // All have to be there before that, also on a machine that is busy.
    try await withHead {
      $0.hostTimeout = .seconds(3)
      $0.jobTimeout = .seconds(3)
    } _: { cluster in
      // The leases alone make the head wait for others.
      let kept = LeaseRecord(lease: LeaseID(high: 1, low: 9), job: JobID(7), demand: ["CPU": 1])
      let pod = try await cluster.pod(1, ["CPU": 1], leases: [kept])
      let a = try await cluster.host(1, replicas: [report], holds: [report.object])
      let driver = try await cluster.driver()
      #expect(driver.job == JobID(8))
      async let grant = driver.lease(1, ["CPU": 1])
      #expect(await pod.nextRelease() == kept.lease)
      #expect(await a.nextDrop() == report.object)
      #expect(try await grant.pod == pod.id)
      // Whoever comes later finds nobody to wait for.
      let late = LeaseRecord(lease: LeaseID(high: 1, low: 10), job: JobID(6), demand: ["CPU": 1])
      let other = try await cluster.pod(2, ["CPU": 1], leases: [late])
      #expect(await other.nextRelease() == late.lease)
      #expect(cluster.head.status().jobs == [driver.job])
    }
  }

  @Test func aLeaseIsGrantedAndReturned() async throws {
    try await withHead { cluster in
      let pod = try await cluster.pod(1, ["worker_pod_b": 1])
      let driver = try await cluster.driver()
      let grant = try await driver.lease(1, ["worker_pod_b": 1])
      #expect(grant.pod == pod.id && grant.podName == "pod 1")
      #expect(cluster.head.status().pods.map(\.leased) == [["worker_pod_b": 1]])
      async let second = driver.lease(2, ["worker_pod_b": 1])
      _ = try await driver.connection.call(
        HeadAPI.returnLease, LeaseReturn(lease: grant.lease, workerIsReusable: true))
      #expect(await pod.nextRelease() == grant.lease)
      #expect(try await second.lease == LeaseID(high: 1, low: 2))
      // The driver goes: its lease comes back without its doing.
      await driver.connection.close()
      #expect(await pod.nextRelease() == LeaseID(high: 1, low: 2))
      #expect(cluster.head.status().jobs == [])
    }
  }

  @Test func whatNoPodHasIsSaid() async throws {
    try await withHead {
      $0.infeasibleTimeout = .milliseconds(20)
    } _: { cluster in
      _ = try await cluster.pod(1, ["worker_pod_b": 1])
      let driver = try await cluster.driver()
      let error = await #expect(throws: MobulaError.self) { try await driver.lease(1, ["worker_pod_z": 1]) }
      #expect(error?.code == .unavailable)
      #expect(error?.message.contains("`--resources worker_pod_z=1`") == true)
      let stranger = FakeDriver(job: JobID(77), connection: driver.connection, losses: driver.losses)
      let refused = await #expect(throws: MobulaError.self) { try await stranger.lease(2, [:]) }
      #expect(refused?.code == .notFound)
    }
  }

  @Test func aLostPodsLeasesAreRevoked() async throws {
    try await withHead {
      $0.hostTimeout = .milliseconds(20)
    } _: { cluster in
      let pod = try await cluster.pod(1, ["CPU": 1])
      let driver = try await cluster.driver()
      let grant = try await driver.lease(1, ["CPU": 1])
      await pod.connection.close()
      let loss = await driver.nextLoss()
      #expect(loss?.lease == grant.lease && loss?.reason == "Pod pod 1 was lost, with the worker of this lease.")
    }
  }

  @Test func aWorkersEndRevokesItsLease() async throws {
    try await withHead { cluster in
      let pod = try await cluster.pod(1, ["CPU": 1])
      let driver = try await cluster.driver()
      let grant = try await driver.lease(1, ["CPU": 1])
      _ = try await pod.connection.call(HeadAPI.leaseLost, LeaseLost(lease: grant.lease, reason: "signal 9"))
      #expect(await driver.nextLoss()?.reason == "signal 9")
      #expect(try await driver.lease(2, ["CPU": 1]).pod == pod.id)
    }
  }

  @Test func aCallerThatGivesUpIsForgotten() async throws {
    try await withHead { cluster in
      _ = try await cluster.pod(1, ["CPU": 1])
      let a = try await cluster.host(1)
      let driver = try await cluster.driver()
      _ = try await driver.lease(1, ["CPU": 1])
      let late = await #expect(throws: MobulaError.self) {
        try await driver.lease(2, ["CPU": 1], deadline: .milliseconds(20))
      }
      #expect(late?.code == .deadlineExceeded)
      let located = Task { try await a.locate(object(9)) }
      located.cancel()
      await #expect(throws: CancellationError.self) { try await located.value }
      var waiting = 1
      for _ in 0..<1000 where waiting > 0 {
        waiting = cluster.head.status().waiting
        if waiting > 0 { try await Task.sleep(for: .milliseconds(5)) }
      }
      #expect(waiting == 0)
    }
  }
}
