import MobulaCore
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct JobsTests {
  let secret = JobSecret(high: 1, low: 1), other = JobSecret(high: 2, low: 2)

  @Test func aDriverThatResumesMayBeAwayForAWhile() throws {
    var jobs = JobsStateMachine(timeout: .seconds(60))
    let job = try jobs.number()
    jobs.started(job, secret: secret, resumes: true, host: host(1), on: 1)
    #expect(jobs.disconnected(1, at: .seconds(5)) == [])
    #expect(jobs.nextDeadline == .seconds(65) && jobs.running == [job])
    #expect(jobs.tick(.seconds(64)) == [])
    let error = #expect(throws: MobulaError.self) {
      try jobs.resumed(job, secret: other, host: nil, claims: [], on: 2)
    }
    #expect(error?.code == .denied)
    try jobs.resumed(job, secret: secret, host: nil, claims: [lease(1), lease(3)], due: .seconds(75), on: 2)
    #expect(jobs.connection(of: job) == 2 && jobs.nextDeadline == .seconds(75))
    // The end of the former connection means nothing.
    #expect(jobs.disconnected(1, at: .seconds(70)) == [])
    jobs.granted(lease(2), to: job)
    jobs.revoked([lease(3)], of: job)
    #expect(jobs.claims(of: job) == [lease(1), lease(2)])
    #expect(jobs.takeClaims(dueAt: .seconds(74)).isEmpty && jobs[job]?.hasDecidedClaims == false)
    #expect(jobs.takeClaims(dueAt: .seconds(75)).map(\.claims) == [[lease(1), lease(2)]])
    #expect(jobs.takeClaims(dueAt: .seconds(75)).isEmpty && jobs[job]?.hasDecidedClaims == true)
    #expect(jobs.nextDeadline == nil)
    #expect(jobs.disconnected(2, at: .seconds(80)) == [])
    #expect(jobs.tick(.seconds(140)) == [job])
    let late = #expect(throws: MobulaError.self) {
      try jobs.resumed(job, secret: secret, host: nil, claims: [], on: 3)
    }
    #expect(late?.code == .notFound)
  }

  @Test func anothersJobEndsWithItsConnection() throws {
    var jobs = JobsStateMachine()
    let job = try jobs.number()
    jobs.started(job, secret: secret, resumes: false, host: nil, on: 1)
    #expect(jobs.disconnected(1, at: .zero) == [job])
    #expect(try jobs.ended(job, secret: secret) == false)
  }

  @Test func whoMayEndAJob() throws {
    var jobs = JobsStateMachine()
    for number in 1...2 {
      jobs.started(JobID(UInt32(number)), secret: secret, resumes: true, host: host(1), on: 1)
    }
    #expect(throws: MobulaError.self) { try jobs.ended(JobID(1), secret: other) }
    #expect(try jobs.ended(JobID(1), secret: secret) == true)
    #expect(jobs.driverEnded(JobID(2), on: host(2)) == false)
    #expect(jobs.driverEnded(JobID(2), on: host(1)) == true)
    #expect(jobs.running == [])
  }

  @Test func jobsOfAFormerHeadWaitForTheirDrivers() throws {
    var jobs = JobsStateMachine(timeout: .seconds(60))
    #expect(jobs.heard([.commandLine, JobID(3)], mayResume: true, at: .zero) == [])
    #expect(jobs.running == [JobID(3)])
    #expect(jobs.heard([JobID(3), JobID(4)], mayResume: false, at: .zero) == [JobID(4)])
    #expect(try jobs.number() == JobID(5))
    // Who resumes it first has it.
    try jobs.resumed(JobID(3), secret: secret, host: nil, claims: [], on: 1)
    #expect(throws: MobulaError.self) { try jobs.resumed(JobID(3), secret: other, host: nil, claims: [], on: 2) }
  }

  @Test func aDriverMayComeBeforeWhoHasSomethingOfItsJob() throws {
    var jobs = JobsStateMachine()
    #expect(throws: MobulaError.self) { try jobs.resumed(JobID(7), secret: secret, host: nil, claims: [], on: 1) }
    #expect(
      try jobs.resumed(JobID(7), secret: secret, host: host(1), claims: [lease(1)], learns: true, on: 1) == true)
    #expect(jobs.connection(of: JobID(7)) == 1)
    #expect(jobs.heard([JobID(7)], mayResume: true, at: .zero) == [])
    #expect(try jobs.resumed(JobID(7), secret: secret, host: nil, claims: [], learns: true, on: 2) == false)
    #expect(throws: MobulaError.self) {
      try jobs.resumed(JobID(7), secret: other, host: nil, claims: [], learns: true, on: 3)
    }
    #expect(try jobs.number() == JobID(8))
    // What people put is no job, and a number that no head reached none either.
    for job in [JobID.commandLine, JobID(.max)] {
      #expect(throws: MobulaError.self) {
        try jobs.resumed(job, secret: secret, host: nil, claims: [], learns: true, on: 4)
      }
    }
  }
}
