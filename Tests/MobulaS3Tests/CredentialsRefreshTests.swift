import FoundationEssentials
import MobulaCore
import Synchronization
import Testing

@testable import MobulaS3

/// Transcripts of the state machine, with a clock that the test holds, and its shell.
@Suite struct CredentialsRefreshTests {
  static let start = Date(timeIntervalSince1970: 1_700_000_000)

  func at(_ seconds: Double) -> Date { Self.start.addingTimeInterval(seconds) }

  func credentials(_ name: String, until seconds: Double? = nil) -> S3Credentials {
    S3Credentials(accessKey: name, secretKey: "s", sessionToken: "t", expiration: seconds.map { at($0) })
  }

  @Test func refreshedInTheBackgroundFiveMinutesBefore() {
    var machine = CredentialsRefreshStateMachine()
    let (a, b) = (credentials("a", until: 3600), credentials("b", until: 7000))
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.ask(2, at: at(1)) == .wait)
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(1)) == .give(a, [1, 2]))
    #expect(machine.ask(3, at: at(3299)) == .use(a))
    #expect(machine.ask(4, at: at(3300)) == .useAndRefresh(a, 2))
    #expect(machine.ask(5, at: at(3301)) == .use(a))
    // In the last minute everybody waits for the same refresh.
    #expect(machine.ask(6, at: at(3540)) == .wait)
    #expect(machine.ask(7, at: at(3541)) == .wait)
    #expect(machine.loaded(b, by: 2, chance: 0, at: at(3542)) == .give(b, [6, 7]))
    #expect(machine.ask(8, at: at(3543)) == .use(b))
  }

  @Test func nobodyAskedUntilTheLastMinute() {
    var machine = CredentialsRefreshStateMachine()
    let a = credentials("a", until: 3600)
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(0)) == .give(a, [1]))
    #expect(machine.ask(2, at: at(3540)) == .refreshAndWait(2))
    #expect(machine.failed(2, at: at(3541)) == .give(a, [2]))
    // After the end there is nothing to keep.
    #expect(machine.ask(3, at: at(3600)) == .refreshAndWait(3))
    #expect(machine.ask(4, at: at(3600)) == .wait)
    #expect(machine.failed(3, at: at(3601)) == .fail([3, 4]))
    #expect(machine.ask(5, at: at(3602)) == .refreshAndWait(4))
  }

  @Test func aFailureWhileTheOldOnesAreValidIsTriedAgainAfterAPause() {
    var machine = CredentialsRefreshStateMachine()
    let (a, b) = (credentials("a", until: 3600), credentials("b", until: 9000))
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(0)) == .give(a, [1]))
    #expect(machine.ask(2, at: at(3300)) == .useAndRefresh(a, 2))
    #expect(machine.failed(2, at: at(3310)) == .give(a, []))
    #expect(machine.ask(3, at: at(3339)) == .use(a))
    #expect(machine.ask(4, at: at(3340)) == .useAndRefresh(a, 3))
    #expect(machine.loaded(b, by: 3, chance: 0, at: at(3341)) == .give(b, []))
    #expect(machine.ask(5, at: at(3342)) == .use(b))
  }

  @Test func jitterSpreadsTheBeginning() {
    for (chance, begins) in [(0.0, 3300.0), (0.5, 3270.0), (1.0, 3240.0)] {
      var machine = CredentialsRefreshStateMachine()
      let a = credentials("a", until: 3600)
      #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
      #expect(machine.loaded(a, by: 1, chance: chance, at: at(0)) == .give(a, [1]))
      #expect(machine.ask(2, at: at(begins - 1)) == .use(a))
      #expect(machine.ask(3, at: at(begins)) == .useAndRefresh(a, 2))
    }
  }

  @Test func shortLivesAreRefreshedInTheirLastQuarter() {
    var machine = CredentialsRefreshStateMachine()
    let a = credentials("a", until: 120)
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(0)) == .give(a, [1]))
    #expect(machine.ask(2, at: at(89)) == .use(a))
    #expect(machine.ask(3, at: at(90)) == .useAndRefresh(a, 2))
    #expect(machine.ask(4, at: at(108)) == .wait)
  }

  @Test func staticOnesAreNeverRefreshedButCanBeDropped() {
    var machine = CredentialsRefreshStateMachine()
    let (a, b) = (credentials("a"), credentials("b"))
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(0)) == .give(a, [1]))
    #expect(machine.ask(2, at: at(1e9)) == .use(a))
    machine.drop(b)
    #expect(machine.ask(3, at: at(1e9)) == .use(a))
    machine.drop(a)
    #expect(machine.ask(4, at: at(1e9)) == .refreshAndWait(2))
    #expect(machine.loaded(b, by: 2, chance: 0, at: at(1e9)) == .give(b, [4]))
    // Another request that had used the old ones comes late.
    machine.drop(a)
    #expect(machine.ask(5, at: at(1e9)) == .use(b))
  }

  @Test func thoseThatComeExpiredAreUsedAndAskedForAgain() {
    var machine = CredentialsRefreshStateMachine()
    let old = credentials("old", until: -60)
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.loaded(old, by: 1, chance: 0, at: at(0)) == .give(old, [1]))
    #expect(machine.ask(2, at: at(29)) == .use(old))
    #expect(machine.ask(3, at: at(30)) == .useAndRefresh(old, 2))
  }

  @Test func whoLeavesIsNotAnswered() {
    var machine = CredentialsRefreshStateMachine()
    let a = credentials("a", until: 3600)
    #expect(machine.ask(1, at: at(0)) == .refreshAndWait(1))
    #expect(machine.ask(2, at: at(0)) == .wait)
    let left = machine.leave(1)
    #expect(left)
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(1)) == .give(a, [2]))
    let tooLate = machine.leave(2)
    #expect(!tooLate)
    #expect(machine.loaded(a, by: 1, chance: 0, at: at(2)) == .late)
    #expect(machine.failed(1, at: at(2)) == .late)
  }

  /// Whatever happens in whatever order: one refresh at a time, one answer to each who waits, and nobody is given
  /// what has expired or was dropped.
  @Test(arguments: 0..<200 as Range<UInt64>)
  func anyOrderOfEvents(seed: UInt64) {
    var chance = SeededGenerator(seed: seed)
    var machine = CredentialsRefreshStateMachine()
    var waiting: Set<Int> = []
    var refresh: Int?
    var dropped: Set<String> = []
    var (clock, made) = (0.0, 0)
    func check(_ given: S3Credentials) {
      #expect(!dropped.contains(given.accessKey))
      #expect(given.expiration.map { at(clock) < $0 } ?? true)
    }
    func answered(_ outcome: CredentialsRefreshStateMachine.Outcome) {
      switch outcome {
      case .give(let credentials, let waiters):
        check(credentials)
        #expect(Set(waiters) == waiting && waiters.count == waiting.count)
      case .fail(let waiters): #expect(Set(waiters) == waiting && waiters.count == waiting.count)
      case .late: Issue.record("the refresh was under way")
      }
      waiting = []
      refresh = nil
    }
    for waiter in 1...300 {
      clock += Double.random(in: 0..<200, using: &chance)
      switch Int.random(in: 0..<8, using: &chance) {
      case 0:
        guard let number = refresh else { break }
        made += 1
        answered(machine.loaded(credentials("c\(made)", until: clock + 3600), by: number, chance: 0.5, at: at(clock)))
      case 1:
        if let number = refresh { answered(machine.failed(number, at: at(clock))) }
      case 2:
        if let leaving = waiting.min() {
          let left = machine.leave(leaving)
          #expect(left)
          waiting.remove(leaving)
        }
      case 3 where waiter.isMultiple(of: 5):
        guard case .use(let used) = machine.ask(waiter, at: at(clock)) else { return }
        machine.drop(used)
        dropped.insert(used.accessKey)
      default:
        switch machine.ask(waiter, at: at(clock)) {
        case .use(let credentials): check(credentials)
        case .useAndRefresh(let credentials, let number):
          check(credentials)
          #expect(refresh == nil)
          refresh = number
        case .refreshAndWait(let number):
          #expect(refresh == nil)
          (refresh, waiting) = (number, [waiter])
        case .wait:
          #expect(refresh != nil)
          waiting.insert(waiter)
        }
      }
    }
  }

  // The shell.

  @Test func hundredAskersAreOneRefresh() async throws {
    let loads = Mutex(0)
    let cache = CachedCredentials {
      loads.withLock { $0 += 1 }
      try await Task.sleep(for: .milliseconds(50))
      return S3Credentials(accessKey: "a", secretKey: "s")
    }
    try await withThrowingTaskGroup(of: S3Credentials.self) { group in
      for _ in 0..<100 { group.addTask { try await cache.credentials() } }
      for try await credentials in group { #expect(credentials.accessKey == "a") }
    }
    #expect(loads.withLock { $0 } == 1)
  }

  @Test func theRefreshOutlivesWhoBeganIt() async throws {
    let began = Mutex(false)
    let gate = Mutex(false)
    let cache = CachedCredentials {
      began.withLock { $0 = true }
      while !gate.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(1)) }
      return S3Credentials(accessKey: "a", secretKey: "s")
    }
    let first = Task { try await cache.credentials() }
    while !began.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(1)) }
    first.cancel()
    await #expect(throws: CancellationError.self) { _ = try await first.value }
    gate.withLock { $0 = true }
    #expect(try await cache.credentials().accessKey == "a")
  }

  @Test func aSourceThatNeverAnswersHasADeadline() async {
    let cache = CachedCredentials(deadline: .milliseconds(50)) {
      try await Task.sleep(for: .seconds(100))
      return S3Credentials(accessKey: "a", secretKey: "s")
    }
    await expectMobulaError(.deadlineExceeded, "No new credentials") { _ = try await cache.credentials() }
  }

  @Test func everyOneOfThoseWhoWaitGetsTheError() async {
    let cache = CachedCredentials {
      try await Task.sleep(for: .milliseconds(20))
      throw MobulaError(.denied, "no")
    }
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<5 {
        group.addTask { await expectMobulaError(.denied, "no") { _ = try await cache.credentials() } }
      }
    }
  }
}
