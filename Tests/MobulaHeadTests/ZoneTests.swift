import MobulaCore
import Testing

@testable import MobulaControl
@testable import MobulaHead

/// Which of the possible sources a receiver is given, when hosts say where they are.
@Suite struct ZoneTests {
  private let receiver = HostID(high: 9, low: 9)

  private func host(_ number: UInt64) -> HostID { HostID(high: 1, low: number) }

  /// Hosts with a whole replica, from 0 on.
  private func planner(_ count: UInt64) -> SourcePlanner {
    var planner = SourcePlanner()
    for number in 0..<count { planner.completed(host(number)) }
    return planner
  }

  private func nearAmong(_ chosen: [HostID], _ near: UInt64) -> Int { chosen.count { $0.low < near } }

  @Test(arguments: [UInt64(10), 200])
  func halfOfTheSourcesAreNear(_ count: UInt64) {
    var planner = planner(count)
    let chosen = planner.choose(for: receiver, excluding: [], plan: .relay) { $0.low < count / 2 }
    #expect(chosen.count == 4)
    #expect(nearAmong(chosen, count / 2) == 2)
  }

  @Test func theFirstIsFarAndTheOthersMakeUpForIt() {
    var planner = planner(20)
    var known: Set<HostID> = []
    var near: [Int] = []
    for _ in 0..<6 {
      let chosen = planner.choose(for: receiver, excluding: known, plan: .relay, count: 1) { $0.low < 10 }
      known.formUnion(chosen)
      near.append(nearAmong(chosen, 10))
    }
    #expect(near == [0, 1, 0, 1, 0, 1])
  }

  @Test func whatOneKindLacksTheOtherMakesUpFor() {
    var few = planner(10)
    #expect(nearAmong(few.choose(for: receiver, excluding: [], plan: .relay) { $0.low < 1 }, 1) == 1)
    var many = planner(10)
    let chosen = many.choose(for: receiver, excluding: [], plan: .relay) { $0.low < 9 }
    #expect(chosen.count == 4 && nearAmong(chosen, 9) == 3)
    var all = planner(10)
    #expect(nearAmong(all.choose(for: receiver, excluding: [], plan: .relay) { _ in true }, 10) == 4)
  }

  @Test func theDirectoryKnowsWhereHostsAre() {
    var directory = ObjectDirectoryStateMachine()
    let object = ObjectID(high: 1 << 32, low: 1)
    let geometry = try! ChunkGeometry(objectSize: 1_000_000, chunkSize: 262_144)
    let digest = ObjectDigest(geometry: geometry, checksums: Array(repeating: 0, count: geometry.count))
    directory.zones[receiver] = "a"
    for number in 0..<8 as Range<UInt64> {
      directory.zones[host(number)] = number < 4 ? "a" : number < 6 ? "b" : nil
      _ = directory.changed(
        host(number), [.sealed(SealedReplica(object: object, geometry: geometry, digest: digest, isHeld: true))])
    }
    let question = LocateQuestion(id: RequestID(1), host: receiver, object: object)
    guard case .answer(_, .sources(let sources, _, _))? = directory.locate(question).first else {
      Issue.record("no sources")
      return
    }
    #expect(sources.count == 4 && nearAmong(sources, 4) == 2)
  }
}
