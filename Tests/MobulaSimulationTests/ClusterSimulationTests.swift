import MobulaCore
import MobulaSimulation
import Testing

/// The whole control plane under everything that goes wrong around it, from seeds.
///
/// A seed that fails is repeated exactly by `ClusterSimulationOptions(seed:)`, and says what happened with
/// `keepsTranscript`.
@Suite struct ClusterSimulationTests {
  @Test func nothingThatGoesWrongBreaksAPromise() async { await expectNoViolation(1...2000) }

  /// Orders of faults that come about once in thousands of seeds. Takes minutes.
  @Test(.enabled(if: currentEnvironment()["MOBULA_LONG_TESTS"] != nil))
  func nothingThatSeldomGoesWrongBreaksAPromise() async { await expectNoViolation(2001...10_000) }

  private func expectNoViolation(_ seeds: ClosedRange<UInt64>) async {
    // In parts, for as many cores as there are.
    let failures = await withTaskGroup(of: [String].self) { group in
      let parts: UInt64 = 8
      for part in 0..<parts {
        group.addTask {
          var failures: [String] = []
          for seed in stride(from: seeds.lowerBound + part, through: seeds.upperBound, by: Int(parts)) {
            let simulation = ClusterSimulation(ClusterSimulationOptions(seed: seed))
            simulation.run()
            failures += simulation.violations
          }
          return failures
        }
      }
      return await group.reduce(into: []) { $0 += $1 }
    }
    for failure in failures.prefix(10) { Issue.record("\(failure)") }
    #expect(failures.isEmpty)
  }

  @Test(arguments: [7, 42, 106, 1001] as [UInt64]) func aSeedRepeatsItself(seed: UInt64) {
    var options = ClusterSimulationOptions(seed: seed)
    options.keepsTranscript = true
    let (first, second) = (ClusterSimulation(options), ClusterSimulation(options))
    first.run()
    second.run()
    #expect(first.transcript == second.transcript && !first.transcript.isEmpty, "seed \(seed)")
    #expect(first.fingerprint == second.fingerprint && first.steps == second.steps, "seed \(seed)")
    options.seed += 1
    let other = ClusterSimulation(options)
    other.run()
    #expect(other.fingerprint != first.fingerprint)
  }

  /// What can't fail shows nothing: each of these faults, put in on purpose, is found.
  @Test(arguments: ClusterSimulationOptions.Mutation.allCases)
  func aFaultThatIsPutInIsFound(_ mutation: ClusterSimulationOptions.Mutation) {
    for seed in 1...400 as ClosedRange<UInt64> {
      var options = ClusterSimulationOptions(seed: seed)
      options.mutation = mutation
      let simulation = ClusterSimulation(options)
      simulation.run()
      if !simulation.violations.isEmpty { return }
    }
    Issue.record("\(mutation) was not found by 400 seeds")
  }

  /// Without anything that goes wrong, work is done: leases are granted, names are given, objects come and go.
  @Test func withoutFaultsTheClusterWorks() {
    for seed in 1...20 as ClosedRange<UInt64> {
      var options = ClusterSimulationOptions(seed: seed)
      options.faults = []
      options.keepsTranscript = true
      let simulation = ClusterSimulation(options)
      simulation.run()
      #expect(simulation.violations.isEmpty, "\(simulation.violations)")
      #expect(simulation.transcript.contains { $0.contains(" names ") }, "seed \(seed)")
      #expect(simulation.transcript.contains { $0.contains(" drops ") }, "seed \(seed)")
      #expect(!simulation.transcript.contains { $0.contains("is away") }, "seed \(seed)")
    }
  }
}
