import MobulaCore
import MobulaTestKit
import Testing

@testable import MobulaControl
@testable import MobulaHead

@Suite struct MembershipTests {
  let a = host(1), p = pod(1), q = pod(2)

  private func described(_ name: String) -> HostDescription {
    HostDescription(name: name, bulk: .tcp(host: "10.0.0.1", port: 7601), capacity: .gigabytes(1))
  }

  private func podOf(_ host: HostID) -> PodDescription { PodDescription(name: "pod", host: host, resources: [:]) }

  private func drawn(_ number: UInt64, incarnation: UInt64 = 0) -> ProcessIdentity {
    ProcessIdentity(nonce: ProcessNonce(high: 0, low: number), incarnation: incarnation)
  }

  private func counted(_ incarnation: UInt64) -> ProcessIdentity {
    ProcessIdentity(nonce: nil, incarnation: incarnation)
  }

  @Test func aHostThatComesBackInTimeIsNotAbsent() throws {
    var members = MembershipStateMachine(hostTimeout: .seconds(10))
    #expect(try members.hostRegistered(a, described("a"), drawn(1), on: 1) == [.hostJoined(a)])
    #expect(members.isCurrent(a, on: 1) && !members.isCurrent(a, on: 2))
    #expect(members.connectionLost(1, at: .seconds(3)) == [.hostSuspected(a), .wakeAt(.seconds(13))])
    #expect(!members.isCurrent(a, on: 1))
    #expect(members.tick(.seconds(12)) == [.wakeAt(.seconds(13))])
    #expect(try members.hostRegistered(a, described("a"), drawn(1, incarnation: 1), on: 2) == [.hostReturned(a)])
    #expect(members.tick(.seconds(13)) == [])
    #expect(members.connectionLost(1, at: .seconds(14)) == [])
  }

