import MobulaCore
import Testing

@testable import MobulaHead

@Suite struct MembershipTests {
  let a = host(1), p = pod(1), q = pod(2)

  private func described(_ name: String) -> HostDescription {
    HostDescription(name: name, bulk: .tcp(host: "10.0.0.1", port: 7601), capacity: .gigabytes(1))
  }

  private func podOf(_ host: HostID) -> PodDescription { PodDescription(name: "pod", host: host, resources: [:]) }

  @Test func aHostThatComesBackInTimeIsNotLost() throws {
    var members = MembershipStateMachine(hostTimeout: .seconds(10))
    #expect(try members.hostRegistered(a, described("a"), incarnation: 5, on: 1) == [.hostJoined(a)])
    #expect(members.isCurrent(a, on: 1) && !members.isCurrent(a, on: 2))
    #expect(members.connectionLost(1, at: .seconds(3)) == [.hostSuspected(a), .wakeAt(.seconds(13))])
    #expect(!members.isCurrent(a, on: 1))
    #expect(members.tick(.seconds(12)) == [.wakeAt(.seconds(13))])
    #expect(try members.hostRegistered(a, described("a"), incarnation: 5, on: 2) == [.hostReturned(a)])
    #expect(members.tick(.seconds(13)) == [])
    #expect(members.connectionLost(1, at: .seconds(14)) == [])
  }

  @Test func aHostThatStaysAwayIsLostWithItsPods() throws {
    var members = MembershipStateMachine(hostTimeout: .seconds(10))
    _ = try members.hostRegistered(a, described("a"), incarnation: 5, on: 1)
    #expect(try members.podRegistered(p, podOf(a), incarnation: 1, on: 2) == [.podJoined(p)])
    #expect(try members.podRegistered(q, podOf(host(2)), incarnation: 1, on: 3) == [.podJoined(q)])
    _ = members.connectionLost(1, at: .zero)
    #expect(members.tick(.seconds(10)) == [.hostLost(a), .close(2), .podLost(p)])
    #expect(members.pods.members.keys.sorted() == [q])
  }

  @Test func aNewerIncarnationReplacesTheOlderAtOnce() throws {
    var members = MembershipStateMachine()
    _ = try members.hostRegistered(a, described("a"), incarnation: 5, on: 1)
    #expect(
      try members.hostRegistered(a, described("a"), incarnation: 6, on: 2) == [.close(1), .hostLost(a), .hostJoined(a)])
    let error = #expect(throws: MobulaError.self) {
      try members.hostRegistered(a, described("a"), incarnation: 5, on: 3)
    }
    #expect(error?.code == .mismatch)
    #expect(members.isCurrent(a, on: 2))
    // The end of the connection that was replaced means nothing.
    #expect(members.connectionLost(1, at: .zero) == [])
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
    var members = MembershipStateMachine(hostTimeout: .seconds(10))
    _ = try members.podRegistered(p, podOf(a), incarnation: 1, on: 1)
    #expect(members.connectionLost(1, at: .seconds(1)) == [.podSuspected(p), .wakeAt(.seconds(11))])
    #expect(try members.podRegistered(p, podOf(a), incarnation: 2, on: 2) == [.podLost(p), .podJoined(p)])
    #expect(throws: MobulaError.self) { try members.podRegistered(p, podOf(a), incarnation: 1, on: 3) }
    _ = members.connectionLost(2, at: .seconds(20))
    #expect(members.tick(.seconds(30)) == [.podLost(p)])
  }
}
