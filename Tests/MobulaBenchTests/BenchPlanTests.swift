import MobulaCore
import Testing

@testable import MobulaBench

@Suite struct BenchPlanTests {
  @Test func everyCaseIsPlanned() throws {
    let cases = try BenchPlan.cases([])
    #expect(
      Set(cases.map(\.id)) == [
        "replication-1", "replication-2", "replication-3", "replication-4", "replication-5", "s3-1", "s3-2", "s3-3",
        "s3-4",
      ])
    for sources in [BenchSources.origin, .relay] {
      let fanOut = cases.filter { $0.id == "replication-5" && $0.sources == sources }
      #expect(fanOut.map(\.loaders.count) == [1, 2, 3, 4, 5])
      #expect(fanOut.allSatisfy { Set($0.loaders.map(\.host)).count == $0.loaders.count })
    }
    let stages = BenchPlan.stages(cases)
    #expect(stages.count == 1 && stages[0].cases == cases.indices && stages[0].hosts == 6)
    #expect(cases.allSatisfy { $0.loaders.allSatisfy { $0.host < 6 } && $0.fault == nil })
    #expect(cases.filter { $0.id == "replication-3" }.allSatisfy { $0.loaders.allSatisfy { $0 == BenchPlan.maker } })
  }

  @Test func casesAreChosenByName() throws {
    #expect(try Set(BenchPlan.cases(["s3-2"]).map(\.id)) == ["s3-2"])
    #expect(throws: MobulaError.self) { try BenchPlan.cases(["s3-2", "s3-9"]) }
  }

  private func run(_ item: PlannedCase, copied: Int = 0, s3: Int?, wire: Int?) -> BenchRun {
    BenchRun(
      loaders: item.loaders.map {
        BenchLoader(host: $0.hostName, pod: $0.podName, seconds: 1, touched: 0, bytesCopied: copied)
      }, s3Bytes: s3, wireBytes: wire)
  }

  @Test func whatCannotBeIsNoticed() throws {
    let size = 100_000_000
    let planned = try #require(
      try BenchPlan.cases(["s3-2"]).first { $0.kind == .s3Planned && $0.loaders.count == 4 })
    #expect(planned.problem(with: run(planned, s3: size, wire: 4 * size + 1), size: size) == nil)
    #expect(planned.problem(with: run(planned, s3: size + 1, wire: 4 * size), size: size) != nil)
    #expect(planned.problem(with: run(planned, s3: size, wire: 4 * size - 1), size: size) != nil)
    #expect(planned.problem(with: run(planned, s3: size, wire: 4 * size * 108 / 100), size: size) != nil)
    #expect(planned.problem(with: run(planned, s3: nil, wire: nil), size: size) == nil)
    let same = try #require(try BenchPlan.cases(["replication-2"]).first)
    #expect(same.problem(with: run(same, s3: 0, wire: 500), size: size) == nil)
    #expect(same.problem(with: run(same, copied: 1, s3: 0, wire: 500), size: size) != nil)
    #expect(same.problem(with: run(same, s3: 0, wire: size), size: size) != nil)
  }

  @Test func eachFaultHasAClusterOfItsOwn() throws {
    let cases = try BenchPlan.cases(["fanout-24", "fault-killed", "fault-slow", "replication-1"])
    #expect(cases.map(\.id) == ["replication-1", "fanout-24", "fault-killed", "fault-slow"])
    let stages = BenchPlan.stages(cases)
    #expect(stages.map(\.cases) == [0..<1, 1..<2, 2..<3, 3..<4])
    #expect(stages.map(\.hosts) == [6, 25, 6, 6])
    #expect(cases[2].measured == [1, 2, 3, 4] && cases[2].loaders[0].host == cases[2].fault?.host)
  }

  @Test func whatIsSimulatedIsCloseToWhatWasMeasured() throws {
    let cases = try BenchPlan.cases(["replication-5", "fault-killed", "fault-slow", "fault-maker", "s3-2"])
    for item in cases {
      let predicted = item.predictedSeconds(size: 64_000_000, bytesPerSecond: 100_000_000)
      guard item.sources == .relay, item.id != "fault-maker" else {
        #expect(predicted == nil)
        continue
      }
      // In namespaces: 1.00 to 1.10 with 564 MB.
      let seconds = try #require(predicted)
      #expect(seconds > 0.64 && seconds < 0.64 * 1.25, "\(item.id) \(seconds)")
    }
  }

  @Test func aMakerThatLeavesIsNotTheHead() throws {
    let cases = try BenchPlan.cases(["fault-maker", "fault-lost"])
    #expect(BenchPlan.stages(cases).map(\.hosts) == [8, 7])
    for item in cases {
      #expect(item.maker.host == item.fault?.host && item.maker.host != 0)
      #expect(item.measured == [0, 1, 2, 3, 4])
      #expect(item.loaders.allSatisfy { $0 != item.maker && !item.holders.contains($0) })
      #expect(item.payload(size: 10) == 50)
    }
    #expect(cases.map(\.mayFail) == [false, true])
    var lost = run(cases[1], s3: 0, wire: nil)
    lost.faultSeconds = 0.5
    lost.loaders[0].error = MobulaError(.notFound, "gone")
    #expect(cases[1].problem(with: lost, size: 10) == nil)
    // The loaders took a second.
    for seconds in [nil, 1.5] {
      lost.faultSeconds = seconds
      #expect(cases[1].problem(with: lost, size: 10) != nil)
    }
    lost.faultSeconds = 0.5
    lost.loaders[0].error = MobulaError(.deadlineExceeded, "slow")
    #expect(cases[1].problem(with: lost, size: 10) != nil)
  }
}