  @Test func aHostThatStaysAwayIsAbsentAndItsPodsAreLost() throws {
    var members = MembershipStateMachine(hostTimeout: .seconds(10), retirement: .seconds(100))
    _ = try members.hostRegistered(a, described("a"), drawn(1), on: 1)
    #expect(try members.podRegistered(p, podOf(a), drawn(2), on: 2) == [.podJoined(p)])
    #expect(try members.podRegistered(q, podOf(host(2)), drawn(3), on: 3) == [.podJoined(q)])
    _ = members.connectionLost(1, at: .zero)
    #expect(members.tick(.seconds(10)) == [.hostAbsent(a), .close(2), .podLost(p), .wakeAt(.seconds(110))])
    #expect(members.absentSince(a) == .seconds(10))
    #expect(members.pods[p]?.session == 2 && members.pods[q]?.session == 1)
    #expect(members.connectionLost(2, at: .seconds(11)) == [.wakeAt(.seconds(110))])
    // However long it was away.
    #expect(try members.hostRegistered(a, described("a"), drawn(1, incarnation: 1), on: 4) == [.hostReturned(a)])
    #expect(
      try members.podRegistered(p, podOf(a), drawn(2, incarnation: 1), session: 1, on: 5) == [.podReturned(p)])
    #expect(members.pods[p]?.session == 2 && members.absentSince(a) == nil)
  }

  @Test func aHostThatIsAbsentForLongIsRetired() throws {
    var members = MembershipStateMachine(hostTimeout: .seconds(10), retirement: .seconds(100))
    _ = try members.hostRegistered(a, described("a"), drawn(1), on: 1)
    _ = members.connectionLost(1, at: .zero)
    _ = members.tick(.seconds(10))
    #expect(members.tick(.seconds(109)) == [.wakeAt(.seconds(110))])
    #expect(members.tick(.seconds(110)) == [.hostRetired(a)])
    #expect(members.isRetired(a))
    #expect(throws: MobulaError.self) { try members.forgotten(a) }
    // It begins anew, as the next of its processes.
    #expect(try members.hostRegistered(a, described("a"), drawn(2), on: 2) == [.hostJoined(a)])
    #expect(members.hosts[a]?.process.incarnation == 2)
    #expect(throws: MobulaError.self) { try members.forgotten(a) }
    _ = members.connectionLost(2, at: .seconds(120))
    #expect(try members.forgotten(a) == [.hostRetired(a)])
  }

  @Test func anotherProcessReplacesTheOlderAtOnceAndForGood() throws {
    var members = MembershipStateMachine()
    _ = try members.hostRegistered(a, described("a"), drawn(1), on: 1)
    #expect(try members.hostRegistered(a, described("a"), drawn(2), on: 2) == [.close(1), .hostReplaced(a)])
    #expect(members.hosts[a]?.process == drawn(2, incarnation: 2))
    // The end of the connection that was replaced means nothing.
    #expect(members.connectionLost(1, at: .zero) == [])
    for late in [drawn(1, incarnation: 1), drawn(9, incarnation: 2)] {
      let error = #expect(throws: MobulaError.self) {
        try members.hostRegistered(a, described("a"), late, on: 3)
      }
      #expect(error?.code == .mismatch)
    }
    #expect(members.isCurrent(a, on: 2))
    // A head before this one knew more: the number goes on.
    #expect(
      try members.hostRegistered(a, described("a"), drawn(9, incarnation: 7), on: 4) == [.close(2), .hostReplaced(a)])
    #expect(members.hosts[a]?.process.incarnation == 7)
    #expect(throws: MobulaError.self) {
      try members.hostRegistered(a, described("a"), drawn(1, incarnation: .max), on: 5)
    }
  }

  @Test func whoIsNotYetNumberedIsTheRivalOfWhoIsThere() throws {
    var members = MembershipStateMachine()
    _ = try members.hostRegistered(a, described("a"), drawn(1), on: 1)
    #expect(members.rival(of: drawn(2), as: a) == 1)
    #expect(members.rival(of: drawn(1), as: a) == nil)
    #expect(members.rival(of: drawn(2, incarnation: 1), as: a) == nil)
    #expect(members.rival(of: drawn(2), as: host(2)) == nil)
    _ = members.connectionLost(1, at: .zero)
    #expect(members.rival(of: drawn(2), as: a) == nil)
  }

  @Test func processesThatCountThemselvesAreComparedByTheirCount() throws {
    var members = MembershipStateMachine()
    _ = try members.hostRegistered(a, described("a"), counted(5), on: 1)
    #expect(try members.hostRegistered(a, described("a"), counted(5), on: 2) == [.close(1), .hostReturned(a)])
    #expect(try members.hostRegistered(a, described("a"), counted(6), on: 3) == [.close(2), .hostReplaced(a)])
    let error = #expect(throws: MobulaError.self) {
      try members.hostRegistered(a, described("a"), counted(5), on: 4)
    }
    #expect(error?.code == .mismatch)
    #expect(try members.hostRegistered(a, described("a"), drawn(1), on: 5) == [.close(3), .hostReplaced(a)])
    #expect(members.hosts[a]?.process.incarnation == 7)
    #expect(throws: MobulaError.self) { try members.hostRegistered(a, described("a"), counted(7), on: 6) }
  }

  @Test func theNamesOfTheLastThatWentAreKept() {
    var names = MemberNames<HostID>(capacity: 2)
    for number: UInt64 in 1...4 { names.joined(host(number), "host \(number)") }
    for number: UInt64 in [1, 2, 2] { names.left(host(number)) }
    #expect(names[host(1)] == "host 1")
    // Back, and so not among those that went.
    names.joined(host(1), "one")
    names.left(host(3))
    #expect(names[host(2)] == "host 2")
    names.left(host(4))
    #expect((1...4).map { names[host($0)] } == ["one", nil, "host 3", "host 4"])
  }

  @Test func podsFollowTheSameRules() throws {
    var members = MembershipStateMachine(hostTimeout: .seconds(10), retirement: .seconds(100))
    _ = try members.podRegistered(p, podOf(a), drawn(1), on: 1)
    #expect(members.connectionLost(1, at: .seconds(1)) == [.podSuspected(p), .wakeAt(.seconds(11))])
    #expect(try members.podRegistered(p, podOf(a), drawn(2), on: 2) == [.podLost(p), .podJoined(p)])
    #expect(members.pods[p]?.session == 2)
    #expect(throws: MobulaError.self) { try members.podRegistered(p, podOf(a), drawn(1, incarnation: 1), on: 3) }
    _ = members.connectionLost(2, at: .seconds(20))
    #expect(members.tick(.seconds(30)) == [.podLost(p), .wakeAt(.seconds(130))])
    #expect(members.pods[p]?.session == 3)
  }

  /// Processes of one host come, go and are copied, the head is restarted and its clock begins anew each time: one
  /// of them at most is the host, and whose place was taken never is again.
  @Test(arguments: seeds) func oneProcessAtMostIsTheHost(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var members = MembershipStateMachine(hostTimeout: .seconds(10), retirement: .seconds(100))
    var processes: [ProcessIdentity] = []
    var superseded: Set<ProcessNonce> = []
    var current: ProcessNonce?
    var highest: UInt64 = 0
    var connections: UInt64 = 0
    var now = Duration.zero

    for _ in 0..<400 {
      now += .seconds(Int.random(in: 0..<8, using: &random))
      switch Int.random(in: 0..<100, using: &random) {
      case ..<20: processes.append(drawn(UInt64(processes.count + 1)))
      case ..<70:
        guard let index = processes.indices.randomElement(using: &random) else { continue }
        let process = processes[index]
        // Who is there says so, mostly.
        if members.rival(of: process, as: a) != nil, random.chance(80) { continue }
        connections += 1
        do {
          let actions = try members.hostRegistered(a, described("a"), process, on: ConnectionID(connections))
          try #require(!superseded.contains(process.nonce!), "seed \(seed): \(process) is back")
          if actions.contains(.hostReplaced(a)), let current { superseded.insert(current) }
          if actions.contains(.hostReturned(a)) { try #require(current == process.nonce, "seed \(seed)") }
          let number = try #require(members.hosts[a]).process.incarnation
          try #require(number > highest || current == process.nonce, "seed \(seed): \(number) after \(highest)")
          // Of a host that was given up, an older process may come back, as a new one.
          if actions.contains(.hostJoined(a)) { superseded = [] }
          (current, highest) = (process.nonce, number)
          processes[index].incarnation = number
        } catch {
          try #require(current != process.nonce, "seed \(seed): \(error)")
        }
      case ..<85: if let connection = members.hosts[a]?.connection { _ = members.connectionLost(connection, at: now) }
      case ..<95: _ = members.tick(now)
      default:
        let record = members.record(of: a)
        members = MembershipStateMachine(hostTimeout: .seconds(10), retirement: .seconds(100))
        members.load(hosts: record.map { [$0] } ?? [], pods: [])
        now = .zero
      }
    }
    #expect(highest > 1, "seed \(seed): no process took the place of another")
  }
}
