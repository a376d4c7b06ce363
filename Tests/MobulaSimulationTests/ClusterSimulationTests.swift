import MobulaSimulation
import Testing

/// The whole control plane under everything that goes wrong around it, from seeds.
///
/// A seed that fails is repeated exactly by `ClusterSimulationOptions(seed:)`, and says what happened with
/// `keepsTranscript`.
@Suite struct ClusterSimulationTests {
  static let seeds: UInt64 = 100

  @Test func nothingThatGoesWrongBreaksAPromise() async {
    // In parts, for as many cores as there are.
    let failures = await withTaskGroup(of: [String].self) { group in
      let parts: UInt64 = 8
      for part in 0..<parts {
        group.addTask {
          var failures: [String] = []
          for seed in stride(from: 1 + part, through: Self.seeds, by: Int(parts)) {
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

  @Test(arguments: [7, 42, 1001] as [UInt64]) func aSeedRepeatsItself(seed: UInt64) {
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
    for seed in 1...100 as ClosedRange<UInt64> {
      var options = ClusterSimulationOptions(seed: seed)
      options.mutation = mutation
      let simulation = ClusterSimulation(options)
      simulation.run()
      if !simulation.violations.isEmpty { return }
    }
    Issue.record("\(mutation) was not found by 100 seeds")
  }
}
