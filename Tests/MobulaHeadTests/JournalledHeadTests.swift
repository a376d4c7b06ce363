import MobulaCore
import MobulaJournal
import MobulaWire
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// What a head has written down, the next one knows; and nothing is seen that was not.
@Suite struct JournalledHeadTests {
  let report = ReplicaReport(object: object(1, job: 0), geometry: geometry, digest: digest())
  let first = ProcessNonce(high: 1, low: 1), second = ProcessNonce(high: 2, low: 2)

  @Test func namesAndMembersOutliveTheHead() async throws {
    let journal = MemoryJournal()
    try await withHead(journal: journal) { cluster in
      let a = try await cluster.host(1, incarnation: 0, nonce: first, replicas: [report], holds: [report.object])
      _ = try await cluster.host(2, incarnation: 0, nonce: second)
      _ = try await a.connection.call(HeadAPI.setName, NameRequest(name: "model", object: report.object))
      _ = try await a.connection.call(HeadAPI.setName, NameRequest(name: "gone", object: report.object))
      _ = try await a.connection.call(HeadAPI.removeName, ResolveRequest("gone"))
    }
    try await withHead({ $0.hostTimeout = .milliseconds(20) }, journal: journal) { cluster in
      let tool = try await cluster.connect(.tool, "tool")
      #expect(try await tool.call(HeadAPI.resolve, ResolveRequest("model")).object == report.object)
      await #expect(throws: MobulaError.self) { try await tool.call(HeadAPI.resolve, ResolveRequest("gone")) }
      #expect(cluster.head.status().absent?.map(\.name) == ["host 1", "host 2"])
      let b = try await cluster.host(2, incarnation: 1, nonce: second)
      #expect(b.reply.incarnation == 1)
      // The head waits no more for who has it, and says so.
      var error: MobulaError?
      while error == nil {
        do { _ = try await b.locate(report.object) } catch let caught as MobulaError { error = caught }
      }
      #expect(error?.code == .unavailable && error?.message.contains("host 1") == true)
      let a = try await cluster.host(1, incarnation: 1, nonce: first, replicas: [report])
      #expect(a.reply.incarnation == 1)
      #expect(try await b.locate(report.object).sources.map(\.host) == [a.id])
      // Of another process this head knows as much as the one before.
      await #expect(throws: MobulaError.self) { try await cluster.host(1, incarnation: 1, nonce: second) }
    }
  }

  @Test func aDriverGoesOnWithItsJobAtTheNextHead() async throws {
    let journal = MemoryJournal()
    let held = LeaseRecord(lease: LeaseID(high: 1, low: 1), job: JobID(1), demand: ["CPU": 1])
    let unknown = LeaseRecord(lease: LeaseID(high: 1, low: 9), job: JobID(1), demand: ["CPU": 1])
    var secret: JobSecret?
    try await withHead(journal: journal) { cluster in
      let driver = try await cluster.connect(.driver, "driver")
      let reply = try await driver.call(HeadAPI.startJob, JobStart(resumes: true))
      #expect(reply.job == JobID(1))
      secret = reply.secret
      let pod = try await cluster.pod(1, ["CPU": 2], nonce: first)
      try await pod.confirm()
    }
    try await withHead({ $0.hostTimeout = .seconds(3) }, journal: journal) { cluster in
      let driver = try await cluster.connect(.driver, "driver")
      let own = try #require(secret)
      let wrong = await #expect(throws: MobulaError.self) {
        try await driver.call(HeadAPI.resumeJob, JobResumption(job: JobID(1), secret: .random(), leases: []))
      }
      #expect(wrong?.code == .denied)
      // The pod is waited for, since it may have what the driver claims.
      _ = try await driver.call(
        HeadAPI.resumeJob, JobResumption(job: JobID(1), secret: own, leases: [held.lease]))
      let pod = try await cluster.pod(1, ["CPU": 2], leases: [held, unknown], nonce: first, session: 1)
      #expect(pod.reply.end == [])
      try await pod.confirm()
      // Workers of the job have as long to say that it is theirs.
      #expect(await pod.nextRelease() == unknown.lease)
      #expect(try await driver.call(HeadAPI.startJob, JobStart()).job > JobID(1))
      _ = try await driver.call(HeadAPI.endJob, JobEnd(job: JobID(1), secret: own))
      #expect(await pod.nextRelease() == held.lease)
    }
    #expect(journal.state.jobs[JobID(1)] == nil)
  }

  /// The journal was lost, and drivers are back before the hosts that have what they made.
  @Test func aRecoveredHeadKnowsJobsFromTheirDrivers() async throws {
    let journal = MemoryJournal()
    let secret = JobSecret.random()
    journal.append([.recovering(true), .counter(.jobs, limit: 1000)]) { _ in }
    for _ in 0..<2 {
      try await withHead(journal: journal) { cluster in
        let driver = try await cluster.connect(.driver, "driver")
        _ = try await driver.call(
          HeadAPI.resumeJob, JobResumption(job: JobID(3), secret: secret, leases: []))
        #expect(cluster.head.status().jobs == [JobID(3)])
      }
      // The head after it has nothing to learn, and knows the job all the same.
      journal.append([.recovering(false)]) { _ in }
      #expect(journal.state.jobs[JobID(3)]?.secret == secret)
    }
  }

  @Test func aJournalThatFailsStopsWhatNeedsItAndNothingElse() async throws {
    let journal = MemoryJournal()
    try await withHead(journal: journal) { cluster in
      let a = try await cluster.host(1, incarnation: 0, nonce: first, replicas: [report], holds: [report.object])
      let tool = try await cluster.connect(.tool, "tool")
      let before = try await tool.call(HeadAPI.startJob, JobStart()).job
      journal.setFailing(true)
      await #expect(throws: MobulaError.self) { try await tool.call(HeadAPI.startJob, JobStart()) }
      await #expect(throws: MobulaError.self) {
        try await tool.call(HeadAPI.setName, NameRequest(name: "model", object: report.object))
      }
      await #expect(throws: MobulaError.self) { try await cluster.host(2, incarnation: 0, nonce: second) }
      await #expect(throws: MobulaError.self) { try await tool.call(HeadAPI.resolve, ResolveRequest("model")) }
      #expect(try await a.locate(report.object).isLocal)
      _ = try await cluster.host(1, incarnation: 1, nonce: first, replicas: [report], holds: [report.object])
      journal.setFailing(false)
      _ = try await tool.call(HeadAPI.setName, NameRequest(name: "model", object: report.object))
      #expect(try await tool.call(HeadAPI.startJob, JobStart()).job > before)
    }
    #expect(journal.state.names.count == 1)
  }

  @Test func nothingIsSeenBeforeItIsWrittenDown() async throws {
    let journal = MemoryJournal(commitsAtOnce: false)
    try await withHead(journal: journal) { cluster in
      let tool = try await cluster.connect(.tool, "tool")
      async let named = tool.call(HeadAPI.setName, NameRequest(name: "model", object: report.object))
      while journal.waiting == 0 { try await Task.sleep(for: .milliseconds(1)) }
      await #expect(throws: MobulaError.self) { try await tool.call(HeadAPI.resolve, ResolveRequest("model")) }
      let other = await #expect(throws: MobulaError.self) {
        try await tool.call(HeadAPI.setName, NameRequest(name: "model", object: object(2)))
      }
      #expect(other?.code == .alreadyExists)
      while journal.advance(all: true) {}
      #expect(try await named.isNamed)
      #expect(try await tool.call(HeadAPI.resolve, ResolveRequest("model")).object == report.object)
    }
  }
}
